"""Agents that are called in the protocol that they do not speak, by the clients that people try first."""

from __future__ import annotations

import json
import re
from typing import Any

import grpc
import pytest

from agents.protos import agent, agent_services
from conftest import Start
from named import connection, named
from programs import run


def test_curl_learns_how_to_call_a_grpc_agent(start: Start, authority: str) -> None:
    start("grpc_agent", "grpc-only")
    by_header = ("-H", "x-deployment-id: grpc-only", f"http://{authority}/")
    for arguments in (by_header, (f"http://{authority}/agents/grpc-only/",), ("--data", "{}", *by_header)):
        problem = json.loads(run("curl", "-sS", *arguments))
        assert (problem["status"], problem["code"]) == (502, "agent_protocol_error")
        assert "gRPC (HTTP/2) only" in problem["detail"]
        command = re.search(r"grpcurl -plaintext .*", problem["detail"])
        assert command is not None, problem
        # The agent has reflection, so nothing but the name of the method is missing.
        called = command[0].replace("SERVICE/METHOD", "pixell.agent.AgentService/Health")
        assert json.loads(run("bash", "-c", called))["message"] == "grpc-only"


def test_a_grpc_client_learns_that_an_agent_speaks_no_grpc(start: Start, authority: str) -> None:
    start("web", "no-grpc")
    with connection(authority) as plain:
        stub: Any = agent_services.AgentServiceStub(named(plain, "no-grpc"))
        with pytest.raises(grpc.RpcError) as error:
            stub.Health(agent.Empty(), timeout=30)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "speaks HTTP/1.1 only, and no gRPC" in str(error.value.details())
