"""Waits that end: an event with a time limit, and a call with one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from .errors import DirectoryUnavailable

T = TypeVar("T")


class Wake:
    """Ends a wait early. Make it in the event loop: in Python 3.9 an event belongs to the loop that is current."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Ends the wait in flight, or the next one."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Waits until `set` is called, but at most `seconds`."""
        # A timer, because until Python 3.11 asyncio.wait_for can swallow a cancellation.
        timer = asyncio.get_running_loop().call_later(seconds, self._event.set)
        try:
            await self._event.wait()
        finally:
            timer.cancel()
        self._event.clear()


async def within(seconds: float, call: Coroutine[Any, Any, T]) -> T:
    """The result of a directory's call. Raises DirectoryUnavailable if it takes longer, or what the call raises."""
    task = asyncio.get_running_loop().create_task(call)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done() or task.cancelled():
            raise DirectoryUnavailable(f"the directory has not responded within {seconds:g} s")
        return task.result()
    finally:
        if not task.done():
            task.add_done_callback(_retrieve)
            task.cancel()


def _retrieve(task: asyncio.Task[Any]) -> None:
    # Without this, an error that comes too late would be logged as never retrieved.
    if not task.cancelled():
        task.exception()
