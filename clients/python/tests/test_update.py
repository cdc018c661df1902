"""Updates of the whole map: none is lost and none is made twice, even if messages are lost. Against a real Envoy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Callable, Optional

import httpx
import pytest
from envoy_process import EnvoyProcess
from transports import FaultyTransport

from pixell_envoy import (
    InvalidArgument,
    InvalidRoutes,
    OutcomeUnknown,
    PreconditionFailed,
    Retry,
    Route,
    RouteApiClient,
)

QUICK = Retry(attempts=1)


def count_up(routes: dict[str, Route]) -> Mapping[str, int]:
    """Not idempotent: a second call counts twice."""
    return {**{key: route.port for key, route in routes.items()}, "counter": routes["counter"].port + 1}


def set_a(routes: dict[str, Route]) -> Mapping[str, Route]:
    """Idempotent."""
    return {**routes, "a": Route(60000)}


async def counter(client: RouteApiClient) -> int:
    return (await client.get_route("counter")).port


async def test_writes_what_the_function_returns(client: RouteApiClient) -> None:
    await client.replace_routes({"counter": 20000})
    result = await client.update(count_up)
    assert (result.added, result.changed, result.removed) == (0, 1, 0)
    assert await counter(client) == 20001


async def test_writes_nothing_if_nothing_changes(client: RouteApiClient) -> None:
    before = await client.get_routes()
    result = await client.update(lambda routes: routes)
    assert (result.version, result.added, result.changed, result.removed) == (before.version, 0, 0, 0)
    assert await client.get_routes() == before


async def test_an_error_of_the_function_goes_through(client: RouteApiClient) -> None:
    with pytest.raises(KeyError):
        await client.update(count_up)
    with pytest.raises(InvalidRoutes):
        await client.update(lambda routes: {"a": 80})
    with pytest.raises(InvalidArgument):
        await client.update(set_a, attempts=0)


async def test_writers_side_by_side_lose_nothing(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    start = (await client.replace_routes({"counter": 20000})).version
    writers, rounds = 8, 25

    async def write(number: int) -> None:
        # One connection for each writer, so that they reach different workers.
        async with RouteApiClient(shared_envoy.url) as own:
            for _ in range(rounds):
                await own.update(lambda routes: {**count_up(routes), f"writer-{number}": 30000 + number})

    await asyncio.gather(*(write(number) for number in range(writers)))
    now = await client.get_routes()
    assert now.routes["counter"] == Route(20000 + writers * rounds)
    assert {f"writer-{number}" for number in range(writers)} < set(now.routes)
    assert now.version.generation == start.generation + writers * rounds


async def test_gives_up_if_others_are_always_faster(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    await client.replace_routes({"counter": 20000})
    transport = Overtaking(client)
    async with RouteApiClient(shared_envoy.url, transport=transport) as slow:
        with pytest.raises(PreconditionFailed):
            await slow.update(set_a, attempts=3)
    assert transport.writes == 3
    assert (await client.get_routes()).routes == {"counter": Route(20003)}


class Overtaking(FaultyTransport):
    """Lets another writer write before each write."""

    def __init__(self, other: RouteApiClient) -> None:
        super().__init__([])
        self._other = other

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            await self._other.update(count_up)
        return await super().handle_async_request(request)


Meanwhile = Callable[[RouteApiClient], Awaitable[object]]


async def other_update(client: RouteApiClient) -> None:
    await client.put_route("other", 60001)


async def same_update(client: RouteApiClient) -> None:
    await client.update(count_up)


@pytest.mark.parametrize(
    ("faults", "meanwhile"),
    [
        # Retried unchanged: the retry can succeed only if the first attempt did not.
        (["request lost"], None),
        (["request lost", "request lost"], None),
        # The map shows that another write came first, so ours was not made.
        (["request lost"], other_update),
        # A request that was never sent is not lost.
        (["not connected"], None),
    ],
)
async def test_a_loss_that_a_retry_can_repair(
    shared_envoy: EnvoyProcess, client: RouteApiClient, faults: list[str], meanwhile: Optional[Meanwhile]
) -> None:
    await client.replace_routes({"counter": 20000})
    transport = FaultyTransport(faults, None if meanwhile is None else lambda: meanwhile(client))
    async with RouteApiClient(shared_envoy.url, transport=transport) as lossy:
        await lossy.update(count_up)
    assert await counter(client) == 20001


@pytest.mark.parametrize(
    ("faults", "meanwhile", "made"),
    [
        # The map looks as if ours was made, but another writer's equal update would look the same.
        (["response lost"], None, True),
        (["request lost"], same_update, False),
        # A further write hides whether ours was made.
        (["response lost"], other_update, True),
        (["request lost", "response lost"], None, True),
        (["request lost", "request lost", "request lost"], None, False),
    ],
)
async def test_a_loss_that_no_retry_can_repair_is_an_error(
    shared_envoy: EnvoyProcess, client: RouteApiClient, faults: list[str], meanwhile: Optional[Meanwhile], made: bool
) -> None:
    await client.replace_routes({"counter": 20000})
    transport = FaultyTransport(faults, None if meanwhile is None else lambda: meanwhile(client))
    async with RouteApiClient(shared_envoy.url, retry=QUICK, transport=transport) as lossy:
        with pytest.raises(OutcomeUnknown):
            await lossy.update(count_up)
    # An error, but in no case a second change.
    assert await counter(client) == 20000 + made + (meanwhile is same_update)


@pytest.mark.parametrize(
    "faults",
    [["response lost"], ["request lost"], ["request lost", "response lost"], ["response lost", "request lost"]],
)
@pytest.mark.parametrize("meanwhile", [None, other_update])
async def test_an_idempotent_update_survives_any_loss(
    shared_envoy: EnvoyProcess, client: RouteApiClient, faults: list[str], meanwhile: Optional[Meanwhile]
) -> None:
    transport = FaultyTransport(faults, None if meanwhile is None else lambda: meanwhile(client))
    async with RouteApiClient(shared_envoy.url, transport=transport) as lossy:
        await lossy.update(set_a, idempotent=True)
    expected = {"a": Route(60000), **({} if meanwhile is None else {"other": Route(60001)})}
    assert (await client.get_routes()).routes == expected


async def test_an_envoy_that_dies_in_between_is_an_error(own_envoy: EnvoyProcess) -> None:
    async def die() -> None:
        own_envoy.kill()

    transport = FaultyTransport(["response lost"], die)
    async with RouteApiClient(own_envoy.url, retry=QUICK, transport=transport) as lossy:
        with pytest.raises(OutcomeUnknown):
            await lossy.update(set_a, idempotent=True)
