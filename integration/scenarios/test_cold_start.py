"""Cold starts in every order, and calls that come before the first push."""

from __future__ import annotations

import grpc
import httpx

from . import route_api
from .clients import GrpcClient, HttpClient
from .engine import Project
from .par_client import Par
from .wait import wait_until

NOT_LOADED = (grpc.StatusCode.UNAVAILABLE, "Route map not loaded")


def test_envoy_first(project: Project, par: Par, grpc_client: GrpcClient, http_client: HttpClient) -> None:
    project.par.stop()
    project.envoy.stop()

    project.envoy.start()
    # Envoy's health must not depend on a pushed map, because PAR waits for a healthy Envoy before it pushes.
    project.envoy.wait_healthy()
    assert grpc_client.rejection("agent-a") == NOT_LOADED
    response = http_client.send("agent-a", "hello")
    assert (response.status_code, response.headers["x-pixell-error"]) == (503, "route_map_not_loaded")
    # Without an id it is the client's error, even before a map is loaded.
    assert grpc_client.rejection(None)[0] == grpc.StatusCode.INVALID_ARGUMENT

    project.par.start()
    project.par.wait_healthy()
    # PAR pushes its full map when it boots. Here it is empty.
    assert grpc_client.rejection("agent-a")[0] == grpc.StatusCode.NOT_FOUND
    assert par.deploy("agent-a")["routed"] is True
    assert grpc_client.health("agent-a") == "agent-a"


def test_par_first(project: Project, par: Par, grpc_client: GrpcClient) -> None:
    project.par.stop()
    project.envoy.stop()

    project.par.start()
    project.par.wait_healthy()
    # Without Envoy PAR keeps working, and says that nothing is routed.
    for name in ("agent-a", "agent-b"):
        assert par.deploy(name)["routed"] is False
    assert par.call_directly("agent-a") == "agent-a"
    assert par.envoy() == {"healthy": False, "stats": None}
    assert grpc_client.rejection("agent-a")[0] == grpc.StatusCode.UNAVAILABLE

    project.envoy.start()
    # The limit counts from here: on a busy machine Envoy needs seconds to compile its modules.
    project.envoy.wait_healthy()
    wait_until("both are routed", lambda: _is_routed(grpc_client, "agent-a") and _is_routed(grpc_client, "agent-b"), 10)


def test_both_at_once(project: Project, par: Par, grpc_client: GrpcClient) -> None:
    project.par.stop()
    project.envoy.stop()

    project.par.start()
    project.envoy.start()
    project.envoy.wait_healthy()
    project.par.wait_healthy()
    assert par.deploy("agent-a")["routed"] is True
    assert grpc_client.health("agent-a") == "agent-a"


def test_the_whole_task_restarts(project: Project, par: Par, grpc_client: GrpcClient) -> None:
    par.deploy("agent-a")
    for container in (project.par, project.envoy):
        container.stop()
    project.task.stop(grace=1)

    project.settle()
    assert httpx.get("http://task:9901/ready").text.strip() == "LIVE"
    assert route_api.ports(project.par) == {}
    par.deploy("agent-b")
    assert grpc_client.health("agent-b") == "agent-b"


def _is_routed(client: GrpcClient, deployment_id: str) -> bool:
    try:
        return client.health(deployment_id) == deployment_id
    except grpc.RpcError:
        return False
