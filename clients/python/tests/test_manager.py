"""EnvoyManager as PAR uses it, against a real Envoy."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import random
import signal
import subprocess
import sys
from typing import Any, AsyncIterator, Dict, List, Optional

import pytest
from conftest import TOKEN
from envoy_process import EnvoyProcess
from eventually import eventually

import pixell_envoy.manager
from pixell_envoy import EnvoyManager, Reconciler, Route, RouteApiClient, RouteNotFound

WITHIN = 5.0
"""Seconds within which a restarted Envoy must have its map back."""


@pytest.fixture
async def manager(shared_envoy: EnvoyProcess, client: RouteApiClient) -> AsyncIterator[EnvoyManager]:
    manager = EnvoyManager(shared_envoy.url)
    yield manager
    await manager.close()


async def routes_of(client: RouteApiClient) -> Dict[str, int]:
    return {key: route.port for key, route in (await client.get_routes()).routes.items()}


async def settled_at(client: RouteApiClient, expected: Dict[str, int], what: str) -> None:
    async def reached() -> bool:
        return await routes_of(client) == expected

    await eventually(reached, WITHIN, what)


async def start(envoy: EnvoyProcess) -> None:
    """Starts Envoy while the event loop goes on."""
    await asyncio.get_running_loop().run_in_executor(None, envoy.start)


async def test_registers_and_deregisters(manager: EnvoyManager, client: RouteApiClient) -> None:
    assert await manager.register_agent("a", 50054) is True
    assert await client.get_route("a") == Route(50054)
    assert await manager.register_agent("a", 50055) is True
    assert await client.get_route("a") == Route(50055)
    assert await manager.deregister_agent("a") is True
    assert await manager.deregister_agent("a") is True
    assert await manager.deregister_agent("never-there") is True
    assert await routes_of(client) == {}


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
    assert await routes_of(client) == {"new": 50054}
    assert "'old'" in caplog.text


async def test_registrations_at_once_lose_nothing(manager: EnvoyManager, client: RouteApiClient) -> None:
    wanted = {f"agent-{number}": 50070 + number for number in range(200)}
    done = await asyncio.gather(*(manager.register_agent(key, port) for key, port in wanted.items()))
    assert all(done)
    assert await routes_of(client) == wanted
    done = await asyncio.gather(*(manager.deregister_agent(key) for key in wanted))
    assert all(done)
    assert await routes_of(client) == {}


async def test_calls_for_one_agent_take_effect_in_order(manager: EnvoyManager, client: RouteApiClient) -> None:
    # A redeploy, told by tasks that nobody waits for.
    for _ in range(20):
        done = await asyncio.gather(
            manager.register_agent("a", 50054), manager.deregister_agent("a"), manager.register_agent("a", 50055)
        )
        assert all(done)
        assert await routes_of(client) == {"a": 50055}


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
    assert await routes_of(client) == {"kept": 50060}
    # What was refused must not stand in the way of the others.
    await client.replace_routes({})
    await settled_at(client, {"kept": 50060}, "the good agent back")


async def test_an_agent_keeps_its_route_where_a_new_port_is_refused(manager: EnvoyManager, client: RouteApiClient) -> None:
    await manager.register_agent("a", 50054)
    assert await manager.register_agent("a", 80) is False
    await client.replace_routes({})
    await settled_at(client, {"a": 50054}, "the last good port")


async def test_a_restarted_envoy_gets_all_agents_back(own_envoy: EnvoyProcess) -> None:
    manager = EnvoyManager(own_envoy.url)
    wanted = {f"agent-{number}": 50070 + number for number in range(20)}
    for key, port in wanted.items():
        assert await manager.register_agent(key, port)
    await manager.register_agent("gone", 50060)
    await manager.deregister_agent("gone")
    own_envoy.kill()
    await start(own_envoy)
    async with RouteApiClient(own_envoy.url) as client:
        await settled_at(client, wanted, "all agents, without a call")
    await manager.close()


async def test_nothing_raises_while_envoy_is_away_and_all_is_made_up_for(
    own_envoy: EnvoyProcess, caplog: pytest.LogCaptureFixture
) -> None:
    manager = EnvoyManager(own_envoy.url)
    assert await manager.register_agent("before", 50054)
    assert await manager.register_agent("leaving", 50055)
    own_envoy.kill()
    assert await manager.register_agent("meanwhile", 50056) is False
    assert await manager.register_agent("not an id", 50057) is False
    assert await manager.deregister_agent("leaving") is False
    assert await manager.check_health() is False
    assert await manager.get_stats() is None
    assert "no connection to Envoy" in caplog.text
    await start(own_envoy)
    async with RouteApiClient(own_envoy.url) as client:
        await settled_at(client, {"before": 50054, "meanwhile": 50056}, "what was asked for meanwhile, less what is no agent")
    assert "'not an id'" in caplog.text
    await manager.close()


async def test_a_removal_that_did_not_arrive_is_made_up_for(own_envoy: EnvoyProcess) -> None:
    manager = EnvoyManager(own_envoy.url, timeout=0.3)
    assert await manager.register_agent("a", 50054)
    assert await manager.register_agent("b", 50055)
    own_envoy.pause()
    assert await manager.deregister_agent("a") is False
    own_envoy.resume()
    async with RouteApiClient(own_envoy.url) as client:
        await settled_at(client, {"b": 50055}, "the removal")
        # It is remembered no longer than needed: who comes next may use the id.
        await asyncio.sleep(1.5)
        await client.put_route("a", 50056)
        await asyncio.sleep(1.5)
        assert await routes_of(client) == {"a": 50056, "b": 50055}
    await manager.close()


PAR = """
import asyncio, sys
from pixell_envoy import EnvoyManager
async def main():
    envoy = EnvoyManager(sys.argv[1])
    print(await envoy.register_agent("a", 50054), await envoy.register_agent("b", 50055), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_a_par_that_crashes_and_comes_back_takes_no_route_away(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    par = subprocess.Popen([sys.executable, "-c", PAR, shared_envoy.url], stdout=subprocess.PIPE)
    assert par.stdout is not None
    with par.stdout:
        assert par.stdout.readline() == b"True True\n"
        os.kill(par.pid, signal.SIGKILL)
        par.wait()
    assert await routes_of(client) == {"a": 50054, "b": 50055}

    manager = EnvoyManager(shared_envoy.url)
    assert await manager.register_agent("c", 50056)
    await asyncio.sleep(2)
    assert await routes_of(client) == {"a": 50054, "b": 50055, "c": 50056}
    # As soon as it knows all its agents, PAR says so.
    assert await manager.replace_agents({"b": 50055, "c": 50057})
    assert await routes_of(client) == {"b": 50055, "c": 50057}
    await client.replace_routes({})
    await settled_at(client, {"b": 50055, "c": 50057}, "what was last asked for")
    await manager.close()


async def test_a_port_given_twice_is_refused_as_a_whole(
    manager: EnvoyManager, client: RouteApiClient, caplog: pytest.LogCaptureFixture
) -> None:
    await manager.register_agent("a", 50054)
    assert await manager.replace_agents({"b": 50055, "c": 50055}) is False
    assert "port_in_use" in caplog.text and "/routes/" in caplog.text
    assert await routes_of(client) == {"a": 50054}


async def test_a_wrong_token_is_told_but_not_shown(guarded_envoy: EnvoyProcess, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    manager = EnvoyManager(guarded_envoy.url, token="not-the-token")
    assert await manager.register_agent("a", 50054) is False
    assert await manager.check_health() is True
    await manager.close()
    assert "401 unauthorized" in caplog.text
    assert "not-the-token" not in caplog.text


async def test_takes_the_token_from_the_environment(guarded_envoy: EnvoyProcess, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert await routes_of(client) == {"a": 50054}


async def test_close_while_calls_are_under_way(own_envoy: EnvoyProcess) -> None:
    manager = EnvoyManager(own_envoy.url)
    assert await manager.check_health()
    own_envoy.pause()
    calls = [asyncio.ensure_future(manager.register_agent(f"agent-{number % 3}", 50070 + number)) for number in range(9)]
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
    for call in (manager.register_agent("a", 50054), manager.deregister_agent("b"), manager.replace_agents({"a": 50054})):
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


async def test_can_do_without_the_background_task(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    manager = EnvoyManager(shared_envoy.url, reconcile=False)
    assert await manager.register_agent("a", 50054)
    assert await manager.deregister_agent("b")
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await client.replace_routes({})
    await asyncio.sleep(1.5)
    assert await routes_of(client) == {}
    await manager.close()


async def test_says_little_while_all_is_well(
    manager: EnvoyManager, client: RouteApiClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert await manager.register_agent("a", 50054)
    assert await manager.check_health()
    await asyncio.sleep(2.5)
    assert caplog.records == []


async def test_the_background_task_never_undoes_a_call(
    shared_envoy: EnvoyProcess, client: RouteApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A thousand times as eager as usual, with an Envoy that keeps losing its map.
    monkeypatch.setattr(pixell_envoy.manager, "Reconciler", functools.partial(Reconciler, poll=0.001))
    manager = EnvoyManager(shared_envoy.url)
    draw = random.Random(7)
    wanted: Dict[str, int] = {}

    async def agent(number: int) -> None:
        key = f"agent-{number}"
        for _ in range(60):
            if draw.random() < 0.6:
                # Ports are its own, so that nobody but this agent moves it.
                port = 51000 + 10 * number + draw.randrange(10)
                assert await manager.register_agent(key, port)
                wanted[key] = port
            else:
                assert await manager.deregister_agent(key)
                wanted.pop(key, None)
                with pytest.raises(RouteNotFound):
                    await client.get_route(key)
            await asyncio.sleep(draw.random() * 0.01)

    async def lose_everything(times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(0.02)
            await client.replace_routes({})

    await asyncio.gather(lose_everything(20), *(agent(number) for number in range(6)))
    await settled_at(client, wanted, "what was last asked for")
    await manager.close()
