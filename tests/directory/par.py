"""PAR in a fleet whose directory is DynamoDB. Does what each line of its input says, and repeats it when it is done.

par.py ENDPOINT TASK_ID HOST TTL
"""

import asyncio
import sys

from pixell_envoy import EnvoyManager
from pixell_envoy.fleet import DynamoDbDirectory, Fleet


async def main(url: str, task_id: str, host: str, ttl: str) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    envoy = EnvoyManager("http://127.0.0.1:9901")
    directory = DynamoDbDirectory("fleet", fleet="test", region="us-east-2", endpoint_url=url)
    try:
        async with Fleet(envoy, directory, task_id=task_id, host=host, ttl=float(ttl)) as fleet:
            async for line in lines:
                step, *arguments = line.decode().split()
                if step == "register":
                    done = await envoy.register_agent(arguments[0], int(arguments[1]))
                elif step == "drain":
                    done = await envoy.drain_agent(arguments[0]) and await envoy.wait_idle(int(arguments[1]), 20.0)
                elif step == "deregister":
                    done = await envoy.deregister_agent(arguments[0])
                else:
                    done = await fleet.announce()
                print(line.decode().strip() if done else f"{step} failed", flush=True)
    finally:
        await envoy.close()


asyncio.run(main(*sys.argv[1:]))
