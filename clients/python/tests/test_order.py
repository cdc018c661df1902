"""The order of calls that the README shows: agents are killed and others get their ports, and no response is wrong.

Real agents, a real Envoy, and clients that send requests all the time.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from envoy_process import EnvoyProcess
from watching import WITHIN, eventually, port_map

from pixell_envoy import EnvoyManager, RouteApiClient

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))

from deployments import Deployments

PROGRAM = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/slow":
            time.sleep(3)
        self.send_response(200)
        self.send_header("content-length", str(len(sys.argv[1])))
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""


class Agent:
    """A process that responds with its own id."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    @classmethod
    async def start(cls, deployment_id: str, port: int) -> Agent:
        """Returns when it is healthy."""
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, deployment_id, str(port))
        agent = cls(process, port)

        async def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        await eventually(listens, 2 * WITHIN, f"{deployment_id} on port {port}")
        # PAR checks health only now and then, so it learns of it late.
        await asyncio.sleep(0.3)
        return agent

    def is_running(self) -> bool:
        return self.process.returncode is None

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


class Ports:
    """Allocates the lowest free port, as PAR's scan does."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._first: int = probe.getsockname()[1]

    def allocate(self) -> int:
        for port in range(self._first, 65536):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
        raise AssertionError("no port is free")


class Clients:
    """Clients that call every id all the time and count what they get: "right", "wrong" or the rejection's code."""

    def __init__(self, envoy: EnvoyProcess, ids: list[str]) -> None:
        self.got: dict[str, Counter[str]] = {deployment_id: Counter() for deployment_id in ids}
        self._url = f"http://127.0.0.1:{envoy.agents_port}/"

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[Clients]:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            tasks = [asyncio.ensure_future(self._call(http, deployment_id)) for deployment_id in self.got for _ in "ab"]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _call(self, http: httpx.AsyncClient, deployment_id: str) -> None:
        while True:
            response = await http.get(self._url, headers={"x-deployment-id": deployment_id})
            right = "right" if response.text == deployment_id else "wrong"
            self.got[deployment_id][response.headers.get("x-pixell-error", right)] += 1
            await asyncio.sleep(0.002)

    async def wait_for(self, deployment_id: str, outcome: str, count: int = 20) -> None:
        before = self.got[deployment_id][outcome]

        async def enough() -> bool:
            return self.got[deployment_id][outcome] >= before + count

        await eventually(enough, 2 * WITHIN, f"{count} x {outcome} for {deployment_id}: {self.got}")

    @property
    def wrong(self) -> int:
        return sum(got["wrong"] for got in self.got.values())


@pytest.fixture
async def deployments(shared_envoy: EnvoyProcess, client: RouteApiClient) -> AsyncIterator[Deployments]:
    envoy = EnvoyManager(shared_envoy.url)
    deployments = Deployments(envoy, Ports().allocate, Agent.start)
    yield deployments
    for agent in deployments.agents.values():
        await agent.stop()
    await envoy.close()


def running(deployments: Deployments, deployment_id: str) -> Agent:
    agent: Any = deployments.agents[deployment_id]
    assert isinstance(agent, Agent)
    return agent


async def test_another_agent_gets_a_killed_agents_port_and_no_response_is_wrong(
    shared_envoy: EnvoyProcess, deployments: Deployments, caplog: pytest.LogCaptureFixture
) -> None:
    async with Clients(shared_envoy, ["other", "killed", "heir"]).calling() as clients:
        await deployments.deploy("other")
        await deployments.deploy("killed")
        await clients.wait_for("killed", "right")
        # PAR does not notice, so it does not deregister it.
        await running(deployments, "killed").stop()
        await deployments.deploy("heir")
        assert running(deployments, "heir").port == running(deployments, "killed").port
        for deployment_id, outcome in (("heir", "right"), ("other", "right"), ("killed", "unknown_deployment")):
            await clients.wait_for(deployment_id, outcome)
        # Nor if the one that was killed starts again, whose old port is the heir's now.
        await deployments.deploy("killed")
        for deployment_id in ("killed", "heir", "other"):
            await clients.wait_for(deployment_id, "right")
    assert clients.wrong == 0, clients.got
    (line,) = (record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR)
    assert "'heir'" in line and "'killed'" in line


async def test_registering_once_the_agent_is_healthy_is_too_late(
    shared_envoy: EnvoyProcess, deployments: Deployments
) -> None:
    # The wrong order, to show that the test above would notice it.
    async with Clients(shared_envoy, ["killed"]).calling() as clients:
        await deployments.deploy("killed")
        dead = running(deployments, "killed")
        await dead.stop()
        deployments.agents["heir"] = await Agent.start("heir", dead.port)
        await deployments.envoy.register_agent("heir", dead.port)
        await clients.wait_for("killed", "unknown_deployment")
    assert clients.wrong > 0


async def test_a_redeploy_changes_the_port_and_loses_no_request(
    shared_envoy: EnvoyProcess, client: RouteApiClient, deployments: Deployments, caplog: pytest.LogCaptureFixture
) -> None:
    await deployments.deploy("a")
    before = running(deployments, "a")
    async with Clients(shared_envoy, ["a"]).calling() as clients:
        await clients.wait_for("a", "right")
        for _ in range(3):
            await deployments.deploy("a")
            await clients.wait_for("a", "right")
        # A request that takes longer than the new agent's start: the old agent finishes it before it is stopped.
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            old = running(deployments, "a")
            url = f"http://127.0.0.1:{shared_envoy.agents_port}/slow"
            slow = asyncio.ensure_future(http.get(url, headers={"x-deployment-id": "a"}))

            async def has_two() -> bool:
                return await client.open_requests(old.port) > 0

            await eventually(has_two, WITHIN, "the slow request")
            await deployments.deploy("a")
            assert (await slow).text == "a" and old.process.returncode is not None
    after = running(deployments, "a").port
    assert before.process.returncode is not None and await port_map(client) == {"a": after}
    assert clients.got["a"].keys() == {"right"}, clients.got
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_routes_of_agents_that_ended_are_removed(
    client: RouteApiClient, deployments: Deployments, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.put_route("of-an-earlier-par", 50054)
    await deployments.boot()
    assert await port_map(client) == {}
    for deployment_id in ("removed", "ended", "stays"):
        await deployments.deploy(deployment_id)
    await deployments.remove("removed")
    await running(deployments, "ended").stop()
    await deployments.ended("ended", deployments.agents["ended"])
    stays = running(deployments, "stays")
    assert await port_map(client) == {"stays": stays.port}
    # PAR learns late that an agent has ended which a redeploy has replaced.
    await deployments.ended("stays", Agent(stays.process, stays.port))
    assert await port_map(client) == {"stays": stays.port}

    async def fail(_: str, port: int) -> Agent:
        raise RuntimeError(f"not healthy on port {port}")

    monkeypatch.setattr(deployments, "start_agent", fail)
    for deployment_id in ("new", "stays"):
        with pytest.raises(RuntimeError, match="not healthy"):
            await deployments.deploy(deployment_id)
    # The old agent of a redeploy that failed has its route again.
    assert await port_map(client) == {"stays": stays.port} and running(deployments, "stays") is stays
