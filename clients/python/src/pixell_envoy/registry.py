"""What a manager was asked for: the ports of its agents, removals still to be proven, and the calls under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Optional
from weakref import WeakValueDictionary

from .errors import FaultyRequest, InvalidArgument

# What was asked for is wrong in itself and stays so.
AT_FAULT = (FaultyRequest, InvalidArgument)


class Registry:
    """Ports by deployment id, as last asked for.

    None stands for an id that was deregistered. It is kept until Envoy's map has been seen without the id, so that a
    removal which did not reach Envoy is made up for.
    """

    def __init__(self) -> None:
        self._ports: dict[str, Optional[int]] = {}
        self._under_way: list[tuple[str, Optional[int]]] = []
        self._replacing = 0
        self._push_ended: Optional[asyncio.Event] = None
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def settled(self) -> dict[str, Optional[int]]:
        """All but what a call under way may be changing: its id, and an id whose port it gives to another."""
        if self._replacing:
            return {}
        ids = {deployment_id for deployment_id, _ in self._under_way}
        ports = {port for _, port in self._under_way if port is not None}
        return {key: port for key, port in self._ports.items() if key not in ids and port not in ports}

    @asynccontextmanager
    async def asking(self, deployment_id: str, port: Optional[int]) -> AsyncIterator[None]:
        """Marks a call that asks for one id on `port`, or for its removal, as under way.

        Calls for the same id wait for each other, in the order in which they were made. Unless the body says that the
        request is at fault, this is then what was asked for: a call that failed otherwise, or was cancelled, may have
        reached Envoy, and it is still wanted.
        """
        async with self._locks.setdefault(deployment_id, asyncio.Lock()):
            await self._no_push()
            entry = (deployment_id, port)
            at_fault = False
            self._under_way.append(entry)
            try:
                yield
            except AT_FAULT:
                at_fault = True
                raise
            finally:
                self._under_way.remove(entry)
                if not at_fault:
                    self._note(deployment_id, port)

    def forget(self, deployment_ids: Iterable[str]) -> None:
        """Drops ids that Envoy does not accept."""
        for deployment_id in deployment_ids:
            self._ports.pop(deployment_id, None)

    def drop_proven_removals(self) -> None:
        """To be called when Envoy's map has just been seen to agree with `settled`."""
        proven = [key for key, port in self.settled().items() if port is None]
        self.forget(proven)

    @contextmanager
    def pushing(self) -> Iterator[None]:
        """Marks a push of what `settled` has just returned as under way.

        Calls wait for its end, lest it takes effect after them.
        """
        ended = self._push_ended = asyncio.Event()
        try:
            yield
        finally:
            self._push_ended = None
            ended.set()

    @asynccontextmanager
    async def replacing(self, ports: Mapping[str, int]) -> AsyncIterator[None]:
        """Marks a replacement of the whole map by `ports` as under way.

        Unless the body says that the request is at fault, `ports` is then what was asked for, together with all that
        was asked for meanwhile.
        """
        await self._no_push()
        before = dict(self._ports)
        at_fault = False
        self._replacing += 1
        try:
            yield
        except AT_FAULT:
            at_fault = True
            raise
        finally:
            self._replacing -= 1
            if not at_fault:
                self._replace(before, ports)

    async def _no_push(self) -> None:
        while self._push_ended is not None:
            await self._push_ended.wait()

    def _note(self, deployment_id: str, port: Optional[int]) -> None:
        # One port serves one id: another one that had it is no longer asked for.
        self._ports = {key: known for key, known in self._ports.items() if port is None or known != port}
        self._ports[deployment_id] = port

    def _replace(self, before: Mapping[str, Optional[int]], ports: Mapping[str, int]) -> None:
        newer = {key: port for key, port in self._ports.items() if key not in before or before[key] != port}
        self._ports = {**dict.fromkeys(before), **ports}
        for deployment_id, port in newer.items():
            self._note(deployment_id, port)
