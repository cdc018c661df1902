"""Which tasks are alive: those whose beat moves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable, Optional

from .directory import RECORD_SECONDS
from .record import Record

# The most tasks that are remembered.
_MOST = 10_000

# A task is not dropped before it was silent in so many snapshots.
_SNAPSHOTS = 4


@dataclass
class _Seen:
    record: Record
    age: float = 0.0
    """Seconds since the beat was last seen to move, as far as snapshots could have shown it."""
    is_alive: bool = True


class Liveness:
    """Drops a task whose beat has not moved for `ttl` seconds of this process's own monotonic clock.

    A task gets older with each snapshot, by the time since the last one, but at most by a quarter of `ttl`. So an
    outage of the store drops no task, and one that has vanished is dropped even if many reads fail or are slow.

    A task that a snapshot does not have is dropped as late as any other: a store that was restarted is empty at first.
    Clocks of other machines do not matter.
    """

    def __init__(self, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._last: Optional[float] = None

    def observe(self, records: Mapping[str, Record]) -> dict[str, Record]:
        """Call it with the records of each snapshot. Returns the newest record of each task that is alive."""
        now = self._clock()
        passed = 0.0 if self._last is None else min(now - self._last, self._ttl / _SNAPSHOTS)
        self._last = now
        for seen in self._seen.values():
            seen.age += passed
        self.introduce(records)
        for task, record in records.items():
            # A flood of names may have pushed it out again.
            known = self._seen.get(task)
            if known is not None and _moved(known, record):
                self._seen[task] = _Seen(record)
        for task, seen in list(self._seen.items()):
            seen.is_alive = seen.age <= self._ttl
            # A dead task is remembered: its record may still be there, and is no sign of life.
            if task not in records and seen.age > max(RECORD_SECONDS, self._ttl):
                del self._seen[task]
        return self.alive()

    def introduce(self, records: Mapping[str, Record]) -> None:
        """Counts tasks that have not been seen yet as seen now."""
        for task, record in records.items():
            if task not in self._seen:
                if len(self._seen) >= _MOST:
                    self._forget_one()
                self._seen[task] = _Seen(record)

    def _forget_one(self) -> None:
        """Forgets the task that has been silent for the longest time."""
        del self._seen[max(self._seen, key=lambda task: self._seen[task].age)]

    def alive(self) -> dict[str, Record]:
        """The newest record of each task that was alive at the last snapshot."""
        return {task: seen.record for task, seen in self._seen.items() if seen.is_alive}


def _moved(seen: _Seen, record: Record) -> bool:
    if record.epoch != seen.record.epoch:
        return True
    # An older record is a late read, unless nothing newer follows.
    return record.beat > seen.record.beat or (not seen.is_alive and record.beat != seen.record.beat)
