"""PAR in a fleet, until SIGTERM.

task.py REDIS_URL TASK_ID HOST DEPLOYMENT_ID=PORT...
"""

import asyncio
import signal
import sys

from pixell_envoy import EnvoyManager
from pixell_envoy.fleet import Fleet, RedisDirectory


async def main(url: str, task_id: str, host: str, *agents: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    envoy = EnvoyManager("http://127.0.0.1:9901")
    try:
        async with Fleet(envoy, RedisDirectory(url, fleet="example"), task_id=task_id, host=host) as fleet:
            for agent in agents:
                deployment_id, _, port = agent.partition("=")
                await envoy.register_agent(deployment_id, int(port))
            await stop.wait()
            # The other tasks send nothing more here. After this, agents may end.
            await fleet.drain()
    finally:
        await envoy.close()


asyncio.run(main(*sys.argv[1:]))
