"""What PAR does: it has one EnvoyManager for its lifetime, and calls it when an agent starts or stops."""

import asyncio

from pixell_envoy import EnvoyManager


async def main() -> None:
    envoy = EnvoyManager("http://127.0.0.1:9901")
    try:
        print("healthy:", await envoy.check_health())
        print("all agents at boot:", await envoy.replace_agents({"agent-a": 50054, "agent-b": 50055}))
        print("agent started:", await envoy.register_agent("agent-c", 50056))
        print("agent stopped:", await envoy.deregister_agent("agent-b"))
    finally:
        await envoy.close()


asyncio.run(main())
