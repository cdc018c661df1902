"""What the tests of liveness share: a clock that the test sets, and records whose beat stands still or moves."""

from __future__ import annotations

from typing import Optional

from pixell_envoy.fleet import Record


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def record(task: str, beat: int = 1, epoch: str = "a", host: Optional[str] = None, **ids: str) -> Record:
    return Record(task, host or f"10.0.0.{ord(task[0])}", epoch, 0, beat, ids)  # type: ignore[arg-type]
