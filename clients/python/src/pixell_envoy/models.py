"""The objects of the route API: routes, the route map and its version, the result of a write, the status."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Optional, Union

from .errors import InvalidArgument
from .frozen import FrozenDict

RouteState = Literal["active", "draining"]

_ETAG = re.compile(r'"(?P<epoch>[0-9a-f]+)-(?P<generation>[0-9]+)"')


@dataclass(frozen=True)
class Route:
    """Where a deployment id leads: TCP ports on 127.0.0.1 and whether they take new requests.

    `port` is the endpoint `a2a`. `endpoints` are further ports by name, such as `{"rest": 63001, "ui": 65001}`: a name
    is 1 to 16 of `a-z 0-9 -`, and there are at most 8. The allowed ports are set in Envoy's configuration (default
    1024-65535 without Envoy's and PAR's own), so the API checks names and ports, not this class.
    """

    port: int
    state: RouteState = "active"
    endpoints: Mapping[str, int] = field(default_factory=FrozenDict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoints", FrozenDict(self.endpoints))

    @property
    def ports(self) -> tuple[int, ...]:
        """All ports; the port of `a2a` is the first."""
        return (self.port, *self.endpoints.values())


RouteLike = Union[int, Route]
"""A route, or a bare port that stands for an active route."""


@dataclass(frozen=True)
class RoutePatch:
    """A change of one route (a JSON merge patch): a `port` or `state` of None stays as it is.

    Each endpoint that is named gets the port given, or is removed if that is None; the others stay.
    """

    port: Optional[int] = None
    state: Optional[RouteState] = None
    endpoints: Mapping[str, Optional[int]] = field(default_factory=FrozenDict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoints", FrozenDict(self.endpoints))


def as_route(value: RouteLike) -> Route:
    """The route that `value` stands for.

    Raises InvalidArgument for anything but a Route of ints or an int (True and False are no ports).
    """
    route = value if isinstance(value, Route) else Route(value)
    for port in route.ports:
        if isinstance(port, bool) or not isinstance(port, int):
            raise InvalidArgument(f"a route is a port number or a Route, not {value!r}")
    for name in route.endpoints:
        if not isinstance(name, str):
            raise InvalidArgument(f"the name of an endpoint is a string, not {name!r}")
    return route


def patch_between(current: Optional[Route], wanted: Route) -> RoutePatch:
    """The patch that makes exactly `wanted` of `current`."""
    gone = {} if current is None else dict.fromkeys(name for name in current.endpoints if name not in wanted.endpoints)
    return RoutePatch(wanted.port, wanted.state, {**wanted.endpoints, **gone})


def to_json(route: Union[RouteLike, RoutePatch]) -> dict[str, Any]:
    """The route or patch as JSON, without empty members: an older API does not know all of them."""
    route = route if isinstance(route, RoutePatch) else as_route(route)
    members = {"port": route.port, "state": route.state, "endpoints": dict(route.endpoints) or None}
    return {name: value for name, value in members.items() if value is not None}


@dataclass(frozen=True)
class MapVersion:
    """Which state of the route map, or of the fleet map, is meant.

    `epoch` is a random number, chosen when an Envoy process stores its first map ("0" before): a different epoch means
    that Envoy was restarted. `generation` grows by one at each effective change and is 0 until a map has been stored.
    """

    epoch: str
    generation: int

    @property
    def loaded(self) -> bool:
        """Whether a map has been stored since this Envoy started."""
        return self.generation > 0

    @property
    def etag(self) -> str:
        """The version as an entity tag (RFC 9110, section 8.8.3)."""
        return f'"{self.epoch}-{self.generation}"'

    @classmethod
    def from_etag(cls, etag: str) -> MapVersion:
        """Raises InvalidArgument if `etag` is not `"<epoch>-<generation>"`."""
        match = _ETAG.fullmatch(etag)
        if match is None:
            raise InvalidArgument(f'an ETag of the route map is "<epoch>-<generation>", not {etag!r}')
        return cls(match["epoch"], int(match["generation"]))


@dataclass(frozen=True)
class RouteMap:
    """All routes at one moment. Read-only."""

    version: MapVersion
    routes: Mapping[str, Route]

    def __post_init__(self) -> None:
        object.__setattr__(self, "routes", MappingProxyType(dict(self.routes)))


@dataclass(frozen=True)
class WriteResult:
    """What a write did. Counts are routes, of the fleet map as well.

    `displaced` names the ids that lost their port to another id and have no route any more. `repeated` is True if the
    write was retried because an earlier response was lost: the write is in effect, but the counts and `displaced` are
    those of the last attempt. `warning` says in words who took which port from whom, if anyone did.
    """

    version: MapVersion
    added: int
    changed: int
    removed: int
    displaced: tuple[str, ...] = ()
    repeated: bool = False
    warning: Optional[str] = None


@dataclass(frozen=True)
class FleetStatus:
    """What `GET /v1/status` says about the fleet. `peers` and `routes` are counts.

    `enabled` is False without PIXELL_FLEET_CIDRS, and `loaded` until a fleet map has been stored.
    """

    enabled: bool
    version: MapVersion
    peers: int
    routes: int
    loaded: bool


@dataclass(frozen=True)
class Status:
    """What `GET /v1/status` says. `routes` is a count; `loaded` tells whether a map has been stored yet.

    `fleet` is None if Envoy's filter is too old to know fleets.
    """

    version: MapVersion
    routes: int
    loaded: bool
    filter_version: str
    fleet: Optional[FleetStatus] = None
