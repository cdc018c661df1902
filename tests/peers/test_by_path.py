"""Clients that are given nothing but `http://host/agents/{id}`: each library does the rest, unchanged."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urljoin

import grpc
import httpx
import pytest
from a2a.client import A2ACardResolver, Client, ClientCallContext, ClientConfig, ClientFactory
from a2a.helpers import get_artifact_text, get_message_text, new_text_message
from a2a.types import Role, SendMessageRequest
from envoy_process import EnvoyProcess
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from conftest import Start, on_both_filters, push
from peer import HERE, Peer

pytestmark = on_both_filters

BINDINGS = ["JSONRPC", "HTTP+JSON", "GRPC"]
LIMIT = 30.0


# Agents import for seconds, so each of these starts once and serves both Envoys.
@pytest.fixture(scope="module")
def new_ports() -> Iterator[tuple[int, int]]:
    """An agent of the A2A SDK 1.x: gRPC on its endpoint `a2a`, HTTP on `rest`."""
    agents = [Peer("a2a_grpc", "path-new", 0, ""), Peer("a2a_http", "path-new", 0, "own")]
    yield agents[0].port, agents[1].port
    for agent in agents:
        agent.kill()


@pytest.fixture(scope="module")
def old_ports(old_python: str) -> Iterator[tuple[int, int]]:
    """The same of the A2A SDK 0.3."""
    agent = Peer("a2a_0_3.agent", "path-old", python=old_python)
    yield agent.others[0], agent.port
    agent.kill()


@pytest.fixture(scope="module")
def new_agent(new_ports: tuple[int, int], envoy: EnvoyProcess) -> str:
    push(envoy, "path-new", new_ports[0], rest=new_ports[1])
    return "path-new"


@pytest.fixture(scope="module")
def old_agent(old_ports: tuple[int, int], envoy: EnvoyProcess) -> str:
    push(envoy, "path-old", old_ports[0], rest=old_ports[1])
    return "path-old"


def interfaces(card: dict[str, Any]) -> dict[str, str]:
    """The URLs of a card as it is on the wire, by binding."""
    found = {item["protocolBinding"]: item["url"] for item in card.get("supportedInterfaces", [])}
    found |= {item["transport"]: item["url"] for item in card.get("additionalInterfaces", [])}
    return found | ({card["preferredTransport"]: card["url"]} if "url" in card else {})


@pytest.mark.parametrize("prefix", ["", "/api", "/-/rest"])
async def test_a_card_leads_back(new_agent: str, old_agent: str, authority: str, prefix: str) -> None:
    for agent in (new_agent, old_agent):
        base = f"http://{authority}/agents/{agent}{prefix}"
        async with httpx.AsyncClient() as http:
            response = await http.get(f"{base}/.well-known/agent-card.json")
        assert response.headers["cache-control"] == "private, no-store"
        assert "etag" not in response.headers
        urls = {"JSONRPC": f"{base}/rpc", "HTTP+JSON": f"{base}/rest", "GRPC": authority}
        assert interfaces(response.json()) == urls


@asynccontextmanager
async def client_of(base: str, binding: str) -> AsyncIterator[Client]:
    async with httpx.AsyncClient(timeout=LIMIT) as http:
        card = await A2ACardResolver(http, base).get_agent_card()
        config = ClientConfig(
            httpx_client=http, grpc_channel_factory=grpc.aio.insecure_channel, supported_protocol_bindings=[binding]
        )
        async with ClientFactory(config).create(card) as client:
            yield client


async def tell(client: Client, words: str, context: ClientCallContext | None) -> list[str]:
    """What the agent says: messages and artifacts."""
    said = []
    message = SendMessageRequest(message=new_text_message(words, role=Role.ROLE_USER))
    async for response in client.send_message(message, context=context):
        match response.WhichOneof("payload"):
            case "message":
                said.append(get_message_text(response.message))
            case "artifact_update":
                said.append(get_artifact_text(response.artifact_update.artifact))
                if len(said) < 3:
                    await tell(client, "next", context)
            case "status_update":
                if not said:
                    await tell(client, "next", context)
    return said


def context(binding: str, agent: str) -> ClientCallContext | None:
    """gRPC has no path that could name the agent: a header does."""
    return ClientCallContext(service_parameters={"x-deployment-id": agent}) if binding == "GRPC" else None


@pytest.mark.parametrize("binding", BINDINGS)
async def test_the_a2a_sdk_1(new_agent: str, authority: str, binding: str) -> None:
    async with client_of(f"http://{authority}/agents/{new_agent}", binding) as client:
        assert await tell(client, "ä hello", context(binding, new_agent)) == ["ä hello"]
        steps = await tell(client, "steps 3", context(binding, new_agent))
        assert steps == ["step 0", "step 1", "step 2"]


@pytest.mark.parametrize("binding", BINDINGS)
def test_the_a2a_sdk_0_3(old_agent: str, old_python: str, authority: str, binding: str) -> None:
    command = [old_python, "-m", "a2a_0_3.client", f"http://{authority}/agents/{old_agent}", binding, old_agent]
    ran = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout)
    assert seen["card"]["url"] == f"http://{authority}/agents/{old_agent}/rpc"
    assert seen["message"] == ["ä hello"]
    assert seen["stream"] == [f"step {number}" for number in range(5)]


async def test_the_mcp_sdk(start: Start, authority: str) -> None:
    start("mcp_http", "path-mcp", 0, authority)
    url = f"http://{authority}/agents/path-mcp/mcp"
    async with (
        streamable_http_client(url) as (read, write, session_id),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        for one in range(3):
            result = await session.call_tool("add", {"one": one, "other": 2})
            assert result.structuredContent == {"result": one + 2}
        ended = session_id()
    assert ended
    # A DELETE has ended it, so the server no longer knows it.
    headers = {"mcp-session-id": ended, "accept": "application/json, text/event-stream"}
    async with httpx.AsyncClient() as http:
        response = await http.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, headers=headers)
    assert response.status_code == 404


@pytest.mark.parametrize("prefix", ["/agents/path-pages", "/agents/path-pages/ui", "/agents/path-pages/-/ui"])
def test_a_server_of_pages(start: Start, envoy: EnvoyProcess, authority: str, prefix: str) -> None:
    other, pages = start("web", "path-pages"), start("pages", "path-pages")
    # The short form leads to `a2a`, because there is no `rest`.
    push(envoy, "path-pages", pages.port if prefix.endswith("pages") else other.port, ui=pages.port)
    base = f"http://{authority}{prefix}"
    with httpx.Client(follow_redirects=True, timeout=LIMIT) as browser:
        page = browser.get(f"{base}/")
        assert [str(response.url) for response in page.history] == [f"{base}/", f"{base}/login"]
        assert (page.status_code, str(page.url)) == (200, f"{base}/app/?from=login")
        assert "App" in page.text
        # Without the slash a framework adds it.
        assert str(browser.get(f"{base}/app").url) == f"{base}/app/"
        script = browser.get(urljoin(str(page.url), "static/app.js"))
        assert script.json() == {"cookies": {"session": "secret"}}
        assert "service-worker-allowed" not in script.headers
        (cookie,) = browser.cookies.jar
        assert (cookie.path, cookie.domain_specified) == (prefix, False)
        # Another agent below the same host never sees it.
        start("web", "path-other")
        assert "cookie" not in browser.get(f"http://{authority}/agents/path-other/about").json()["headers"]
