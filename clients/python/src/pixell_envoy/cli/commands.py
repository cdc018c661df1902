"""The commands that show one moment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Optional

from ..client import RouteApiClient
from ..errors import RouteNotFound
from ..fleet_map import FleetMap, peer_to_json
from ..models import MapVersion, Route, to_json
from .output import Output


async def status(client: RouteApiClient, output: Output, url: str) -> None:
    """Readiness, and versions and sizes of both maps."""
    found = await client.status()
    is_ready = await client.is_ready()
    if output.as_json:
        fleet_status = None
        if found.fleet is not None:
            counts = {"peers": found.fleet.peers, "routes": found.fleet.routes}
            state = {"enabled": found.fleet.enabled, "loaded": found.fleet.loaded}
            fleet_status = {**state, **version(found.fleet.version), **counts}
        output.document(
            {
                "url": url,
                "ready": is_ready,
                "filter_version": found.filter_version,
                "routes": {"loaded": found.loaded, **version(found.version), "routes": found.routes},
                "fleet": fleet_status,
            }
        )
        return
    if found.fleet is None or not found.fleet.enabled:
        about_fleet = "off: Envoy was started without PIXELL_FLEET_CIDRS"
    elif not found.fleet.loaded:
        about_fleet = "not pushed: ids of other tasks are rejected with route_map_not_loaded"
    else:
        sizes = f"{counted(found.fleet.peers, 'peer')}, {counted(found.fleet.routes, 'id')}"
        about_fleet = f"{sizes}, {in_words(found.fleet.version)}"
    about_routes = "not pushed: requests are rejected with route_map_not_loaded"
    if found.loaded:
        about_routes = f"{counted(found.routes, 'route')}, {in_words(found.version)}"
    rows = [
        ("ready", "yes" if is_ready else "no"),
        ("filter", found.filter_version),
        ("routes", about_routes),
        ("fleet", about_fleet),
    ]
    output.table(["Envoy", url], rows)


async def routes(client: RouteApiClient, output: Output, _: str) -> None:
    """The routes of this task."""
    found = await client.get_routes()
    if output.as_json:
        output.document(
            {**version(found.version), "routes": {key: to_json(route) for key, route in found.routes.items()}}
        )
        return
    rows = [(key, route.state, route.port, endpoints(route) or "-") for key, route in sorted(found.routes.items())]
    output.table(["ID", "STATE", "PORT", "ENDPOINTS"], rows)


async def fleet(client: RouteApiClient, output: Output, _: str) -> None:
    """The other tasks, and the ids that they serve."""
    found = await client.get_fleet()
    try:
        reports = await client.get_fleet_peers()
    except RouteNotFound:
        # An older filter does not note when it learned of a peer.
        reports = {}
    # The map may have changed between the two calls: a report may then be about another address or state of its peer.
    since = {
        name: report.since
        for name, report in reports.items()
        if name in found.peers and (report.host, report.state) == (found.peers[name].host, found.peers[name].state)
    }
    if output.as_json:
        output.document(fleet_to_json(found, since))
        return
    serves = dict.fromkeys(found.peers, 0)
    for names in found.routes.values():
        for name in names:
            serves[name] += 1
    peers = [
        (name, peer.host, peer.state, serves[name], age(since.get(name))) for name, peer in sorted(found.peers.items())
    ]
    output.table(["PEER", "HOST", "STATE", "IDS", "AGE"], peers)
    output.line("")
    output.table(
        ["ID", "PEERS, THE PREFERRED ONE FIRST"],
        [(key, ", ".join(names)) for key, names in sorted(found.routes.items())],
    )


def version(of: MapVersion) -> dict[str, Any]:
    return {"epoch": of.epoch, "generation": of.generation}


def in_words(of: MapVersion) -> str:
    return f"generation {of.generation}, epoch {of.epoch}"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def endpoints(route: Route) -> str:
    """`rest=63001 ui=65001`."""
    return " ".join(f"{name}={port}" for name, port in route.endpoints.items())


def age(since: Optional[datetime]) -> str:
    """`3 min`, `2 h`: how long ago that was, in the largest unit; `-` if that is unknown."""
    if since is None:
        return "-"
    # Envoy's clock is that of this machine. It may have been set back meanwhile.
    seconds = max(0, int((datetime.now(timezone.utc) - since).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def fleet_to_json(found: FleetMap, since: Mapping[str, datetime]) -> dict[str, Any]:
    """The map in the API's form. Each peer also has `since`, if that is known."""
    peers = {name: peer_to_json(peer) for name, peer in found.peers.items()}
    for name, then in since.items():
        peers[name]["since"] = f"{then:%Y-%m-%dT%H:%M:%SZ}"
    return {
        **version(found.version),
        "peers": peers,
        "routes": {key: list(names) for key, names in found.routes.items()},
    }
