"""verify against a gRPC server that rejects as the proxy does. integration/scenarios/test_replace_task.py calls the real proxy."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc
import pytest

from pixell_envoy_deploy import __main__ as command_line
from pixell_envoy_deploy import ask
from pixell_envoy_deploy.settings import A2A_PORT, DEPLOY

from .account import Account
from .conftest import Calls, S, Tool
from .test_form import LATE, pair

TOKEN = "eyJ.not-a-real_token.x="


class Proxy(grpc.GenericRpcHandler):
    """Agents `a` and `b`, one without the method, and rejections with x-pixell-error. `peers` are its connections. If `token` is set, every call
    needs it. It allows the agents, and the agents get it."""

    def __init__(self, token: str = "") -> None:
        self.peers, self.token = set[str](), token

    def service(self, details: Any) -> Any:
        sent = dict(details.invocation_metadata)
        name, rejection = sent["x-deployment-id"], None
        if sent.get("authorization") != (f"Bearer {self.token}" if self.token else None):
            rejection = grpc.StatusCode.UNAUTHENTICATED, "unauthenticated", "Jwt is missing"
        elif name not in ("a", "b", "bare") and self.token:
            rejection = grpc.StatusCode.PERMISSION_DENIED, "not_allowed", "The token does not allow this deployment"
        elif name not in ("a", "b", "bare"):
            rejection = grpc.StatusCode.NOT_FOUND, "unknown_deployment", f"Deployment {name} not found or not ready"

        def respond(request: bytes, context: Any) -> bytes:
            self.peers.add(context.peer())
            if rejection:
                context.set_trailing_metadata([("x-pixell-error", rejection[1])])
                context.abort(rejection[0], rejection[2])
            if name == "bare":
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method" + f" for {self.token}" * bool(self.token))
            return b"\x08\x01\x12\x05" + f"i am{name}".encode() + b"\x18\x07"  # ok, message, timestamp

        return grpc.unary_unary_rpc_method_handler(respond)


@contextmanager
def serve(proxy: Proxy, credentials: Any = None) -> Iterator[str]:
    """Serves on a port of this machine, whose address it yields; with credentials it speaks TLS."""
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((proxy,))
    port = server.add_secure_port("localhost:0", credentials) if credentials else server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"{'localhost' if credentials else '127.0.0.1'}:{port}"
    finally:
        server.stop(0).wait()


@pytest.fixture
def proxy() -> Iterator[tuple[Proxy, str]]:
    proxy = Proxy()
    with serve(proxy) as endpoint:
        yield proxy, endpoint


@pytest.fixture(scope="module", autouse=True)
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Of a server whose CA only this machine knows, as the docs say. gRPC reads its CAs once, so this comes before every call with TLS."""
    path, made = tmp_path_factory.mktemp("ca") / "ca.pem", pair(["localhost"], LATE)
    path.write_bytes(made["Certificate"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(path))
        yield grpc.ssl_server_credentials([(made["PrivateKey"], made["Certificate"])])


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return tmp_path / "token"


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
    calls[ask.UNKNOWN] = [("OK", "NOT_FOUND: no such page")]
    assert "ERROR  unknown id           was not rejected as unknown: NOT_FOUND: no such page" in tool("verify --test agent-b", 1), "an agent said it"
    calls |= {ask.UNKNOWN: [("OK", "me")], "agent-a": [("OK", "me")], "agent-b": [("OK", "me")]}
    out = tool("verify --test agent-a agent-b", 1)
    assert "ERROR  unknown id           was not rejected as unknown: me" in out and "so they may be the same agent" in out


def test_verify_checks_what_aws_sees(tool: Tool, account: Account, green: str, calls: object) -> None:
    account.envoy, account.target = "UNHEALTHY", "unhealthy"
    out = tool("verify --test agent-a", 1)
    assert "envoy is UNHEALTHY" in out and "10.0.2.1 is unhealthy" in out


def test_a_tls_listener_is_called_with_tls(tool: Tool, account: Account, green: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = Mock(side_effect=lambda endpoint, tls, name, token: ("NOT_FOUND", "no") if "no-such" in name else ("OK", "up"))
    monkeypatch.setattr("pixell_envoy_deploy.ask.call", called)
    account.edits["elbv2.DescribeListeners"] = ("", {"Protocol": "TLS"})
    tool("verify --test --endpoint agents.example.com:443 agent-a")
    assert {call.args[:2] for call in called.call_args_list} == {("agents.example.com:443", True)}


def test_a_token_is_sent_and_not_shown_and_what_it_does_not_allow_counts_as_unknown(tool: Tool, green: str, token_file: Path) -> None:
    with serve(Proxy(TOKEN)) as endpoint:
        words = f"verify --test --endpoint {endpoint} --connections 2 bare a"
        out = tool(f"{words} --token-file {token_file}")
        assert "2 of 2 connections reached it (100 %): UNIMPLEMENTED: no such method for (token)" in out and TOKEN not in out
        assert "ok     unknown id           PERMISSION_DENIED: The token does not allow" in out
        assert "2 x UNAUTHENTICATED unauthenticated" in (out := tool(words, 1)) and "ERROR  unknown id           was not rejected as unknown" in out
        assert ask.call(endpoint, False, "gone", TOKEN)[0] == "PERMISSION_DENIED not_allowed"


def test_a_token_may_allow_every_deployment(calls: Calls, tool: Tool, green: str, token_file: Path) -> None:
    assert "ok     unknown id           NOT_FOUND: no" in tool(f"verify --test agent-a --token-file {token_file}")
    calls[ask.UNKNOWN] = [("PERMISSION_DENIED not_allowed", "PERMISSION_DENIED: no")]
    assert "ERROR  unknown id           was not rejected as unknown: PERMISSION_DENIED" in tool("verify --test agent-a", 1), "no token was sent"


def test_envoys_own_tls_is_called_with_tls_and_a_token(
    tool: Tool, account: Account, credentials: Any, token_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = json.loads((DEPLOY / "task-definition.json").read_text())
    variable = {"name": "PIXELL_TLS_CERT_FILE", "value": "/run/pixell-tls/certificate"}
    template["containerDefinitions"][0]["environment"].append(variable)
    (tmp_path / "task-definition.json").write_text(json.dumps(template))
    monkeypatch.setattr("pixell_envoy_deploy.rollout.DEPLOY", tmp_path)
    tool("apply --yes")
    assert account.listener(S.test_port)["Protocol"] == "TCP"
    with serve(Proxy(TOKEN), credentials) as endpoint:
        words = f"a b --endpoint {endpoint} --connections 2"
        assert f"Verified: 2 agents through {endpoint}" in tool(f"verify --test {words} --token-file {token_file}")
        assert "2 x UNAUTHENTICATED" in tool(f"shift --yes {words}", 1) and account.leads(A2A_PORT) == []
        tool(f"shift --yes {words} --token-file {token_file}")
    assert account.leads(A2A_PORT) == [f"{S.a2a_target_group}-green"]
    variable["value"] = ""
    (tmp_path / "task-definition.json").write_text(json.dumps(template))
    monkeypatch.setattr("pixell_envoy_deploy.ask.call", called := Mock(return_value=("NOT_FOUND", "no")))
    tool("apply --yes")
    tool("verify --test a", 1)
    assert {call.args[1] for call in called.call_args_list} == {False}, "an empty variable counts as not set"


@pytest.mark.parametrize("content", [None, "", " \n", f"Bearer {TOKEN}", f"{TOKEN}\n{TOKEN}", "s3cret\xff", "s3cret\x00"])
def test_a_file_without_a_token_ends_the_command_before_it_begins(
    account: Account, token_file: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    token_file.unlink() if content is None else token_file.write_text(content, "latin-1")
    for words in ("verify a", "shift --yes"):
        with pytest.raises(SystemExit, match="2"):
            command_line.main([*words.split(), "--token-file", str(token_file)])
        out = capsys.readouterr()
        assert "argument --token-file: " in out.err and TOKEN not in out.out + out.err and "s3cret" not in out.err
    with pytest.raises(SystemExit, match="2"):
        command_line.main(["verify", "a", "--token-file", TOKEN])
    assert TOKEN not in capsys.readouterr().err, "a token in place of the path"
    assert not account.calls
