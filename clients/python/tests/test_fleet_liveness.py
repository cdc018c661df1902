"""Which peers are alive, by the reader's own clock; and the order and the plan that follow from it."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from typing import Optional

import pytest
from virtual_time import Clock, record

from pixell_envoy import Peer, RouteState
from pixell_envoy.fleet import Record
from pixell_envoy.fleet import plan as plan_module
from pixell_envoy.fleet.liveness import Liveness
from pixell_envoy.fleet.plan import Plan
from pixell_envoy.fleet.rendezvous import in_order

STATES: list[RouteState] = ["active", "draining"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def liveness(clock: Clock) -> Liveness:
    return Liveness(10.0, clock)


def test_a_peer_whose_beat_moves_stays(liveness: Liveness, clock: Clock) -> None:
    for beat in range(50):
        clock.now += 9
        assert set(liveness.observe({"b": record("b", beat)})) == {"b"}


def test_a_peer_whose_beat_stands_still_is_dropped_and_comes_back(liveness: Liveness, clock: Clock) -> None:
    liveness.observe({"b": record("b", 7)})
    for _ in range(10):
        clock.now += 1
        assert set(liveness.observe({"b": record("b", 7)})) == {"b"}
    for _ in range(20):
        clock.now += 0.1
        assert liveness.observe({"b": record("b", 7)}) == {}
    # Its record is still there, and missing for once: no sign of life.
    assert liveness.observe({}) == {} == liveness.observe({"b": record("b", 7)})
    assert liveness.observe({"b": record("b", 8)}) == {"b": record("b", 8)}


def test_empty_and_partial_snapshots_drop_nobody_early(liveness: Liveness, clock: Clock) -> None:
    liveness.observe({"b": record("b"), "c": record("c")})
    for beat in range(9):
        clock.now += 1
        assert set(liveness.observe({} if beat % 2 else {"c": record("c", 2 + beat)})) == {"b", "c"}
    clock.now += 2
    assert set(liveness.observe({"c": record("c", 99)})) == {"c"}


def test_an_outage_counts_as_a_quarter_of_ttl(liveness: Liveness, clock: Clock) -> None:
    liveness.observe({"b": record("b")})
    clock.now += 60
    assert set(liveness.observe({"b": record("b")})) == {"b"}
    for _ in range(7):
        clock.now += 1
        assert set(liveness.observe({})) == {"b"}
    clock.now += 1
    assert liveness.observe({}) == {}


@pytest.mark.parametrize("gaps", [[1.0, 1.0, 4.0], [0.5, 9.0], [30.0]], ids=["failing", "hanging", "slow"])
def test_a_vanished_peer_is_dropped_whatever_the_store_does(
    liveness: Liveness, clock: Clock, gaps: list[float]
) -> None:
    snapshots = 0
    while liveness.observe({"b": record("b", 7)}):
        clock.now += gaps[snapshots % len(gaps)]
        snapshots += 1
    assert snapshots <= 9


def test_a_late_read_is_no_sign_of_life(liveness: Liveness, clock: Clock) -> None:
    liveness.observe({"b": record("b", 5, x="active")})
    for _ in range(4):
        clock.now += 2.5
        assert liveness.observe({"b": record("b", 4, y="active")}) == {"b": record("b", 5, x="active")}
    clock.now += 0.1
    assert liveness.observe({"b": record("b", 5)}) == {}
    # A new process of the task starts with small beats.
    assert liveness.observe({"b": record("b", 1, "b")}) == {"b": record("b", 1, "b")}


def test_a_forged_beat_does_not_silence_a_peer_for_ever(liveness: Liveness, clock: Clock) -> None:
    liveness.observe({"b": record("b", 10**17)})
    beat = 5
    for _ in range(30):
        clock.now += 1
        beat += 1
        alive = liveness.observe({"b": record("b", beat)})
    assert alive == {"b": record("b", beat)}


def test_a_flood_of_names_takes_no_memory_and_hides_no_task(
    liveness: Liveness, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixell_envoy.fleet.liveness._MOST", 50)
    for beat in range(20):
        clock.now += 1
        flood = {f"x{beat}-{n}": record("x") for n in range(40)}
        alive = liveness.observe({**flood, "b": record("b", beat)})
        assert alive["b"].beat == beat and len(alive) <= 50


def test_dead_names_are_forgotten_before_a_task_that_is_kept(
    liveness: Liveness, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixell_envoy.fleet.liveness._MOST", 20)
    b = record("b", x="active")
    liveness.observe({"b": b})
    for second in range(40):
        clock.now += 1
        liveness.asked(b, True)
        assert "b" in liveness.observe({f"x{second}-{n}": record("x") for n in range(1)})


def test_a_silent_peer_that_responds_is_kept(
    liveness: Liveness, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    b = record("b", 7, x="active")
    liveness.observe({"b": b})
    responds = True
    for second in range(1, 41):
        clock.now += 1
        responds = second < 35
        # Its record may expire in the store.
        alive = liveness.observe({"b": replace(b)} if second < 30 else {})
        assert ("b" in liveness.silent()) == (5 < second <= 35)
        for silent in liveness.silent().values():
            liveness.asked(silent, responds)
        assert ("b" in alive) == (second <= 35)
        assert liveness.kept() == ({"b"} if 10 < second <= 35 else set())
    assert [message.split()[2] for message in caplog.messages if "'b'" in message] == ["keeping", "dropping"]
    # It is back with its next beat, and not kept any more.
    assert set(liveness.observe({"b": record("b", 8, x="active")})) == {"b"} and not liveness.kept()


@pytest.mark.parametrize(
    ("b", "c"),
    [
        (record("b", x="active"), record("c", host="10.0.0.98")),
        (record("b", x="draining"), None),
        (record("b"), None),
        (record("b", epoch="", x="active"), None),
    ],
    ids=["address of another task", "draining", "without ids", "never read"],
)
def test_a_silent_peer_that_responds_is_dropped_if(
    liveness: Liveness, clock: Clock, b: Record, c: Optional[Record]
) -> None:
    liveness.introduce({"b": b})
    alive = {}
    for second in range(11):
        liveness.asked(b, True)
        alive = liveness.observe({} if c is None else {"c": replace(c, beat=second)})
        assert "b" in alive
        clock.now += 1
    alive = liveness.observe({} if c is None else {"c": replace(c, beat=99)})
    assert set(alive) == ({"c"} if c else set())
    # It stays away even if the other task falls silent in turn.
    liveness.asked(b, True)
    clock.now += 11
    assert "b" not in liveness.observe({})


def test_a_response_of_the_time_before_the_last_beat_does_not_count(liveness: Liveness, clock: Clock) -> None:
    old, new = record("b", 7, x="active"), record("b", 8, x="active")
    liveness.observe({"b": old})
    liveness.observe({"b": new})
    liveness.asked(old, True)
    for _ in range(11):
        clock.now += 1
        alive = liveness.observe({"b": new})
    assert alive == {}


def test_whatever_the_store_does_a_quarter_of_ttl_is_left_to_respond() -> None:
    draw = random.Random(7)
    for _ in range(300):
        clock = Clock()
        liveness = Liveness(10.0, clock)
        asked_at = None
        while liveness.observe({"b": record("b", x="active")}):
            if asked_at is None and liveness.silent():
                asked_at = clock.now
            clock.now += draw.choice([0.1, 1.0, 2.4, 2.6, 9.0])
        assert asked_at is not None and clock.now - asked_at > 2.5


def test_the_order_is_that_of_the_contract() -> None:
    tasks = [f"task-{n}" for n in range(20)]
    weights = {task: hashlib.sha256(b"id-1\0" + task.encode()).digest() for task in tasks}
    order = in_order("id-1", reversed(tasks))
    assert list(order) == sorted(tasks, key=lambda task: weights[task], reverse=True)
    # If a task goes, no other changes its place.
    assert in_order("id-1", [task for task in tasks if task != order[0]]) == order[1:]


def test_the_plan_lists_all_tasks_that_claim_an_id() -> None:
    plan = Plan()
    plan.follow({"b": record("b", x="active", y="active"), "c": record("c", x="active", z="draining", w="active")})
    assert plan.peers == {"b": Peer("10.0.0.98"), "c": Peer("10.0.0.99")}
    assert plan.routes == {"x": in_order("x", "bc"), "y": ("b",), "w": ("c",), "z": ("c",)}


def test_a_task_on_which_an_id_drains_is_chosen_only_if_there_is_no_other() -> None:
    plan = Plan()
    plan.follow({"b": record("b", x="draining", y="active"), "c": record("c", x="active")})
    assert plan.routes["x"] == ("c",)
    plan.follow({"b": record("b", x="draining", y="active")})
    assert plan.routes["x"] == ("b",) and plan.peers == {"b": Peer("10.0.0.98")}
    plan.follow({"b": record("b", x="draining", y="draining")})
    assert plan.peers == {"b": Peer("10.0.0.98", "draining")}
    plan.follow({"b": record("b")})
    assert (plan.peers, plan.routes) == ({"b": Peer("10.0.0.98")}, {})


def test_a_silent_task_comes_after_all_others() -> None:
    records = {task: record(task, x="active", y="draining") for task in "bcd"}
    records["e"] = record("e", z="active")
    plan = Plan()
    for silent in [set("b"), set("cd"), set("bcde"), set(), set("e")]:
        plan.follow(records, silent)
        beating = [task for task in in_order("x", "bcd") if task not in silent]
        assert plan.routes["x"] == (*beating, *(task for task in in_order("x", "bcd") if task in silent))
        assert plan.routes["y"] == in_order("y", "bcd") and plan.routes["z"] == ("e",)
        assert set(plan.peers) == set("bcde")


def test_changes_lead_from_what_was_pushed_to_the_plan() -> None:
    plan = Plan()
    plan.follow({"b": record("b", x="active", y="active")})
    plan.pushed_whole(dict(plan.peers), dict(plan.routes))
    assert not plan.change()
    plan.follow({"b": record("b", 2, x="active", y="active")})
    assert not plan.change()
    plan.follow({"b": record("b", x="active"), "c": record("c", x="active", z="active")})
    change = plan.change()
    assert change.peers == {"c": Peer("10.0.0.99")}
    assert change.routes == {"x": in_order("x", "bc"), "y": None, "z": ("c",)}
    # Something else changes while this is on its way.
    plan.follow({"c": record("c", x="active", z="active")})
    plan.pushed(change)
    again = plan.change()
    assert (again.peers, again.routes) == ({"b": None}, {"x": ("c",)})
    plan.pushed(again)
    assert not plan.change()
    plan.follow({"c": record("c", host="10.7.7.7", x="active", z="active")})
    assert plan.change().peers == {"c": Peer("10.7.7.7")} and not plan.change().routes


def test_limits_of_the_map(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(plan_module, "MAX_ROUTES", 3)
    monkeypatch.setattr(plan_module, "MAX_PEERS", 20)
    plan = Plan()
    plan.follow({f"t{n}": Record(f"t{n}", "10.0.0.1", "a", 0, 0, {"x": "active"}) for n in range(30)})
    assert len(plan.peers) == 20 and plan.routes == {"x": in_order("x", plan.peers)[:16]}
    plan.follow({"b": record("b", x="active", y="active", z="active"), "c": record("c", v="active", w="active")})
    assert len(plan.routes) == 3
    plan.follow({"c": record("c", v="active", w="active")})
    assert plan.routes == {"v": ("c",), "w": ("c",)}
    # While ids wait, a change is told no further time.
    for n in range(5):
        plan.follow({"c": Record("c", "10.0.0.1", "a", 0, 0, {f"i{m}": "active" for m in range(4 + n)})})
    assert len(plan.routes) == 3
    told = [message for message in caplog.messages if "ERROR" in message or "more than" in message or "room" in message]
    assert sum("more than" in message for message in told) == 1 and sum("room" in message for message in told) == 2


def test_any_history_gives_the_same_plan_as_a_new_one() -> None:
    draw = random.Random(7)
    plan = Plan()
    pushed_peers: dict[str, Peer] = {}
    pushed_routes: dict[str, tuple[str, ...]] = {}
    for step in range(300):
        records = {
            task: Record(task, "10.0.0.1", "a", 0, 0, {f"i{draw.randrange(12)}": draw.choice(STATES) for _ in range(4)})
            for task in draw.sample("abcdef", draw.randrange(6))
        }
        silent = draw.sample("abcdef", 2)
        plan.follow(records, silent)
        new = Plan()
        new.follow({task: replace(each) for task, each in records.items()}, silent)
        assert (plan.peers, plan.routes) == (new.peers, new.routes)
        change = plan.change()
        for name, peer in change.peers.items():
            pushed_peers.pop(name, None)
            if peer is not None:
                pushed_peers[name] = peer
        for key, route in change.routes.items():
            pushed_routes.pop(key, None)
            if route is not None:
                pushed_routes[key] = route
        assert (pushed_peers, pushed_routes) == (plan.peers, plan.routes), step
        plan.pushed(change)
        assert not plan.change()
