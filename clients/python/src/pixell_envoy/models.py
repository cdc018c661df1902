"""What the route API speaks of: routes, the route map with its version, what a write did, the status."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Union

from .errors import InvalidArgument

RouteState = Literal["active", "draining"]

_ETAG = re.compile(r'"(?P<epoch>[0-9a-f]+)-(?P<generation>[0-9]+)"')


@dataclass(frozen=True)
class Route:
    """Where a deployment id leads: a TCP port on 127.0.0.1 and whether it takes new requests.

    The allowed ports are set in Envoy's configuration (default 1024-65535 without Envoy's and PAR's own), so the API
    judges them.
    """

    port: int
    state: RouteState = "active"


RouteLike = Union[int, Route]
"""A route, or a bare port that stands for an active route."""


def as_route(value: RouteLike) -> Route:
    """The route that `value` stands for.

    Raises InvalidArgument for anything but a Route or an int (True and False are no ports).
    """
    if isinstance(value, Route):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"a route is a port number or a Route, not {value!r}")
    return Route(value)


@dataclass(frozen=True)
class MapVersion:
    """Which state of the route map is meant.

    `epoch` is drawn when an Envoy process stores its first map ("0" before), so it tells a restarted Envoy from a
    running one. `generation` grows by one at each effective change and is 0 as long as no map has been stored.
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
        """Raises InvalidArgument where `etag` is not `"<epoch>-<generation>"`."""
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
    """What a write did. Counts are routes.

    `displaced` names the ids that lost their port to another id and are no longer routed. `repeated` is True where the
    write was sent again because an earlier answer got lost: the write is in force, but the counts and `displaced` tell
    what the last attempt found left to do.
    """

    version: MapVersion
    added: int
    changed: int
    removed: int
    displaced: tuple[str, ...] = ()
    repeated: bool = False


@dataclass(frozen=True)
class Status:
    """What `GET /v1/status` says. `routes` is a count; `loaded` tells whether a map has been stored yet."""

    version: MapVersion
    routes: int
    loaded: bool
    filter_version: str
