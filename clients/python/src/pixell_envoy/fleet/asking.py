"""Asking silent tasks whether their Envoy still runs and can be reached."""

from __future__ import annotations

import asyncio
import errno
import math
import socket
import time
from collections.abc import Mapping
from typing import Callable, Optional

from .record import Record

# Seconds for one question: long enough for a second attempt of TCP, which follows a lost one after 1 s.
LIMIT = 1.2

# What this process or its machine lacks says nothing about the task.
_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)

# How many tasks are asked at the same time.
_MOST = 250


class Asking:
    """Asks in the background, each task every `pause` seconds, and calls `told` with its record and the result.

    Make it in the event loop. It opens a connection to the port for peers, and half closes it without sending a byte,
    as a client that leaves does. Envoy then closes it. This shows that the task's Envoy runs and can be reached, even
    if the task cannot reach the directory. An open connection alone does not show this: the kernel also opens it for a
    process that is frozen.

    `told` is not called for a question that this process could not ask.
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
            result = await responds(record.host, self._port, LIMIT)
        self._due[record.task] = self._clock() + self._pause
        if result is not None:
            self._told(record, result)


async def responds(host: str, port: int, seconds: float) -> Optional[bool]:
    """Whether what listens at this IP address closes a connection that is half closed, within so many seconds.

    None if this process lacks files, memory or ports to ask. Raises nothing.
    """
    try:
        connection = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        return None if error.errno in _OWN else False
    with connection:
        connection.setblocking(False)
        asking = asyncio.get_running_loop().create_task(_exchange(connection, (host, port)))
        try:
            await asyncio.wait({asking}, timeout=seconds)
        finally:
            asking.cancel()
            # The event loop must not watch a socket that has been closed.
            (result,) = await asyncio.gather(asking, return_exceptions=True)
    if isinstance(result, OSError) and result.errno in _OWN:
        return None
    return result is True


async def _exchange(connection: socket.socket, address: tuple[str, int]) -> bool:
    """Connects, half closes, and returns True at the first sign of life. Raises OSError."""
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, address)
    try:
        connection.shutdown(socket.SHUT_WR)
        await loop.sock_recv(connection, 1)
    except OSError as error:
        # The peer closed the connection before it was half closed, or reset it.
        return error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
    return True
