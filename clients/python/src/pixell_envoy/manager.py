"""EnvoyManager: what PAR calls when an agent comes and goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import Any, Callable, Optional, TypeVar

from .admin_token import find_token
from .client import DEFAULT_ADMIN_URL, RouteApiClient
from .displacement import Displacement
from .errors import ClientClosed, FaultyRequest, InvalidArgument, RouteApiError, Unreachable
from .log import logger_of
from .models import Route, RouteLike, RoutePatch, RouteState, as_route
from .reconciler import Reconciler
from .registry import Registry, shared_ports

logger = logger_of(__name__)

T = TypeVar("T")

_NO_ENDPOINTS: Mapping[str, int] = {}

# An agent is idle if Envoy says so twice, with these seconds in between.
_IDLE, _IDLE_POLL = 2, 0.2


class EnvoyManager:
    """Registers agents with the Envoy beside PAR. No method raises: it logs, and returns False or None.

    `token`, `timeout` and `hide_token` are those of RouteApiClient; the token is read, and hidden, by the constructor.

    The manager remembers what it was asked for. From the first registration on, a background task keeps Envoy's routes
    equal to that: an Envoy that was restarted or unreachable gets all agents back, and a removal that did not arrive is
    retried. So False means "not in Envoy now", and the manager retries until the agent is deregistered. Only a
    registration that is wrong in itself (a bad id, a port that is not allowed) is dropped. The manager never touches
    routes that it was not asked about: a restarted PAR remembers nothing, and must not remove the routes of running
    agents. Call `replace_agents` once PAR knows all its agents, to remove what is left over. `reconcile=False` turns
    the background task off.

    `on_displaced` is called if an agent loses its route because another agent was registered on its port before the
    first was deregistered. It runs in the event loop and must not block.
    """

    def __init__(
        self,
        admin_url: str = DEFAULT_ADMIN_URL,
        *,
        token: Optional[str] = None,
        timeout: float = 5.0,
        reconcile: bool = True,
        on_displaced: Optional[Callable[[Displacement], object]] = None,
        hide_token: bool = True,
    ) -> None:
        self.admin_url = admin_url
        self._token = token
        self._hide_token = hide_token
        self._timeout = timeout
        self._reconcile = reconcile
        self._on_displaced = on_displaced
        self._registry = Registry(self._report_displaced, self._tell_changed)
        self._listeners: list[Callable[[], None]] = []
        self._client: Optional[RouteApiClient] = None
        self._reconciler: Optional[Reconciler] = None
        self._closed = False
        try:
            # Now, not at the first call: an agent that is started before that call must not inherit the token.
            self._token = find_token(token, hide_token)
        except InvalidArgument:
            pass  # The file may exist at the first call. If it does not, that call logs it.

    async def register_agent(
        self,
        deployment_id: str,
        a2a_port: int,
        endpoints: Mapping[str, int] = _NO_ENDPOINTS,
        *,
        state: RouteState = "active",
    ) -> bool:
        """Routes `deployment_id` to 127.0.0.1:`a2a_port`. True means that every later request is routed there.

        `endpoints` are the agent's further ports by name, such as `{"rest": 63001, "ui": 65001}`. Each call states all
        of them. Another id that had one of the ports loses its route: see `on_displaced`. In the state `draining` the
        agent has its ports, but gets no requests yet: while it starts, other tasks of the fleet that have it serve it.
        """
        where = f"on port {a2a_port!r}" + (f" with endpoints {endpoints!r}" if endpoints else "")
        where += "" if state == "active" else f", {state}"
        call = self._register(deployment_id, a2a_port, endpoints, state, where)
        return await self._attempt(f"register {deployment_id!r} {where}", call) is not None

    async def deregister_agent(self, deployment_id: str) -> bool:
        """Removes the route of `deployment_id`. Also True if there was none. Requests that its agent has go on."""
        return await self._attempt(f"deregister {deployment_id!r}", self._deregister(deployment_id)) is not None

    async def drain_agent(self, deployment_id: str) -> bool:
        """Lets no new request reach `deployment_id`; its agent keeps the requests that it has. True on success.

        New requests go to another task of the fleet that has the agent. If there is none, they are rejected with
        `deployment_draining`. `register_agent` ends the draining, `deregister_agent` removes the route.
        """
        return await self._attempt(f"drain {deployment_id!r}", self._drain(deployment_id)) is not None

    async def replace_agents(self, agents: Mapping[str, RouteLike]) -> bool:
        """Makes these agents (a port or Route by deployment id) the only ones, in one step. For the start of PAR.

        Agents that `agents` does not name count as deregistered.
        """
        return await self._attempt("replace all routes", self._replace(agents)) is not None

    def agents(self) -> dict[str, Route]:
        """The agents that this manager was asked for, with their states. Calls in flight do not count yet."""
        return self._registry.wanted()

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls `listener` after each change of `agents`, in the event loop. Returns a function that ends this."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def client(self) -> RouteApiClient:
        """The manager's own client of the route API, which `close` closes.

        Raises ClientClosed after `close`, and InvalidArgument if the admin URL or the token is not valid.
        """
        return self._open(reconcile=False)

    async def check_health(self) -> bool:
        """Whether Envoy is ready."""
        return await self._attempt("check the health of Envoy", self._is_ready()) or False

    async def get_stats(self) -> Optional[dict[str, Any]]:
        """Envoy's statistics as `GET /stats?format=json` gives them."""
        return await self._attempt("read the statistics of Envoy", self._stats())

    async def wait_idle(self, port: int, seconds: float) -> bool:
        """Waits until the agent at this port has no request any more, before it is stopped.

        For an agent that gets no new ones: its id drains, has been deregistered or has another port. If an active agent
        is registered at the port, the previous one has ended, and the result is True at once. False if the agent still
        has requests after `seconds`, or if Envoy cannot tell.
        """
        return await self._attempt(f"wait for the requests at port {port!r}", self._until_idle(port, seconds)) or False

    async def close(self) -> None:
        """Stops the background task and closes the connections; routes stay. Later calls fail.

        Can be called several times.
        """
        self._closed = True
        try:
            if self._reconciler is not None:
                await self._reconciler.stop()
        finally:
            if self._client is not None:
                await self._client.close()

    async def _register(
        self, deployment_id: str, port: int, endpoints: Mapping[str, int], state: RouteState, where: str
    ) -> bool:
        route = as_route(Route(port, state, endpoints))
        client = self._open(reconcile=self._reconcile)
        async with self._registry.asking(deployment_id, route):
            result = await client.put_route(deployment_id, route)
        for displaced in result.displaced:
            self._registry.displaced(displaced, deployment_id, self._ports_taken(displaced, route))
        logger.info("registered %r %s, the map is now %s", deployment_id, where, result.version.etag)
        return True

    async def _deregister(self, deployment_id: str) -> bool:
        client = self._open(reconcile=self._reconcile)
        try:
            async with self._registry.asking(deployment_id, None):
                version = await client.delete_route(deployment_id)
        finally:
            if not self._reconcile:
                # Without the background task nobody retries the removal, so it need not be remembered.
                self._registry.forget([deployment_id])
        logger.info("deregistered %r, the map is now %s", deployment_id, version.etag)
        return True

    async def _drain(self, deployment_id: str) -> bool:
        client = self._open(reconcile=self._reconcile)
        async with self._registry.draining(deployment_id) as route:
            if route is None:
                # Not an agent of this manager, but of an earlier PAR. Its ports stay as they are.
                await client.get_route(deployment_id)
                result = await client.patch_routes({deployment_id: RoutePatch(state="draining")})
            else:
                result = await client.put_route(deployment_id, route)
        logger.info("draining %r, the map is now %s", deployment_id, result.version.etag)
        return True

    async def _replace(self, agents: Mapping[str, RouteLike]) -> bool:
        routes = {deployment_id: as_route(route) for deployment_id, route in agents.items()}
        client = self._open(reconcile=self._reconcile)
        async with self._registry.replacing(routes):
            result = await client.replace_routes(routes)
        logger.info(
            "replaced all routes by those of %d agents: %d added, %d changed, %d removed, the map is now %s",
            len(routes),
            result.added,
            result.changed,
            result.removed,
            result.version.etag,
        )
        return True

    async def _is_ready(self) -> bool:
        return await self._open(reconcile=False).is_ready()

    async def _until_idle(self, port: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        idle = 0
        while not any(route.state == "active" and port in route.ports for route in self.agents().values()):
            left = await self._open(reconcile=False).open_requests(port)
            # Twice, because a request that was routed before the route changed may just be on its way.
            idle = 0 if left else idle + 1
            if idle == _IDLE:
                return True
            if time.monotonic() > deadline:
                logger.warning("the agent at port %d still has requests after %g s: %d", port, seconds, left)
                return False
            await asyncio.sleep(_IDLE_POLL)
        return True

    async def _stats(self) -> dict[str, Any]:
        return await self._open(reconcile=False).stats()

    def _open(self, reconcile: bool) -> RouteApiClient:
        """The client. The first call makes it: the constructor may run without an event loop, and never raises."""
        if self._closed:
            raise ClientClosed("this manager has been closed")
        if self._client is None:
            self._client = RouteApiClient(
                self.admin_url, token=self._token, timeout=self._timeout, hide_token=self._hide_token
            )
        if reconcile:
            if self._reconciler is None:
                self._reconciler = Reconciler(
                    self._client,
                    self._registry.settled,
                    keep_unknown=True,
                    on_in_sync=self._registry.drop_confirmed_removals,
                    on_refused=self._drop_refused,
                    on_displaced=self._displaced_by_push,
                    while_pushing=self._registry.pushing,
                )
            self._reconciler.start()
        return self._client

    def _drop_refused(self, error: FaultyRequest) -> None:
        """Gives up agents that Envoy does not accept, because one of them makes Envoy reject all others as well."""
        for fault in error.faults:
            if fault.deployment_id is not None:
                logger.error("giving up agent %r, which Envoy does not accept: %s", fault.deployment_id, fault)
                self._registry.forget([fault.deployment_id])

    def _displaced_by_push(self, displaced: str, old: Route, pushed: Mapping[str, Optional[Route]]) -> None:
        for deployment_id, route in pushed.items():
            if ports := shared_ports(old, route):
                self._registry.displaced(displaced, deployment_id, ports)
                return

    def _ports_taken(self, displaced: str, route: Route) -> tuple[int, ...]:
        """The ports of `displaced` that `route` has now; all ports of `route` if the displaced route was never read."""
        seen = None if self._reconciler is None else self._reconciler.last_read
        return shared_ports(route, None if seen is None else seen.routes.get(displaced)) or route.ports

    def _tell_changed(self) -> None:
        for listener in list(self._listeners):
            listener()

    def _report_displaced(self, displacement: Displacement) -> None:
        logger.error("%s", displacement)
        if self._on_displaced is not None:
            try:
                self._on_displaced(displacement)
            except Exception as error:  # The registration is made, whatever the callback raises.
                logger.exception("on_displaced raised %r", error)

    async def _attempt(self, what: str, call: Awaitable[T]) -> Optional[T]:
        try:
            return await call
        except Unreachable as error:
            logger.warning("cannot %s: %s", what, error)
        except RouteApiError as error:
            logger.error("cannot %s: %s", what, error)
        except Exception as error:  # PAR catches nothing.
            logger.exception("cannot %s: %r", what, error)
        return None
