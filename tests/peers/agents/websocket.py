"""An agent of the package websockets: echoes, closes when it is told so, and says goodbye when it is stopped."""

from __future__ import annotations

import asyncio
import signal
import sys

from websockets.asyncio.server import ServerConnection, serve


async def talk(socket: ServerConnection) -> None:
    async for message in socket:
        if message == "close":
            return await socket.close(4001, "as you wish")
        await socket.send(message)
    return None


async def main(port: int) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with serve(talk, "127.0.0.1", port) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        # The end of the block closes each connection with 1001, "going away".
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[2])))
