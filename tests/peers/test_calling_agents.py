"""The programs of docs/calling-agents.md, as they stand there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from agents.protos import agent, agent_services
from conftest import Start

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs/calling-agents.md").read_text()
ADDRESS, AGENT = "127.0.0.1:50051", "agent-a"


def program(containing: str, authority: str, deployment_id: str) -> dict[str, Any]:
    """Runs the one program that contains a text, and gives its names."""
    (text,) = (text for text in re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL) if containing in text)
    names: dict[str, Any] = {}
    exec(text.replace(ADDRESS, authority).replace(AGENT, deployment_id), names)
    return names


@pytest.fixture(scope="module")
def called(start: Start) -> str:
    start("grpc_agent", "called")
    return "called"


def test_by_http(start: Start, authority: str, capsys: pytest.CaptureFixture[str]) -> None:
    start("web", "called-by-http")
    program("httpx", authority, "called-by-http")
    assert capsys.readouterr().out == "healthy\n"


def test_by_grpc(
    called: str, authority: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "agent_pb2", agent)
    monkeypatch.setitem(sys.modules, "agent_pb2_grpc", agent_services)
    program("agent_pb2_grpc", authority, called)
    assert capsys.readouterr().out == f"{called}\n"


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
