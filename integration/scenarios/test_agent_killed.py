"""An agent dies: its clients get UNAVAILABLE, other agents' clients notice nothing, and a redeploy brings it back."""

from __future__ import annotations

import grpc

from .clients import GrpcClient, HttpClient
from .engine import Project, now
from .load import Load
from .par_client import Par
from .wait import wait_until


def test_a_killed_agent_is_unreachable_until_it_is_redeployed(
    project: Project, par: Par, grpc_client: GrpcClient, http_client: HttpClient
) -> None:
    par.deploy_all(["agent-a", "agent-b"])
    pid = par.deployments()["agent-b"]["pid"]
    with Load(["agent-a"]) as load:
        project.par.signal(pid, "KILL")
        wait_until("clients get UNAVAILABLE", lambda: _code(grpc_client, "agent-b") == grpc.StatusCode.UNAVAILABLE)
        response = http_client.send("agent-b", "hello")
        assert (response.status_code, response.headers["x-pixell-error"]) == (503, "agent_unreachable")
        assert par.deploy("agent-b")["routed"] is True
        assert grpc_client.health("agent-b") == "agent-b"
        load.wait_for_all()
    assert not load.wrong and not load.failed


def test_another_agent_gets_the_port_of_a_killed_one(project: Project, par: Par, grpc_client: GrpcClient) -> None:
    par.deploy_all(["agent-a", "agent-b"])
    killed = par.deployments()["agent-b"]
    started = now()
    with Load(["agent-a", "agent-b", "agent-c"]) as load:
        # PAR does not notice, so it does not deregister it.
        project.par.signal(killed["pid"], "KILL")
        wait_until("clients get UNAVAILABLE", lambda: _code(grpc_client, "agent-b") == grpc.StatusCode.UNAVAILABLE)
        assert par.deploy("agent-c")["port"] == killed["port"]
        wait_until("the new agent responds", lambda: load.right["agent-c"] > 100)
        assert _code(grpc_client, "agent-b") == grpc.StatusCode.NOT_FOUND
    assert not load.wrong, load.wrong
    assert not load.failed["agent-a"], load.failed["agent-a"]
    taken = f"agent 'agent-c' took port {killed['port']} from agent 'agent-b', which was never deregistered"
    assert taken in project.par.logs(started)


def test_a_call_in_flight_ends_with_its_agent(project: Project, par: Par, grpc_client: GrpcClient) -> None:
    pid = par.deploy("agent-a")["pid"]
    call = grpc_client.begin("agent-a", "sleep", limit=60, seconds="60")
    wait_until("the call has arrived", lambda: _streams(par) >= 1)
    project.par.signal(pid, "KILL")
    assert call.exception(timeout=10).code() == grpc.StatusCode.UNAVAILABLE


def _code(client: GrpcClient, deployment_id: str) -> grpc.StatusCode:
    try:
        client.health(deployment_id)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def _streams(par: Par) -> int:
    stats = {stat.get("name"): stat.get("value") for stat in par.envoy()["stats"]["stats"]}
    return int(stats["http.agents.downstream_rq_active"])
