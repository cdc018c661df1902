"""What EnvoyManager reports if the registration of one agent takes another one's port, against a real Envoy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from envoy_process import EnvoyProcess
from watching import WITHIN, eventually, port_map, settled_at

from pixell_envoy import Displacement, EnvoyManager, Route, RouteApiClient, Unreachable, WriteResult


class Fights:
    """A manager, and the displacements that it reported."""

    def __init__(self, url: str, reconcile: bool = True) -> None:
        self.reported: list[Displacement] = []
        self.manager = EnvoyManager(url, reconcile=reconcile, on_displaced=self.reported.append)


@pytest.fixture
async def fights(shared_envoy: EnvoyProcess, client: RouteApiClient) -> AsyncIterator[Fights]:
    fights = Fights(shared_envoy.url)
    yield fights
    await fights.manager.close()


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def test_two_agents_fight_for_a_port(
    fights: Fights, client: RouteApiClient, caplog: pytest.LogCaptureFixture
) -> None:
    await fights.manager.register_agent("old", 50054)
    assert await fights.manager.register_agent("new", 50054) is True
    assert await port_map(client) == {"new": 50054}
    assert fights.reported == [Displacement("old", "new", (50054,))]
    (line,) = errors(caplog)
    assert "'old'" in line and "'new'" in line and "50054" in line


async def test_an_endpoint_is_a_port_like_any_other(fights: Fights, client: RouteApiClient) -> None:
    await fights.manager.register_agent("old", 50054, {"rest": 63001, "ui": 65001})
    await fights.manager.register_agent("new", 50055, {"rest": 65001})
    assert await port_map(client) == {"new": 50055}
    assert fights.reported == [Displacement("old", "new", (65001,))]


async def test_a_redeploy_and_a_port_given_back_are_no_fight(
    fights: Fights, client: RouteApiClient, caplog: pytest.LogCaptureFixture
) -> None:
    manager = fights.manager
    await manager.register_agent("a", 50054)
    await manager.register_agent("a", 50055)
    await manager.register_agent("b", 50054)
    await manager.deregister_agent("b")
    await manager.register_agent("c", 50054)
    # Two agents swap their ports, in calls that run at the same time.
    await asyncio.gather(
        manager.deregister_agent("c"), manager.register_agent("d", 50054), manager.register_agent("c", 50056)
    )
    assert await port_map(client) == {"a": 50055, "c": 50056, "d": 50054}
    await manager.replace_agents({"e": 50055})
    assert (fights.reported, errors(caplog)) == ([], [])


@pytest.mark.parametrize("reconcile", [True, False])
async def test_a_displaced_route_of_an_earlier_par_is_reported(
    shared_envoy: EnvoyProcess, client: RouteApiClient, reconcile: bool
) -> None:
    await client.put_route("left-over", Route(50054, endpoints={"rest": 63001}))
    fights = Fights(shared_envoy.url, reconcile)
    await fights.manager.register_agent("other", 50060)
    await asyncio.sleep(0.5)
    await fights.manager.register_agent("new", 50055, {"rest": 63001})
    # A manager that reads the map knows which port it was.
    assert fights.reported == [Displacement("left-over", "new", (63001,) if reconcile else (50055, 63001))]
    await fights.manager.close()


async def test_a_fight_while_envoy_is_away_is_reported_at_once(
    own_envoy: EnvoyProcess, caplog: pytest.LogCaptureFixture
) -> None:
    fights = Fights(own_envoy.url)
    assert await fights.manager.register_agent("old", 50054)
    own_envoy.kill()
    assert await fights.manager.register_agent("new", 50054) is False
    assert fights.reported == [Displacement("old", "new", (50054,))]
    await asyncio.get_running_loop().run_in_executor(None, own_envoy.start)
    async with RouteApiClient(own_envoy.url) as client:
        await settled_at(client, {"new": 50054}, "the new agent")
    assert len(fights.reported) == 1
    await fights.manager.close()


async def test_a_fight_that_a_later_push_finds_is_reported(
    fights: Fights, client: RouteApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.put_route("left-over", Route(50054, endpoints={"rest": 63001}))

    async def put_route(*_: object, **__: object) -> WriteResult:
        raise Unreachable("no connection")

    monkeypatch.setattr(RouteApiClient, "put_route", put_route)
    assert await fights.manager.register_agent("new", 50055, {"rest": 63001}) is False
    await settled_at(client, {"new": 50055}, "what was asked for")

    async def reported() -> bool:
        return bool(fights.reported)

    await eventually(reported, WITHIN, "the displaced route of another writer")
    assert fights.reported == [Displacement("left-over", "new", (63001,))]


async def test_what_the_callback_raises_is_logged(
    shared_envoy: EnvoyProcess, client: RouteApiClient, caplog: pytest.LogCaptureFixture
) -> None:
    def on_displaced(displacement: Displacement) -> None:
        raise RuntimeError(f"cannot handle {displacement.displaced}")

    manager = EnvoyManager(shared_envoy.url, on_displaced=on_displaced)
    await manager.register_agent("old", 50054)
    assert await manager.register_agent("new", 50054) is True
    assert "cannot handle old" in errors(caplog)[-1]
    await manager.close()
