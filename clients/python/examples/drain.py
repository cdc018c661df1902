"""What PAR does on SIGTERM: it takes no new requests, waits for open ones, and only then stops the agents."""

import asyncio
import time
from dataclasses import replace

from pixell_envoy import EnvoyManager, RouteApiClient, RouteApiError

CLUSTERS = ("agents_http1", "agents_http2", "agents_websocket")
OPEN = tuple(f"cluster.{name}.upstream_rq_active" for name in CLUSTERS)


async def open_requests(client: RouteApiClient) -> int:
    stats = (await client.stats())["stats"]
    return sum(stat["value"] for stat in stats if stat.get("name") in OPEN)


async def drain(manager: EnvoyManager, client: RouteApiClient, seconds: float) -> bool:
    """True if every request ended within `seconds`, which is less than the container's stopTimeout.

    PAR rejects deployments by then: an agent that is registered later is active.
    """
    deadline = time.monotonic() + seconds
    try:
        is_active = True
        while is_active:
            routes = {**(await client.get_routes()).routes, **manager.agents()}
            # By the manager, whose background task would else make them active again.
            if not await manager.replace_agents(
                {key: replace(route, state="draining") for key, route in routes.items()}
            ):
                return False
            # A registration may have been in flight.
            is_active = any(route.state == "active" for route in manager.agents().values())
        while await open_requests(client):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.2)
    except RouteApiError:
        return False  # Envoy is gone, and its requests with it
    return True


async def main() -> None:
    manager = EnvoyManager("http://127.0.0.1:9901")
    try:
        print("drained:", await drain(manager, manager.client(), 100))
    finally:
        await manager.close()


asyncio.run(main())
