"""A TCP proxy between a directory and its store: it delays, refuses, cuts or swallows what passes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Literal, Optional

Mode = Literal["pass", "refuse", "silent"]


class TcpProxy:
    """Passes connections on to `port` of the loopback interface. An async context manager."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._mode: Mode = "pass"
        self.delay = 0.0
        """Seconds that each piece of data waits, in each direction."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: Optional[asyncio.Server] = None
        self.port = 0

    def set(self, mode: Mode) -> None:
        """`refuse` closes all connections, now and later, and `silent` lets nothing pass any more."""
        self._mode = mode
        if mode != "silent":
            for task in self._tasks:
                task.cancel()

    async def __aenter__(self) -> TcpProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        # Connections that have just been accepted get their task first.
        await asyncio.sleep(0.05)
        self.set("refuse")
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        upstream: Optional[asyncio.StreamWriter] = None
        try:
            if self._mode != "refuse":
                back, upstream = await asyncio.open_connection("127.0.0.1", self._target)
                both = [self._pump(reader, upstream), self._pump(back, writer)]
                pumps = [asyncio.get_running_loop().create_task(each) for each in both]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.wait(pumps)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, upstream):
                if each is not None:
                    each.close()
                    each.transport.abort()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(self.delay)
                while self._mode == "silent":
                    await asyncio.sleep(0.05)
                writer.write(data)
                await writer.drain()
