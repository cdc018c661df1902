"""The examples of docs/addressing.md, as they stand there, beside `cargo xtask demo`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy_process import EnvoyProcess

from agents.protos import agent, agent_services
from conftest import Start, on_both_filters, push
from peer import Peer
from served import START_SECONDS, program
from served import until as wait_until

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs/addressing.md").read_text()
# The ports of the examples. The tests use free ones instead, because a demo may be running beside them.
DATA, ADMIN, PORT = "50051", "9901", "50054"


def block(kind: str, containing: str) -> str:
    """The one example of this kind that contains a text."""
    (text,) = (text for text in re.findall(rf"```{kind}\n(.*?)```", DOCUMENT, re.DOTALL) if containing in text)
    return str(text)


class Demo:
    """`cargo xtask demo` and the agent of the second terminal, on free ports."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []
        self.ports: dict[str, str] = {}

    def start(self) -> None:
        said = self._start("demo", "--listen-port", "0", "--admin-port", "0", until="/ready")
        self.ports[DATA] = found(r"http://127.0.0.1:(\d+)/agents/alpha/ui/", said)
        self.ports[ADMIN] = found(r"http://127.0.0.1:(\d+)/v1/routes", said)
        assert block("sh", "xtask agent") == f"cargo xtask agent {PORT} --page\n"
        self.ports[PORT] = found(r"127.0.0.1:(\d+);", self._start("agent", "0", "--page", until="in a browser"))

    def _start(self, name: str, *arguments: str, until: str) -> str:
        process = subprocess.Popen(
            [str(program(name)), *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._running.append(process)
        said: list[str] = []

        def read() -> None:
            # To the end, so that later output does not fill the pipe.
            for line in process.stdout or ():
                said.append(line)

        reader = threading.Thread(target=read)
        reader.start()
        self._readers.append(reader)

        def look() -> str | None:
            ended, text = process.poll() is not None, "".join(said)
            if until in text:
                return text
            assert not ended, f"{name} ended: {text}"
            return None

        told: str = wait_until(look, f"{until!r} of {name}", START_SECONDS)
        return told

    def here(self, text: str) -> str:
        return re.sub(r"\b(50051|9901|50054)\b", lambda port: self.ports[port[1]], text)

    def run(self, containing: str) -> str:
        """Runs an example of the shell in the repository, and gives what it prints."""
        command = ["bash", "-euc", self.here(block("sh", containing))]
        # grpcurl is a package of this environment.
        path = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(command, cwd=ROOT, env=path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def end(self) -> None:
        for process, reader in zip(self._running, self._readers, strict=True):
            process.terminate()
            process.wait(timeout=60)
            reader.join()
            if process.stdout is not None:
                process.stdout.close()


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, text
    return match[1]


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    demo = Demo()
    try:
        demo.start()
        assert json.loads(demo.run("/v1/routes"))["added"] == 1
        yield demo
    finally:
        demo.end()


def test_curl_by_header(demo: Demo) -> None:
    assert demo.run("curl -H 'x-deployment-id: my-agent'") == "agent says hello"


def test_curl_by_path(demo: Demo) -> None:
    assert demo.run("/agents/my-agent/hello") == "agent says hello"


def test_grpcurl_by_header(demo: Demo) -> None:
    assert json.loads(demo.run("grpcurl"))["message"] == "alpha"


def test_grpcio_by_path(demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    exec(demo.here(block("python", "/agents/alpha/a2a/")), {})
    assert "alpha" in capsys.readouterr().out


def test_an_agents_page(demo: Demo) -> None:
    (url,) = re.findall(r"<(http://127\.0\.0\.1:50051/agents/my-agent/)>", DOCUMENT)
    with urllib.request.urlopen(demo.here(url), timeout=30) as response:
        assert response.read().decode() == block("html", "EventSource")


def test_curl_by_host(demo: Demo) -> None:
    """The suffix of `PIXELL_HOST_SUFFIX=.localhost`, in an Envoy of its own."""
    envoy = EnvoyProcess(edits=[('"role": "router"', '"role": "router", "host_suffix": ".localhost"')])
    try:
        envoy.start()
        push(envoy, "my-agent", int(demo.ports[PORT]))
        text = block("sh", "my-agent.localhost").replace(DATA, str(envoy.agents_port))
        done = subprocess.run(["bash", "-euc", text], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "agent says hello"), done.stderr
    finally:
        envoy.remove()


def run_program(containing: str, authority: str, deployment_id: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a Python program of the document against an agent of these tests, and gives what it prints."""
    text = block("python", containing).replace(f"127.0.0.1:{DATA}", authority).replace("my-agent", deployment_id)
    exec(text, {})
    return capsys.readouterr().out


@on_both_filters
def test_mcp(start: Start, authority: str, capsys: pytest.CaptureFixture[str]) -> None:
    start("mcp_http", "addressed-mcp")
    assert run_program("streamable_http_client", authority, "addressed-mcp", capsys) == "['add']\n"


@pytest.mark.parametrize("base", ["/agents/{}/a2a", "/agents/{}", "/agents/{}/-/a2a"])
def test_grpcio_with_the_full_path_of_a_method(demo: Demo, base: str) -> None:
    """As clients of PAR's gateway call: no header, and an interceptor for the path of every call of a stub."""

    class Base(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc, unused-ignore]
        def intercept_unary_unary(self, go_on: Any, details: Any, request: Any) -> Any:
            return go_on(details._replace(method=base.format(self.id) + details.method), request)

        def __init__(self, id: str) -> None:
            self.id = id

    def health(id: str) -> Any:
        return agent_services.AgentServiceStub(grpc.intercept_channel(plain, Base(id))).Health(
            agent.Empty(), timeout=30
        )

    with contextlib.closing(grpc.insecure_channel(f"127.0.0.1:{demo.ports[DATA]}")) as plain:
        assert health("alpha").message == "alpha"
        with pytest.raises(grpc.RpcError) as raised:
            health("nobody")
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    assert raised.value.details() == "Deployment nobody not found or not ready"


@on_both_filters
def test_the_a2a_sdk_1(start: Start, authority: str, capsys: pytest.CaptureFixture[str]) -> None:
    start("a2a_http", "addressed-a2a", 0, "own")
    assert run_program("a2a.helpers", authority, "addressed-a2a", capsys) == "hello\n"


@on_both_filters
def test_the_a2a_sdk_0_3(envoy: EnvoyProcess, authority: str, old_python: str) -> None:
    agent = Peer("a2a_0_3.agent", "addressed-old", python=old_python)
    try:
        push(envoy, "addressed-old", agent.others[0], rest=agent.port)
        text = block("python", "create_text_message_object").replace(f"127.0.0.1:{DATA}", authority)
        done = subprocess.run(
            [old_python, "-c", text.replace("my-agent", "addressed-old")], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    finally:
        agent.kill()
