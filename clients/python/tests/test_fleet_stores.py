"""Fleet over real stores: how fast a change arrives, and what an outage of the store does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Union

import pytest
from fleet_tasks import listening
from stand_in_api import StandInManager
from stores import DynamoDb, RedisServer, aws_keys, in_thread
from tcp_proxy import TcpProxy
from watching import eventually

from pixell_envoy.fleet import Fleet

TTL = 2.0

Server = Union[RedisServer, DynamoDb]


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    started = RedisServer() if request.param == "redis" else DynamoDb()
    with aws_keys():
        started.start()
        try:
            yield started
        finally:
            started.stop()


every_server = pytest.mark.parametrize(
    ("server", "bound"), [pytest.param("redis", 0.3, marks=pytest.mark.redis), ("dynamodb", 2.0)], indirect=["server"]
)


class Task:
    """One task, whose store is behind a proxy of its own."""

    def __init__(self, server: Server, name: str, host: str, proxy: TcpProxy, ttl: float) -> None:
        self.proxy = proxy
        self.manager = StandInManager()
        self.fleet = Fleet(self.manager, server.directory("prod", proxy.port), task_id=name, host=host, ttl=ttl)

    @property
    def routes(self) -> dict[str, list[str]]:
        return self.manager.api.routes


@asynccontextmanager
async def tasks(server: Server, count: int, ttl: float = TTL) -> AsyncIterator[list[Task]]:
    assert server.port is not None
    await in_thread(server.clear)
    proxies = [TcpProxy(server.port) for _ in range(count)]
    made = []
    for number, proxy in enumerate(proxies):
        await proxy.__aenter__()
        task = Task(server, f"task-{number}", f"10.0.0.{number + 1}", proxy, ttl)
        await task.fleet.start()
        made.append(task)
    try:
        yield made
    finally:
        await asyncio.gather(*(task.fleet.close() for task in made))
        for task in made:
            await task.manager.client().close()
            await task.proxy.__aexit__()


async def arrives(task: Task, key: str, seconds: float) -> float:
    async def there() -> bool:
        return key in task.routes

    return await eventually(there, seconds, f"{key} in {task.routes}")


@every_server
async def test_a_change_arrives_in_time(server: Server, bound: float) -> None:
    # With Fleet's own ttl, from which it reads once a second.
    async with tasks(server, 3, 10.0) as (a, b, c):
        b.manager.set(first="active")
        await arrives(a, "first", 30)
        await arrives(c, "first", 30)
        # A store in the same region responds within a few milliseconds.
        for task in (a, b, c):
            task.proxy.delay = 0.003
        took = []
        for number in range(9):
            await asyncio.sleep(0.37)
            b.manager.set(**{f"x{number}": "active"})
            took.append(max(await asyncio.gather(arrives(a, f"x{number}", 10), arrives(c, f"x{number}", 10))))
        print(f"propagation: median {sorted(took)[4]:.3f} s, longest {max(took):.3f} s")
        assert max(took) <= bound


@every_server
async def test_an_outage_drops_nobody_even_if_the_store_is_empty_afterwards(server: Server, bound: float) -> None:
    # After the outage a peer has more than a second to be published again.
    ttl = 1.5 * TTL
    async with tasks(server, 2, ttl) as (a, b):
        b.manager.set(x="active")
        await arrives(a, "x", 10)
        await in_thread(server.stop)
        b.manager.set(x="active", y="active")
        await asyncio.sleep(1.3 * ttl)
        assert a.routes == {"x": ["task-1"]}
        await in_thread(server.start)
        for _ in range(60):
            assert "x" in a.routes
            await asyncio.sleep(0.05)
        await arrives(a, "y", 10)


@every_server
async def test_a_task_that_is_cut_off_serves_and_comes_back(
    server: Server, bound: float, peer_ports: dict[str, int]
) -> None:
    async with tasks(server, 3) as (a, b, c):
        a.manager.set(x="active")
        b.manager.set(y="active")
        for task in (a, c):
            await arrives(task, "y", 10)
        await arrives(c, "x", 10)
        async with listening() as (port, _):
            peer_ports["10.0.0.1"] = port
            a.proxy.set("silent")

            async def kept() -> bool:
                return c.fleet._liveness.kept() == {"task-0"}

            await eventually(kept, 10, "c finds a silent")
            await asyncio.sleep(TTL)
            assert a.routes == {"y": ["task-1"]} and c.routes == {"x": ["task-0"], "y": ["task-1"]}

        async def dropped() -> bool:
            return c.routes == {"y": ["task-1"]}

        # Now nobody can tell it from a task that has vanished.
        await eventually(dropped, 5, "a is dropped by c")
        a.proxy.set("pass")
        await arrives(c, "x", 10)
        assert a.routes == {"y": ["task-1"]}


@pytest.mark.parametrize(("server", "bound"), [("dynamodb", 2.0)], indirect=["server"])
async def test_a_planned_move_waits_for_a_slow_dynamodb(server: Server, bound: float) -> None:
    known = 2.0
    async with tasks(server, 3, 10.0) as (old, new, third):
        old.manager.set(x="active")
        await arrives(third, "x", 10)
        # A read takes 0.6 s now, so changes may arrive later than in `known`.
        for task in (old, new, third):
            task.proxy.delay = 0.3
        new.manager.set(x="draining")
        # While the agent starts, its task reads at this pace.
        await asyncio.sleep(4 * known)
        new.manager.set(x="active")
        began = time.monotonic()
        assert await new.fleet.announce()
        assert time.monotonic() - began > known + 1.0
        # At this moment all others know the new task.
        for task in (old, third):
            assert "task-1" in task.routes["x"], task.routes
        old.manager.set(x="draining")

        async def moved() -> bool:
            # Whatever the third task has read, it knows a task with the agent.
            return third.routes["x"] == ["task-1"]

        await eventually(moved, 10, "the third task knows that the old agent drains")
        for task in (old, new, third):
            task.proxy.delay = 0.0
