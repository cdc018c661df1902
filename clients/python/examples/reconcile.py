"""Keeps Envoy's map equal to the program's own mapping."""

import asyncio

from pixell_envoy import Reconciler, RouteApiClient

ports: dict[str, int] = {"agent-a": 50054}


async def main() -> None:
    async with RouteApiClient("http://127.0.0.1:9901") as client, Reconciler(client, lambda: ports) as reconciler:
        print("at start:", await reconciler.wait_in_sync(timeout=5))
        ports["agent-b"] = 50055
        reconciler.changed()
        print("after a change:", await reconciler.wait_in_sync(timeout=5))


asyncio.run(main())
