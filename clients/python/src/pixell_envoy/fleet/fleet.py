"""Fleet: joins this task to the others, so that any of them serves any deployment id."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Mapping
from types import TracebackType
from typing import Callable, Optional, TypeVar

from ..backoff import Backoff
from ..errors import ClientClosed, InvalidArgument
from ..fleet_map import FleetMap
from ..log import logger_of
from ..manager import EnvoyManager
from .asking import Asking
from .directory import Closable, Directory, Watchable
from .ecs import find_task
from .liveness import Liveness
from .names import checked_name
from .plan import Plan
from .publisher import Publisher
from .push import Push
from .reading import checked_host
from .record import Record
from .records import Records
from .trouble import Trouble
from .waiting import Wake, within

logger = logger_of(__name__)

T = TypeVar("T")

# Seconds between two snapshots, and between two looks at Envoy's version, unless something happens before.
_POLL = 1.0
# Hints are followed no faster, and never so fast that snapshots take more than a quarter of the time.
_GAP, _SHARE = 0.1, 3
# The most seconds that one call of a directory may take.
_LIMIT = 5.0
# Seconds until all tasks know what one has published, besides the time that their snapshots take.
_KNOWN = 2.0
# How many beats fit into `ttl`.
_BEATS = 4
_BACKOFF = Backoff(first=0.2, longest=2.0)
# After an outage a task must be published again before the others, which read again, miss its beat.
_LONGEST = 1.0


class Fleet:
    """Publishes the agents of `manager` in `directory`, and gives its Envoy the agents of the other tasks.

    An async context manager; `start` and `close` do the same. `task_id` and `host`, this task's name and address, are
    by default what ECS says. A peer whose beat has not moved for `ttl` seconds is dropped, unless its Envoy still
    responds at `peer_port`. No peer is dropped while the directory cannot be read. All tasks need the same `ttl`, and
    their Envoys the same port. Close it before `manager`; it closes `directory`.

    Only `start` raises, and only if it cannot find out task and address. A later failure of the directory or of Envoy
    is logged, and the call is retried.
    """

    def __init__(
        self,
        manager: EnvoyManager,
        directory: Directory,
        *,
        task_id: Optional[str] = None,
        host: Optional[str] = None,
        ttl: float = 10.0,
        peer_port: int = 50050,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < ttl < math.inf:
            raise InvalidArgument(f"ttl is a finite number of seconds above 0, not {ttl!r}")
        if not 0 < peer_port < 65536:
            raise InvalidArgument(f"peer_port is a port from 1 to 65535, not {peer_port!r}")
        self._manager = manager
        self._directory = directory
        self._task_id = task_id
        self._host = host
        self._ttl = ttl
        self._peer_port = peer_port
        self._clock = clock
        self._poll = min(_POLL, ttl / 5)
        longest = min(_LONGEST, ttl / 10)
        self._backoff = Backoff(first=min(_BACKOFF.first, longest), longest=longest)
        self._plan = Plan()
        self._liveness = Liveness(ttl, clock)
        self._records = Records()
        self._push = Push(manager.client, self._plan, self._refresh, self._take_over)
        self._reading = Trouble(logger, "read the directory")
        self._pushing = Trouble(logger, "give Envoy the fleet")
        self._has_snapshot = False
        # When the last good snapshot began.
        self._last_read = -math.inf
        self._read_seconds = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._publisher: Optional[Publisher] = None
        self._stop_listening: Callable[[], None] = lambda: None
        self._is_drained = False
        self._is_closed = False
        self._closing: Optional[asyncio.Task[None]] = None

    @property
    def peers(self) -> Mapping[str, Record]:
        """The records of the other tasks that are alive, or cut off from the directory alone."""
        return {task: record for task, record in self._liveness.alive().items() if task != self._task_id}

    async def start(self) -> None:
        """Starts to publish and to read, in the running event loop. Raises InvalidArgument or MetadataError.

        A fleet that has been closed cannot start again.
        """
        if self._is_closed:
            raise ClientClosed("this fleet has been closed")
        if self._publisher is not None:
            return
        await self._identify()
        if self._is_closed:
            raise ClientClosed("this fleet has been closed while it started")
        if self._publisher is not None:
            return
        self._change, self._hint, self._news = Wake(), Wake(), Wake()
        self._envoy_asked = asyncio.Event()
        self._asking = Asking(self._peer_port, self._ttl / _BEATS, self._liveness.asked, self._clock)
        task, host = str(self._task_id), str(self._host)
        self._publisher = Publisher(
            self._directory, task, host, self._manager.agents, _LIMIT, self._rival_lives, self._clock
        )
        self._stop_listening = self._manager.on_change(self._change.set)
        loops = [self._publish_for_ever(self._publisher), self._read_for_ever(), self._push_for_ever()]
        if isinstance(self._directory, Watchable):
            loops.append(self._watch_for_ever(self._directory))
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(each) for each in loops]
        logger.info("joining the fleet as task %r at %s", task, host)

    async def announce(self) -> bool:
        """Publishes the agents as they are now, and returns when the other tasks know them.

        False if it could not write to the directory, or if Envoy has no fleet. For a planned move: call it once the
        agent is active here, and drain the old one only then.
        """
        if self._publisher is None:
            return False
        await self._envoy_asked.wait()
        if self._push.is_off or not await self._publisher.publish():
            return False
        await self._until_known()
        return True

    async def drain(self) -> bool:
        """Publishes all agents as draining, and returns when the other tasks know it: they send nothing more here.

        False if it could not write to the directory. For the end of a task: call it first, then let the open requests
        end, then `close`.
        """
        if self._publisher is None:
            return False
        if not self._is_drained and await self._publisher.drain():
            self._is_drained = True
            if not self._publisher.has_published:
                return True
            await self._until_known()
        return self._is_drained

    async def _until_known(self) -> None:
        """Waits until the other tasks have read what was published before, and have given it to their Envoys."""
        # A hint may be lost; then the others see it with the snapshot after the next one.
        await asyncio.sleep(_KNOWN + (1 + _SHARE) * self._read_seconds)

    async def close(self) -> None:
        """Drains unless that is done, withdraws this task's record, and ends. Envoy keeps its fleet map.

        It does not drain again if the directory still cannot be written to.

        Can be called several times. If a call is cancelled, the closing goes on, and a further call waits for its end.
        """
        self._is_closed = True
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            if self._publisher is not None:
                await self._leave(self._publisher)
        finally:
            await self._close_directory()

    async def _leave(self, publisher: Publisher) -> None:
        try:
            # A directory that hangs would take as long again, and PAR's time ends.
            if not publisher.drains_in_vain:
                await self.drain()
        finally:
            self._stop_listening()
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
            await self._asking.close()
            await publisher.withdraw()

    async def _close_directory(self) -> None:
        if isinstance(self._directory, Closable):
            try:
                await within(_LIMIT, _called(self._directory.close))
            except Exception as error:
                logger.warning("cannot close the directory: %r", error)

    async def __aenter__(self) -> Fleet:
        await self.start()
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        await self.close()

    async def _identify(self) -> None:
        if self._task_id is None or self._host is None:
            task, host = await find_task()
            self._task_id = task if self._task_id is None else self._task_id
            self._host = host if self._host is None else self._host
        checked_name(self._task_id, "a task's id")
        try:
            self._host = checked_host(str(self._host))
        except ValueError as error:
            raise InvalidArgument(f"the host of a task is its IP address, which the others reach: {error}") from error

    async def _publish_for_ever(self, publisher: Publisher) -> None:
        # A task whose Envoy has no fleet cannot be a peer.
        await self._envoy_asked.wait()
        delays = self._backoff.delays()
        while True:
            is_done = self._push.is_off or await publisher.publish()
            if is_done:
                delays = self._backoff.delays()
            await self._change.wait(self._ttl / _BEATS if is_done else next(delays))

    async def _read_for_ever(self) -> None:
        delays = self._backoff.delays()
        while True:
            began = self._clock()
            try:
                self._take(await within(_LIMIT, _called(self._directory.snapshot)))
            except Exception as error:  # A directory may raise anything.
                self._reading.failed(error)
                await asyncio.sleep(next(delays))
                continue
            self._last_read, self._read_seconds = began, self._clock() - began
            self._reading.over()
            delays = self._backoff.delays()
            await asyncio.sleep(max(_GAP, _SHARE * (self._clock() - began)))
            # Without jitter, tasks that were started together would read at the same time.
            await self._hint.wait(self._poll * random.uniform(0.8, 1.0))

    def _take(self, snapshot: Mapping[str, bytes]) -> None:
        records = self._records.read(snapshot)
        self._liveness.observe(records)
        silent = self._liveness.silent()
        self._asking.follow({task: record for task, record in silent.items() if self._is_peer(task, record)})
        self._has_snapshot = True
        self._refresh()
        if self._plan.change():
            self._news.set()

    def _take_over(self, left: FleetMap) -> None:
        # The first snapshot may be partial, so it does not prove that these peers are gone.
        ids: dict[str, list[str]] = {name: [] for name in left.peers}
        for key, names in left.routes.items():
            for name in names:
                if name in ids:
                    ids[name].append(key)
        self._liveness.introduce(
            {
                name: Record(name, peer.host, "", 0, 0, dict.fromkeys(ids[name], peer.state))
                for name, peer in left.peers.items()
            }
        )

    def _refresh(self) -> bool:
        if self._has_snapshot:
            alive = self._liveness.alive()
            self._push.forget_all_but(alive)
            peers = {task: record for task, record in alive.items() if self._is_peer(task, record)}
            self._plan.follow(peers, self._liveness.kept())
        return self._has_snapshot

    def _is_peer(self, task: str, record: Record) -> bool:
        # Another record with this task's own address is of a task that had the address before.
        is_other = task != self._task_id and record.host != self._host
        return is_other and self._push.accepts(task, record.host)

    async def _push_for_ever(self) -> None:
        delays = _BACKOFF.delays()
        while True:
            try:
                await self._push.sync()
            except ClientClosed:
                logger.info("the manager has been closed: Envoy keeps the fleet map that it has")
                return
            except Exception as error:
                self._pushing.failed(error)
                delay = next(delays)
            else:
                self._pushing.over()
                delays = _BACKOFF.delays()
                delay = self._poll
            finally:
                self._envoy_asked.set()
            await self._news.wait(delay)

    async def _watch_for_ever(self, directory: Watchable) -> None:
        while True:
            try:
                await directory.watch(self._hint.set)
            except Exception as error:
                # The snapshots say whether the directory works.
                logger.debug("cannot watch the directory: %r", error)
            await asyncio.sleep(self._poll)

    def _rival_lives(self, since: float) -> bool:
        if self._publisher is None or self._last_read <= since:
            return True
        own = self._liveness.alive().get(str(self._task_id))
        return own is not None and own.epoch != self._publisher.epoch


async def _called(call: Callable[[], Awaitable[T]]) -> T:
    # What a directory returns need not be a coroutine, and it may raise before it returns.
    return await call()
