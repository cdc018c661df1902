"""PAR dies and restarts: calls to running agents succeed meanwhile, and afterwards the map is correct."""

from __future__ import annotations

import grpc
import httpx

from . import route_api
from .clients import GrpcClient
from .engine import Project
from .load import Load
from .par_client import URL, Par
from .wait import wait_until

NAMES = ["agent-a", "agent-b"]


def test_calls_succeed_while_par_is_away(project: Project, par: Par, grpc_client: GrpcClient) -> None:
    par.deploy_all(NAMES)
    before = route_api.call(project.par, "GET", "/v1/routes")
    with Load(NAMES) as load:
        load.wait_for_all()
        project.par.run("python3", "-c", KILL_PAR)
        wait_until("PAR is away", lambda: not _responds())
        load.wait_for_all()
        wait_until("PAR is back", _responds)
        load.wait_for_all()
    assert not load.wrong and not load.failed, f"{load.wrong} {load.failed}"

    # PAR has found its agents: pushing the same map changed nothing, and it can redeploy and remove them.
    assert par.deployments().keys() == set(NAMES)
    assert route_api.call(project.par, "GET", "/v1/routes").headers["etag"] == before.headers["etag"]
    assert par.deploy("agent-a")["routed"] is True
    par.remove("agent-b")
    assert grpc_client.health("agent-a") == "agent-a"
    assert grpc_client.rejection("agent-b")[0] == grpc.StatusCode.NOT_FOUND


def test_a_restarted_par_removes_routes_of_agents_that_died_with_it(
    project: Project, par: Par, grpc_client: GrpcClient
) -> None:
    par.deploy_all(NAMES)
    project.par.kill()
    # The agents ended with the container; Envoy still has their routes.
    assert grpc_client.rejection("agent-a")[0] == grpc.StatusCode.UNAVAILABLE

    project.par.start()
    project.par.wait_healthy()
    assert route_api.ports(project.par) == {}
    assert grpc_client.rejection("agent-a")[0] == grpc.StatusCode.NOT_FOUND
    par.deploy("agent-a")
    assert grpc_client.health("agent-a") == "agent-a"


# SIGKILL to PAR itself, the child of process 1 that runs `-m par`.
KILL_PAR = """
import os, pathlib, signal
for place in pathlib.Path("/proc").glob("[0-9]*"):
    words = (place / "cmdline").read_bytes().split(b"\\0")
    if words[1:3] == [b"-m", b"par"]:
        os.kill(int(place.name), signal.SIGKILL)
        break
else:
    raise SystemExit("PAR does not run")
"""


def _responds() -> bool:
    try:
        return httpx.get(f"{URL}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
