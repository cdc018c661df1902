"""EnvoyManager: what PAR calls when an agent comes and goes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping
from typing import Any, Optional, TypeVar

from .client import DEFAULT_ADMIN_URL, RouteApiClient
from .errors import ClientClosed, FaultyRequest, RouteApiError, Unreachable
from .models import MapVersion, WriteResult
from .reconciler import Reconciler
from .registry import Registry

logger = logging.getLogger(__name__)

T = TypeVar("T")


class EnvoyManager:
    """Registers agents with the Envoy beside PAR. No method raises: it logs, and returns False or None.

    `token` and `timeout` are those of RouteApiClient.

    The manager remembers what it was asked for, and from the first registration on a background task sees to it that
    Envoy has just that: an Envoy that was restarted or away gets all agents back, a removal that did not arrive is made
    up for. So False means "not in Envoy now", and the manager goes on trying until the agent is deregistered; only a
    registration that is at fault itself (a bad id, a port that is not allowed) is dropped. Routes that this manager was
    never asked about are left alone: a PAR that was restarted remembers nothing, and must not take the routes of
    running agents away. Call `replace_agents` once PAR knows all its agents, to remove what is left over.
    `reconcile=False` turns the background task off.
    """

    def __init__(
        self,
        admin_url: str = DEFAULT_ADMIN_URL,
        *,
        token: Optional[str] = None,
        timeout: float = 5.0,
        reconcile: bool = True,
    ) -> None:
        self.admin_url = admin_url
        self._token = token
        self._timeout = timeout
        self._reconcile = reconcile
        self._registry = Registry()
        self._client: Optional[RouteApiClient] = None
        self._reconciler: Optional[Reconciler] = None
        self._closed = False

    async def register_agent(self, deployment_id: str, a2a_port: int) -> bool:
        """Routes `deployment_id` to 127.0.0.1:`a2a_port`. True once every request that arrives at Envoy is routed so.

        Another id that had the port loses its route: its process must be gone.
        """
        done = await self._attempt(
            f"register {deployment_id!r} on port {a2a_port!r}", self._register(deployment_id, a2a_port)
        )
        return done is not None

    async def deregister_agent(self, deployment_id: str) -> bool:
        """Removes the route of `deployment_id`. Also True where there was none. What its agent has received goes on."""
        return await self._attempt(f"deregister {deployment_id!r}", self._deregister(deployment_id)) is not None

    async def replace_agents(self, ports: Mapping[str, int]) -> bool:
        """Makes these agents (port by deployment id) the only ones, in one step: the full map when PAR boots."""
        return await self._attempt("replace all routes", self._replace(ports)) is not None

    async def check_health(self) -> bool:
        """Whether Envoy is ready."""
        return await self._attempt("check the health of Envoy", self._is_ready()) or False

    async def get_stats(self) -> Optional[dict[str, Any]]:
        """Envoy's statistics as `GET /stats?format=json` gives them."""
        return await self._attempt("read the statistics of Envoy", self._stats())

    async def close(self) -> None:
        """Stops the background task and closes the connections; routes stay. Other calls fail from then on.

        Can be repeated.
        """
        self._closed = True
        try:
            if self._reconciler is not None:
                await self._reconciler.stop()
        finally:
            if self._client is not None:
                await self._client.close()

    async def _register(self, deployment_id: str, port: int) -> WriteResult:
        client = self._open(reconcile=self._reconcile)
        async with self._registry.asking(deployment_id, port):
            result = await client.put_route(deployment_id, port)
        _report_displaced(result)
        return result

    async def _deregister(self, deployment_id: str) -> MapVersion:
        client = self._open(reconcile=self._reconcile)
        try:
            async with self._registry.asking(deployment_id, None):
                return await client.delete_route(deployment_id)
        finally:
            if not self._reconcile:
                # Nobody will prove the removal, so it need not be remembered.
                self._registry.forget([deployment_id])

    async def _replace(self, ports: Mapping[str, int]) -> WriteResult:
        client = self._open(reconcile=self._reconcile)
        ports = dict(ports)
        async with self._registry.replacing(ports):
            result = await client.replace_routes(ports)
        _report_displaced(result)
        return result

    async def _is_ready(self) -> bool:
        return await self._open(reconcile=False).is_ready()

    async def _stats(self) -> dict[str, Any]:
        return await self._open(reconcile=False).stats()

    def _open(self, reconcile: bool) -> RouteApiClient:
        """The client, made at the first call: the constructor may run without an event loop, and must not raise."""
        if self._closed:
            raise ClientClosed("this manager has been closed")
        if self._client is None:
            self._client = RouteApiClient(self.admin_url, token=self._token, timeout=self._timeout)
        if reconcile:
            if self._reconciler is None:
                self._reconciler = Reconciler(
                    self._client,
                    self._registry.settled,
                    keep_unknown=True,
                    on_in_sync=self._registry.drop_proven_removals,
                    on_refused=self._drop_refused,
                    while_pushing=self._registry.pushing,
                )
            self._reconciler.start()
        return self._client

    def _drop_refused(self, error: FaultyRequest) -> None:
        """Gives up agents that Envoy does not accept, so that they do not keep the others out."""
        for fault in error.faults:
            if fault.deployment_id is not None:
                logger.error("giving up agent %r, which Envoy refuses: %s", fault.deployment_id, fault)
                self._registry.forget([fault.deployment_id])

    async def _attempt(self, what: str, call: Awaitable[T]) -> Optional[T]:
        try:
            return await call
        except Unreachable as error:
            logger.warning("cannot %s: %s", what, error)
        except RouteApiError as error:
            logger.error("cannot %s: %s", what, error)
        except Exception:  # PAR relies on not having to catch anything.
            logger.exception("cannot %s", what)
        return None


def _report_displaced(result: WriteResult) -> None:
    if result.displaced:
        logger.warning("took the port from and removed the routes of %s", ", ".join(map(repr, result.displaced)))
