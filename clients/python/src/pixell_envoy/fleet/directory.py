"""A directory: the store in which the tasks of one fleet publish their records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable, Protocol, runtime_checkable

from .record import Record

MAX_RECORDS = 1000
"""The most records of a snapshot: as many as a fleet map may have peers."""

RECORD_SECONDS = 3600
"""How long the store keeps the record of a task that has vanished. Readers have dropped it long before."""


class Directory(Protocol):
    """One fleet's part of a store. Each method raises DirectoryUnavailable if the store does not work.

    A directory does not judge what it holds: `snapshot` returns documents, which are read with `read_record`.
    """

    async def publish(self, record: Record) -> None:
        """Replaces the record of this task.

        The first record of an epoch replaces any other. While no write of an epoch has succeeded, the next one counts
        as the first. Each further record is written only if the stored one has the same epoch, or if there is none;
        otherwise Superseded is raised. So a process that was replaced, but still runs, cannot undo what its successor
        publishes.
        """

    async def snapshot(self) -> Mapping[str, bytes]:
        """The present documents, by the task whose key each of them has. At most MAX_RECORDS."""

    async def withdraw(self, task_id: str) -> None:
        """Removes the record that this directory published for the task, unless it has another epoch now."""


@runtime_checkable
class Watchable(Protocol):
    """A directory that can tell that something has changed. This is a hint: snapshots are still taken."""

    async def watch(self, notify: Callable[[], None]) -> None:
        """Calls `notify` after changes, until it is cancelled. Raises DirectoryUnavailable."""


@runtime_checkable
class Closable(Protocol):
    """A directory that holds connections."""

    async def close(self) -> None:
        """Closes them. Can be called several times."""
