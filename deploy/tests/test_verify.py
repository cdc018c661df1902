"""verify against a gRPC server that rejects as the proxy does. integration/scenarios/test_replace_task.py calls the real proxy."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import grpc
import pytest

from pixell_envoy_deploy import ask

from .account import Account
from .conftest import Calls, Tool


class Proxy(grpc.GenericRpcHandler):
    """Agents `a` and `b`, one without the method, and rejections with x-pixell-error. `peers` are its connections."""

    def __init__(self) -> None:
        self.peers = set[str]()

    def service(self, details: Any) -> Any:
        name = dict(details.invocation_metadata)["x-deployment-id"]

        def respond(request: bytes, context: Any) -> bytes:
            self.peers.add(context.peer())
            if name == "bare":
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")
            if name not in ("a", "b"):
                context.set_trailing_metadata([("x-pixell-error", "unknown_deployment")])
                context.abort(grpc.StatusCode.NOT_FOUND, f"Deployment {name} not found or not ready")
            return b"\x08\x01\x12\x05" + f"i am{name}".encode() + b"\x18\x07"  # ok, message, timestamp

        return grpc.unary_unary_rpc_method_handler(respond)


@pytest.fixture
def proxy() -> Iterator[tuple[Proxy, str]]:
    proxy, server = Proxy(), grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((proxy,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield proxy, f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_each_call_has_a_connection_of_its_own_and_says_whether_it_reached_an_agent(proxy: tuple[Proxy, str], capsys: Any) -> None:
    assert ask.agents(proxy[1], False, ["a", "b"], 5) == 0 and len(proxy[0].peers) == 11
    assert ask.agents(proxy[1], False, ["a", "gone"], 2) == 1 and ask.agents(proxy[1], False, ["gone", "away"], 1) == 2
    out = capsys.readouterr().out
    assert "5 of 5 connections reached it (100 %): i ama" in out and "2 x NOT_FOUND unknown_deployment (NOT_FOUND: Deployment gone" in out
    assert "same agent" not in out, "other responses, or none"
    assert ask.call(proxy[1], False, "bare") == ("OK", "UNIMPLEMENTED: no such method"), "the agent's own status"
    assert ask.call("127.0.0.1:1", False, "a")[0] == "UNAVAILABLE" and ask.call(proxy[1], True, "a")[0] == "UNAVAILABLE"


def test_the_share_is_judged_and_not_the_first_success(tool: Tool, green: str, calls: Calls) -> None:
    calls["agent-a"] = [("OK", "up"), ("NOT_FOUND unknown_deployment", "NOT_FOUND: no"), ("OK", "up")]
    out = tool("verify --test agent-a --connections 10", 1)
    assert "ERROR  agent agent-a        9 of 10 connections reached it (90 %): up; 1 x NOT_FOUND" in out
    calls |= {ask.UNKNOWN: [("OK", "me")], "agent-a": [("OK", "me")], "agent-b": [("OK", "me")]}
    out = tool("verify --test agent-a agent-b", 1)
    assert "ERROR  unknown id           was not rejected as unknown: me" in out and "so they may be the same agent" in out


def test_verify_checks_what_aws_sees(tool: Tool, account: Account, green: str, calls: object) -> None:
    account.envoy, account.target = "UNHEALTHY", "unhealthy"
    out = tool("verify --test agent-a", 1)
    assert "envoy is UNHEALTHY" in out and "10.0.2.1 is unhealthy" in out


def test_a_tls_listener_is_called_with_tls(tool: Tool, account: Account, green: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = Mock(return_value=("OK", "NOT_FOUND"))
    monkeypatch.setattr("pixell_envoy_deploy.ask.call", called)
    account.edits["elbv2.DescribeListeners"] = ("", {"Protocol": "TLS"})
    tool("verify --test --endpoint agents.example.com:443 agent-a")
    assert {call.args[:2] for call in called.call_args_list} == {("agents.example.com:443", True)}
