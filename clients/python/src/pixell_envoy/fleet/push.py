"""Gives Envoy the plan: what has changed, or the whole after Envoy was restarted or another writer changed its map."""

from __future__ import annotations

from typing import Callable, Optional

from ..client import RouteApiClient
from ..errors import FleetDisabled, InvalidRoutes, PreconditionFailed, RouteApiError
from ..fleet_map import FleetMap
from ..log import logger_of
from ..models import MapVersion, WriteResult
from ..problem import Problem
from .plan import Plan

logger = logger_of(__name__)

_OFF = Problem(409, "fleet_disabled", "Conflict", "this Envoy has no fleet map: start it with PIXELL_FLEET_CIDRS")


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
        self._refused: set[tuple[str, str]] = set()
        self._version: Optional[MapVersion] = None
        self.is_off = False
        """Whether Envoy said that it has no fleet map."""

    def accepts(self, name: str, host: str) -> bool:
        """Whether Envoy has not rejected this peer since it was started."""
        return (name, host) not in self._refused

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
            self._refused.clear()
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
            refused = {fault.peer: fault.detail for fault in error.faults if fault.peer is not None}
            known = {name: detail for name, detail in refused.items() if name in self._plan.peers}
            if not known:
                self._version = None
                raise
            for name, detail in known.items():
                host = self._plan.peers[name].host
                logger.error("leaving out task %r at %s, which Envoy does not accept: %s", name, host, detail)
                self._refused.add((name, host))
            return False
        except RouteApiError:
            # The write may have been made.
            self._version = None
            raise
        self._version, self._epoch = result.version, result.version.epoch
        self._log(result)
        # The plan may have changed meanwhile.
        return not self._plan.change()

    def _log(self, result: WriteResult) -> None:
        logger.info(
            "pushed the fleet to Envoy: %d routes added, %d changed, %d removed, %d peers, the fleet map is now %s",
            result.added,
            result.changed,
            result.removed,
            len(self._plan.peers),
            result.version.etag,
        )
