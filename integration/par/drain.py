"""What PAR does on SIGTERM before it stops its agents: it takes no new requests and waits for the open ones."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace

from pixell_envoy import Route, RouteApiClient, RouteApiError

logger = logging.getLogger("par")

CLUSTERS = ("agents_http1", "agents_http2", "agents_websocket")
OPEN = tuple(f"cluster.{name}.upstream_rq_active" for name in CLUSTERS)
POLL = 0.2


def draining(routes: dict[str, Route]) -> dict[str, Route]:
    return {deployment_id: replace(route, state="draining") for deployment_id, route in routes.items()}


async def open_requests(client: RouteApiClient) -> int:
    stats = (await client.stats())["stats"]
    return sum(int(stat["value"]) for stat in stats if stat.get("name") in OPEN)


async def drain(client: RouteApiClient, seconds: float) -> bool:
    """True if every request ended within `seconds`. Nothing else may push routes meanwhile: it would activate them."""
    deadline = time.monotonic() + seconds
    try:
        await client.update(draining, idempotent=True)
        while left := await open_requests(client):
            if time.monotonic() > deadline:
                logger.warning("the drain time is over, open requests: %d", left)
                return False
            await asyncio.sleep(POLL)
    except RouteApiError as error:
        logger.warning("Envoy is gone, and its requests with it: %s", error)
        return False
    logger.info("drained")
    return True
