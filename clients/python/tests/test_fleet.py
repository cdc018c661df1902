"""Fleet: several tasks in this process, whose Envoys are stand-ins, with a directory in memory."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Callable, Optional

import pytest
from stand_in_api import StandInApi, StandInManager
from watching import eventually

from pixell_envoy import ClientClosed, InvalidArgument, Peer, RouteApiClient, RouteState
from pixell_envoy.fleet import DirectoryUnavailable, Fleet, MemoryDirectory, MemoryStore, Record, read_record

TTL = 1.0


class FaultyDirectory(MemoryDirectory):
    """Fails as told: `raises` is raised, and with `hangs` nothing returns."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store, fleet="prod")
        self.raises: Optional[Exception] = None
        self.hangs = False
        self.fails_every = 0
        """1 of so many reads fails."""
        self.reads = 0
        self.publications = 0
        self.is_closed = False

    async def publish(self, record: Record) -> None:
        await self._fault()
        self.publications += 1
        await super().publish(record)

    async def snapshot(self) -> Mapping[str, bytes]:
        await self._fault()
        self.reads += 1
        if self.fails_every and self.reads % self.fails_every == 0:
            raise DirectoryUnavailable("this time")
        return await super().snapshot()

    async def withdraw(self, task_id: str) -> None:
        await self._fault()
        await super().withdraw(task_id)

    async def close(self) -> None:
        self.is_closed = True

    async def _fault(self) -> None:
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.raises is not None:
            raise self.raises


class Task:
    """One task: its fleet, its directory and its Envoy."""

    def __init__(self, store: MemoryStore, name: str, host: str, **api: Any) -> None:
        self.name = name
        self.directory = FaultyDirectory(store)
        self.manager = StandInManager(StandInApi(**api))
        self.fleet = Fleet(self.manager, self.directory, task_id=name, host=host, ttl=TTL)

    @property
    def api(self) -> StandInApi:
        return self.manager.api


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@asynccontextmanager
async def running(*tasks: Task) -> AsyncIterator[None]:
    for task in tasks:
        await task.fleet.start()
    try:
        yield
    finally:
        await asyncio.gather(*(task.fleet.close() for task in tasks))
        for task in tasks:
            await task.manager.client().close()


async def until(condition: Callable[[], bool], what: str, seconds: float = 5.0) -> float:
    async def holds() -> bool:
        return condition()

    return await eventually(holds, seconds, what)


async def vanish(task: Task) -> None:
    """Ends a task as a crash does: nothing is drained or withdrawn."""
    for each in task.fleet._tasks:
        each.cancel()
    await asyncio.wait(task.fleet._tasks)


def stored(store: MemoryStore, task: str) -> Optional[Record]:
    document = store.documents.get(("prod", task))
    return None if document is None else read_record(task, document)


async def test_each_envoy_knows_the_agents_of_all_other_tasks(store: MemoryStore) -> None:
    a, b, c = (Task(store, name, f"10.0.0.{n}") for n, name in enumerate("abc", 1))
    a.manager.set(x="active")
    b.manager.set(y="active", z="active")
    async with running(a, b, c):
        await until(lambda: a.api.routes == {"y": ["b"], "z": ["b"]}, "b's agents in a")
        await until(lambda: b.api.routes == {"x": ["a"]}, "a's agents in b")
        await until(lambda: c.api.routes == {"x": ["a"], "y": ["b"], "z": ["b"]}, "all agents in c")
        assert set(a.api.peers) == {"b", "c"}
        assert a.api.peers["b"] == {"host": "10.0.0.2", "state": "active"}
        assert set(a.fleet.peers) == {"b", "c"}
        b.manager.set(y="draining", z="active", x="active")
        await until(lambda: c.api.routes["y"] == ["b"] and len(c.api.routes["x"]) == 2, "both tasks of x in c")
        orders = [c.api.routes["x"]]
        await until(lambda: a.api.routes == {"x": ["b"], "y": ["b"], "z": ["b"]}, "the change in a")
        d = Task(store, "d", "10.0.0.4")
        async with running(d):
            await until(lambda: len(d.api.routes) == 3, "all agents in d")
            orders.append(d.api.routes["x"])
        assert orders[0] == orders[1]


async def test_an_agent_that_starts_is_known_at_once(store: MemoryStore) -> None:
    a, b = Task(store, "a", "10.0.0.1"), Task(store, "b", "10.0.0.2")
    async with running(a, b):
        await until(lambda: "b" in a.api.peers, "b in a")
        longest = 0.0
        for n in range(20):
            b.manager.set(**{f"x{n}": "active"})
            longest = max(longest, await until(lambda n=n: f"x{n}" in a.api.routes, "the agent"))  # type: ignore[misc]
        assert longest < 0.3


async def test_pushes_only_if_something_changed(store: MemoryStore) -> None:
    a, b = Task(store, "a", "10.0.0.1"), Task(store, "b", "10.0.0.2")
    b.manager.set(x="active")
    async with running(a, b):
        await until(lambda: a.api.routes == {"x": ["b"]}, "x in a")
        before, beats = (a.api.puts, a.api.patches), b.directory.publications
        await asyncio.sleep(TTL)
        assert b.directory.publications >= beats + 3
        assert (a.api.puts, a.api.patches) == before
        b.manager.set(x="active", y="active")
        await until(lambda: "y" in a.api.routes, "y in a")
        # One change is a patch, not the whole map.
        assert (a.api.puts, a.api.patches) == (before[0], before[1] + 1)


async def test_a_restarted_envoy_gets_the_fleet_back_even_without_the_directory(store: MemoryStore) -> None:
    a, b = Task(store, "a", "10.0.0.1"), Task(store, "b", "10.0.0.2")
    b.manager.set(x="active")
    async with running(a, b):
        await until(lambda: a.api.routes == {"x": ["b"]}, "x in a")
        a.directory.raises = b.directory.raises = DirectoryUnavailable("down")
        a.api.is_down = True
        await asyncio.sleep(0.3)
        a.api.restart()
        a.api.is_down = False
        await until(lambda: a.api.routes == {"x": ["b"]}, "x again")
        # Another writer's map is replaced.
        async with RouteApiClient(transport=a.api) as other:
            await other.replace_fleet({"q": Peer("10.9.9.9")}, {"x": ["q"], "w": ["q"]})
            await until(lambda: a.api.routes == {"x": ["b"]}, "x and nothing else")
        a.directory.raises = b.directory.raises = None


@pytest.mark.parametrize("fails_every", [0, 3])
async def test_a_task_that_vanishes_is_dropped_after_ttl_and_no_other(store: MemoryStore, fails_every: int) -> None:
    a, b, c = (Task(store, name, f"10.0.0.{n}") for n, name in enumerate("abc", 1))
    a.directory.fails_every = fails_every
    b.manager.set(x="active")
    c.manager.set(y="active")
    async with running(a, c):
        await b.fleet.start()
        await until(lambda: set(a.api.routes) == {"x", "y"}, "both agents in a")
        await vanish(b)
        took = await until(lambda: "b" not in a.api.peers, "b is dropped")
        assert TTL * 0.7 < took < TTL + 1.0
        assert a.api.routes == {"y": ["c"]}
        # Its record is still there.
        await asyncio.sleep(TTL)
        assert stored(store, "b") is not None and a.api.routes == {"y": ["c"]}
    await b.manager.client().close()


@pytest.mark.parametrize("fault", ["raises", "raises something", "hangs"])
async def test_while_the_directory_is_down_nobody_is_dropped(
    store: MemoryStore, caplog: pytest.LogCaptureFixture, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixell_envoy.fleet.fleet._LIMIT", 0.1)
    caplog.set_level(logging.INFO)
    a, b = Task(store, "a", "10.0.0.1"), Task(store, "b", "10.0.0.2")
    b.manager.set(x="active")
    async with running(a, b):
        await until(lambda: a.api.routes == {"x": ["b"]}, "x in a")
        caplog.clear()
        for task in (a, b):
            if fault == "hangs":
                task.directory.hangs = True
            else:
                error = DirectoryUnavailable("down") if fault == "raises" else ValueError("out of the blue")
                task.directory.raises = error
        b.manager.set(x="active", y="active")
        await asyncio.sleep(2 * TTL)
        assert a.api.routes == {"x": ["b"]}
        for what in ("read", "publish"):
            assert sum(f"cannot {what}" in message for message in caplog.messages) == 2, caplog.messages
        # It comes back empty.
        store.documents.clear()
        for task in (a, b):
            task.directory.raises, task.directory.hangs = None, False
        start = asyncio.get_running_loop().time()
        seen = []
        while asyncio.get_running_loop().time() - start < 1.5 * TTL:
            seen.append("x" in a.api.routes)
            await asyncio.sleep(0.02)
        assert all(seen)
        assert set(a.api.routes) == {"x", "y"}
        assert sum("can read the directory again" in message for message in caplog.messages) == 2


async def test_the_directory_may_be_down_at_the_start(store: MemoryStore) -> None:
    a = Task(store, "a", "10.0.0.1")
    a.manager.set(x="active")
    a.directory.raises = DirectoryUnavailable("down")
    async with running(a):
        await asyncio.sleep(0.3)
        # Nothing is known, so nothing is pushed: an earlier map may be there.
        assert (a.api.puts, a.api.generation) == (0, 0)
        a.directory.raises = None
        await until(lambda: stored(store, "a") is not None and a.api.generation == 1, "publication and push")


async def test_a_restarted_par_keeps_the_peers_that_a_partial_snapshot_lacks(store: MemoryStore) -> None:
    a = Task(store, "a", "10.0.0.1")
    async with RouteApiClient(transport=a.api) as earlier:
        peers = {"b": Peer("10.0.0.2"), "c": Peer("10.0.0.3", "draining"), "a": Peer("10.0.0.9")}
        await earlier.replace_fleet(peers, {"x": ["b"], "y": ["c"]})
        async with running(a):
            await until(lambda: a.api.generation == 2, "the first push")
            assert a.api.routes == {"x": ["b"], "y": ["c"]} and set(a.api.peers) == {"b", "c"}
            assert a.api.peers["c"]["state"] == "draining"
            await until(lambda: a.api.routes == {}, "both are dropped, because they never beat")


async def test_forged_records_fail_nothing(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    a, b = Task(store, "a", "10.0.0.1"), Task(store, "b", "10.0.0.2")
    b.manager.set(x="active")
    good = Record("b", "10.0.0.2", "e", 1, 1, {"x": "active"})
    store.documents[("prod", "forged")] = good.to_json()
    store.documents[("prod", "far")] = Record("far", "192.0.2.1", "e", 1, 1, {"x": "active", "f": "active"}).to_json()
    store.documents[("prod", "self")] = Record("self", "10.0.0.1", "e", 1, 1, {"s": "active"}).to_json()
    store.documents[("prod", "deep")] = b"[" * 100_000
    async with running(a, b):
        await until(lambda: a.api.routes == {"x": ["b"]}, "b's agent alone")
        await asyncio.sleep(0.5)
        # `self` has a's address, which would make a hop to a itself.
        assert set(a.api.peers) == {"b"} and set(b.api.peers) == {"a", "self"}
    told = [message for message in caplog.messages if "ERROR" in message]
    # Once in each of the two tasks.
    assert sorted(re.findall(r"task '(\w+)'", " ".join(told))) == ["deep", "deep", "far", "far", "forged", "forged"]
    assert all("192.0.2.1" in message for message in told if "'far'" in message)


async def test_what_envoy_does_not_accept_stops_no_push(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    a, b, c = (Task(store, name, f"10.0.0.{n}") for n, name in enumerate("abc", 1))
    a.api.max_id, a.api.max_routes, a.api.max_peers = 5, 3, 1
    b.manager.set(too_long="active", x="active")
    async with running(a, b):
        await until(lambda: a.api.routes == {"x": ["b"]}, "x without the long id")
        b.manager.set(**{"too_long": "active", **{f"x{n}": "active" for n in range(6)}})
        await until(lambda: len(a.api.routes) == 3, "as many routes as Envoy takes")
        c.manager.set(z="active")
        async with running(c):
            await until(lambda: set(c.api.peers) == {"a", "b"}, "c has read")
            await asyncio.sleep(0.5)
            assert set(a.api.peers) == {"b"} and "z" not in a.api.routes
            b.manager.set(y="active")
            await until(lambda: a.api.routes == {"y": ["b"]}, "changes are still pushed")
    told = [message for message in caplog.messages if "does not accept" in message]
    assert len(told) == 3 and not [message for message in caplog.messages if "cannot give Envoy" in message]


async def test_a_fleet_that_is_too_large_for_a_request_is_pushed_in_part(store: MemoryStore) -> None:
    a = Task(store, "a", "10.0.0.1")
    a.api.max_body = 3_000
    ids: dict[str, RouteState] = {f"id-{n:0>30}": "active" for n in range(400)}
    store.documents[("prod", "b")] = Record("b", "10.0.0.2", "e", 1, 1, ids).to_json()
    async with running(a):
        await until(lambda: 25 <= len(a.api.routes) < 400, "a part")


async def test_a_task_that_changes_its_address_for_ever_takes_no_memory(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    a = Task(store, "a", "10.0.0.1")
    async with running(a):
        for n in range(1, 9):
            record = Record("far", f"192.0.2.{n}", "e", n, n, {"x": "active"})
            store.documents[("prod", "far")] = record.to_json()
            store.changed("prod")
            await until(lambda host=record.host: a.fleet._push._rejected == {"far": host}, "it is left out")  # type: ignore[misc]
    assert sum("leaving out" in message for message in caplog.messages) == 1


async def test_an_id_that_is_none_hides_no_other(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    a, b = Task(store, "a", "10.0.0.1"), Task(store, "b", "10.0.0.2")
    b.manager.set(**{"no/id": "active", "x" * 129: "active", "x": "active"})
    async with running(a, b):
        await until(lambda: a.api.routes == {"x": ["b"]}, "x")
        b.manager.set(**{"no/id": "active", "y": "active"})
        await until(lambda: a.api.routes == {"y": ["b"]}, "y")
    assert sum("is not published" in message for message in caplog.messages) == 1


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


async def test_many_peers_outside_the_networks_are_all_left_out(store: MemoryStore) -> None:
    a, b = Task(store, "a", "10.0.0.1"), Task(store, "b", "10.0.0.2")
    b.manager.set(x="active")
    for n in range(250):
        record = Record(f"far-{n}", f"192.0.2.{n + 1}", "e", 1, 1, {"x": "active", f"f{n}": "active"})
        store.documents[("prod", record.task)] = record.to_json()
    async with running(a, b):
        await until(lambda: a.api.routes == {"x": ["b"]}, "b's agent alone")


async def test_peers_are_tried_again_after_envoy_was_restarted_with_other_networks(store: MemoryStore) -> None:
    a, b = Task(store, "a", "10.0.0.1", cidr="192.168.0.0/16"), Task(store, "b", "10.0.0.2")
    b.manager.set(x="active")
    async with running(a, b):
        await until(lambda: a.api.generation == 1, "a push without peers")
        assert a.api.peers == {}
        other = StandInApi()
        other._epochs = 7
        a.api.__dict__.update(other.__dict__)
        await until(lambda: a.api.routes == {"x": ["b"]}, "b is accepted")


async def test_drains_waits_and_withdraws_on_close(store: MemoryStore) -> None:
    a, b = Task(store, "a", "10.0.0.1"), Task(store, "b", "10.0.0.2")
    b.manager.set(x="active", y="draining")
    async with running(a):
        await b.fleet.start()
        await until(lambda: set(a.api.routes) == {"x", "y"}, "both in a")
        closing = asyncio.get_running_loop().create_task(b.fleet.close())
        await until(lambda: a.api.peers["b"]["state"] == "draining", "b drains")
        record = stored(store, "b")
        assert record is not None and record.is_draining and not closing.done()
        # What happens meanwhile ends nothing.
        b.manager.set(x="active", y="active", z="active")
        await until(lambda: "z" in a.api.routes, "z")
        assert a.api.peers["b"]["state"] == "draining"
        await closing
        assert stored(store, "b") is None and b.directory.is_closed
        await until(lambda: a.api.peers == {}, "b is gone")
        await b.fleet.close()
    assert a.directory.is_closed
    await b.manager.client().close()


async def test_the_end_of_a_task_in_steps(store: MemoryStore) -> None:
    a = Task(store, "a", "10.0.0.1")
    a.manager.set(x="active")
    async with running(a):
        await until(lambda: stored(store, "a") is not None, "the record")
        assert await a.fleet.drain() is True
        record = stored(store, "a")
        assert record is not None and record.ids == {"x": "draining"}
        start = asyncio.get_running_loop().time()
        assert await a.fleet.drain() is True
        await a.fleet.close()
        # The wait is not repeated.
        assert asyncio.get_running_loop().time() - start < 0.5
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


async def test_without_a_fleet_map_nothing_is_published(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    a, b = Task(store, "a", "10.0.0.1", enabled=False), Task(store, "b", "10.0.0.2")
    a.manager.set(x="active")
    async with running(a, b):
        await until(lambda: b.api.generation == 1, "b's push")
        await asyncio.sleep(2 * TTL)
        assert stored(store, "a") is None and b.api.peers == {}
        (told,) = [message for message in caplog.messages if "ERROR" in message]
        assert "PIXELL_FLEET_CIDRS" in told
        a.api.enabled = True
        await until(lambda: b.api.routes == {"x": ["a"]}, "a is published")


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


async def test_a_directory_of_ones_own(store: MemoryStore) -> None:
    """The three methods are enough: no hints, no close, and no coroutine functions."""

    class Own:
        def __init__(self) -> None:
            self._inner = MemoryDirectory(store, fleet="prod")

        def publish(self, record: Record) -> Awaitable[None]:
            return asyncio.ensure_future(self._inner.publish(record))

        def snapshot(self) -> Awaitable[Mapping[str, bytes]]:
            return asyncio.ensure_future(self._inner.snapshot())

        def withdraw(self, task_id: str) -> Awaitable[None]:
            return asyncio.ensure_future(self._inner.withdraw(task_id))

    b = Task(store, "b", "10.0.0.2")
    b.manager.set(x="active")
    manager = StandInManager()
    async with running(b), Fleet(manager, Own(), task_id="a", host="10.0.0.1", ttl=TTL):  # type: ignore[arg-type]
        await until(lambda: manager.api.routes == {"x": ["b"]}, "x")
    await manager.client().close()
