"""A directory in this process's memory, for tests and trials."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Callable, Optional

from .directory import MAX_RECORDS
from .errors import Superseded
from .names import checked_name
from .record import Record


class MemoryStore:
    """What the directories of several tasks share. `documents` are by fleet and task."""

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str], bytes] = {}
        self._listeners: list[tuple[str, Callable[[], None]]] = []

    def changed(self, fleet: str) -> None:
        for listening, notify in list(self._listeners):
            if listening == fleet:
                notify()

    async def watch(self, fleet: str, notify: Callable[[], None]) -> None:
        listener = (fleet, notify)
        self._listeners.append(listener)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._listeners.remove(listener)


class MemoryDirectory:
    """One task's view of a MemoryStore. See Directory."""

    def __init__(self, store: Optional[MemoryStore] = None, *, fleet: str) -> None:
        self.store = MemoryStore() if store is None else store
        self._fleet = checked_name(fleet, "the name of a fleet")
        self._published: Optional[Record] = None

    async def publish(self, record: Record) -> None:
        place = (self._fleet, record.task)
        last = self._published
        is_claim = last is None or last.epoch != record.epoch
        if not is_claim and self._epoch(record.task) not in (None, record.epoch):
            raise Superseded(f"another process publishes as task {record.task!r}")
        self.store.documents[place] = record.to_json()
        self._published = record
        if last is None or (last.epoch, last.generation) != (record.epoch, record.generation):
            self.store.changed(self._fleet)

    async def snapshot(self) -> Mapping[str, bytes]:
        mine = [(task, document) for (fleet, task), document in self.store.documents.items() if fleet == self._fleet]
        return dict(mine[:MAX_RECORDS])

    async def withdraw(self, task_id: str) -> None:
        if self._published is not None and self._epoch(task_id) == self._published.epoch:
            del self.store.documents[(self._fleet, task_id)]
            self.store.changed(self._fleet)

    async def watch(self, notify: Callable[[], None]) -> None:
        await self.store.watch(self._fleet, notify)

    def _epoch(self, task: str) -> Optional[str]:
        """The epoch of the record in place; "" if that is damaged."""
        document = self.store.documents.get((self._fleet, task))
        if document is None:
            return None
        try:
            return str(json.loads(document)["epoch"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
