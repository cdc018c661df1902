"""How PAR ends agents: it lets them take no new requests, and waits for those that they have."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Optional

from pixell_envoy import EnvoyManager, RouteApiError

logger = logging.getLogger("par")

CLUSTERS = ("agents_http1", "agents_http2", "agents_websocket")
OPEN = tuple(f"cluster.{name}.upstream_rq_active" for name in CLUSTERS)
POLL = 0.2


async def all_agents(manager: EnvoyManager, seconds: float) -> bool:
    """For SIGTERM, once PAR rejects deployments. True if every request ended within `seconds`.

    The manager goes on to push the routes as they are.
    """
    is_active = True
    while is_active:
        try:
            routes = {**(await manager.client().get_routes()).routes, **manager.agents()}
        except RouteApiError as error:
            logger.warning("Envoy is gone, and its requests with it: %s", error)
            return False
        # All in one step, and so that the manager keeps them draining.
        if not await manager.replace_agents({name: replace(route, state="draining") for name, route in routes.items()}):
            return False
        # A registration may have been in flight.
        is_active = any(route.state == "active" for route in manager.agents().values())
    return await _ended(lambda: _open_requests(manager), "the drain time is over", seconds)


async def one_agent(manager: EnvoyManager, deployment_id: str, port: int, seconds: float) -> bool:
    """For a planned move, once another task has the agent. True if its requests ended within `seconds`."""
    await manager.drain_agent(deployment_id)
    return await manager.wait_idle(port, seconds)


async def _ended(count: Callable[[], Awaitable[Optional[int]]], what: str, seconds: float) -> bool:
    """Waits until no request is open, and logs `what` if it takes longer. A count of None means that Envoy is gone."""
    deadline = time.monotonic() + seconds
    while left := await count():
        if time.monotonic() > deadline:
            logger.warning("%s, open requests: %d", what, left)
            return False
        await asyncio.sleep(POLL)
    if left is None:
        logger.warning("Envoy is gone, and its requests with it")
        return False
    logger.info("drained")
    return True


async def _open_requests(manager: EnvoyManager) -> Optional[int]:
    if (said := await manager.get_stats()) is None:
        return None
    return sum(int(stat["value"]) for stat in said["stats"] if stat.get("name") in OPEN)
