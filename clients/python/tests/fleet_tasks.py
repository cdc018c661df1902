"""What the tests of Fleet share: tasks in this process, whose Envoys are stand-ins, with a directory in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Callable, Optional

from stand_in_api import StandInApi, StandInManager
from watching import eventually

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


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[int, asyncio.Server]]:
    """A port that closes each connection once the peer has, as Envoy does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], server


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
