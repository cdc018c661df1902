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
