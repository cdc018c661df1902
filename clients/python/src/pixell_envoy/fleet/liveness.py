"""Which tasks are alive: those whose beat moves, and those whose Envoy still responds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Callable, Optional

from ..log import logger_of
from .directory import RECORD_SECONDS
from .record import Record

logger = logger_of(__name__)

# The most tasks that are remembered.
_MOST = 10_000

# A task is not dropped before it was silent in this many snapshots.
_SNAPSHOTS = 4

# From this part of `ttl` on a silent task is asked. A snapshot adds a quarter at most, so a quarter is left to respond.
_ASK_FROM = 0.5

# A task counts as no longer responding after this many failures in a row, because a packet may get lost.
_MISSES = 2


@dataclass
class _Seen:
    record: Record
    age: float = 0.0
    """Seconds since the beat was last seen to move, as far as snapshots could have shown it."""
    is_alive: bool = True
    misses: int = _MISSES
    """How often in a row it did not respond. At first it counts as not responding."""
    is_kept: bool = False

    @property
    def responds(self) -> bool:
        return self.misses < _MISSES


class Liveness:
    """Drops a task whose beat has not moved for `ttl` seconds of this process's own monotonic clock.

    A task gets older with each snapshot, by the time since the last one, but at most by a quarter of `ttl`. So an
    outage of the store drops no task, and one that has vanished is dropped even if many reads fail or are slow.

    A task that a snapshot does not have is dropped as late as any other: a store that was restarted is empty at first.
    Clocks of other machines do not matter.

    A silent task may be cut off from the store alone. So from half of `ttl` on it has to be asked (`silent`, `asked`),
    and it is kept until it fails to respond twice in a row. It is still dropped if its address now belongs to another
    task, whose beat moved later, or if it has no active id, because then no request needs it: a task that withdraws has
    drained before. If the beats of two tasks with one address moved last at the same time, it is unknown which of them
    responds, and neither is kept.
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
        holders = _holders(seen for seen in self._seen.values() if seen.is_alive)
        for task, seen in list(self._seen.items()):
            if seen.age > self._ttl and seen.is_alive:
                self._judge(seen, holders.get(seen.record.host) is seen)
            # A dead task is remembered: its record may still be there, and is no sign of life.
            if task not in records and not seen.is_alive and seen.age > max(RECORD_SECONDS, self._ttl):
                del self._seen[task]
        return self.alive()

    def _judge(self, seen: _Seen, has_host: bool) -> None:
        """Keeps or drops a task that has been silent for `ttl`."""
        task, host = seen.record.task, seen.record.host
        seen.is_alive = seen.responds and _is_needed(seen.record) and has_host
        if seen.is_alive and not seen.is_kept:
            logger.warning("keeping task %r at %s, which is silent in the directory but responds", task, host)
        elif seen.is_kept and not seen.is_alive:
            logger.warning("dropping task %r at %s, which was silent in the directory for long", task, host)
        seen.is_kept = seen.is_alive

    def silent(self) -> dict[str, Record]:
        """The tasks that have to be asked."""
        return {
            task: seen.record
            for task, seen in self._seen.items()
            if seen.is_alive and seen.age > self._ttl * _ASK_FROM and _is_needed(seen.record)
        }

    def asked(self, record: Record, responds: bool) -> None:
        """Notes whether the task of a record that `silent` returned responds, for the next snapshot."""
        seen = self._seen.get(record.task)
        # Its beat may have moved meanwhile.
        if seen is not None and seen.record is record:
            seen.misses = 0 if responds else seen.misses + 1

    def kept(self) -> set[str]:
        """The tasks that are alive although they have been silent for `ttl`."""
        return {task for task, seen in self._seen.items() if seen.is_kept}

    def introduce(self, records: Mapping[str, Record]) -> None:
        """Counts tasks that have not been seen yet as seen now."""
        for task, record in records.items():
            if task not in self._seen:
                if len(self._seen) >= _MOST:
                    self._forget_one()
                self._seen[task] = _Seen(record)

    def _forget_one(self) -> None:
        """Forgets the task that has been silent for the longest time, but none that is alive if one is dead."""
        del self._seen[max(self._seen, key=lambda task: (not self._seen[task].is_alive, self._seen[task].age))]

    def alive(self) -> dict[str, Record]:
        """The newest record of each task that was alive at the last snapshot."""
        return {task: seen.record for task, seen in self._seen.items() if seen.is_alive}


def _holders(alive: Iterable[_Seen]) -> dict[str, _Seen]:
    """The task that had each address last, as far as one can know: two may have been silent for the same time."""
    holders: dict[str, _Seen] = {}
    shared: set[str] = set()
    for seen in alive:
        host = seen.record.host
        last = holders.get(host)
        if last is None or seen.age < last.age:
            holders[host] = seen
            shared.discard(host)
        elif seen.age == last.age:
            shared.add(host)
    return {host: seen for host, seen in holders.items() if host not in shared}


def _is_needed(record: Record) -> bool:
    """Whether requests may go to the task, by what it has published itself."""
    return record.epoch != "" and "active" in record.ids.values()


def _moved(seen: _Seen, record: Record) -> bool:
    if record.epoch != seen.record.epoch:
        return True
    # An older record is a late read, unless nothing newer follows.
    return record.beat > seen.record.beat or (not seen.is_alive and record.beat != seen.record.beat)
