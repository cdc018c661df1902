"""EnvoyManager's calls as PAR makes them, against a real Envoy."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Optional

import pytest
from envoy_process import EnvoyProcess
from watching import WITHIN, eventually, port_map, settled_at

from pixell_envoy import EnvoyManager, Route, RouteApiClient


async def test_registers_and_deregisters(manager: EnvoyManager, client: RouteApiClient) -> None:
    assert await manager.register_agent("a", 50054) is True
    assert await client.get_route("a") == Route(50054)
    assert await manager.register_agent("a", 50055) is True
    assert await client.get_route("a") == Route(50055)
    assert await manager.deregister_agent("a") is True
    assert await manager.deregister_agent("a") is True
    assert await manager.deregister_agent("never-there") is True
    assert await port_map(client) == {}


async def test_registers_endpoints(manager: EnvoyManager, client: RouteApiClient) -> None:
    assert await manager.register_agent("a", 50054, {"rest": 63001, "ui": 65001}) is True
    assert await client.get_route("a") == Route(50054, endpoints={"rest": 63001, "ui": 65001})
    # Each call states all endpoints.
    assert await manager.register_agent("a", 50054, endpoints={"rest": 63002}) is True
    assert await client.get_route("a") == Route(50054, endpoints={"rest": 63002})
    assert await manager.replace_agents({"b": Route(50055, endpoints={"ui": 65001}), "c": 50056}) is True
    assert (await client.get_routes()).routes == {"b": Route(50055, endpoints={"ui": 65001}), "c": Route(50056)}
    # The background task restores them, and removes endpoints that were not registered.
    await client.replace_routes(
        {"b": Route(50055, endpoints={"rest": 63001}), "c": Route(50056, endpoints={"ui": 1025})}
    )

    async def healed() -> bool:
        routes = (await client.get_routes()).routes
        return routes == {"b": Route(50055, endpoints={"ui": 65001}), "c": Route(50056)}

    await eventually(healed, WITHIN, "the endpoints that were asked for")


async def test_health_and_stats(manager: EnvoyManager) -> None:
    assert await manager.check_health() is True
    stats = await manager.get_stats()
    assert stats is not None and stats["stats"]


async def test_takes_the_url_that_par_is_configured_with(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    manager = EnvoyManager(shared_envoy.url.replace("127.0.0.1", "localhost"))
    assert await manager.register_agent("a", 50054)
    await manager.close()


async def test_the_data_paths_url_is_told_from_the_route_apis(
    shared_envoy: EnvoyProcess, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"http://127.0.0.1:{shared_envoy.agents_port}"
    manager = EnvoyManager(url, reconcile=False)
    said = f"{url} is the data path, which leads to agents: the route API is on port 9901, by default http://127.0.0.1:9901"
    for what, call in (
        ("register 'a' on port 50054", manager.register_agent("a", 50054)),
        ("deregister 'a'", manager.deregister_agent("a")),
        ("replace all routes", manager.replace_agents({})),
        ("check the health of Envoy", manager.check_health()),
        ("read the statistics of Envoy", manager.get_stats()),
    ):
        caplog.clear()
        assert not await call
        assert caplog.messages == [f"pixell-envoy ERROR: cannot {what}: {said}"]
    await manager.close()


async def test_registrations_at_once_lose_nothing(manager: EnvoyManager, client: RouteApiClient) -> None:
    wanted = {f"agent-{number}": 50070 + number for number in range(200)}
    done = await asyncio.gather(*(manager.register_agent(key, port) for key, port in wanted.items()))
    assert all(done)
    assert await port_map(client) == wanted
    done = await asyncio.gather(*(manager.deregister_agent(key) for key in wanted))
    assert all(done)
    assert await port_map(client) == {}


async def test_calls_for_one_agent_take_effect_in_order(manager: EnvoyManager, client: RouteApiClient) -> None:
    # A redeploy whose calls run as tasks at the same time.
    for _ in range(20):
        done = await asyncio.gather(
            manager.register_agent("a", 50054), manager.deregister_agent("a"), manager.register_agent("a", 50055)
        )
        assert all(done)
        assert await port_map(client) == {"a": 50055}


@pytest.mark.parametrize(
    ("deployment_id", "port", "pointer"),
    [
        ("a", 80, "/port"),
        ("a", 9901, "/port"),
        ("a", 0, "/port"),
        ("a", 65536, "/port"),
        ("not an id", 50054, "/routes/not an id"),
        ("", 50054, "/routes/"),
        ("a", "50054", None),
        ("a", None, None),
        (None, 50054, None),
        (["a"], 50054, None),
        ("a", True, None),
    ],
)
async def test_a_bad_argument_is_logged_and_forgotten(
    manager: EnvoyManager,
    client: RouteApiClient,
    caplog: pytest.LogCaptureFixture,
    deployment_id: Any,
    port: Any,
    pointer: Optional[str],
) -> None:
    await manager.register_agent("kept", 50060)
    caplog.clear()
    assert await manager.register_agent(deployment_id, port) is False
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert repr(deployment_id) in caplog.text
    assert pointer is None or pointer in caplog.text
    assert await port_map(client) == {"kept": 50060}
    # A registration that Envoy does not accept must not keep the others out.
    await client.replace_routes({})
    await settled_at(client, {"kept": 50060}, "the good agent back")


@pytest.mark.parametrize(
    ("endpoints", "said"),
    [
        ({"a2a": 50055}, "/endpoints/a2a"),
        ({"UI": 50055}, "/endpoints/UI"),
        ({"ui": 80}, "/endpoints/ui"),
        ({"ui": "50055"}, "a route is a port number"),
        ({1: 50055}, "a string"),
        (None, "None"),
        (50055, "50055"),
    ],
)
async def test_bad_endpoints_are_logged_and_forgotten(
    manager: EnvoyManager, client: RouteApiClient, caplog: pytest.LogCaptureFixture, endpoints: Any, said: str
) -> None:
    assert await manager.register_agent("a", 50054, endpoints) is False
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert said in caplog.records[0].getMessage()
    assert await port_map(client) == {}


async def test_a_port_given_twice_changes_nothing(
    manager: EnvoyManager, client: RouteApiClient, caplog: pytest.LogCaptureFixture
) -> None:
    await manager.register_agent("a", 50054)
    assert await manager.replace_agents({"b": 50055, "c": 50055}) is False
    assert "port_in_use" in caplog.text and "/routes/" in caplog.text
    assert await port_map(client) == {"a": 50054}


async def test_the_error_about_a_wrong_token_does_not_show_it(
    guarded_envoy: EnvoyProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    manager = EnvoyManager(guarded_envoy.url, token="not-the-token")
    assert await manager.register_agent("a", 50054) is False
    assert await manager.check_health() is True
    await manager.close()
    assert "401 unauthorized" in caplog.text
    assert "not-the-token" not in caplog.text


@pytest.mark.parametrize(("url", "token"), [("not a url", None), (None, None), ("http://127.0.0.1:9901", "two words")])
async def test_bad_settings_do_not_raise(url: Any, token: Optional[str], caplog: pytest.LogCaptureFixture) -> None:
    manager = EnvoyManager(url, token=token)
    assert await manager.register_agent("a", 50054) is False
    assert await manager.check_health() is False
    assert await manager.get_stats() is None
    await manager.close()
    assert "URL" in caplog.text or "token" in caplog.text


async def test_after_close_calls_fail_without_raising(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    manager = EnvoyManager(shared_envoy.url)
    assert await manager.register_agent("a", 50054)
    await manager.close()
    await manager.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await manager.register_agent("b", 50055) is False
    assert await manager.deregister_agent("a") is False
    assert await manager.replace_agents({}) is False
    assert await manager.check_health() is False
    assert await manager.get_stats() is None
    assert await port_map(client) == {"a": 50054}


async def test_close_while_calls_are_in_flight(own_envoy: EnvoyProcess) -> None:
    manager = EnvoyManager(own_envoy.url)
    assert await manager.check_health()
    own_envoy.pause()
    calls = [
        asyncio.ensure_future(manager.register_agent(f"agent-{number % 3}", 50070 + number)) for number in range(9)
    ]
    await asyncio.sleep(0.1)
    await asyncio.wait_for(manager.close(), 2)
    assert await asyncio.wait_for(asyncio.gather(*calls), 7) == [False] * 9
    own_envoy.resume()


async def test_closes_a_manager_that_was_never_used() -> None:
    await EnvoyManager().close()


async def test_a_cancellation_goes_through(own_envoy: EnvoyProcess) -> None:
    manager = EnvoyManager(own_envoy.url)
    assert await manager.check_health()
    own_envoy.pause()
    for call in (
        manager.register_agent("a", 50054),
        manager.deregister_agent("b"),
        manager.replace_agents({"a": 50054}),
    ):
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    own_envoy.resume()
    # The agent was asked for, so it still is.
    async with RouteApiClient(own_envoy.url) as client:
        await settled_at(client, {"a": 50054}, "the agent that was asked for")
    await manager.close()
