"""EnvoyManager's calls as PAR makes them, against a real Envoy."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Optional

import pytest
from conftest import TOKEN
from envoy_process import EnvoyProcess
from watching import port_map, settled_at

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


async def test_health_and_stats(manager: EnvoyManager) -> None:
    assert await manager.check_health() is True
    stats = await manager.get_stats()
    assert stats is not None and stats["stats"]


async def test_takes_the_url_that_par_is_configured_with(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    manager = EnvoyManager(shared_envoy.url.replace("127.0.0.1", "localhost"))
    assert await manager.register_agent("a", 50054)
    await manager.close()


async def test_a_reused_port_displaces_and_says_so(
    manager: EnvoyManager, client: RouteApiClient, caplog: pytest.LogCaptureFixture
) -> None:
    await manager.register_agent("old", 50054)
    assert await manager.register_agent("new", 50054) is True
    assert await port_map(client) == {"new": 50054}
    assert "'old'" in caplog.text


async def test_registrations_at_once_lose_nothing(manager: EnvoyManager, client: RouteApiClient) -> None:
    wanted = {f"agent-{number}": 50070 + number for number in range(200)}
    done = await asyncio.gather(*(manager.register_agent(key, port) for key, port in wanted.items()))
    assert all(done)
    assert await port_map(client) == wanted
    done = await asyncio.gather(*(manager.deregister_agent(key) for key in wanted))
    assert all(done)
    assert await port_map(client) == {}


async def test_calls_for_one_agent_take_effect_in_order(manager: EnvoyManager, client: RouteApiClient) -> None:
    # A redeploy, told by tasks that nobody waits for.
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
    # What was refused must not stand in the way of the others.
    await client.replace_routes({})
    await settled_at(client, {"kept": 50060}, "the good agent back")


async def test_a_port_given_twice_is_refused_as_a_whole(
    manager: EnvoyManager, client: RouteApiClient, caplog: pytest.LogCaptureFixture
) -> None:
    await manager.register_agent("a", 50054)
    assert await manager.replace_agents({"b": 50055, "c": 50055}) is False
    assert "port_in_use" in caplog.text and "/routes/" in caplog.text
    assert await port_map(client) == {"a": 50054}


async def test_a_wrong_token_is_told_but_not_shown(
    guarded_envoy: EnvoyProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    manager = EnvoyManager(guarded_envoy.url, token="not-the-token")
    assert await manager.register_agent("a", 50054) is False
    assert await manager.check_health() is True
    await manager.close()
    assert "401 unauthorized" in caplog.text
    assert "not-the-token" not in caplog.text


async def test_takes_the_token_from_the_environment(
    guarded_envoy: EnvoyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIXELL_ADMIN_TOKEN", TOKEN)
    manager = EnvoyManager(guarded_envoy.url)
    assert await manager.register_agent("a", 50054) is True
    await manager.close()


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


async def test_close_while_calls_are_under_way(own_envoy: EnvoyProcess) -> None:
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


async def test_closing_what_was_never_used() -> None:
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
