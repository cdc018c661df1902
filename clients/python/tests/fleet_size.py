"""What a large fleet costs one of its tasks: records, pushes and CPU per minute, for growing fleets.

    python tests/fleet_size.py --tasks 125 250 500 --agents 200 --seconds 30

One real Fleet among others that only publish: records with beats, and changes of agents at random times. The directory
is in memory and Envoy is a stand-in, so the figures are those of the client alone.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from stand_in_api import StandInApi, StandInManager

from pixell_envoy import RouteState
from pixell_envoy.fleet import Fleet, MemoryDirectory, MemoryStore, Record

TTL = 10.0
BEAT = TTL / 4


@dataclass(frozen=True)
class Cost:
    """Per minute. `cpu` and `publishing` are seconds of one core, the latter of all other tasks together."""

    routes: int
    records: float
    bytes: float
    pushes: float
    cpu: float
    start: float
    """Seconds of one core until the whole fleet was known."""


@dataclass(frozen=True)
class Work:
    """For some changes in the fleet. `cpu` is seconds of one core."""

    records: int
    pushes: int
    cpu: float


class Others:
    """All other tasks. They publish without a Fleet of their own."""

    def __init__(self, store: MemoryStore, tasks: int, agents: int, changes: float, draw: random.Random) -> None:
        self._store = store
        self._draw = draw
        self._changes = changes
        self.cpu = 0.0
        self.records = [self._new(number, agents) for number in range(tasks)]
        self._directories = [MemoryDirectory(store, fleet="size") for _ in range(tasks)]

    async def run(self) -> None:
        """Each task beats every BEAT seconds, and changes an agent `changes` times a minute."""
        pause = BEAT / len(self.records)
        at = time.monotonic()
        number = 0
        while True:
            await self.publish(number, self._draw.random() < self._changes * BEAT / 60)
            number = (number + 1) % len(self.records)
            at += pause
            await asyncio.sleep(max(0, at - time.monotonic()))

    async def publish_all(self) -> None:
        for number in range(len(self.records)):
            await self.publish(number, False)

    async def publish(self, number: int, is_change: bool) -> None:
        start = time.process_time()
        old = self.records[number]
        ids = dict(old.ids)
        if is_change:
            ids.pop(self._draw.choice(list(ids)))
            ids[str(uuid.UUID(int=self._draw.getrandbits(128)))] = "active"
        record = Record(old.task, old.host, old.epoch, old.generation + is_change, old.beat + 1, ids)
        self.records[number] = record
        await self._directories[number].publish(record)
        self.cpu += time.process_time() - start

    def _new(self, number: int, agents: int) -> Record:
        task = uuid.UUID(int=self._draw.getrandbits(128)).hex
        ids: dict[str, RouteState] = {str(uuid.UUID(int=self._draw.getrandbits(128))): "active" for _ in range(agents)}
        return Record(task, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "e", 1, 1, ids)


class Counted(MemoryDirectory):
    records = size = 0

    async def snapshot(self) -> dict[str, bytes]:
        found = dict(await super().snapshot())
        self.records += len(found)
        self.size += sum(map(len, found.values()))
        return found


@dataclass(frozen=True)
class Observer:
    """The one real Fleet, which knows all others."""

    others: Others
    directory: Counted
    api: StandInApi
    start: float

    def reset(self) -> None:
        self.directory.records = self.directory.size = self.api.patches = 0
        self.others.cpu = self.api.cpu = 0.0


@asynccontextmanager
async def observing(tasks: int, agents: int, changes: float = 0.0, ttl: float = TTL) -> AsyncIterator[Observer]:
    store = MemoryStore()
    others = Others(store, tasks - 1, agents, changes, random.Random(7))
    await others.publish_all()
    directory, manager = Counted(store, fleet="size"), StandInManager()
    manager.set(own="active")
    began = time.process_time()
    async with Fleet(manager, directory, task_id="observer", host="10.255.255.1", ttl=ttl):
        while len(manager.api.routes) < (tasks - 1) * agents:
            await asyncio.sleep(0.01)
        yield Observer(others, directory, manager.api, time.process_time() - began - manager.api.cpu)
    await manager.client().close()


async def measure(tasks: int, agents: int, changes: float, seconds: float) -> Cost:
    async with observing(tasks, agents, changes) as seen:
        running = asyncio.get_running_loop().create_task(seen.others.run())
        await asyncio.sleep(2)
        seen.reset()
        at, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(seconds)
        minutes = (time.monotonic() - at) / 60
        cost = Cost(
            routes=len(seen.api.routes),
            records=seen.directory.records / minutes,
            bytes=seen.directory.size / minutes,
            pushes=seen.api.patches / minutes,
            cpu=(time.process_time() - cpu - seen.others.cpu - seen.api.cpu) / minutes,
            start=seen.start,
        )
        running.cancel()
        await asyncio.wait({running})
    return cost


async def work(tasks: int, agents: int, changes: int) -> Work:
    """So many changes in the whole fleet, each when Envoy has the one before. So their number decides, and no clock."""
    # The others publish no beats here, and must not be missed.
    async with observing(tasks, agents, ttl=3600.0) as seen:
        seen.reset()
        cpu = time.process_time()
        for change in range(changes):
            number = change % (tasks - 1)
            await seen.others.publish(number, True)
            while not seen.others.records[number].ids.keys() <= seen.api.routes.keys():
                await asyncio.sleep(0.01)
        cpu = time.process_time() - cpu - seen.others.cpu - seen.api.cpu
        return Work(seen.directory.records, seen.api.patches, cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[125, 250, 500])
    parser.add_argument("--agents", type=int, default=200, help="of each task")
    parser.add_argument("--changes", type=float, default=1.0, help="of agents, per task and minute")
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args()
    print("tasks  routes  start: CPU s | per task and minute: records      MB  pushes  CPU s  CPU ms/1,000 records")
    for tasks in given.tasks:
        cost = asyncio.run(measure(tasks, given.agents, given.changes, given.seconds))
        share = cost.cpu / cost.records * 1e6
        print(
            f"{tasks:5}  {cost.routes:6}  {cost.start:12.2f}   {cost.records:28.0f}  {cost.bytes / 1e6:6.0f}"
            f"  {cost.pushes:6.0f}  {cost.cpu:5.2f}  {share:20.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
