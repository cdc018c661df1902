"""What a manager was asked for: the routes of its agents, removals still to be confirmed, and the calls in flight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Callable, Optional
from weakref import WeakValueDictionary

from .displacement import Displacement
from .errors import FaultyRequest, InvalidArgument
from .models import Route

# The request itself is wrong: a retry would fail as well.
WRONG = (FaultyRequest, InvalidArgument)


class Registry:
    """Routes by deployment id, as last asked for.

    None stands for an id that was deregistered. It is kept until Envoy's map has been read without the id, so that a
    removal that did not reach Envoy is retried.

    `on_displaced` is called once for each route that another id displaces, unless it was deregistered. `on_changed` is
    called after each change of what is asked for.
    """

    def __init__(
        self,
        on_displaced: Callable[[Displacement], None] = lambda _: None,
        on_changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._routes: dict[str, Optional[Route]] = {}
        self._in_flight: list[tuple[str, Optional[Route]]] = []
        self._on_displaced = on_displaced
        self._on_changed = on_changed
        # Displaced ids that have been reported already, and that Envoy's response may name as well.
        self._reported: set[str] = set()
        self._replacing = 0
        self._push_ended: Optional[asyncio.Event] = None
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def wanted(self) -> dict[str, Route]:
        """All routes that are asked for, except those of calls in flight."""
        return {key: route for key, route in self._routes.items() if route is not None}

    def settled(self) -> dict[str, Optional[Route]]:
        """All routes except those that a call in flight may change: its own id's, and those with one of its ports."""
        if self._replacing:
            return {}
        ids = {deployment_id for deployment_id, _ in self._in_flight}
        ports = {port for _, route in self._in_flight for port in _ports(route)}
        return {key: route for key, route in self._routes.items() if key not in ids and ports.isdisjoint(_ports(route))}

    @asynccontextmanager
    async def asking(self, deployment_id: str, route: Optional[Route]) -> AsyncIterator[None]:
        """Marks a call in flight that asks for one id at `route`, or for its removal.

        Calls for the same id wait for each other, in the order in which they were made. At the end `route` is noted as
        asked for, unless the body raises one of WRONG: a call that failed otherwise, or was cancelled, may have reached
        Envoy, and it is still wanted.
        """
        async with self._locks.setdefault(deployment_id, asyncio.Lock()):
            await self._no_push()
            with self._in_flight_until_noted(deployment_id, route):
                yield

    @asynccontextmanager
    async def draining(self, deployment_id: str) -> AsyncIterator[Optional[Route]]:
        """Like `asking` for the id's own route, draining. It is None, and nothing is noted, if the id has no route."""
        async with self._locks.setdefault(deployment_id, asyncio.Lock()):
            await self._no_push()
            known = self._routes.get(deployment_id)
            if known is None:
                yield None
                return
            route = replace(known, state="draining")
            with self._in_flight_until_noted(deployment_id, route):
                yield route

    def forget(self, deployment_ids: Iterable[str]) -> None:
        """Drops ids that Envoy does not accept."""
        dropped = [self._routes.pop(deployment_id, None) for deployment_id in deployment_ids]
        if any(route is not None for route in dropped):
            self._on_changed()

    def drop_confirmed_removals(self) -> None:
        """Call it when Envoy's map has just been read and agrees with `settled`."""
        self.forget([key for key, route in self.settled().items() if route is None])
        self._reported.clear()

    def displaced(self, deployment_id: str, by: str, ports: tuple[int, ...]) -> None:
        """Call it when Envoy says that `by` has displaced a route."""
        if deployment_id in self._reported:
            self._reported.discard(deployment_id)
        elif deployment_id not in self._routes:
            # Not a route of this manager: an earlier PAR left it, or another writer pushed it.
            self._on_displaced(Displacement(deployment_id, by, ports))

    @contextmanager
    def pushing(self) -> Iterator[None]:
        """Marks a push in flight of what `settled` has just returned.

        Calls wait for its end, so that it does not take effect after them.
        """
        ended = self._push_ended = asyncio.Event()
        try:
            yield
        finally:
            self._push_ended = None
            ended.set()

    @asynccontextmanager
    async def replacing(self, routes: Mapping[str, Route]) -> AsyncIterator[None]:
        """Marks a replacement in flight of the whole map by `routes`.

        At the end `routes` are noted as asked for, together with all that was asked for meanwhile, unless the body
        raises one of WRONG.
        """
        await self._no_push()
        before = dict(self._routes)
        wrong = False
        self._replacing += 1
        try:
            yield
        except WRONG:
            wrong = True
            raise
        finally:
            self._replacing -= 1
            if not wrong:
                self._replace(before, routes)

    @contextmanager
    def _in_flight_until_noted(self, deployment_id: str, route: Optional[Route]) -> Iterator[None]:
        entry = (deployment_id, route)
        wrong = False
        self._in_flight.append(entry)
        try:
            yield
        except WRONG:
            wrong = True
            raise
        finally:
            self._in_flight.remove(entry)
            if not wrong:
                self._note(deployment_id, route)
                self._on_changed()

    async def _no_push(self) -> None:
        while self._push_ended is not None:
            await self._push_ended.wait()

    def _note(self, deployment_id: str, route: Optional[Route]) -> None:
        # One port serves one id: an id that had this port is no longer asked for.
        for key, known in list(self._routes.items()):
            if key != deployment_id and shared_ports(known, route):
                del self._routes[key]
                self._reported.add(key)
                # A call in flight for that id gives it another port or removes it.
                if all(called != key for called, _ in self._in_flight):
                    self._on_displaced(Displacement(key, deployment_id, shared_ports(known, route)))
        self._routes[deployment_id] = route
        self._reported.discard(deployment_id)

    def _replace(self, before: Mapping[str, Optional[Route]], routes: Mapping[str, Route]) -> None:
        newer = {key: route for key, route in self._routes.items() if key not in before or before[key] != route}
        self._routes = {**dict.fromkeys(before), **routes}
        for deployment_id, route in newer.items():
            self._note(deployment_id, route)
        self._on_changed()


def _ports(route: Optional[Route]) -> tuple[int, ...]:
    return () if route is None else route.ports


def shared_ports(one: Optional[Route], other: Optional[Route]) -> tuple[int, ...]:
    """The ports that both have."""
    return tuple(port for port in _ports(one) if port in _ports(other))
