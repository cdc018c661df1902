"""The programs of docs/calling-agents.md, as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from agents.protos import agent, agent_services
from conftest import Start

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs/calling-agents.md").read_text()
ADDRESS, AGENTS = "127.0.0.1:50051", ("my-agent", "alpha")
PROTO = "crates/harness/proto"


def block(language: str, containing: str) -> str:
    """The one block of the document that contains a text."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    (text,) = (text for text in blocks if containing in text)
    return text


def text_of(containing: str, authority: str, deployment_id: str) -> str:
    """The program that contains a text, for an agent of this test."""
    text = block("python", containing).replace(ADDRESS, authority)
    for agent_of_the_document in AGENTS:
        text = text.replace(f'"{agent_of_the_document}"', f'"{deployment_id}"')
    return text


def program(containing: str, authority: str, deployment_id: str) -> dict[str, Any]:
    """Runs the program that contains a text, and gives its names."""
    names: dict[str, Any] = {}
    exec(text_of(containing, authority, deployment_id), names)
    return names


@pytest.fixture(scope="module")
def called(start: Start) -> str:
    start("grpc_agent", "called")
    return "called"


def test_by_http(start: Start, authority: str, capsys: pytest.CaptureFixture[str]) -> None:
    start("web", "called-by-http")
    program("httpx", authority, "called-by-http")
    assert capsys.readouterr().out == "healthy\n"


def test_by_grpc(called: str, authority: str, tmp_path: Path) -> None:
    # In a process of its own: this one has the modules already.
    generate = block("sh", "grpc_tools").replace(PROTO, str(ROOT / PROTO)).replace("python3", sys.executable)
    subprocess.run(["sh", "-ec", generate], cwd=tmp_path, check=True, timeout=60)
    text = text_of("agent_pb2_grpc", authority, called)
    ran = subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, check=True, timeout=60, stdout=subprocess.PIPE, text=True
    )
    assert ran.stdout == f"{called}\n"


async def test_by_the_interceptor_for_par(called: str, authority: str) -> None:
    async with grpc.aio.insecure_channel(authority) as plain:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await agent_services.AgentServiceStub(plain).Health(agent.Empty(), timeout=10)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    channel_to = program("DeploymentId", authority, called)["channel_to"]
    async with channel_to(authority, called) as channel:
        stub = agent_services.AgentServiceStub(channel)
        assert (await stub.Health(agent.Empty(), timeout=30)).message == called
        # Metadata of the call's own arrives, too.
        received = await stub.DescribeCapabilities(agent.Empty(), metadata=[("x-mine", "1")], timeout=30)
        assert '"x-mine": "1"' in received.metadata["received"]
