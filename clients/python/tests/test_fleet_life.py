"""Fleet: how a task joins and leaves, and two processes of one task."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from fleet_tasks import TTL, Task, running, stored, until, vanish
from stand_in_api import StandInManager

from pixell_envoy import ClientClosed, InvalidArgument
from pixell_envoy.fleet import DirectoryUnavailable, Fleet, MemoryDirectory, MemoryStore


async def test_a_close_that_is_cancelled_goes_on(store: MemoryStore) -> None:
    a = Task(store, "a", "10.0.0.1")
    async with running(a):
        await until(lambda: stored(store, "a") is not None, "the record")
        closing = asyncio.get_running_loop().create_task(a.fleet.close())
        await until(lambda: a.fleet._is_closed, "it closes")
        closing.cancel()
        await asyncio.wait({closing})
        assert closing.cancelled() and not a.directory.is_closed
        await a.fleet.close()
        assert a.directory.is_closed and stored(store, "a") is None


@pytest.mark.parametrize("then", ["close", "start"])
async def test_a_fleet_that_starts_may_be_closed_or_started_again(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    told = asyncio.Event()

    async def find() -> tuple[str, str]:
        await told.wait()
        return "a", "10.0.0.1"

    monkeypatch.setattr("pixell_envoy.fleet.fleet.find_task", find)
    manager = StandInManager()
    fleet = Fleet(manager, MemoryDirectory(store, fleet="prod"), ttl=TTL)
    starting = [asyncio.get_running_loop().create_task(fleet.start()) for _ in range(2 if then == "start" else 1)]
    await asyncio.sleep(0)
    if then == "close":
        await fleet.close()
    told.set()
    ended = await asyncio.gather(*starting, return_exceptions=True)
    assert len(fleet._tasks) == (4 if then == "start" else 0)
    assert all(isinstance(each, ClientClosed) if then == "close" else each is None for each in ended)
    await fleet.close()
    await manager.client().close()


async def test_drains_waits_and_withdraws_on_close(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = Task(store, "a", "10.0.0.1"), Task(store, "b", "10.0.0.2")
    b.manager.set(x="active", y="draining")
    async with running(a):
        await b.fleet.start()
        await until(lambda: set(a.api.routes) == {"x", "y"}, "both in a")
        may_end = asyncio.Event()
        monkeypatch.setattr(b.fleet, "_until_known", may_end.wait)
        closing = asyncio.get_running_loop().create_task(b.fleet.close())
        await until(lambda: a.api.peers["b"]["state"] == "draining", "b drains")
        record = stored(store, "b")
        assert record is not None and record.is_draining and not closing.done()
        # What happens meanwhile ends nothing.
        b.manager.set(x="active", y="active", z="active")
        await until(lambda: "z" in a.api.routes, "z")
        assert a.api.peers["b"]["state"] == "draining"
        may_end.set()
        await closing
        assert stored(store, "b") is None and b.directory.is_closed
        await until(lambda: a.api.peers == {}, "b is gone")
        await b.fleet.close()
    assert a.directory.is_closed
    await b.manager.client().close()


async def test_the_end_of_a_task_in_steps(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    a = Task(store, "a", "10.0.0.1")
    a.manager.set(x="active")
    async with running(a):
        await until(lambda: stored(store, "a") is not None, "the record")
        assert await a.fleet.drain() is True
        record = stored(store, "a")
        assert record is not None and record.ids == {"x": "draining"}
        # The wait is not repeated.
        monkeypatch.setattr("pixell_envoy.fleet.fleet._KNOWN", 600.0)
        assert await asyncio.wait_for(a.fleet.drain(), 60) is True
        await asyncio.wait_for(a.fleet.close(), 60)
    assert stored(store, "a") is None
    with pytest.raises(ClientClosed):
        await a.fleet.start()


async def test_drain_waits_longer_if_reads_are_slow(store: MemoryStore) -> None:
    a = Task(store, "a", "10.0.0.1")
    async with running(a):
        await until(lambda: stored(store, "a") is not None, "the record")
        a.fleet._tasks[1].cancel()
        a.fleet._read_seconds = 0.3
        start = asyncio.get_running_loop().time()
        assert await a.fleet.drain()
        # The others rest three times as long as a read takes before they read again.
        assert asyncio.get_running_loop().time() - start >= 4 * 0.3


async def test_closing_ends_in_time_without_a_directory(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixell_envoy.fleet.fleet._LIMIT", 0.3)
    a = Task(store, "a", "10.0.0.1")
    async with running(a):
        await until(lambda: stored(store, "a") is not None, "the record")
        a.directory.hangs = True
        start = asyncio.get_running_loop().time()
        assert await a.fleet.drain() is False
        await a.fleet.close()
        assert asyncio.get_running_loop().time() - start < 3


@pytest.mark.parametrize("is_back", [False, True])
async def test_closing_drains_again_only_if_the_directory_can_be_told(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, is_back: bool
) -> None:
    a = Task(store, "a", "10.0.0.1")
    a.manager.set(x="active")
    async with running(a):
        await until(lambda: stored(store, "a") is not None, "the record")
        publisher = a.fleet._publisher
        assert publisher is not None
        a.directory.raises = DirectoryUnavailable("down")
        assert await a.fleet.drain() is False
        if is_back:
            a.directory.raises = None
            await until(lambda: not publisher.drains_in_vain, "it is told later")
            record = stored(store, "a")
            assert record is not None and record.is_draining
        drained: list[bool] = []

        async def drain() -> bool:
            drained.append(True)
            return True

        monkeypatch.setattr(publisher, "drain", drain)
        await a.fleet.close()
        assert drained == [True] * is_back


async def test_a_second_process_of_a_task_takes_its_place(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    old, new, b = Task(store, "a", "10.0.0.1"), Task(store, "a", "10.0.0.1"), Task(store, "b", "10.0.0.2")
    old.manager.set(x="active")
    new.manager.set(y="active")
    async with running(old, b):
        await until(lambda: b.api.routes == {"x": ["a"]}, "the first process")
        await new.fleet.start()
        await until(lambda: b.api.routes == {"y": ["a"]}, "the second process")
        await asyncio.sleep(2 * TTL)
        assert b.api.routes == {"y": ["a"]}
        assert sum("not published any more" in message for message in caplog.messages) == 1
        await vanish(new)
        # It has fallen silent, so the first one is published again.
        await until(lambda: b.api.routes == {"x": ["a"]}, "the first process again")
    await new.manager.client().close()


async def test_a_superseded_process_stays_away_until_it_has_read(store: MemoryStore) -> None:
    old, new = Task(store, "a", "10.0.0.1"), Task(store, "a", "10.0.0.1")
    async with running(old):
        await until(lambda: bool(old.fleet._liveness.alive()), "the own record")
        # From now on the first process reads nothing, so it knows the second one only by its own rejected write.
        old.directory.fails_every = 1
        await new.fleet.start()
        await until(lambda: new.directory.publications > 0, "the second process")
        rival = stored(store, "a")
        old.manager.set(x="active")
        await asyncio.sleep(TTL)
        now = stored(store, "a")
        assert rival is not None and now is not None and now.epoch == rival.epoch
        await vanish(new)
        await asyncio.sleep(0.3)
        old.directory.fails_every = 0
        await until(
            lambda: (found := stored(store, "a")) is not None and found.ids == {"x": "active"}, "the first again"
        )
    await new.manager.client().close()


async def test_the_managers_end_is_no_error(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    a = Task(store, "a", "10.0.0.1")
    a.manager.set(x="active")
    async with running(a):
        await until(lambda: a.api.generation == 1 and stored(store, "a") is not None, "push and publication")
        await a.manager.client().close()
        await until(lambda: "the manager has been closed" in caplog.text, "a line")
        # It still drains and withdraws.
        assert await a.fleet.drain()
    assert stored(store, "a") is None
    assert "ERROR" not in caplog.text and "WARNING" not in caplog.text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"task_id": "a/b", "host": "10.0.0.1"}, "task's id"),
        ({"task_id": "", "host": "10.0.0.1"}, "task's id"),
        ({"task_id": "a", "host": "localhost"}, "IP address"),
        ({"task_id": "a", "host": "127.0.0.1"}, "IP address"),
        ({"task_id": "a", "host": 167772161}, "IP address"),
        ({"task_id": "a"}, "ECS_CONTAINER_METADATA_URI_V4"),
        ({}, "ECS_CONTAINER_METADATA_URI_V4"),
    ],
)
async def test_a_task_without_a_name_or_address_cannot_start(
    store: MemoryStore, arguments: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ECS_CONTAINER_METADATA_URI_V4", raising=False)
    fleet = Fleet(StandInManager(), MemoryDirectory(store, fleet="prod"), **arguments)
    with pytest.raises(InvalidArgument, match=reason):
        await fleet.start()
    await fleet.close()


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf")])
def test_a_ttl_is_above_zero(store: MemoryStore, ttl: float) -> None:
    with pytest.raises(InvalidArgument, match="ttl"):
        Fleet(StandInManager(), MemoryDirectory(store, fleet="prod"), ttl=ttl)


async def test_announces_a_change_and_says_if_it_cannot(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    # The value of production, so that a busy machine does not read too late.
    monkeypatch.setattr("pixell_envoy.fleet.fleet._KNOWN", 2.0)
    a, b = Task(store, "a", "10.0.0.1"), Task(store, "b", "10.0.0.2")
    assert not await a.fleet.announce()
    async with running(a, b):
        b.manager.set(x="active")
        assert await b.fleet.announce()
        assert a.api.routes == {"x": ["b"]}
        b.directory.raises = DirectoryUnavailable("down")
        b.manager.set(x="active", y="active")
        assert not await b.fleet.announce()
        b.directory.raises = None
        assert await b.fleet.announce()
        assert set(a.api.routes) == {"x", "y"}
    # Its Envoy has no fleet, so no other task may send it a request.
    alone = Task(store, "c", "10.0.0.3")
    alone.api.enabled = False
    alone.manager.set(x="active")
    async with running(alone):
        assert not await alone.fleet.announce()
        assert stored(store, "c") is None
