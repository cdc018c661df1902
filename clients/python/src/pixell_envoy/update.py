"""Reads the map, changes it and writes it back. It never loses another writer's update, nor makes a change twice."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Callable, Optional, Protocol

from .backoff import Backoff
from .errors import InvalidArgument, OutcomeUnknown, PreconditionFailed, RouteApiError
from .models import MapVersion, Route, RouteLike, RouteMap, WriteResult, as_route

# For when another writer was faster. A write takes about a millisecond, so a delay of a few writes is enough.
_BACKOFF = Backoff(first=0.002, longest=0.1)
# How many attempts one conditional write gets while its responses are lost.
_ATTEMPTS = 3


class Client(Protocol):
    """What an update needs of a RouteApiClient."""

    async def get_routes(self) -> RouteMap: ...
    async def replace_routes(
        self, routes: Mapping[str, RouteLike], *, if_match: Optional[MapVersion] = None
    ) -> WriteResult: ...


async def update(
    client: Client,
    change: Callable[[dict[str, Route]], Mapping[str, RouteLike]],
    idempotent: bool,
    attempts: int,
    sleep: Callable[[float], Awaitable[None]],
) -> WriteResult:
    """See RouteApiClient.update."""
    if attempts < 1:
        raise InvalidArgument(f"an update needs at least one attempt, not {attempts}")
    delays = _BACKOFF.delays()
    for _ in range(attempts - 1):
        try:
            return await _once(client, change, idempotent)
        except PreconditionFailed:
            await sleep(next(delays))
    return await _once(client, change, idempotent)


async def _once(
    client: Client, change: Callable[[dict[str, Route]], Mapping[str, RouteLike]], idempotent: bool
) -> WriteResult:
    """Raises PreconditionFailed only if the change is certainly not made, or if it may be made twice."""
    before = await client.get_routes()
    wanted = {deployment_id: as_route(route) for deployment_id, route in change(dict(before.routes)).items()}
    if wanted == before.routes:
        return WriteResult(before.version, added=0, changed=0, removed=0)
    lost: Optional[OutcomeUnknown] = None
    for _ in range(_ATTEMPTS):
        try:
            return await client.replace_routes(wanted, if_match=before.version)
        except OutcomeUnknown as error:
            # Retry the same conditional write. It can succeed only if the first attempt did not, and then the first
            # attempt can no longer succeed.
            lost = error
        except PreconditionFailed:
            if lost is None or idempotent or await _certainly_not_made(client, before, wanted):
                raise
            break
        except RouteApiError as error:
            if lost is None:
                raise
            raise OutcomeUnknown(f"{lost}; then {error}") from error
    raise OutcomeUnknown(f"cannot tell whether the update was made: {lost}") from lost


async def _certainly_not_made(client: Client, before: RouteMap, wanted: Mapping[str, Route]) -> bool:
    """Whether the write that changed the map since `before` was certainly not ours.

    That is so if exactly one write happened, and its map differs from the one that ours would have made: then ours was
    rejected, or is still in flight and will be rejected. In every other case (further writes, an equal map, a restarted
    Envoy) ours may have been among the writes.
    """

    try:
        now = await client.get_routes()
    except RouteApiError:
        return False
    only_one = now.version.epoch == before.version.epoch and now.version.generation == before.version.generation + 1
    return only_one and now.routes != wanted
