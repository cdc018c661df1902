"""The objects of the fleet map: which other tasks serve which deployment ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from .errors import InvalidArgument
from .models import MapVersion, RouteState


@dataclass(frozen=True)
class Peer:
    """Another task of the fleet.

    `host` is a literal IPv4 or IPv6 address inside PIXELL_FLEET_CIDRS. A peer that is `draining` gets no new requests.
    The API checks both, not this class.
    """

    host: str
    state: RouteState = "active"


@dataclass(frozen=True)
class PeerReport:
    """What Envoy says of a peer.

    `routes` is how many routes of the fleet map name it. `since`, in UTC, is when Envoy learned of its present host and
    state.
    """

    host: str
    state: RouteState
    routes: int
    since: datetime


@dataclass(frozen=True)
class FleetMap:
    """The whole fleet map at one moment. Read-only.

    `routes` names the peers of each deployment id, in the order in which Envoy prefers them.
    """

    version: MapVersion
    peers: Mapping[str, Peer]
    routes: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "peers", MappingProxyType(dict(self.peers)))
        routes = {deployment_id: tuple(peers) for deployment_id, peers in self.routes.items()}
        object.__setattr__(self, "routes", MappingProxyType(routes))


def peer_to_json(peer: Peer) -> dict[str, Any]:
    """The peer as JSON. Raises InvalidArgument for anything else."""
    if not isinstance(peer, Peer) or not isinstance(peer.host, str):
        raise InvalidArgument(f"a peer is a Peer with a host, not {peer!r}")
    return {"host": peer.host, "state": peer.state}


def peers_to_json(peers: Sequence[str]) -> list[str]:
    """The names of an id's peers as JSON. Raises InvalidArgument for anything but a sequence of strings."""
    # A string is a sequence of strings, too.
    if isinstance(peers, str) or not all(isinstance(name, str) for name in peers):
        raise InvalidArgument(f"a route of the fleet is a list of names of peers, not {peers!r}")
    return list(peers)
