"""Every example runs unchanged against a real Envoy, and the README or docs/fleet.md shows it unchanged."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from envoy_process import EnvoyProcess

from pixell_envoy import EnvoyManager, Route, RouteApiClient, RouteLike, RouteMap

PROJECT = Path(__file__).resolve().parents[1]
URL = "http://127.0.0.1:9901"


def run(name: str, envoy: EnvoyProcess) -> str:
    program = (PROJECT / "examples" / name).read_text()
    assert program.count(URL) == 1
    command = [sys.executable, "-W", "error", "-c", program.replace(URL, envoy.url)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout


async def test_first_route(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    assert "added=1" in run("first_route.py", shared_envoy)
    assert (await client.get_routes()).routes == {"agent-a": Route(50054)}


def test_first_route_has_five_lines() -> None:
    assert len((PROJECT / "examples/first_route.py").read_text().splitlines()) == 5


async def test_par(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    await client.put_route("left-over", 50060)
    said = run("par.py", shared_envoy)
    assert said.count("True") == 4 and "False" not in said
    assert (await client.get_routes()).routes == {"agent-a": Route(50054), "agent-c": Route(50056)}


async def test_reconcile(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    await client.put_route("left-over", 50060)
    assert run("reconcile.py", shared_envoy) == "at start: True\nafter a change: True\n"
    assert (await client.get_routes()).routes == {"agent-a": Route(50054), "agent-b": Route(50055)}


async def test_update(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    await client.replace_routes({"a": 50054, "b": Route(50055, "draining")})
    assert run("update.py", shared_envoy).startswith("1 routes are draining now")
    assert (await client.get_routes()).routes == {"a": Route(50054, "draining"), "b": Route(50055, "draining")}


async def test_drain(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    await client.replace_routes({"a": 50054, "b": Route(50055, "draining")})
    assert run("drain.py", shared_envoy) == "drained: True\n"
    assert (await client.get_routes()).routes == {"a": Route(50054, "draining"), "b": Route(50055, "draining")}


async def test_drain_misses_no_agent_that_is_registered_meanwhile(
    shared_envoy: EnvoyProcess, client: RouteApiClient
) -> None:
    await client.put_route("left-over", 50060)
    example: dict[str, Any] = {}
    exec((PROJECT / "examples/drain.py").read_text().replace("asyncio.run(main())", ""), example)
    manager = EnvoyManager(shared_envoy.url)
    real, replaced = client.get_routes, manager.replace_agents
    late = {"a": 50054, "b": 50055}

    async def get_routes() -> RouteMap:
        routes = await real()
        await manager.register_agent("a", late["a"])
        return routes

    async def replace_agents(agents: Mapping[str, RouteLike]) -> bool:
        is_done = await replaced(agents)
        if "b" in late:
            await manager.register_agent("b", late.pop("b"))
        return is_done

    client.get_routes, manager.replace_agents = get_routes, replace_agents  # type: ignore[method-assign]
    assert await example["drain"](manager, client, 10) is True
    wanted = {key: Route(port, "draining") for key, port in (("left-over", 50060), ("a", 50054), ("b", 50055))}
    assert (await real()).routes == wanted == manager.agents()
    await manager.close()


async def test_fleet(shared_fleet_envoy: EnvoyProcess) -> None:
    async with RouteApiClient(shared_fleet_envoy.url) as client:
        await client.replace_routes({})
        await client.replace_fleet({}, {})
    said = run("fleet.py", shared_fleet_envoy)
    assert said == "registered: True\nother tasks: []\nthe others send nothing more here: True\n"


@pytest.mark.parametrize("path", sorted((PROJECT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_a_document_shows_it(path: Path) -> None:
    documents = [PROJECT / "README.md", PROJECT.parents[1] / "docs/fleet.md"]
    shown = [document.read_text().count(f"```python\n{path.read_text()}```") for document in documents]
    assert sum(shown) == 1
