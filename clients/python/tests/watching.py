"""Waits for conditions, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Callable

from pixell_envoy import RouteApiClient

WITHIN = 5.0
"""Seconds within which a restarted Envoy must have its map back, and within which other conditions must hold."""


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> float:
    """Waits until `condition` holds and returns how long that took, in seconds."""
    start = time.monotonic()
    while not await condition():
        if time.monotonic() - start > seconds:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(0.02)
    return time.monotonic() - start


async def port_map(client: RouteApiClient) -> dict[str, int]:
    """The ports that Envoy has, by id."""
    return {key: route.port for key, route in (await client.get_routes()).routes.items()}


async def settled_at(client: RouteApiClient, expected: dict[str, int], what: str) -> None:
    """Waits until Envoy has exactly these ports."""

    async def reached() -> bool:
        return await port_map(client) == expected

    await eventually(reached, WITHIN, what)
