"""Waiting for something to become true, with a deadline."""

from __future__ import annotations

import asyncio
import time
from typing import Awaitable, Callable


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> float:
    """Waits until `condition` holds and returns how long that took, in seconds."""
    start = time.monotonic()
    while not await condition():
        if time.monotonic() - start > seconds:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(0.02)
    return time.monotonic() - start
