"""EnvoyManager's background task corrects Envoy's map whenever the two differ. Against a real Envoy."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import random
import signal
import subprocess
import sys

import pytest
from envoy_process import EnvoyProcess
from watching import WITHIN, eventually, port_map, settled_at

import pixell_envoy.manager
from pixell_envoy import EnvoyManager, Reconciler, RouteApiClient, RouteNotFound


async def start(envoy: EnvoyProcess) -> None:
    """Starts Envoy while the event loop goes on."""
    await asyncio.get_running_loop().run_in_executor(None, envoy.start)


async def test_an_agent_keeps_its_route_if_its_new_port_is_not_accepted(
    manager: EnvoyManager, client: RouteApiClient
) -> None:
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


async def test_nothing_raises_while_envoy_is_away_and_all_calls_are_retried(
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
        await settled_at(
            client, {"before": 50054, "meanwhile": 50056}, "what was asked for meanwhile, without the bad id"
        )
    assert "'not an id'" in caplog.text
    await manager.close()


async def test_a_removal_that_did_not_arrive_is_retried(own_envoy: EnvoyProcess) -> None:
    manager = EnvoyManager(own_envoy.url, timeout=2)
    assert await manager.register_agent("a", 50054)
    assert await manager.register_agent("b", 50055)
    own_envoy.pause()
    assert await manager.deregister_agent("a") is False
    own_envoy.resume()
    async with RouteApiClient(own_envoy.url) as client:
        await settled_at(client, {"b": 50055}, "the removal")

        async def forgotten() -> bool:
            return "a" not in manager._registry.settled()

        # The removal is not remembered longer than needed: another writer may use the id later.
        await eventually(forgotten, WITHIN, "the removal is forgotten")
        await client.put_route("a", 50056)
        await asyncio.sleep(1.5)
        assert await port_map(client) == {"a": 50056, "b": 50055}
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


async def test_a_par_that_crashes_and_comes_back_takes_no_route_away(
    shared_envoy: EnvoyProcess, client: RouteApiClient
) -> None:
    par = subprocess.Popen([sys.executable, "-c", PAR, shared_envoy.url], stdout=subprocess.PIPE)
    assert par.stdout is not None
    with par.stdout:
        assert par.stdout.readline() == b"True True\n"
        os.kill(par.pid, signal.SIGKILL)
        par.wait()
    assert await port_map(client) == {"a": 50054, "b": 50055}

    manager = EnvoyManager(shared_envoy.url)
    assert await manager.register_agent("c", 50056)
    await asyncio.sleep(2)
    assert await port_map(client) == {"a": 50054, "b": 50055, "c": 50056}
    # PAR calls this once it knows all its agents.
    assert await manager.replace_agents({"b": 50055, "c": 50057})
    assert await port_map(client) == {"b": 50055, "c": 50057}
    await client.replace_routes({})
    await settled_at(client, {"b": 50055, "c": 50057}, "what was last asked for")
    await manager.close()


async def test_works_without_the_background_task(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    manager = EnvoyManager(shared_envoy.url, reconcile=False)
    assert await manager.register_agent("a", 50054)
    assert await manager.deregister_agent("b")
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await client.replace_routes({})
    await asyncio.sleep(1.5)
    assert await port_map(client) == {}
    await manager.close()


async def test_says_little_while_all_is_well(
    manager: EnvoyManager, client: RouteApiClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert await manager.register_agent("a", 50054)
    caplog.clear()
    assert await manager.check_health()
    await asyncio.sleep(2.5)
    assert caplog.records == []


async def test_the_background_task_never_undoes_a_call(
    shared_envoy: EnvoyProcess, client: RouteApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It polls a thousand times as often as usual, and Envoy keeps losing its map.
    monkeypatch.setattr(pixell_envoy.manager, "Reconciler", functools.partial(Reconciler, poll=0.001))
    manager = EnvoyManager(shared_envoy.url)
    draw = random.Random(7)
    wanted: dict[str, int] = {}

    async def agent(number: int) -> None:
        key = f"agent-{number}"
        for _ in range(60):
            if draw.random() < 0.6:
                # Each agent has ports of its own, so that no other agent displaces it.
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
