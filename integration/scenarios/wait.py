"""Waits for a condition, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Optional, TypeVar

T = TypeVar("T")

POLL = 0.05


def wait_until(what: str, look: Callable[[], Optional[T]], limit: float = 30.0) -> T:
    """Calls `look` until it returns a true value, and returns that value."""
    deadline = time.monotonic() + limit
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(POLL)
