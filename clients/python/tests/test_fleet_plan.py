"""The order of an id's peers, and the plan that follows from the records of the peers that are alive."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

import pytest
from virtual_time import record

from pixell_envoy import Peer, RouteState
from pixell_envoy.fleet import Record
from pixell_envoy.fleet import plan as plan_module
from pixell_envoy.fleet.plan import Plan
from pixell_envoy.fleet.rendezvous import in_order

STATES: list[RouteState] = ["active", "draining"]


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
