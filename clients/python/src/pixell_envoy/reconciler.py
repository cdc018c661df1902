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
from .models import MapVersion, Route, RouteLike, RouteMap, as_route

logger = logging.getLogger(__name__)

WantedRoutes = Mapping[str, Optional[RouteLike]]
"""Routes by deployment id. None says that the id must have no route, which only matters with `keep_unknown`."""

Wanted = Callable[[], Union[WantedRoutes, Awaitable[WantedRoutes]]]

# Longest well below the 5 s within which a restarted Envoy has to have its map back.
_BACKOFF = Backoff(first=0.1, longest=2.0)


@dataclass(frozen=True)
class ReconcilerState:
    """How things stand. `version` is that of the map last read; `last_error` is None after a success."""

    in_sync: bool = False
    version: Optional[MapVersion] = None
    last_error: Optional[Exception] = None


class Reconciler:
    """Makes Envoy's map equal to what `wanted` returns: at start, after each `changed()`, and whenever the two differ.

    That they differ is found by asking Envoy every `poll` seconds whether its map has changed (304 where not), so an
    Envoy that was restarted, and has lost its map, gets it back within `poll`, or within the longest `backoff` after it
    answers again.

    `wanted` is called, or awaited, at every poll. As long as it raises, Envoy's map is left as it is: raise in it until
    the truth is known, an empty mapping removes everything. It must not block. Ids that it does not name are removed,
    or with `keep_unknown` left alone. Stopping never removes a route: Envoy serves the last map on.

    Each pass reads Envoy's map, then calls `wanted`, then writes on the condition that the map is still the one it
    read. So a write that someone else makes meanwhile, and that `wanted` may not know yet, is never undone by an older
    truth.

    `on_in_sync` is called after every pass that found nothing to do, `on_refused` with each refusal of the wanted map
    (409, 413, 422). The context manager that `while_pushing` returns is entered before each write, with no await after
    a synchronous `wanted`, and left after its answer.
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
        self._while_pushing = while_pushing
        self._state = ReconcilerState()
        self._task: Optional[asyncio.Task[None]] = None
        self._seen: Optional[RouteMap] = None
        self._changes = 0

    @property
    def state(self) -> ReconcilerState:
        """How things stand now."""
        return self._state

    def start(self) -> None:
        """Starts the task in the running event loop; does nothing where it runs already."""
        if self._task is not None and not self._task.done():
            return
        # Made here and not in the constructor: in Python 3.9 an event belongs to the loop of the moment it was made.
        self._wake = asyncio.Event()
        self._synced = asyncio.Event()
        self._seen = None
        self._state = ReconcilerState()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Ends the task and waits until it has ended. Routes stay. Can be repeated."""
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

        To be called in the event loop's own thread.
        """
        self._changes += 1
        if self._task is not None:
            self._out_of_sync()
            self._wake.set()

    async def wait_in_sync(self, timeout: Optional[float] = None) -> bool:
        """Waits until Envoy's map has been seen equal to the wanted one, all changes told so far included.

        False after `timeout` seconds, or where the task ends meanwhile.
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
            except Exception as error:  # Nothing may end this task but its cancellation; `wanted` may raise anything.
                self._failed(error)
                # A change may cure a refused map, but it does not bring Envoy back.
                await self._wait(next(delays), interruptible=not isinstance(error, Unreachable))
                continue
            if in_sync:
                delays = self._backoff.delays()
                unsettled = 0
                await self._wait(self._poll)
            else:
                # The next pass proves the push. Where the maps keep differing, another writer works against this one.
                unsettled += 1
                await self._wait(0 if unsettled == 1 else next(delays))

    async def _pass(self) -> bool:
        """Whether nothing was to be done."""
        current = await self._read()
        changes = self._changes
        wanted = await self._read_wanted()
        patch = difference(current.routes, wanted, self._keep_unknown)
        # An empty map is pushed too where none has been, so that callers are told "not found" and no more "not loaded".
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
        self, current: RouteMap, wanted: Mapping[str, Optional[Route]], patch: Mapping[str, Optional[Route]]
    ) -> None:
        self._out_of_sync()
        try:
            if self._keep_unknown:
                result = await self._client.patch_routes(patch, if_match=current.version)
            else:
                routes = {key: route for key, route in wanted.items() if route is not None}
                result = await self._client.replace_routes(routes, if_match=current.version)
        except PreconditionFailed:
            logger.debug("the map has moved on from %s; reading it again", current.version.etag)
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

    def _succeeded(self, version: MapVersion) -> None:
        if self._state.last_error is not None:
            logger.info("Envoy's map is the wanted one again")
        self._state = ReconcilerState(in_sync=True, version=version)
        self._synced.set()
        if self._on_in_sync is not None:
            self._on_in_sync()

    def _failed(self, error: Exception) -> None:
        # Once for each new reason, not once for each attempt.
        is_news = repr(error) != repr(self._state.last_error)
        level = logging.WARNING if isinstance(error, Unreachable) else logging.ERROR
        logger.log(
            level if is_news else logging.DEBUG,
            "cannot reconcile the route map, will try again: %r",
            error,
            # The trace of an error of this package tells nothing that the message does not.
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
        # A timer and not asyncio.wait_for: until Python 3.11 that one can swallow a cancellation.
        timer = asyncio.get_running_loop().call_later(delay, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
