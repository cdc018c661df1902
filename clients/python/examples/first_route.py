import asyncio, pixell_envoy
async def main() -> None:
    async with pixell_envoy.RouteApiClient("http://127.0.0.1:9901") as envoy:
        print(await envoy.put_route("agent-a", 50054))
asyncio.run(main())
