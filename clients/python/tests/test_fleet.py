"""Fleet: what each Envoy knows of the other tasks, while tasks come and go and the directory fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping

import pytest
from fleet_tasks import TTL, Task, running, stored, until, vanish
from stand_in_api import StandInManager

from pixell_envoy import Peer, RouteApiClient
from pixell_envoy.fleet import DirectoryUnavailable, Fleet, MemoryDirectory, MemoryStore, Record


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
