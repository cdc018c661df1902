"""Where a task on ECS finds its id and address: a server in the place of the metadata endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pixell_envoy.fleet import MetadataError, ecs

ARN = "arn:aws:ecs:us-east-2:111122223333:task/pixell-runtime-cluster/158d1c8083dd49d6b527399fd6414f5c"
TASK = "158d1c8083dd49d6b527399fd6414f5c"


def container(mode: str = "awsvpc", **addresses: list[str]) -> dict[str, Any]:
    return {"Name": "par", "Networks": [{"NetworkMode": mode, **addresses}]}


class Endpoint(ThreadingHTTPServer):
    """Responds with each of `bodies` once, and with the last one from then on."""

    bodies: list[tuple[int, bytes]]
    paths: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        status, body = self.server.bodies.pop(0) if len(self.server.bodies) > 1 else self.server.bodies[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    server = Endpoint(("127.0.0.1", 0), Handler)
    server.paths = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv(ecs.VARIABLE, f"http://127.0.0.1:{server.server_port}/v4/abc-123")
    # A proxy of the environment is not asked.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setattr(ecs, "_PAUSE", 0.01)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def body(*containers: dict[str, Any], **members: Any) -> tuple[int, bytes]:
    return 200, json.dumps({"TaskARN": ARN, "Containers": list(containers), **members}).encode()


async def test_finds_task_and_address(endpoint: Endpoint) -> None:
    endpoint.bodies = [body(container(IPv4Addresses=["10.0.1.7"], IPv6Addresses=["2001:db8::7"]))]
    assert await ecs.find_task() == (TASK, "10.0.1.7")
    assert endpoint.paths == ["/v4/abc-123/task"]
    endpoint.bodies = [body({"Name": "starting"}, container(IPv6Addresses=["2001:db8::7"]))]
    assert await ecs.find_task() == (TASK, "2001:db8::7")


async def test_waits_until_the_endpoint_knows_the_address(endpoint: Endpoint) -> None:
    endpoint.bodies = [(500, b""), body({"Name": "starting"}), body(container(IPv4Addresses=["10.0.1.7"]))]
    assert await ecs.find_task() == (TASK, "10.0.1.7")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ((404, b"{}"), "404"),
        ((200, b"<html>"), "not JSON"),
        ((200, b"[]"), "form"),
        ((200, b'{"TaskARN": "a/b", "Containers": [7]}'), "form"),
        (body(container("bridge", IPv4Addresses=["172.17.0.2"])), "awsvpc"),
        (body(), "awsvpc"),
    ],
)
async def test_an_endpoint_that_does_not_tell_them_is_an_error(
    endpoint: Endpoint, response: tuple[int, bytes], reason: str
) -> None:
    endpoint.bodies = [response]
    with pytest.raises(MetadataError, match=reason):
        await ecs.find_task()
    assert len(endpoint.paths) == 5


async def test_no_endpoint_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecs, "_PAUSE", 0.01)
    monkeypatch.setenv(ecs.VARIABLE, "http://127.0.0.1:1/v4/abc")
    with pytest.raises(MetadataError, match="cannot read"):
        await ecs.find_task()
