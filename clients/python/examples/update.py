"""Changes the whole map without losing what another writer changes at the same time."""

import asyncio
from dataclasses import replace

from pixell_envoy import Route, RouteApiClient


def drain_all(routes: dict[str, Route]) -> dict[str, Route]:
    return {deployment_id: replace(route, state="draining") for deployment_id, route in routes.items()}


async def main() -> None:
    async with RouteApiClient("http://127.0.0.1:9901") as client:
        result = await client.update(drain_all, idempotent=True)
        print(f"{result.changed} routes are draining now, the map is {result.version.etag}")


asyncio.run(main())
