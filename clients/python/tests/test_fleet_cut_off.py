"""A task that is cut off from the directory alone: requests for its agents must not fail."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing

import pytest
from fleet_tasks import TTL, Task, listening, running, stored, until, vanish

from pixell_envoy.fleet import DirectoryUnavailable, MemoryStore, Record, asking
from pixell_envoy.fleet.rendezvous import in_order


def three(store: MemoryStore) -> tuple[Task, Task, Task]:
    a, b, c = (Task(store, name, f"10.0.0.{n}") for n, name in enumerate("abc", 1))
    return a, b, c


async def test_it_is_kept_while_it_responds(
    store: MemoryStore, peer_ports: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    a, b, c = three(store)
    b.manager.set(x="active", y="active")
    async with listening() as (port, server):
        peer_ports["10.0.0.2"] = port
        async with running(a, b, c):
            await until(lambda: a.api.routes == c.api.routes == {"x": ["b"], "y": ["b"]}, "b's agents")
            b.directory.raises = DirectoryUnavailable("cut off")
            pushed = a.api.generation
            await asyncio.sleep(3 * TTL)
            assert a.api.routes == c.api.routes == {"x": ["b"], "y": ["b"]} and set(a.fleet.peers) == {"b", "c"}
            assert a.api.generation == pushed
            # An agent that another task has as well is served there, by the order of tasks and by their silence.
            c.manager.set(x="active")
            await until(lambda: a.api.routes["x"] == ["c", "b"], "c is asked first")
            # The record may be lost with the store's data.
            del store.documents[("prod", "b")]
            await asyncio.sleep(2 * TTL)
            assert a.api.routes == {"x": ["c", "b"], "y": ["b"]}
            assert sum("keeping task 'b'" in message for message in caplog.messages) == 2
            # It comes back with its own order.
            b.directory.raises = None
            await until(lambda: a.api.routes["x"] == list(in_order("x", "bc")), "b beats")
            b.directory.raises = DirectoryUnavailable("again")
            await until(lambda: a.api.routes["x"] == ["c", "b"], "b is silent again")
            server.close()
            took = await until(lambda: set(a.api.peers) == {"c"} == set(a.api.routes["x"]), "b has vanished as well")
            assert took < TTL + 1
            b.directory.raises = None


async def test_a_frozen_one_is_dropped_although_the_kernel_accepts_its_connections(
    store: MemoryStore, peer_ports: dict[str, int]
) -> None:
    a, b, _ = three(store)
    b.manager.set(x="active")
    with closing(socket.create_server(("127.0.0.1", 0), backlog=1000)) as port:
        peer_ports["10.0.0.2"] = port.getsockname()[1]
        async with running(a):
            await b.fleet.start()
            await until(lambda: set(a.api.routes) == {"x"}, "b's agent")
            await vanish(b)
            assert await until(lambda: "x" not in a.api.routes, "b is dropped") < TTL + 1
    await b.manager.client().close()


async def test_asking_delays_no_push(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ended: list[str] = []

    async def never(host: str, port: int, seconds: float) -> bool:
        asked.append(host)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(host)
        return True

    monkeypatch.setattr(asking, "responds", never)
    a, b, c = three(store)
    b.manager.set(x="active")
    async with running(a, c):
        await b.fleet.start()
        await until(lambda: set(a.api.routes) == {"x"}, "b's agent")
        await vanish(b)
        await until(lambda: len(asked) == 2, "both ask b")
        c.manager.set(y="active")
        # While neither question has ended.
        await until(lambda: "y" in a.api.routes, "a change")
        assert ended == []
        # Silence does not count as a response.
        await until(lambda: "x" not in a.api.routes, "b is dropped")
    await b.manager.client().close()


async def test_only_peers_that_envoy_takes_are_asked_and_never_this_task(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[str] = set()

    async def responds(host: str, port: int, seconds: float) -> bool:
        asked.add(host)
        return True

    monkeypatch.setattr(asking, "responds", responds)
    a = Task(store, "a", "10.0.0.1")
    a.manager.set(own="active")
    for name, host in (("far", "192.0.2.1"), ("self", "10.0.0.1"), ("b", "10.0.0.2")):
        store.documents[("prod", name)] = Record(name, host, "e", 1, 1, {name: "active"}).to_json()
    async with running(a):
        await until(lambda: stored(store, "a") is not None, "the record")

        async def fail(record: Record) -> None:
            raise DirectoryUnavailable("read-only")

        monkeypatch.setattr(a.directory, "publish", fail)
        await until(lambda: set(a.fleet._liveness.alive()) == {"b"}, "all but b are dropped")
        assert asked == {"10.0.0.2"} and a.api.routes == {"b": ["b"]}
