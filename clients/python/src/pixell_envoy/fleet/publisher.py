"""Publishes this task's record: at once when its agents change, and with a new beat before its peers miss it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from typing import Callable, Optional

from ..log import logger_of
from ..models import Route, RouteState
from .directory import Directory
from .errors import Superseded
from .names import is_name
from .record import MAX_RECORD_BYTES, Record
from .trouble import Trouble
from .waiting import within

logger = logger_of(__name__)


class Publisher:
    """`agents` returns the agents as they are now, and `rival_lives` whether another process publishes for the task.

    The latter gets the time at which that process was noticed: what was read before says nothing.
    """

    def __init__(
        self,
        directory: Directory,
        task: str,
        host: str,
        agents: Callable[[], Mapping[str, Route]],
        limit: float,
        rival_lives: Callable[[float], bool] = lambda since: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._agents = agents
        self._limit = limit
        self._rival_lives = rival_lives
        self._clock = clock
        self._last = Record(task, host, _new_epoch(), generation=0, beat=0)
        self._is_draining = False
        self.has_published = False
        """Whether the directory may have a record of this process."""
        self._superseded_at: Optional[float] = None
        self._is_shortened = self._has_told_names = False
        self._trouble = Trouble(logger, "publish this task in the directory")
        # One publication at a time: a slow one must not overtake a newer one.
        self._turn = asyncio.Lock()

    @property
    def epoch(self) -> str:
        return self._last.epoch

    @property
    def drains_in_vain(self) -> bool:
        """Whether this task drains, and no attempt to publish this has succeeded."""
        return self._is_draining and self._trouble.lasts

    async def publish(self) -> bool:
        """Publishes with a new beat. Raises nothing; False if the directory does not have the record.

        A process that was superseded by another one of the same task waits until that one falls silent.
        """
        async with self._turn:
            if self._superseded_at is not None:
                if self._rival_lives(self._superseded_at):
                    return False
                # Another epoch claims the place.
                self._last = Record(self._last.task, self._last.host, _new_epoch(), self._last.generation, 0)
                self._superseded_at = None
            self._last = self._next()
            self.has_published = True
            try:
                await within(self._limit, self._directory.publish(self._last))
            except Superseded as error:
                self._superseded_at = self._clock()
                logger.error("this task is not published any more: %s", error)
                return False
            except Exception as error:  # A directory may raise anything, and PAR must not notice.
                self._trouble.failed(error)
                return False
            self._trouble.over()
            return True

    async def drain(self) -> bool:
        """Publishes all ids as draining, now and from now on. True as well if nothing has been published."""
        self._is_draining = True
        if not self.has_published:
            return True
        return await self.publish()

    async def withdraw(self) -> None:
        """Removes the record. Raises nothing."""
        async with self._turn:
            try:
                await within(self._limit, self._directory.withdraw(self._last.task))
            except Exception as error:
                logger.warning("cannot withdraw this task from the directory, which forgets it later: %s", error)

    def _next(self) -> Record:
        agents = self._agents()
        ids: dict[str, RouteState] = {
            deployment_id: "draining" if self._is_draining else route.state
            for deployment_id, route in agents.items()
            # With an invalid id, the others would skip the whole record.
            if is_name(deployment_id)
        }
        if len(ids) < len(agents) and not self._has_told_names:
            self._has_told_names = True
            wrong = next(key for key in agents if not is_name(key))
            logger.error("%.140r is not published: a deployment id is 1 to 128 of A-Z a-z 0-9 . _ -", wrong)
        last = self._last
        wanted = Record(last.task, last.host, last.epoch, last.generation, last.beat + 1, ids)
        record = wanted.shortened()
        self._tell_shortened(len(wanted.ids) - len(record.ids))
        if record.ids != last.ids:
            return Record(last.task, last.host, last.epoch, last.generation + 1, record.beat, record.ids)
        return record

    def _tell_shortened(self, left_out: int) -> None:
        if left_out and not self._is_shortened:
            logger.error("%d agents are not published: a record has %d bytes at most", left_out, MAX_RECORD_BYTES)
        self._is_shortened = left_out > 0


def _new_epoch() -> str:
    return uuid.uuid4().hex
