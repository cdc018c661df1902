"""The main job: readiness, metrics, and calls that reach the agent they name, from every kind of client."""

from __future__ import annotations

import json

import grpc
import httpx

from . import route_api
from .clients import ID, GrpcClient, HttpClient, grpcurl
from .engine import Project
from .par_client import Par

ADMIN = "http://task:9901"


def test_ready_says_live() -> None:
    response = httpx.get(f"{ADMIN}/ready")
    assert (response.status_code, response.text.strip()) == (200, "LIVE")


def test_stats_show_envoys_metrics(par: Par, grpc_client: GrpcClient) -> None:
    par.deploy("agent-a")
    grpc_client.health("agent-a")
    lines = httpx.get(f"{ADMIN}/stats").text.splitlines()
    stats = dict(line.split(": ", 1) for line in lines if ": " in line)
    assert int(stats["http.agents.downstream_rq_total"]) >= 1
    names = {stat.get("name") for stat in httpx.get(f"{ADMIN}/stats?format=json").json()["stats"]}
    assert "http.agents.downstream_rq_total" in names
    assert "envoy_http_downstream_rq_total" in httpx.get(f"{ADMIN}/stats/prometheus").text


def test_clients_cannot_stop_or_change_envoy() -> None:
    for path in ("/quitquitquit", "/config_dump", "/logging", "/v1/routes"):
        for method in ("GET", "POST"):
            assert httpx.request(method, ADMIN + path).status_code in (403, 404), f"{method} {path}"


def test_grpcurl_reaches_the_agent_it_names(par: Par) -> None:
    par.deploy_all(["agent-a", "agent-b"])
    for name in ("agent-a", "agent-b"):
        status = grpcurl(name, "Health")
        assert status["ok"] is True
        assert status["message"] == name


def test_a_python_client_reaches_the_agent_it_names(par: Par, grpc_client: GrpcClient) -> None:
    par.deploy_all(["agent-a", "agent-b"])
    assert grpc_client.health("agent-a") == "agent-a"
    assert grpc_client.health("agent-b") == "agent-b"
    assert grpc_client.invoke("agent-a", "echo", word="hello") == {"deployment_id": "agent-a", "word": "hello"}


def test_the_id_reaches_the_agent(par: Par) -> None:
    par.deploy("agent-a")
    received = json.loads(grpcurl("agent-a", "DescribeCapabilities")["metadata"]["received"])
    assert received[ID] == "agent-a"


def test_json_rpc_and_server_sent_events_use_the_same_port(
    par: Par, http_client: HttpClient, grpc_client: GrpcClient
) -> None:
    par.deploy("agent-a")
    par.deploy("agent-j", "jsonrpc")
    result = http_client.send("agent-j", "hello").json()["result"]
    assert result["parts"] == [{"kind": "text", "text": "hello"}]
    assert result["metadata"] == {"deployment_id": "agent-j"}
    words = [
        event["result"]["parts"][0]["text"] for event in http_client.stream("agent-j", "tick", events=3, interval=0.1)
    ]
    assert words == ["tick 0", "tick 1", "tick 2"]
    assert grpc_client.health("agent-a") == "agent-a"


def test_pars_internal_calls_go_directly_to_the_agent(par: Par, project: Project) -> None:
    par.deploy("agent-a")
    par.deploy("agent-j", "jsonrpc")
    project.envoy.stop()
    assert par.call_directly("agent-a") == "agent-a"
    assert par.call_directly("agent-j") == "agent-j"


def test_an_agents_own_status_passes_through(par: Par, grpc_client: GrpcClient) -> None:
    par.deploy("agent-a")
    call = grpc_client.begin("agent-a", "fail", code="FAILED_PRECONDITION", message="not today")
    error = call.exception()
    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not today")


def test_rejections_say_what_is_wrong(par: Par, grpc_client: GrpcClient, http_client: HttpClient) -> None:
    par.deploy("agent-a")
    code = grpc.StatusCode
    assert grpc_client.rejection(None) == (code.INVALID_ARGUMENT, "Missing x-deployment-id header")
    assert grpc_client.rejection("no-such") == (code.NOT_FOUND, "Deployment no-such not found or not ready")
    response = http_client.send("no-such", "hello")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-pixell-error"] == "unknown_deployment"


def test_a_removed_agent_is_unknown(par: Par, grpc_client: GrpcClient, project: Project) -> None:
    par.deploy_all(["agent-a", "agent-b"])
    par.remove("agent-a")
    assert grpc_client.rejection("agent-a")[0] == grpc.StatusCode.NOT_FOUND
    assert grpc_client.health("agent-b") == "agent-b"
    assert route_api.ports(project.par).keys() == {"agent-b"}


def test_par_sees_envoys_health_and_stats(par: Par) -> None:
    seen = par.envoy()
    assert seen["healthy"] is True
    assert seen["stats"]["stats"]
