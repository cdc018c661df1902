"""Gives Envoy the plan: what has changed, or the whole after Envoy was restarted or another writer changed its map."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Callable, Optional

from ..client import RouteApiClient
from ..errors import FleetDisabled, InvalidRoutes, PayloadTooLarge, PreconditionFailed, RouteApiError
from ..fleet_map import FleetMap
from ..log import logger_of
from ..models import MapVersion, WriteResult
from ..problem import Fault, Problem
from .plan import Plan

logger = logger_of(__name__)

_OFF = Problem(409, "fleet_disabled", "Conflict", "this Envoy has no fleet map: start it with PIXELL_FLEET_CIDRS")

_MOST = re.compile(r"at most ([0-9]{1,9}) ")

# How many lines about what was left out one process writes at most: a hostile task may change its record forever.
_MOST_LINES = 1000


class Push:
    """`refresh` brings the plan up to date, without the peers that are not accepted; False if there is none yet.

    `take_over` is called with the map that an earlier process has left in Envoy, before this one writes.
    """

    def __init__(
        self,
        client: Callable[[], RouteApiClient],
        plan: Plan,
        refresh: Callable[[], bool],
        take_over: Callable[[FleetMap], None],
    ) -> None:
        self._client = client
        self._plan = plan
        self._refresh = refresh
        self._take_over = take_over
        self._has_looked = False
        self._epoch = ""
        # The peers that Envoy has rejected, by name, with their host.
        self._rejected: dict[str, str] = {}
        self._told: set[str] = set()
        self._version: Optional[MapVersion] = None
        self.is_off = False
        """Whether Envoy said that it has no fleet map."""

    def accepts(self, name: str, host: str) -> bool:
        """Whether Envoy has not rejected this peer since it was started."""
        return self._rejected.get(name) != host

    def forget_all_but(self, names: Container[str]) -> None:
        """Forgets rejected peers that are gone."""
        self._rejected = {name: host for name, host in self._rejected.items() if name in names}

    async def sync(self) -> None:
        """Asks Envoy for the version of its fleet map, and writes if that is not the plan's. Raises RouteApiError."""
        fleet = (await self._client().status()).fleet
        self.is_off = fleet is None or not fleet.enabled
        if fleet is None or not fleet.enabled:
            self._version = None
            raise FleetDisabled(_OFF)
        if fleet.version != self._version:
            self._version = None
        if fleet.version.epoch != self._epoch:
            # It may have been restarted with other CIDRs.
            self._epoch = fleet.version.epoch
            self._rejected.clear()
            self._plan.lift()
        if not self._has_looked:
            if fleet.version.loaded:
                self._take_over(await self._client().get_fleet())
            self._has_looked = True
        while self._refresh() and not await self._write():
            pass

    async def _write(self) -> bool:
        """False if a further write is needed."""
        try:
            if self._version is None:
                peers, routes = dict(self._plan.peers), dict(self._plan.routes)
                result = await self._client().replace_fleet(peers, routes)
                self._plan.pushed_whole(peers, routes)
            else:
                change = self._plan.change()
                if not change:
                    return True
                result = await self._client().patch_fleet(change.peers, change.routes, if_match=self._version)
                self._plan.pushed(change)
        except PreconditionFailed:
            self._version = None
            return False
        except InvalidRoutes as error:
            left_out = [self._leave_out(fault) for fault in error.faults]
            if not any(left_out):
                self._version = None
                raise
            return False
        except PayloadTooLarge as error:
            self._version = None
            if not self._plan.routes:
                raise
            self._plan.limit(routes=len(self._plan.routes) // 2)
            self._tell("size", f"leaving out ids, because the fleet does not fit into one request to Envoy: {error}")
            return False
        except RouteApiError:
            # The write may have been made.
            self._version = None
            raise
        self._version, self._epoch = result.version, result.version.epoch
        self._log(result)
        # The plan may have changed meanwhile.
        return not self._plan.change()

    def _leave_out(self, fault: Fault) -> bool:
        """Takes out of the plan what Envoy does not accept. False if the plan has nothing of it."""
        peer, deployment_id = fault.peer, fault.deployment_id
        if peer is not None and peer in self._plan.peers:
            host = self._plan.peers[peer].host
            self._rejected[peer] = host
            self._tell(
                f"peer {peer}", f"leaving out task {peer!r} at {host}, which Envoy does not accept: {fault.detail}"
            )
        elif deployment_id in self._plan.routes and fault.pointer.count("/") == 2:
            # A longer pointer leads to a peer of the route, which is wrong in itself.
            self._plan.leave_out([str(deployment_id)])
            self._tell(
                f"id {deployment_id}", f"leaving out {deployment_id!r}, which Envoy does not accept: {fault.detail}"
            )
        elif fault.pointer in ("/peers", "/routes") and (most := _MOST.search(fault.detail)) is not None:
            count = int(most[1])
            if fault.pointer == "/peers":
                self._plan.limit(peers=count)
            else:
                self._plan.limit(routes=count)
            self._tell(
                fault.pointer, f"leaving out some {fault.pointer[1:]}, which Envoy does not accept: {fault.detail}"
            )
        else:
            return False
        return True

    def _tell(self, what: str, text: str) -> None:
        """Logs once for each `what`."""
        if what not in self._told and len(self._told) < _MOST_LINES:
            self._told.add(what)
            logger.error("%s", text)

    def _log(self, result: WriteResult) -> None:
        logger.info(
            "pushed the fleet to Envoy: %d routes added, %d changed, %d removed, %d peers, the fleet map is now %s",
            result.added,
            result.changed,
            result.removed,
            len(self._plan.peers),
            result.version.etag,
        )
