"""The whole route API, version 1, as coroutines."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Callable, Optional

import httpx

from . import answers, update
from .connection import Call, Connection
from .errors import InvalidArgument, RouteNotFound
from .models import MapVersion, Route, RouteLike, RouteMap, Status, WriteResult, as_route
from .problem import Problem
from .retry import Retry

DEFAULT_ADMIN_URL = "http://127.0.0.1:9901"

# An id that can stand in a path. Envoy resolves "." and ".." there even where they are percent-encoded, and anything
# else is no id.
_PATH_SAFE = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,128}")

_DEFAULT_RETRY = Retry()


class RouteApiClient:
    """A client of one Envoy. Bound to the event loop of its first call; close it in the end, or use `async with`.

    `token` is the value of PIXELL_ADMIN_TOKEN that Envoy was started with; by default it is read from that variable
    here, and an empty one means none. `timeout` (seconds) bounds one call including its repetitions. `transport`
    replaces the connection pool.

    Every write takes `if_match` (written only while the map still has that version, else PreconditionFailed) and
    `dry_run` (checked and counted in full, nothing changed). Any call raises a RouteApiError.

    Repetitions: a request that could not be sent, and one that Envoy gave up unchanged (503), is sent again. One whose
    answer got lost is sent again too, because executing any of these calls twice leaves the same map as once; with
    `if_match` it is not, and OutcomeUnknown says so: `update` shows how to go on.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_ADMIN_URL,
        *,
        token: Optional[str] = None,
        timeout: float = 5.0,
        retry: Retry = _DEFAULT_RETRY,
        transport: Optional[httpx.AsyncBaseTransport] = None,
    ) -> None:
        self._connection = Connection(base_url, token, timeout, retry, transport)
        self._retry = retry

    async def get_routes(self) -> RouteMap:
        """The whole map."""
        answer = await self._connection.send(Call("GET", "/v1/routes"))
        return answers.read(answer.response, answers.read_map)

    async def get_routes_if_changed(self, since: MapVersion) -> Optional[RouteMap]:
        """The whole map, or None where it still has the version `since`."""
        call = Call("GET", "/v1/routes", accept=(200, 304), headers={"If-None-Match": since.etag})
        response = (await self._connection.send(call)).response
        return None if response.status_code == 304 else answers.read(response, answers.read_map)

    async def replace_routes(
        self, routes: Mapping[str, RouteLike], *, if_match: Optional[MapVersion] = None, dry_run: bool = False
    ) -> WriteResult:
        """Makes `routes` the whole map, in one step."""
        return await self._write(_write_call("PUT", "/v1/routes", _map_to_json(routes), if_match, dry_run))

    async def patch_routes(
        self,
        changes: Mapping[str, Optional[RouteLike]],
        *,
        if_match: Optional[MapVersion] = None,
        dry_run: bool = False,
    ) -> WriteResult:
        """Adds and changes routes, removes those given as None, and leaves all others alone: all or nothing."""
        return await self._write(_write_call("PATCH", "/v1/routes", _map_to_json(changes), if_match, dry_run))

    async def get_route(self, deployment_id: str) -> Route:
        """Raises RouteNotFound where there is none."""
        if _fits_path(deployment_id):
            answer = await self._connection.send(Call("GET", f"/v1/routes/{deployment_id}"))
            return answers.read(answer.response, answers.read_route)
        try:
            return (await self.get_routes()).routes[deployment_id]
        except KeyError:
            problem = Problem(404, "not_found", "Not Found", f"there is no route {deployment_id!r}")
            raise RouteNotFound(problem) from None

    async def put_route(
        self, deployment_id: str, route: RouteLike, *, if_match: Optional[MapVersion] = None, dry_run: bool = False
    ) -> WriteResult:
        """Adds or changes one route."""
        if not _fits_path(deployment_id):
            return await self.patch_routes({deployment_id: route}, if_match=if_match, dry_run=dry_run)
        path = f"/v1/routes/{deployment_id}"
        return await self._write(_write_call("PUT", path, _to_json(route), if_match, dry_run, accept=(200, 201)))

    async def delete_route(
        self, deployment_id: str, *, if_match: Optional[MapVersion] = None, dry_run: bool = False
    ) -> MapVersion:
        """Removes one route; one that is not there is a success too. Returns the version of the map afterwards."""
        if not _fits_path(deployment_id):
            return (await self.patch_routes({deployment_id: None}, if_match=if_match, dry_run=dry_run)).version
        call = _write_call("DELETE", f"/v1/routes/{deployment_id}", None, if_match, dry_run, accept=(204,))
        return answers.version_of((await self._connection.send(call)).response)

    async def update(
        self,
        change: Callable[[dict[str, Route]], Mapping[str, RouteLike]],
        *,
        idempotent: bool = False,
        attempts: int = 100,
    ) -> WriteResult:
        """Reads the map, lets `change` make a new one of it and writes that, again where another writer was faster.

        `change` gets a copy of its own and may be called several times; a map it leaves equal is not written. No other
        writer's update is lost. Raises PreconditionFailed where others were faster `attempts` times, and OutcomeUnknown
        where the answer to a write got lost and the map cannot tell whether it was made. With `idempotent`, that is for
        a `change` that does no more the second time (setting or removing routes does not, counting up does), it is
        simply applied again instead.
        """
        return await update.update(self, change, idempotent, attempts, self._retry.sleep)

    async def status(self) -> Status:
        """The version and size of the map, and the filter's version."""
        answer = await self._connection.send(Call("GET", "/v1/status"))
        return answers.read(answer.response, answers.read_status)

    async def is_ready(self) -> bool:
        """Whether Envoy says that it is ready (`GET /ready`). It is before any map has been pushed."""
        answer = await self._connection.send(Call("GET", "/ready", accept=(200, 503)))
        return answer.response.status_code == 200

    async def stats(self) -> dict[str, Any]:
        """Envoy's statistics (`GET /stats?format=json`), as Envoy formats them."""
        answer = await self._connection.send(Call("GET", "/stats", query={"format": "json"}))
        return answers.read(answer.response, dict)

    async def close(self) -> None:
        """Closes all connections; later calls raise ClientClosed. Can be repeated."""
        await self._connection.close()

    async def __aenter__(self) -> RouteApiClient:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        await self.close()

    async def _write(self, call: Call) -> WriteResult:
        answer = await self._connection.send(call)
        return replace(answers.read(answer.response, answers.read_write), repeated=answer.repeated)


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
    # JSON would turn a number or None into a string without a word.
    if not isinstance(deployment_id, str):
        raise InvalidArgument(f"a deployment id is a string, not {deployment_id!r}")
    return deployment_id


def _map_to_json(routes: Mapping[str, Optional[RouteLike]]) -> dict[str, Any]:
    return {"routes": {_checked(key): None if route is None else _to_json(route) for key, route in routes.items()}}


def _to_json(route: RouteLike) -> dict[str, Any]:
    route = as_route(route)
    return {"port": route.port, "state": route.state}
