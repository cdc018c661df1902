"""PAR in a fleet: what it registers is known to all tasks, and the end of this task is announced."""

import asyncio

from pixell_envoy import EnvoyManager
from pixell_envoy.fleet import Fleet, MemoryDirectory


async def main() -> None:
    envoy = EnvoyManager("http://127.0.0.1:9901")
    # In production RedisDirectory("rediss://redis.internal:6379/0", fleet="prod", password_file="/run/secrets/redis")
    # or DynamoDbDirectory("pixell-fleet", fleet="prod", role_id=os.environ["PIXELL_FLEET_ROLE_ID"]).
    # On ECS, Fleet finds out task_id and host by itself.
    directory = MemoryDirectory(fleet="prod")
    try:
        async with Fleet(envoy, directory, task_id="task-a", host="10.0.1.7") as fleet:
            print("registered:", await envoy.register_agent("agent-a", 50054))
            print("other tasks:", list(fleet.peers))
            # On SIGTERM, before the agents stop:
            print("the others send nothing more here:", await fleet.drain())
    finally:
        await envoy.close()


asyncio.run(main())
