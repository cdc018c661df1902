"""The background task against a real Envoy: every way in which Envoy's map and the wanted one can differ."""

from __future__ import annotations

import asyncio
from typing import Any, Optional

import httpx
import pytest
from conftest import TOKEN
from envoy_process import EnvoyProcess
from watching import WITHIN, eventually

from pixell_envoy import (
    Backoff,
    FaultyRequest,
    InvalidArgument,
    InvalidRoutes,
    PortInUse,
    Reconciler,
    Route,
    RouteApiClient,
    Unauthorized,
    Unreachable,
)

NEVER = 3600.0
"""A poll interval that never ends, to show that something else than a poll corrected the map."""


class Observed(httpx.AsyncBaseTransport):
    """Passes requests on and records the method and status of each."""

    def __init__(self) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self.seen: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        self.seen.append(f"{request.method} {response.status_code}")
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


async def routes_of(client: RouteApiClient) -> dict[str, Route]:
    return dict((await client.get_routes()).routes)


async def test_makes_the_map_equal_at_start(client: RouteApiClient) -> None:
    await client.replace_routes({"left-over": 50060, "b": 50060 + 1})
    async with Reconciler(client, lambda: {"a": 50054, "b": Route(50055, "draining")}, poll=NEVER) as reconciler:
        assert await reconciler.wait_in_sync(WITHIN)
        assert reconciler.state.in_sync and reconciler.state.last_error is None
        assert reconciler.state.version == (await client.get_routes()).version
    assert await routes_of(client) == {"a": Route(50054), "b": Route(50055, "draining")}


async def test_pushes_an_empty_map_to_an_envoy_that_has_none(own_envoy: EnvoyProcess) -> None:
    async with RouteApiClient(own_envoy.url) as client:
        assert not (await client.status()).loaded
        async with Reconciler(client, dict, poll=NEVER) as reconciler:
            assert await reconciler.wait_in_sync(WITHIN)
        assert (await client.status()).loaded


async def test_pushes_a_change_at_once(client: RouteApiClient) -> None:
    wanted = {"a": 50054}
    async with Reconciler(client, lambda: wanted, poll=NEVER) as reconciler:
        assert await reconciler.wait_in_sync(WITHIN)
        wanted["b"] = 50055
        reconciler.changed()
        assert not reconciler.state.in_sync
        assert await reconciler.wait_in_sync(WITHIN)
        assert await routes_of(client) == {"a": Route(50054), "b": Route(50055)}


async def test_no_change_is_lost_however_fast_they_come(client: RouteApiClient) -> None:
    wanted: dict[str, int] = {}
    async with Reconciler(client, lambda: wanted, poll=NEVER) as reconciler:
        for number in range(200):
            wanted[f"agent-{number}"] = 50070 + number
            reconciler.changed()
            await asyncio.sleep(0.001)
        assert await reconciler.wait_in_sync(WITHIN)
        assert await routes_of(client) == {key: Route(port) for key, port in wanted.items()}


async def test_finds_changes_that_were_not_reported(client: RouteApiClient) -> None:
    wanted = {"a": 50054}
    async with Reconciler(client, lambda: wanted, poll=0.05) as reconciler:
        assert await reconciler.wait_in_sync(WITHIN)

        async def right() -> bool:
            return await routes_of(client) == {key: Route(port) for key, port in wanted.items()}

        wanted["a"] = 50056
        await eventually(right, WITHIN, "a change of the wanted map without changed()")
        await client.replace_routes({"stranger": 50060})
        await eventually(right, WITHIN, "another writer's change")


async def test_asks_with_a_condition_while_nothing_happens(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    transport = Observed()
    async with RouteApiClient(shared_envoy.url, transport=transport) as own:
        async with Reconciler(own, lambda: {"a": 50054}, poll=0.02) as reconciler:
            assert await reconciler.wait_in_sync(WITHIN)

            async def polled() -> bool:
                return len(transport.seen) >= 10

            await eventually(polled, WITHIN, "some polls")
    assert transport.seen[:3] == ["GET 200", "PUT 200", "GET 200"]
    assert set(transport.seen[3:]) == {"GET 304"}


async def test_a_restarted_envoy_gets_the_whole_map_back(own_envoy: EnvoyProcess) -> None:
    wanted = {f"agent-{number}": Route(50070 + number, "draining" if number % 2 else "active") for number in range(100)}
    async with RouteApiClient(own_envoy.url) as client, Reconciler(client, lambda: wanted) as reconciler:
        assert await reconciler.wait_in_sync(WITHIN)
        first = reconciler.state.version
        own_envoy.kill()

        async def noticed() -> bool:
            return isinstance(reconciler.state.last_error, Unreachable) and not reconciler.state.in_sync

        await eventually(noticed, WITHIN, "that Envoy is away")
        # Long enough for the back-off to have reached its longest delay.
        await asyncio.sleep(4)
        await asyncio.get_running_loop().run_in_executor(None, own_envoy.start)

        async def back() -> bool:
            return await routes_of(client) == wanted

        await eventually(back, WITHIN, "the whole map back in the restarted Envoy")
        assert await reconciler.wait_in_sync(WITHIN)
        now = reconciler.state.version
        assert first is not None and now is not None and first.epoch != now.epoch


async def test_an_envoy_restarted_between_two_polls_is_noticed(own_envoy: EnvoyProcess) -> None:
    async with RouteApiClient(own_envoy.url) as client, Reconciler(client, lambda: {"a": 50054}) as reconciler:
        assert await reconciler.wait_in_sync(WITHIN)
        # This blocks the event loop, so no poll sees that Envoy is away.
        own_envoy.restart()

        async def back() -> bool:
            return await routes_of(client) == {"a": Route(50054)}

        await eventually(back, WITHIN, "the map back")


async def test_an_envoy_that_comes_late_gets_the_map(own_envoy: EnvoyProcess) -> None:
    own_envoy.kill()
    async with RouteApiClient(own_envoy.url) as client, Reconciler(client, lambda: {"a": 50054}) as reconciler:
        assert not await reconciler.wait_in_sync(0.5)
        assert isinstance(reconciler.state.last_error, Unreachable)
        await asyncio.get_running_loop().run_in_executor(None, own_envoy.start)
        assert await reconciler.wait_in_sync(WITHIN)
        assert reconciler.state.last_error is None


async def test_backs_off_while_envoy_is_away(own_envoy: EnvoyProcess) -> None:
    own_envoy.kill()
    asked: list[float] = []

    def draw() -> float:
        asked.append(asyncio.get_running_loop().time())
        return 1.0

    backoff = Backoff(first=0.05, longest=0.4, random=draw)
    async with RouteApiClient(own_envoy.url) as client:
        async with Reconciler(client, lambda: {"a": 50054}, poll=0.01, backoff=backoff) as reconciler:

            async def tried() -> bool:
                # A change does not make Envoy reachable, so it must not shorten the delays.
                reconciler.changed()
                return len(asked) >= 6

            await eventually(tried, 30, "six attempts")
    gaps = [later - earlier for earlier, later in zip(asked, asked[1:])]
    for gap, least in zip(gaps, [0.05, 0.1, 0.2, 0.4, 0.4]):
        assert gap >= least


async def test_a_function_that_raises_leaves_the_map_alone(client: RouteApiClient) -> None:
    await client.replace_routes({"running": 50060})
    wanted: Optional[dict[str, int]] = None

    def ask() -> dict[str, int]:
        if wanted is None:
            raise RuntimeError("not known yet")
        return wanted

    async with Reconciler(client, ask, poll=0.02, backoff=Backoff(0.01, 0.05)) as reconciler:
        assert not await reconciler.wait_in_sync(0.3)
        assert isinstance(reconciler.state.last_error, RuntimeError)
        assert await routes_of(client) == {"running": Route(50060)}
        wanted = {"a": 50054}
        assert await reconciler.wait_in_sync(WITHIN)
        assert await routes_of(client) == {"a": Route(50054)}


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"a": 50054, "b": 80}, InvalidRoutes),
        ({"a": 50054, "not an id": 50055}, InvalidRoutes),
        ({"a": 50054, "b": 50054}, PortInUse),
        ({"a": 50054, "b": "50055"}, InvalidArgument),
        ({5: 50054}, InvalidArgument),
        (None, AttributeError),
    ],
)
async def test_a_wanted_map_that_is_not_accepted_leaves_the_map_alone(
    client: RouteApiClient, bad: Any, error: type
) -> None:
    await client.replace_routes({"running": 50060})
    wanted = bad
    refused: list[FaultyRequest] = []
    # A back-off as long as this shows that a change is tried at once.
    backoff = Backoff(NEVER, NEVER)
    async with Reconciler(client, lambda: wanted, poll=NEVER, backoff=backoff, on_refused=refused.append) as reconciler:

        async def failed() -> bool:
            return isinstance(reconciler.state.last_error, error)

        await eventually(failed, WITHIN, "the error")
        assert await routes_of(client) == {"running": Route(50060)}
        assert len(refused) == issubclass(error, FaultyRequest)
        wanted = {"a": 50054}
        reconciler.changed()
        assert await reconciler.wait_in_sync(WITHIN)
    assert await routes_of(client) == {"a": Route(50054)}


async def test_the_wanted_map_can_be_awaited(client: RouteApiClient) -> None:
    async def ask() -> dict[str, int]:
        await asyncio.sleep(0)
        return {"a": 50054}

    async with Reconciler(client, ask, poll=NEVER) as reconciler:
        assert await reconciler.wait_in_sync(WITHIN)
    assert await routes_of(client) == {"a": Route(50054)}


async def test_an_older_wanted_map_does_not_undo_a_newer_write(
    shared_envoy: EnvoyProcess, client: RouteApiClient
) -> None:
    known = {"a": 50054}

    async def ask() -> dict[str, int]:
        wanted = dict(known)
        if "new" not in known:
            # An agent starts while the wanted map is being made.
            await client.put_route("new", 50055)
            known["new"] = 50055
        return wanted

    transport = Observed()
    async with RouteApiClient(shared_envoy.url, transport=transport) as own:
        async with Reconciler(own, ask, poll=NEVER) as reconciler:
            assert await reconciler.wait_in_sync(WITHIN)
    assert transport.seen == ["GET 200", "PUT 412", "GET 200", "PUT 200", "GET 200"]
    assert await routes_of(client) == {"a": Route(50054), "new": Route(50055)}


async def test_can_leave_unknown_ids_alone(client: RouteApiClient) -> None:
    await client.replace_routes({"stranger": 50060, "gone": 50061, "a": 50062})
    async with Reconciler(client, lambda: {"a": 50054, "gone": None}, keep_unknown=True, poll=NEVER) as reconciler:
        assert await reconciler.wait_in_sync(WITHIN)
    assert await routes_of(client) == {"stranger": Route(50060), "a": Route(50054)}


async def test_a_wrong_token_is_an_error_and_does_not_end_the_task(guarded_envoy: EnvoyProcess) -> None:
    async with RouteApiClient(guarded_envoy.url, token="wrong") as client:
        async with Reconciler(client, lambda: {"a": 50054}) as reconciler:
            assert not await reconciler.wait_in_sync(0.5)
            assert isinstance(reconciler.state.last_error, Unauthorized)
    async with RouteApiClient(guarded_envoy.url, token=TOKEN) as client:
        async with Reconciler(client, lambda: {"a": 50054}) as reconciler:
            assert await reconciler.wait_in_sync(WITHIN)


async def test_two_reconcilers_that_disagree_back_off(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    transport = Observed()
    backoff = Backoff(first=0.2, longest=0.4)
    async with RouteApiClient(shared_envoy.url, transport=transport) as own:
        async with Reconciler(own, lambda: {"a": 50054}, poll=0.05, backoff=backoff):
            async with Reconciler(own, lambda: {"a": 50055}, poll=0.05, backoff=backoff):
                await asyncio.sleep(1)
    assert 2 < len(transport.seen) < 150


async def test_stopping_leaves_the_routes(client: RouteApiClient) -> None:
    reconciler = Reconciler(client, lambda: {"a": 50054}, poll=0.01)
    reconciler.start()
    reconciler.start()
    assert await reconciler.wait_in_sync(WITHIN)
    await reconciler.stop()
    await reconciler.stop()
    assert not reconciler.state.in_sync
    assert not await reconciler.wait_in_sync(WITHIN)
    assert await routes_of(client) == {"a": Route(50054)}
    await client.replace_routes({})
    reconciler.start()
    assert await reconciler.wait_in_sync(WITHIN)
    await reconciler.stop()
    assert await routes_of(client) == {"a": Route(50054)}


@pytest.mark.parametrize("passes", [0, 1, 2, 3, 5, 8, 13, 21, 34])
async def test_stops_at_any_moment(client: RouteApiClient, passes: int) -> None:
    reconciler = Reconciler(client, lambda: {"a": 50054}, poll=0.0001)
    reconciler.start()
    for _ in range(passes):
        await asyncio.sleep(0)
    await asyncio.wait_for(reconciler.stop(), 1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_cancellation_from_outside_is_noticed(client: RouteApiClient) -> None:
    reconciler = Reconciler(client, lambda: {"a": 50054}, poll=NEVER)
    reconciler.start()
    assert await reconciler.wait_in_sync(WITHIN)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0.01)
    assert not reconciler.state.in_sync
    assert not await reconciler.wait_in_sync(WITHIN)


async def test_a_reconciler_that_was_never_started_cannot_be_waited_for(client: RouteApiClient) -> None:
    reconciler = Reconciler(client, dict)
    reconciler.changed()
    await reconciler.stop()
    with pytest.raises(RuntimeError):
        await reconciler.wait_in_sync()
    with pytest.raises(InvalidArgument):
        Reconciler(client, dict, poll=0)
