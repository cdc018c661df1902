"""The whole route API, version 1, as coroutines."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Callable, Optional, Union

import httpx

from . import responses, update
from .admin_token import find_token
from .connection import Call, Connection
from .errors import InvalidArgument, RouteNotFound
from .fleet_map import FleetMap, Peer, PeerReport, peer_to_json, peers_to_json
from .models import (
    MapVersion,
    Route,
    RouteLike,
    RouteMap,
    RoutePatch,
    Status,
    WriteResult,
    as_route,
    patch_between,
    to_json,
)
from .problem import Problem
from .retry import Retry

DEFAULT_ADMIN_URL = "http://127.0.0.1:9901"

# An id that can stand in a path. Envoy resolves "." and ".." there even if they are percent-encoded, and no other
# character can be part of an id.
_PATH_SAFE = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,128}")

_DEFAULT_RETRY = Retry()


class RouteApiClient:
    """A client of one Envoy. It is bound to the event loop of its first call. Close it, or use `async with`.

    `token` is the one that Envoy was started with. By default it is read from the file that PIXELL_ADMIN_TOKEN_FILE
    names, or from PIXELL_ADMIN_TOKEN; an empty one means none. With `hide_token`, PIXELL_ADMIN_TOKEN is then removed
    from `os.environ`, so that programs started later do not inherit it; later clients in this process still get it.
    `timeout` (seconds) limits one call including its retries. `transport` replaces the connection pool.

    Every write takes `if_match` (written only while the map still has that version, else PreconditionFailed) and
    `dry_run` (checked and counted in full, nothing changed). Every call may raise a RouteApiError.

    Retries: a request that could not be sent is retried, and so is one that Envoy gave up without a change (503). A
    request whose response was lost is retried too, because each of these calls leaves the same map if it is executed
    twice. With `if_match` it is not retried: the call raises OutcomeUnknown, and `update` shows how to go on.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_ADMIN_URL,
        *,
        token: Optional[str] = None,
        timeout: float = 5.0,
        retry: Retry = _DEFAULT_RETRY,
        transport: Optional[httpx.AsyncBaseTransport] = None,
        hide_token: bool = True,
    ) -> None:
        self._connection = Connection(base_url, find_token(token, hide_token), timeout, retry, transport)
        self._retry = retry

    async def get_routes(self) -> RouteMap:
        """The whole map."""
        success = await self._connection.send(Call("GET", "/v1/routes"))
        return responses.read(success.response, responses.read_map)

    async def get_routes_if_changed(self, since: MapVersion) -> Optional[RouteMap]:
        """The whole map, or None if it still has the version `since`."""
        call = Call("GET", "/v1/routes", accept=(200, 304), headers={"If-None-Match": since.etag})
        response = (await self._connection.send(call)).response
        return None if response.status_code == 304 else responses.read(response, responses.read_map)

    async def replace_routes(
        self, routes: Mapping[str, RouteLike], *, if_match: Optional[MapVersion] = None, dry_run: bool = False
    ) -> WriteResult:
        """Makes `routes` the whole map, in one step."""
        return await self._write(_write_call("PUT", "/v1/routes", _map_to_json(routes), if_match, dry_run))

    async def patch_routes(
        self,
        changes: Mapping[str, Optional[Union[RouteLike, RoutePatch]]],
        *,
        if_match: Optional[MapVersion] = None,
        dry_run: bool = False,
    ) -> WriteResult:
        """Adds and changes routes, removes those given as None, and leaves all others alone: all or nothing.

        It is a merge patch: endpoints that a route has and the change does not name stay. `RoutePatch` removes them.
        """
        return await self._write(_write_call("PATCH", "/v1/routes", _map_to_json(changes), if_match, dry_run))

    async def get_route(self, deployment_id: str) -> Route:
        """Raises RouteNotFound if there is none."""
        if _fits_path(deployment_id):
            success = await self._connection.send(Call("GET", f"/v1/routes/{deployment_id}"))
            return responses.read(success.response, responses.read_route)
        try:
            return (await self.get_routes()).routes[deployment_id]
        except KeyError:
            problem = Problem(404, "not_found", "Not Found", f"there is no route {deployment_id!r}")
            raise RouteNotFound(problem) from None

    async def put_route(
        self, deployment_id: str, route: RouteLike, *, if_match: Optional[MapVersion] = None, dry_run: bool = False
    ) -> WriteResult:
        """Adds or changes one route."""
        route = as_route(route)
        if not _fits_path(deployment_id):
            change = patch_between((await self.get_routes()).routes.get(deployment_id), route)
            return await self.patch_routes({deployment_id: change}, if_match=if_match, dry_run=dry_run)
        path = f"/v1/routes/{deployment_id}"
        return await self._write(_write_call("PUT", path, to_json(route), if_match, dry_run, accept=(200, 201)))

    async def delete_route(
        self, deployment_id: str, *, if_match: Optional[MapVersion] = None, dry_run: bool = False
    ) -> MapVersion:
        """Removes one route, and succeeds as well if there is none. Returns the version of the map afterwards."""
        if not _fits_path(deployment_id):
            return (await self.patch_routes({deployment_id: None}, if_match=if_match, dry_run=dry_run)).version
        call = _write_call("DELETE", f"/v1/routes/{deployment_id}", None, if_match, dry_run, accept=(204,))
        return responses.version_of((await self._connection.send(call)).response)

    async def update(
        self,
        change: Callable[[dict[str, Route]], Mapping[str, RouteLike]],
        *,
        idempotent: bool = False,
        attempts: int = 100,
    ) -> WriteResult:
        """Reads the map, passes it to `change`, and writes what `change` returns. Retries if another writer was faster.

        `change` gets a copy of its own and may be called several times. If it returns an equal map, nothing is written.
        No other writer's update is lost. Raises PreconditionFailed if others were faster `attempts` times, and
        OutcomeUnknown if the response to a write was lost and the map does not show whether the write was made. Pass
        `idempotent` if a second call of `change` does no more than the first: setting or removing routes is idempotent,
        counting up is not. Then `change` is applied once more instead of raising OutcomeUnknown.
        """
        return await update.update(self, change, idempotent, attempts, self._retry.sleep)

    async def get_fleet(self) -> FleetMap:
        """The whole fleet map. Raises FleetDisabled if Envoy has none, as do the other calls for the fleet."""
        success = await self._connection.send(Call("GET", "/v1/fleet"))
        return responses.read(success.response, responses.read_fleet)

    async def get_fleet_if_changed(self, since: MapVersion) -> Optional[FleetMap]:
        """The whole fleet map, or None if it still has the version `since`."""
        call = Call("GET", "/v1/fleet", accept=(200, 304), headers={"If-None-Match": since.etag})
        response = (await self._connection.send(call)).response
        return None if response.status_code == 304 else responses.read(response, responses.read_fleet)

    async def get_fleet_peers(self) -> dict[str, PeerReport]:
        """The peers of the fleet map by name, each with the time since which it has its host and state; no routes.

        Raises RouteNotFound if Envoy's filter is too old to know this time.
        """
        success = await self._connection.send(Call("GET", "/v1/fleet/peers"))
        return responses.read(success.response, responses.read_peer_reports)

    async def replace_fleet(
        self,
        peers: Mapping[str, Peer],
        routes: Mapping[str, Sequence[str]],
        *,
        if_match: Optional[MapVersion] = None,
        dry_run: bool = False,
    ) -> WriteResult:
        """Makes these the whole fleet map, in one step: peers by name, and the names of each id's peers in order."""
        return await self._write(_write_call("PUT", "/v1/fleet", _fleet_to_json(peers, routes), if_match, dry_run))

    async def patch_fleet(
        self,
        peers: Mapping[str, Optional[Peer]],
        routes: Mapping[str, Optional[Sequence[str]]],
        *,
        if_match: Optional[MapVersion] = None,
        dry_run: bool = False,
    ) -> WriteResult:
        """Adds and changes peers and routes of the fleet map, removes those given as None: all or nothing."""
        return await self._write(_write_call("PATCH", "/v1/fleet", _fleet_to_json(peers, routes), if_match, dry_run))

    async def status(self) -> Status:
        """The versions and sizes of both maps, and the filter's version."""
        success = await self._connection.send(Call("GET", "/v1/status"))
        return responses.read(success.response, responses.read_status)

    async def is_ready(self) -> bool:
        """Whether Envoy says that it is ready (`GET /ready`). It is ready even before a map has been pushed."""
        success = await self._connection.send(Call("GET", "/ready", accept=(200, 503)))
        return success.response.status_code == 200

    async def stats(self) -> dict[str, Any]:
        """Envoy's statistics (`GET /stats?format=json`), as Envoy formats them."""
        success = await self._connection.send(Call("GET", "/stats", query={"format": "json"}))
        return responses.read(success.response, dict)

    async def open_requests(self, port: int) -> int:
        """How many requests the agent at this port has, or wait for a connection to it (`GET /clusters`)."""
        query = {"format": "json", "filter": "^agents_"}
        success = await self._connection.send(Call("GET", "/clusters", query=query))
        return responses.read(success.response, lambda body: responses.read_open_requests(body, port))

    async def close(self) -> None:
        """Closes all connections; later calls raise ClientClosed. Can be called several times."""
        await self._connection.close()

    async def __aenter__(self) -> RouteApiClient:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        await self.close()

    async def _write(self, call: Call) -> WriteResult:
        success = await self._connection.send(call)
        return replace(responses.read(success.response, responses.read_write), repeated=success.repeated)


def _write_call(
    method: str,
    path: str,
    body: Any,
    if_match: Optional[MapVersion],
    dry_run: bool,
    accept: tuple[int, ...] = (200,),
) -> Call:
    headers: dict[str, str] = {}
    if body is not None:
        headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
    if if_match is not None:
        headers["If-Match"] = if_match.etag
    return Call(
        method,
        path,
        accept,
        idempotent=if_match is None,
        query={"dry_run": "true"} if dry_run else None,
        headers=headers,
        body=None if body is None else json.dumps(body, separators=(",", ":")).encode("ascii"),
    )


def _fits_path(deployment_id: str) -> bool:
    return _PATH_SAFE.fullmatch(_checked(deployment_id)) is not None


def _checked(deployment_id: str) -> str:
    # json.dumps would silently turn a number or None into a string.
    if not isinstance(deployment_id, str):
        raise InvalidArgument(f"a deployment id or a peer's name is a string, not {deployment_id!r}")
    return deployment_id


def _map_to_json(routes: Mapping[str, Optional[Union[RouteLike, RoutePatch]]]) -> dict[str, Any]:
    return {"routes": {_checked(key): None if route is None else to_json(route) for key, route in routes.items()}}


def _fleet_to_json(
    peers: Mapping[str, Optional[Peer]], routes: Mapping[str, Optional[Sequence[str]]]
) -> dict[str, Any]:
    return {
        "peers": {_checked(name): None if peer is None else peer_to_json(peer) for name, peer in peers.items()},
        "routes": {_checked(key): None if names is None else peers_to_json(names) for key, names in routes.items()},
    }
