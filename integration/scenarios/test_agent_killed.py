"""An agent dies: its callers are told, the others do not notice, and a redeploy brings it back."""

from __future__ import annotations

import grpc

from .callers import GrpcCaller, HttpCaller
from .engine import Project
from .load import Load
from .par_client import Par
from .wait import wait_until


def test_a_killed_agent_is_unreachable_until_it_is_deployed_again(
    project: Project, par: Par, grpc_caller: GrpcCaller, http_caller: HttpCaller
) -> None:
    par.deploy_all(["agent-a", "agent-b"])
    pid = par.deployments()["agent-b"]["pid"]
    with Load(["agent-a"]) as load:
        project.par.signal(pid, "KILL")
        wait_until("callers are told", lambda: _code(grpc_caller, "agent-b") == grpc.StatusCode.UNAVAILABLE)
        answer = http_caller.send("agent-b", "hello")
        assert (answer.status_code, answer.headers["x-pixell-error"]) == (503, "agent_unreachable")
        assert par.deploy("agent-b")["routed"] is True
        assert grpc_caller.health("agent-b") == "agent-b"
        load.wait_for_all()
    assert not load.wrong and not load.refused


def test_a_call_under_way_ends_with_its_agent(project: Project, par: Par, grpc_caller: GrpcCaller) -> None:
    pid = par.deploy("agent-a")["pid"]
    call = grpc_caller.begin("agent-a", "sleep", limit=60, seconds="60")
    wait_until("the call has arrived", lambda: _streams(par) >= 1)
    project.par.signal(pid, "KILL")
    assert call.exception(timeout=10).code() == grpc.StatusCode.UNAVAILABLE


def _code(caller: GrpcCaller, deployment_id: str) -> grpc.StatusCode:
    try:
        caller.health(deployment_id)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def _streams(par: Par) -> int:
    stats = {stat.get("name"): stat.get("value") for stat in par.envoy()["stats"]["stats"]}
    return int(stats["http.agents.downstream_rq_active"])
