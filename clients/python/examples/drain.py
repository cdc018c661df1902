"""What PAR does on SIGTERM: it takes no new requests, waits for open ones, and only then stops the agents."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

from pixell_envoy import EnvoyManager, Route, RouteApiClient, RouteApiError

CLUSTERS = ("agents_http1", "agents_http2", "agents_websocket")
OPEN = tuple(f"cluster.{name}.upstream_rq_active" for name in CLUSTERS)


def draining(routes: Mapping[str, Route]) -> dict[str, Route]:
    return {deployment_id: replace(route, state="draining") for deployment_id, route in routes.items()}


async def open_requests(client: RouteApiClient) -> int:
    stats = (await client.stats())["stats"]
    return sum(stat["value"] for stat in stats if stat.get("name") in OPEN)


async def drain(manager: EnvoyManager, client: RouteApiClient, seconds: float) -> bool:
    """True if every request ended within `seconds`, which is a little less than the container's stopTimeout."""
    deadline = time.monotonic() + seconds
    try:
        # By the manager, whose background task would else make them active again.
        if not await manager.replace_agents(draining((await client.get_routes()).routes)):
            return False
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
        print("drained:", await drain(manager, manager.client(), 110))
    finally:
        await manager.close()


asyncio.run(main())
