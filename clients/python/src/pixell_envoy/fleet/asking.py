"""Asking silent tasks whether they still accept connections."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Mapping
from typing import Callable

from .record import Record

# Seconds for one connection: long enough for a second attempt of TCP, which follows a lost one after 1 s.
LIMIT = 1.2

# How many tasks are asked at the same time.
_MOST = 250


class Asking:
    """Asks in the background, each task every `pause` seconds, and calls `told` with its record and the result.

    Make it in the event loop. A connection to the port for peers is opened, and closed without a byte: this shows that
    the task's Envoy runs and can be reached, whatever has become of its way to the directory.
    """

    def __init__(
        self,
        port: int,
        pause: float,
        told: Callable[[Record, bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._port = port
        self._pause = pause
        self._told = told
        self._clock = clock
        # When each task may be asked again: never while it is being asked.
        self._due: dict[str, float] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(_MOST)

    def follow(self, silent: Mapping[str, Record]) -> None:
        """Asks those of the silent tasks that are due. Returns at once."""
        now = self._clock()
        self._due = {task: at for task, at in self._due.items() if task in silent or at == math.inf}
        for task, record in silent.items():
            if self._due.get(task, now) <= now:
                self._due[task] = math.inf
                running = asyncio.get_running_loop().create_task(self._ask(record))
                self._running.add(running)
                running.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Ends all questions."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _ask(self, record: Record) -> None:
        async with self._turns:
            responds = await accepts(record.host, self._port, LIMIT)
        self._due[record.task] = self._clock() + self._pause
        self._told(record, responds)


async def accepts(host: str, port: int, seconds: float) -> bool:
    """Whether this IP address accepts a TCP connection within so many seconds. Raises nothing."""
    loop = asyncio.get_running_loop()
    try:
        connection = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return False
    with connection:
        connection.setblocking(False)
        connecting = loop.create_task(loop.sock_connect(connection, (host, port)))
        try:
            await asyncio.wait({connecting}, timeout=seconds)
        finally:
            connecting.cancel()
            # The event loop must not watch a socket that has been closed.
            (error,) = await asyncio.gather(connecting, return_exceptions=True)
    return error is None
