"""Turns HTTP responses of the route API into results or errors."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Callable, Optional, TypeVar, cast

import httpx

from .errors import (
    REFUSED_BY_CODE,
    REFUSED_BY_STATUS,
    InvalidArgument,
    OutcomeUnknown,
    RetriesExhausted,
    RouteApiError,
    UnexpectedAnswer,
)
from .fleet_map import FleetMap, Peer, PeerReport
from .models import FleetStatus, MapVersion, Route, RouteMap, RouteState, Status, WriteResult
from .problem import Fault, Problem

T = TypeVar("T")

# How much of an unexpected body an error message shows, in characters.
_EXCERPT = 200


def read(response: httpx.Response, reader: Callable[[Mapping[str, Any]], T]) -> T:
    """The body of `response` as `reader` understands it. Raises UnexpectedAnswer if `reader` does not understand it."""
    try:
        return reader(_object(response.json()))
    except (ValueError, KeyError, TypeError) as error:
        raise UnexpectedAnswer(f"{_describe(response)}: not a response of the route API ({error!r})") from error


def version_of(response: httpx.Response) -> MapVersion:
    """The version in the ETag header."""
    try:
        return MapVersion.from_etag(response.headers["ETag"])
    except (KeyError, InvalidArgument) as error:
        raise UnexpectedAnswer(f"{_describe(response)}: no ETag of a route map ({error!r})") from error


def read_map(body: Mapping[str, Any]) -> RouteMap:
    routes = {deployment_id: read_route(_object(route)) for deployment_id, route in _object(body["routes"]).items()}
    return RouteMap(_version(body), routes)


def read_route(body: Mapping[str, Any]) -> Route:
    # An older API knows no endpoints.
    endpoints = {name: _typed(port, int) for name, port in _object(body.get("endpoints", {})).items()}
    return Route(_typed(body["port"], int), _state(body), endpoints)


def read_fleet(body: Mapping[str, Any]) -> FleetMap:
    peers = {name: read_peer(_object(peer)) for name, peer in _object(body["peers"]).items()}
    routes = {
        deployment_id: tuple(_typed(name, str) for name in _typed(names, list))
        for deployment_id, names in _object(body["routes"]).items()
    }
    return FleetMap(_version(body), peers, routes)


def read_peer(body: Mapping[str, Any]) -> Peer:
    return Peer(_typed(body["host"], str), _state(body))


def read_peer_reports(body: Mapping[str, Any]) -> dict[str, PeerReport]:
    return {name: _peer_report(_object(report)) for name, report in body.items()}


def _peer_report(body: Mapping[str, Any]) -> PeerReport:
    since = datetime.strptime(_typed(body["since"], str), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    return PeerReport(_typed(body["host"], str), _state(body), _typed(body["routes"], int), since)


def read_write(body: Mapping[str, Any]) -> WriteResult:
    return WriteResult(
        version=_version(body),
        added=_typed(body["added"], int),
        changed=_typed(body["changed"], int),
        removed=_typed(body["removed"], int),
        # A write of the fleet map displaces nothing.
        displaced=tuple(_typed(deployment_id, str) for deployment_id in _typed(body.get("displaced", []), list)),
        # Only if there are displaced routes, and an older API never has it.
        warning=_typed(body["warning"], str) if "warning" in body else None,
    )


def read_status(body: Mapping[str, Any]) -> Status:
    return Status(
        version=_version(body),
        routes=_typed(body["routes"], int),
        loaded=_typed(body["loaded"], bool),
        filter_version=_typed(body["version"], str),
        # An older API knows no fleet.
        fleet=_fleet_status(_object(body["fleet"])) if "fleet" in body else None,
    )


def read_open_requests(body: Mapping[str, Any], port: int) -> int:
    """What Envoy counts for an agent's port, in all clusters of agents. A value of 0 is left out of the body."""
    hosts = [
        _object(host)
        for cluster in _typed(body.get("cluster_statuses", []), list)
        if _typed(_object(cluster)["name"], str).startswith("agents_")
        for host in _typed(cluster.get("host_statuses", []), list)
    ]
    return sum(
        int(stat.get("value", 0))
        for host in hosts
        if _object(host["address"]).get("socket_address", {}).get("port_value") == port
        for stat in _typed(host.get("stats", []), list)
        if stat["name"] in ("rq_active", "rq_pending_active")
    )


def error_for(response: httpx.Response) -> RouteApiError:
    """The error that an unsuccessful response stands for."""
    problem = _problem(response)
    if response.status_code == 503 and problem is not None and problem.code == "conflict_retries_exhausted":
        return RetriesExhausted(problem, _retry_after(response))
    if response.status_code >= 500:
        # Not from the API itself: Envoy is overloaded, or the filter was restarted while it worked on the request.
        return OutcomeUnknown(f"Envoy failed to respond: {_describe(response)}")
    if problem is None and response.status_code == 413:
        # Envoy rejects a body that is larger than its own buffer before the API sees it.
        problem = Problem(413, "payload_too_large", "Payload Too Large", "the body is larger than Envoy's buffer")
    if problem is None:
        return UnexpectedAnswer(_describe(response))
    kind = REFUSED_BY_CODE.get(problem.code) or REFUSED_BY_STATUS.get(response.status_code)
    return UnexpectedAnswer(_describe(response)) if kind is None else kind(problem)


def _problem(response: httpx.Response) -> Optional[Problem]:
    if response.headers.get("Content-Type", "").partition(";")[0].strip() != "application/problem+json":
        return None
    try:
        body = _object(response.json())
        faults = tuple(_fault(_object(fault)) for fault in body.get("errors", ()))
        return Problem(
            status=response.status_code,
            code=_typed(body["code"], str),
            title=str(body.get("title", "")),
            detail=str(body.get("detail", "")),
            faults=faults,
            errors_total=_typed(body.get("errors_total", len(faults)), int),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _fault(body: Mapping[str, Any]) -> Fault:
    return Fault(pointer=_typed(body["pointer"], str), detail=_typed(body["detail"], str))


def _retry_after(response: httpx.Response) -> Optional[float]:
    # The API sends seconds, never a date.
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else None


def _version(body: Mapping[str, Any]) -> MapVersion:
    return MapVersion(_typed(body["epoch"], str), _typed(body["generation"], int))


def _fleet_status(body: Mapping[str, Any]) -> FleetStatus:
    return FleetStatus(
        enabled=_typed(body["enabled"], bool),
        version=_version(body),
        peers=_typed(body["peers"], int),
        routes=_typed(body["routes"], int),
        loaded=_typed(body["loaded"], bool),
    )


def _state(body: Mapping[str, Any]) -> RouteState:
    state = body["state"]
    if state not in ("active", "draining"):
        raise ValueError(f"unknown state {state!r}")
    return cast(RouteState, state)


def _object(value: Any) -> dict[str, Any]:
    return cast(dict[str, Any], _typed(value, dict))


def _typed(value: Any, kind: type[T]) -> T:
    # bool is an int to Python, but not to JSON.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"expected {kind.__name__}, found {value!r}"[:_EXCERPT])
    return value


def _describe(response: httpx.Response) -> str:
    return f"{response.status_code} with body {response.text[:_EXCERPT]!r}"
