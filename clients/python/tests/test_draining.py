"""EnvoyManager.drain_agent, and what a manager says of its agents, against a real Envoy."""

from __future__ import annotations

import asyncio

import pytest
from conftest import TOKEN
from envoy_process import EnvoyProcess
from watching import WITHIN, eventually

from pixell_envoy import ClientClosed, EnvoyManager, Route, RouteApiClient, RouteApiError


async def test_drains_and_ends_the_draining(manager: EnvoyManager, client: RouteApiClient) -> None:
    assert await manager.register_agent("a", 50054, {"rest": 63001})
    assert await manager.drain_agent("a") is True
    draining = Route(50054, "draining", {"rest": 63001})
    assert await client.get_route("a") == draining
    assert manager.agents() == {"a": draining}
    assert await manager.drain_agent("a") is True
    assert await manager.register_agent("a", 50054)
    assert manager.agents() == {"a": Route(50054)}
    assert await manager.drain_agent("a") and await manager.deregister_agent("a")
    assert manager.agents() == {}


async def test_an_agent_that_starts_may_be_registered_as_draining(
    manager: EnvoyManager, client: RouteApiClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert await manager.register_agent("a", 50054, {"ui": 65001}, state="draining") is True
    assert await client.get_route("a") == Route(50054, "draining", {"ui": 65001}) == manager.agents()["a"]
    assert await manager.register_agent("a", 50054, {"ui": 65001}) is True
    assert await client.get_route("a") == Route(50054, endpoints={"ui": 65001})
    assert await manager.register_agent("b", 50055, state="asleep") is False  # type: ignore[arg-type]
    assert "asleep" in caplog.text and "b" not in manager.agents()


async def test_an_id_that_cannot_stand_in_a_path_drains(manager: EnvoyManager, client: RouteApiClient) -> None:
    assert await manager.register_agent("..", 50054) and await manager.drain_agent("..")
    assert (await client.get_routes()).routes == {"..": Route(50054, "draining")}


async def test_an_unknown_agent_cannot_drain(
    manager: EnvoyManager, client: RouteApiClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert await manager.drain_agent("nobody") is False
    assert "cannot drain 'nobody': 404" in caplog.text
    assert await manager.drain_agent(5) is False  # type: ignore[arg-type]
    assert (await client.get_routes()).routes == {} and manager.agents() == {}


async def test_an_agent_of_an_earlier_par_drains(manager: EnvoyManager, client: RouteApiClient) -> None:
    await client.put_route("old", Route(50060, endpoints={"ui": 65001}))
    assert await manager.drain_agent("old") is True
    assert await client.get_route("old") == Route(50060, "draining", {"ui": 65001})
    assert manager.agents() == {}


async def test_waits_until_an_agent_is_idle(
    manager: EnvoyManager, client: RouteApiClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No agent has ever had this port.
    assert await client.open_requests(50071) == 0 and await manager.wait_idle(50071, 5) is True
    counts = iter([2, 0, 1, 0, 0])

    async def counted(_: RouteApiClient, port: int) -> int:
        assert port == 50072
        return next(counts)

    monkeypatch.setattr(RouteApiClient, "open_requests", counted)
    # Once is not enough.
    assert await manager.wait_idle(50072, 5) is True and list(counts) == []
    counts = iter([3] * 100)
    assert await manager.wait_idle(50072, 0.3) is False
    assert "port 50072 still has requests after 0.3 s: 3" in caplog.text
    # Another agent has the port: what Envoy counts is of that one.
    assert await manager.register_agent("a", 50072) and await manager.wait_idle(50072, 5) is True
    assert await manager.drain_agent("a") and await manager.wait_idle(50072, 0.3) is False


async def test_nobody_knows_whether_an_agent_is_idle_without_envoy(
    own_envoy: EnvoyProcess, caplog: pytest.LogCaptureFixture
) -> None:
    manager = EnvoyManager(own_envoy.url)
    own_envoy.kill()
    assert await manager.wait_idle(50071, 5) is False and "cannot wait for the requests at port 50071" in caplog.text
    await manager.close()
    assert await manager.wait_idle(50071, 5) is False


async def test_the_token_is_sent_to_ask_for_open_requests(guarded_envoy: EnvoyProcess) -> None:
    async with RouteApiClient(guarded_envoy.url, token=TOKEN) as client:
        assert await client.open_requests(50054) == 0
    async with RouteApiClient(guarded_envoy.url) as client:
        with pytest.raises(RouteApiError):
            await client.open_requests(50054)


async def test_an_agent_that_is_deregistered_is_not_drained_back(manager: EnvoyManager, client: RouteApiClient) -> None:
    assert await manager.register_agent("a", 50054)
    assert await manager.deregister_agent("a") is True
    assert await manager.drain_agent("a") is False
    assert (await client.get_routes()).routes == {}


async def test_calls_for_one_agent_keep_their_order(manager: EnvoyManager, client: RouteApiClient) -> None:
    for _ in range(10):
        calls = [manager.register_agent("a", 50054), manager.drain_agent("a"), manager.register_agent("b", 50055)]
        assert await asyncio.gather(*calls) == [True, True, True]
        assert await client.get_route("a") == Route(50054, "draining")
        await asyncio.gather(manager.drain_agent("a"), manager.register_agent("a", 50056))
        assert await client.get_route("a") == Route(50056)


async def test_a_restarted_envoy_gets_the_state_back(own_envoy: EnvoyProcess) -> None:
    manager = EnvoyManager(own_envoy.url)
    assert await manager.register_agent("a", 50054) and await manager.register_agent("b", 50055)
    own_envoy.kill()
    # Not in Envoy now, but it is what the agent has from now on.
    assert await manager.drain_agent("a") is False
    await asyncio.get_running_loop().run_in_executor(None, own_envoy.start)
    async with RouteApiClient(own_envoy.url) as client:

        async def restored() -> bool:
            return (await client.get_routes()).routes == {"a": Route(50054, "draining"), "b": Route(50055)}

        await eventually(restored, WITHIN, "both agents, one of them draining")
    await manager.close()


async def test_tells_of_changes(manager: EnvoyManager) -> None:
    seen: list[dict[str, str]] = []
    end = manager.on_change(lambda: seen.append({key: route.state for key, route in manager.agents().items()}))
    await manager.register_agent("a", 50054)
    await manager.drain_agent("a")
    await manager.register_agent("b", 50054)
    await manager.replace_agents({"c": 50056})
    await manager.register_agent("bad", 80)
    await manager.deregister_agent("c")
    end()
    await manager.register_agent("d", 50057)
    assert seen == [{"a": "active"}, {"a": "draining"}, {"b": "active"}, {"c": "active"}, {}]


async def test_a_closed_manager_has_no_client(shared_envoy: EnvoyProcess) -> None:
    manager = EnvoyManager(shared_envoy.url)
    assert await manager.client().is_ready()
    await manager.close()
    with pytest.raises(ClientClosed):
        manager.client()
