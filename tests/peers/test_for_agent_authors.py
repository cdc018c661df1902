"""docs/for-agent-authors.md, line by line, each with the library that it speaks of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from envoy_process import EnvoyProcess
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from agents.protos import agent, agent_services, streams, streams_services
from conftest import Start
from named import named

# Where clients reach the agents from outside.
HOST = "agents.example.com"
UPLOAD = b"x" * 3_000_000
TIMES = 20
LIMIT = 30.0


@pytest.fixture(scope="module")
def web(start: Start) -> str:
    start("web", "web")
    return "web"


@pytest.fixture
def http(authority: str) -> Iterator[httpx.Client]:
    headers = {"x-deployment-id": "web"}
    with httpx.Client(base_url=f"http://{authority}", headers=headers, timeout=LIMIT) as client:
        yield client


def about(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_what_the_agent_is_told(web: str, http: httpx.Client, authority: str) -> None:
    forged = {"x-forwarded-prefix": "/forged", "x-forwarded-host": "forged", "x-pixell-error": "forged"}
    by_header = about(http.get("/about", headers=forged))["headers"]
    assert by_header["x-deployment-id"] == web
    # Of a client on this machine Envoy gives an address of its own.
    assert by_header["x-forwarded-for"] and by_header["x-request-id"]
    assert not forged.keys() & by_header.keys()
    by_path = about(httpx.get(f"http://{authority}/agents/{web}/about", headers=forged))["headers"]
    assert (by_path["x-deployment-id"], by_path["x-forwarded-prefix"]) == (web, f"/agents/{web}")


def test_the_scheme_is_not_the_clients(web: str, http: httpx.Client) -> None:
    # As a load balancer that ends TLS would say, and as anybody could.
    seen = about(http.get("/about", headers={"host": HOST, "x-forwarded-proto": "https"}))
    assert seen["url"] == f"http://{HOST}/about"


def test_relative_urls_lead_back(web: str, authority: str) -> None:
    followed = httpx.get(f"http://{authority}/agents/{web}/relative", follow_redirects=True)
    assert followed.url.path == f"/agents/{web}/about"
    assert about(followed)["headers"]["x-deployment-id"] == web


async def mcp_sum(url: str, headers: dict[str, str]) -> int:
    """What the agent's tool says of 1 and 2, in a session that is ended by a DELETE."""
    async with (
        httpx.AsyncClient(headers={"host": HOST, **headers}, timeout=LIMIT) as http,
        streamable_http_client(url, http_client=http) as (read, write, session_id),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        assert session_id()
        result = await session.call_tool("add", {"one": 1, "other": 2})
        assert result.structuredContent is not None
        return int(result.structuredContent["result"])


async def test_an_mcp_server_has_to_allow_the_clients_host(start: Start, authority: str) -> None:
    start("mcp_http", "mcp-default")
    start("mcp_http", "mcp-allows", 0, HOST)
    url = f"http://{authority}/mcp"
    assert await mcp_sum(url, {"x-deployment-id": "mcp-allows"}) == 3
    assert await mcp_sum(f"http://{authority}/agents/mcp-allows/mcp", {}) == 3
    async with httpx.AsyncClient() as client:
        rejected = await client.post(url, json={}, headers={"x-deployment-id": "mcp-default", "host": HOST})
    assert (rejected.status_code, rejected.text) == (421, "Invalid Host header")


def test_a_server_of_grpcio_must_not_share_its_port() -> None:
    def server(*options: tuple[str, int]) -> grpc.Server:
        return grpc.server(ThreadPoolExecutor(1), options=options)

    first = server()
    port = first.add_insecure_port("127.0.0.1:0")
    first.start()
    second = server()
    # Nobody notices, and each gets half of the connections.
    assert second.add_insecure_port(f"127.0.0.1:{port}") == port
    second.stop(None)
    first.stop(None).wait()

    alone = server(("grpc.so_reuseport", 0))
    port = alone.add_insecure_port("127.0.0.1:0")
    alone.start()
    with pytest.raises(RuntimeError, match="Failed to bind"):
        server(("grpc.so_reuseport", 0)).add_insecure_port(f"127.0.0.1:{port}")
    alone.stop(None).wait()


def test_the_size_of_a_message_is_the_librarys_limit(start: Start, authority: str) -> None:
    start("grpc_agent", "large")
    message = streams.Chunk(data=b"x" * 5_000_000)
    with grpc.insecure_channel(authority) as default:
        with pytest.raises(grpc.RpcError) as raised:
            streams_services.StreamsStub(named(default, "large")).Unary(message, timeout=LIMIT)
    # Of the receiving side: here the client, with grpcio's default of 4 MiB.
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    with grpc.insecure_channel(authority, options=[("grpc.max_receive_message_length", -1)]) as larger:
        assert streams_services.StreamsStub(named(larger, "large")).Unary(message, timeout=LIMIT) == message


def test_many_and_long_header_fields_pass(web: str, http: httpx.Client) -> None:
    # httpx itself takes 100 KiB of them.
    passed = http.get("/headers?count=900&size=50")
    assert passed.status_code == 200 and passed.headers["x-field-899"] == "v" * 50
    rejected = http.get("/headers?count=1100&size=1")
    assert (rejected.status_code, rejected.headers["x-pixell-error"]) == (502, "agent_protocol_error")
    assert http.get("/health").status_code == 200


def test_a_long_status_message_is_the_clients_limit(start: Start, authority: str) -> None:
    start("grpc_agent", "wordy")
    request = agent.ActionRequest(action="fail", parameters={"code": "9", "message": "m" * 20_000})
    unlimited = [(f"grpc.{name}max_metadata_size", 1 << 20) for name in ("", "absolute_")]
    codes = []
    for options in ([], unlimited):
        with grpc.insecure_channel(authority, options=options) as channel:
            with pytest.raises(grpc.RpcError) as raised:
                agent_services.AgentServiceStub(named(channel, "wordy")).Invoke(request, timeout=LIMIT)
        codes.append(raised.value.code())
    assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.FAILED_PRECONDITION]


async def test_a_short_keep_alive_loses_nothing(start: Start, authority: str) -> None:
    start("gunicorn_agent", "gunicorn")
    headers = {"x-deployment-id": "gunicorn"}
    # gunicorn closes a silent connection after 2 s: around that moment is when a request could get lost.
    pauses = [1.9 + 0.2 * number / TIMES for number in range(TIMES)]
    async with httpx.AsyncClient(base_url=f"http://{authority}", headers=headers, timeout=LIMIT) as http:

        async def ask_again_and_again(pause: float) -> set[int]:
            codes = set()
            for _ in range(4):
                codes.add((await http.get("/")).status_code)
                await asyncio.sleep(pause)
            return codes

        codes = await asyncio.gather(*map(ask_again_and_again, pauses))
    assert set().union(*codes) == {200}


def test_an_upload_is_read_before_it_is_rejected(web: str, http: httpx.Client) -> None:
    outcomes = {http.post("/reject?read", content=UPLOAD).status_code for _ in range(TIMES)}
    assert outcomes == {413}


async def test_a_websocket_is_closed_by_its_handshake(start: Start, authority: str, envoy: EnvoyProcess) -> None:
    broken = r"cluster\.agents_http1\.upstream_cx_destroy_remote_with_active_rq"
    before = envoy.stats(broken)
    peer = start("websocket", "socket")
    headers = {"x-deployment-id": "socket"}
    async with connect(f"ws://{authority}/", additional_headers=headers) as socket:
        await socket.send("a word")
        assert await socket.recv() == "a word"
        assert await asyncio.wait_for(await socket.ping(), LIMIT) > 0
        await socket.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you wish")
    async with connect(f"ws://{authority}/", additional_headers=headers) as socket:
        peer.terminate()
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001
    assert envoy.stats(broken) == before


def test_nobody_asks_an_agent_but_clients(web: str, http: httpx.Client) -> None:
    first = about(http.get("/about"))["served"]
    assert http.get("/health").text == "healthy"
    assert about(http.get("/about"))["served"] == first + 1


def test_each_line_names_its_test() -> None:
    document = (Path(__file__).resolve().parents[2] / "docs/for-agent-authors.md").read_text()
    here = {name for name in globals() if name.startswith("test_")} - {"test_each_line_names_its_test"}
    assert not {name for name in here if f"`{name}`" not in document}
