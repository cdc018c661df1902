"""Which peers are alive, by the reader's own clock."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Optional

import pytest
from virtual_time import Clock, record

from pixell_envoy.fleet import Record
from pixell_envoy.fleet.liveness import Liveness


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
        assert ("b" in liveness.silent()) == (5 < second <= 36)
        for silent in liveness.silent().values():
            liveness.asked(silent, responds)
        # The first question that it did not respond to may have been lost.
        assert ("b" in alive) == (second <= 36)
        assert liveness.kept() == ({"b"} if 10 < second <= 36 else set())
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


def test_one_lost_question_drops_no_task_and_two_in_a_row_do(liveness: Liveness, clock: Clock) -> None:
    b = record("b", 7, x="active")
    liveness.observe({"b": b})
    # From the half of ttl on, as it is asked: one lost before ttl, and then some while it is kept.
    responses = [True, False, True, True, False, True, False, True, False, False]
    for second in range(1, 16):
        clock.now += 1
        assert "b" in liveness.observe({"b": b})
        if second > 5:
            liveness.asked(b, responses[second - 6])
    clock.now += 1
    assert liveness.observe({"b": b}) == {}
    # It was never asked any more, and its next beat brings it back.
    assert not liveness.silent()
    liveness.asked(b, True)
    clock.now += 1
    assert liveness.observe({"b": b}) == {}
    assert set(liveness.observe({"b": record("b", 8, x="active")})) == {"b"}


def test_what_a_task_responded_before_its_last_beat_is_forgotten(liveness: Liveness, clock: Clock) -> None:
    old, new = record("b", 7, x="active"), record("b", 8, x="active")
    liveness.observe({"b": old})
    clock.now += 6
    liveness.observe({"b": old})
    liveness.asked(old, True)
    liveness.observe({"b": new})
    for second in range(11):
        assert "b" in liveness.observe({"b": new}), second
        clock.now += 1
        # One negative response, the first ever since the beat, is enough: nothing shows that it runs.
        if second == 8:
            liveness.asked(new, False)
    assert liveness.observe({"b": new}) == {}


@pytest.mark.parametrize("gap", [0, 1, 2], ids=["at the same time", "a little later", "later"])
def test_of_two_silent_tasks_with_one_address_the_later_one_is_kept(liveness: Liveness, clock: Clock, gap: int) -> None:
    b = record("b", x="active")
    c = replace(record("c", y="active"), host=b.host)
    for second in range(40):
        # One snapshot may show that both have been silent for too long.
        alive = liveness.observe({"b": b, **({"c": c} if second >= gap else {})})
        for each in liveness.silent().values():
            liveness.asked(each, True)
        clock.now += 2.5 if second < gap else 1
    assert set(alive) == ({"c"} if gap else set()) == liveness.kept()


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
