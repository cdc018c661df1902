"""A background task that keeps Envoy's map equal to the wanted one."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Callable, Optional, Union

from .backoff import Backoff
from .client import RouteApiClient
from .difference import difference
from .errors import FaultyRequest, InvalidArgument, PreconditionFailed, RouteApiError, Unreachable
from .log import logger_of
from .models import MapVersion, Route, RouteLike, RouteMap, RoutePatch, as_route

logger = logger_of(__name__)

WantedRoutes = Mapping[str, Optional[RouteLike]]
"""Routes by deployment id. None means that the id must have no route; only `keep_unknown` makes this necessary."""

Wanted = Callable[[], Union[WantedRoutes, Awaitable[WantedRoutes]]]

# The longest delay is well below 5 s: within that time a restarted Envoy must have its map back.
_BACKOFF = Backoff(first=0.1, longest=2.0)


@dataclass(frozen=True)
class ReconcilerState:
    """The state of a Reconciler. `version` is that of the map last read; `last_error` is None after a success."""

    in_sync: bool = False
    version: Optional[MapVersion] = None
    last_error: Optional[Exception] = None


class Reconciler:
    """Makes Envoy's map equal to what `wanted` returns: at start, after each `changed()`, and whenever the two differ.

    Every `poll` seconds it asks Envoy whether its map has changed (304 if not). So an Envoy that was restarted, and has
    lost its map, gets it back within `poll`, or within the longest `backoff` once it responds.

    `wanted` is called, or awaited, at every poll. While it raises, Envoy's map stays as it is. So raise in it until the
    wanted routes are known: an empty mapping removes all routes. It must not block. Ids that it does not name are
    removed, or kept if `keep_unknown` is set. Stopping never removes a route: Envoy keeps serving the last map.

    Each pass reads Envoy's map, then calls `wanted`, then writes on the condition that the map is still the one it
    read. So it never undoes a write that another writer makes meanwhile and that `wanted` may not know yet.

    `on_in_sync` is called after every pass that found nothing to do, `on_refused` if Envoy rejects the wanted map (409,
    413, 422), `on_displaced` for each id that a push displaced, with its route and the map pushed. The context manager
    that `while_pushing` returns is entered before each write and left after its response. If `wanted` is synchronous,
    there is no await between its call and the entering.
    """

    def __init__(
        self,
        client: RouteApiClient,
        wanted: Wanted,
        *,
        keep_unknown: bool = False,
        poll: float = 1.0,
        backoff: Backoff = _BACKOFF,
        on_in_sync: Optional[Callable[[], None]] = None,
        on_refused: Optional[Callable[[FaultyRequest], None]] = None,
        on_displaced: Optional[Callable[[str, Route, Mapping[str, Optional[Route]]], None]] = None,
        while_pushing: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        if not poll > 0:
            raise InvalidArgument(f"poll is a number of seconds above 0, not {poll!r}")
        self._client = client
        self._wanted = wanted
        self._keep_unknown = keep_unknown
        self._poll = poll
        self._backoff = backoff
        self._on_in_sync = on_in_sync
        self._on_refused = on_refused
        self._on_displaced = on_displaced
        self._while_pushing = while_pushing
        self._state = ReconcilerState()
        self._task: Optional[asyncio.Task[None]] = None
        self._seen: Optional[RouteMap] = None
        self._changes = 0

    @property
    def state(self) -> ReconcilerState:
        """The state now."""
        return self._state

    @property
    def last_read(self) -> Optional[RouteMap]:
        """Envoy's map as it was last read."""
        return self._seen

    def start(self) -> None:
        """Starts the task in the running event loop; does nothing if it runs already."""
        if self._task is not None and not self._task.done():
            return
        # Not in the constructor: in Python 3.9 an event belongs to the loop that is current when it is made.
        self._wake = asyncio.Event()
        self._synced = asyncio.Event()
        self._seen = None
        self._state = ReconcilerState()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Ends the task and waits until it has ended. Routes stay. Can be called several times."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def __aenter__(self) -> Reconciler:
        self.start()
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        await self.stop()

    def changed(self) -> None:
        """Says that `wanted` now returns something else, so that it is pushed at once and not at the next poll.

        Call it in the thread of the event loop.
        """
        self._changes += 1
        if self._task is not None:
            self._out_of_sync()
            self._wake.set()

    async def wait_in_sync(self, timeout: Optional[float] = None) -> bool:
        """Waits until a read has shown Envoy's map equal to the wanted one, with every change reported so far.

        False after `timeout` seconds, or if the task ends meanwhile.
        """
        if self._task is None:
            raise RuntimeError("the reconciler has not been started")
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while not self._state.in_sync and not self._task.done():
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                break
            waiter = loop.create_task(self._synced.wait())
            try:
                await asyncio.wait({waiter, self._task}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiter.cancel()
        return self._state.in_sync

    async def _run(self) -> None:
        try:
            await self._reconcile_for_ever()
        finally:
            self._out_of_sync()

    async def _reconcile_for_ever(self) -> None:
        delays = self._backoff.delays()
        unsettled = 0
        while True:
            self._wake.clear()
            try:
                in_sync = await self._pass()
            except Exception as error:  # Only a cancellation may end this task; `wanted` may raise anything.
                self._failed(error)
                # A change may correct a map that Envoy rejected, but it does not make Envoy reachable.
                await self._wait(next(delays), interruptible=not isinstance(error, Unreachable))
                continue
            if in_sync:
                delays = self._backoff.delays()
                unsettled = 0
                await self._wait(self._poll)
            else:
                # The next pass confirms the push. If the maps still differ, another writer works against this one.
                unsettled += 1
                await self._wait(0 if unsettled == 1 else next(delays))

    async def _pass(self) -> bool:
        """Compares the maps and pushes what differs. True if there was nothing to do."""
        current = await self._read()
        changes = self._changes
        wanted = await self._read_wanted()
        patch = difference(current.routes, wanted, self._keep_unknown)
        # An empty map is pushed as well if Envoy has none, so that clients get "not found" and not "not loaded".
        if patch or not (current.version.loaded or self._keep_unknown):
            with self._while_pushing():
                await self._push(current, wanted, patch)
            return False
        if changes == self._changes:
            self._succeeded(current.version)
        return True

    async def _read(self) -> RouteMap:
        if self._seen is None:
            self._seen = await self._client.get_routes()
        else:
            self._seen = await self._client.get_routes_if_changed(self._seen.version) or self._seen
        return self._seen

    async def _read_wanted(self) -> dict[str, Optional[Route]]:
        wanted = self._wanted()
        if inspect.isawaitable(wanted):
            wanted = await wanted
        return {key: None if route is None else as_route(route) for key, route in wanted.items()}

    async def _push(
        self, current: RouteMap, wanted: Mapping[str, Optional[Route]], patch: Mapping[str, Optional[RoutePatch]]
    ) -> None:
        self._out_of_sync()
        try:
            if self._keep_unknown:
                result = await self._client.patch_routes(patch, if_match=current.version)
            else:
                routes = {key: route for key, route in wanted.items() if route is not None}
                result = await self._client.replace_routes(routes, if_match=current.version)
        except PreconditionFailed:
            logger.debug("the map has changed since %s; reading it again", current.version.etag)
            return
        except FaultyRequest as error:
            if self._on_refused is not None:
                self._on_refused(error)
            raise
        logger.info(
            "pushed routes to Envoy: %d added, %d changed, %d removed, displaced %s, map is now %s",
            result.added,
            result.changed,
            result.removed,
            list(result.displaced),
            result.version.etag,
        )
        if self._on_displaced is not None:
            for deployment_id in result.displaced:
                # `current` has the route, because the push was made on the condition that the map was still `current`.
                if (route := current.routes.get(deployment_id)) is not None:
                    self._on_displaced(deployment_id, route, wanted)

    def _succeeded(self, version: MapVersion) -> None:
        if self._state.last_error is not None:
            logger.info("Envoy has the wanted map again")
        self._state = ReconcilerState(in_sync=True, version=version)
        self._synced.set()
        if self._on_in_sync is not None:
            self._on_in_sync()

    def _failed(self, error: Exception) -> None:
        # WARNING or ERROR once for each new reason, not for each attempt.
        is_news = repr(error) != repr(self._state.last_error)
        level = logging.WARNING if isinstance(error, Unreachable) else logging.ERROR
        logger.log(
            level if is_news else logging.DEBUG,
            "cannot reconcile the route map, will retry: %r",
            error,
            # The trace of an error of this package says no more than the message.
            exc_info=None if isinstance(error, RouteApiError) else error,
        )
        self._state = replace(self._state, last_error=error)
        self._out_of_sync()

    def _out_of_sync(self) -> None:
        self._state = replace(self._state, in_sync=False)
        self._synced.clear()

    async def _wait(self, delay: float, interruptible: bool = True) -> None:
        if not interruptible:
            await asyncio.sleep(delay)
            return
        # A timer, because until Python 3.11 asyncio.wait_for can swallow a cancellation.
        timer = asyncio.get_running_loop().call_later(delay, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
