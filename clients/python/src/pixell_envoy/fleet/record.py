"""A record: what one task of a fleet tells the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..frozen import FrozenDict
from ..models import RouteState

VERSION = 1

MAX_RECORD_BYTES = 350_000
"""The most bytes of a record as JSON. DynamoDB holds 400 KB in one item; a thousand agents with UUIDs need 50 KB."""


@dataclass(frozen=True)
class Record:
    """`task` runs at the address `host` and serves `ids`, each `active` or `draining`.

    `epoch` is chosen at random when a process starts to publish. Within an epoch, `generation` grows with each change
    of `ids`, and `beat` with each publication: a beat that moves shows that the task is alive.
    """

    task: str
    host: str
    epoch: str
    generation: int
    beat: int
    ids: Mapping[str, RouteState] = field(default_factory=FrozenDict)

    def __post_init__(self) -> None:
        # A record with a new beat shares the ids of the last one.
        if not isinstance(self.ids, FrozenDict):
            object.__setattr__(self, "ids", FrozenDict(self.ids))

    @property
    def is_draining(self) -> bool:
        """Whether the task takes no new request for any of its ids."""
        return bool(self.ids) and all(state == "draining" for state in self.ids.values())

    def to_json(self) -> bytes:
        # The members that show a change come last: `RedisDirectory` reads the end of each record first, and
        # `Records` compares what stands before the beat.
        members = {
            "version": VERSION,
            "task": self.task,
            "host": self.host,
            "ids": dict(sorted(self.ids.items())),
            "epoch": self.epoch,
            "generation": self.generation,
            "beat": self.beat,
        }
        return json.dumps(members, separators=(",", ":")).encode("ascii")

    def shortened(self) -> Record:
        """The record with as many ids, the first in alphabetical order, as fit into MAX_RECORD_BYTES."""
        if len(self.to_json()) <= MAX_RECORD_BYTES:
            return self
        left = MAX_RECORD_BYTES - len(replace(self, ids={}).to_json())
        kept: dict[str, RouteState] = {}
        for deployment_id, state in sorted(self.ids.items()):
            left -= len(deployment_id) + len(state) + len('"":"",')
            if left < 0:
                break
            kept[deployment_id] = state
        return replace(self, ids=kept)
