"""A transport that loses what a network loses: responses before they arrive, requests before they are sent."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Callable, Optional

import httpx


class FaultyTransport(httpx.AsyncBaseTransport):
    """Passes requests on to the real transport, with one of the faults given for each write; then works normally.

    `meanwhile` runs after the first write with a fault, so that another writer can write then.
    """

    def __init__(self, faults: Iterable[str], meanwhile: Optional[Callable[[], Awaitable[object]]] = None) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self._faults: list[str] = list(faults)
        self._meanwhile = meanwhile
        self.writes = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return await self._inner.handle_async_request(request)
        self.writes += 1
        fault = self._faults.pop(0) if self._faults else "none"
        if fault == "none":
            return await self._inner.handle_async_request(request)
        if fault == "response lost":
            await (await self._inner.handle_async_request(request)).aread()
        await self._run_meanwhile()
        error: type[httpx.TransportError] = httpx.ConnectError if fault == "not connected" else httpx.ReadError
        raise error(fault)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _run_meanwhile(self) -> None:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            await meanwhile()
