"""Waits for conditions, with a deadline."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable
from typing import Callable

from pixell_envoy import RouteApiClient

WITHIN = 5.0
"""Seconds within which a restarted Envoy must have its map back, and within which other conditions must hold."""


# How often a thread looks whether it still runs, and how late it must be to count, in seconds.
_STEP, _STALL = 0.01, 0.03


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> float:
    """Waits until `condition` holds and returns how long that took, in seconds."""
    start = time.monotonic()
    while True:
        # It looks once more after the last moment, because the machine may have stood still.
        is_last = time.monotonic() - start > seconds
        if await condition():
            return time.monotonic() - start
        if is_last:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(0.02)


class Stalls(threading.Thread):
    """Adds up for how long this process could not run: another one had the processor. A context manager."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seconds = 0.0
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self._over.wait(_STEP)
            late = time.monotonic() - began - _STEP
            if late > _STALL:
                self.seconds += late

    def __enter__(self) -> Stalls:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


async def port_map(client: RouteApiClient) -> dict[str, int]:
    """The ports that Envoy has, by id."""
    return {key: route.port for key, route in (await client.get_routes()).routes.items()}


async def settled_at(client: RouteApiClient, expected: dict[str, int], what: str) -> None:
    """Waits until Envoy has exactly these ports."""

    async def reached() -> bool:
        return await port_map(client) == expected

    await eventually(reached, WITHIN, what)
