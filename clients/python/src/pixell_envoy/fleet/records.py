"""Reads the records of a snapshot, and names bad ones in the log once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..log import logger_of
from .errors import BadRecord
from .reading import read_record
from .record import Record

logger = logger_of(__name__)

# The end of a record as `Record.to_json` writes it.
_BEAT = re.compile(rb'(?P<rest>.*),"beat":(?P<beat>[0-9]{1,18})\}', re.DOTALL)

# How many lines about bad records one process writes at most: a hostile task may write a new one at each poll.
_MOST_LINES = 1000


@dataclass(frozen=True)
class _Known:
    rest: bytes
    """The document up to its beat."""
    record: Record


class Records:
    """Remembers what it has read: most records of a snapshot differ from the last ones in their beat alone."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._told: set[tuple[str, str]] = set()

    def read(self, snapshot: Mapping[str, bytes]) -> dict[str, Record]:
        """The records of `snapshot`, without the bad ones."""
        records: dict[str, Record] = {}
        known: dict[str, _Known] = {}
        for task, document in snapshot.items():
            try:
                known[task] = self._read(task, document)
            except BadRecord as error:
                self._tell(task, str(error))
            else:
                records[task] = known[task].record
        self._known = known
        return records

    def _read(self, task: str, document: bytes) -> _Known:
        end = _BEAT.fullmatch(document)
        known = self._known.get(task)
        if known is not None and end is not None and end["rest"] == known.rest:
            return _Known(known.rest, replace(known.record, beat=int(end["beat"])))
        return _Known(b"" if end is None else end["rest"], read_record(task, document))

    def _tell(self, task: str, reason: str) -> None:
        if (task, reason) in self._told or len(self._told) >= _MOST_LINES:
            return
        self._told.add((task, reason))
        logger.error("skipping the directory's record of task %.140r: %s", task, reason)
