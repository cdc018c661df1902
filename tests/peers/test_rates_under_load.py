"""Rates, counted by the agents, while h2load sends more than they allow."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from agents.protos import agent, agent_services
from conftest import push
from served import Served, until
from tokens import PATIENCE

pytestmark = pytest.mark.load

# As many as an agent in Python serves beside other work.
RATE = 400
# Seconds of a measurement.
SECONDS = 4.0
HTTP1 = ("--h1", "--header", "x-deployment-id: h")
HTTP2 = ("--header", "x-deployment-id: h")


class HttpAgent:
    """Counts requests, one for each piece that arrives. It is quicker than any framework."""

    def __init__(self) -> None:
        self.served = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while connection.recv(1 << 16):
                with self._lock:
                    self.served += 1
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")


class GrpcAgent(agent_services.AgentServiceServicer):  # type: ignore[misc]
    """Counts calls."""

    def __init__(self) -> None:
        self.served = 0
        self._lock = threading.Lock()
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        agent_services.add_AgentServiceServicer_to_server(self, self._server)
        self.port: int = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def Health(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._lock:
            self.served += 1
        return agent.HealthStatus(ok=True)


class Place:
    """An Envoy with a rate, and its agents."""

    def __init__(self, form: str) -> None:
        self.envoy = Served(form, {"PIXELL_RATE_LIMIT": f"{RATE}/s"})
        self.http, self.burst, self.grpc = HttpAgent(), HttpAgent(), GrpcAgent()
        for name, it in (("h", self.http), ("burst", self.burst), ("g", self.grpc)):
            push(self.envoy, name, it.port)

    def remove(self) -> None:
        self.envoy.stop()
        for it in (self.http, self.burst, self.grpc):
            it.stop()

    def until_limited(self) -> None:
        """Waits until the burst at the beginning is over."""

        def limited() -> int:
            return self.envoy.stat("clients.http_local_rate_limit.rate_limited")

        before = limited()
        until(lambda: limited() > before + RATE, "rejections")

    def h2load(self, path: str, *arguments: str) -> subprocess.Popen[str]:
        command = ["h2load", "--threads=1", *arguments, self.envoy.url + path]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    @contextmanager
    def load(self, path: str, *kinds: tuple[str, ...]) -> Iterator[None]:
        """Two connections of each kind, which together send twice what is allowed."""
        rate = ("--clients=2", f"--rps={RATE // len(kinds)}", f"--duration={SECONDS + 26:.0f}")
        senders = [self.h2load(path, *rate, *kind) for kind in kinds]
        try:
            self.until_limited()
            yield
        finally:
            for sender in senders:
                sender.terminate()
                sender.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module", params=["wasm", "native"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    place = Place(request.param)
    yield place
    place.remove()


def check_rate(served: HttpAgent | GrpcAgent) -> None:
    """After the burst at the beginning, an agent gets what the rate allows."""
    before, began = served.served, time.monotonic()
    time.sleep(SECONDS)
    count, took = served.served - before, time.monotonic() - began
    assert 0.95 * RATE * took < count < 1.05 * RATE * took, (count, took)


def test_the_rate_is_held_within_five_percent(place: Place) -> None:
    """Over HTTP/1.1 and HTTP/2 at once, which is one client, over both workers. A quiet client is beside it."""
    with place.load("/x", HTTP1, HTTP2):
        check_rate(place.http)
        with socket.create_connection(
            ("127.0.0.1", place.envoy.port), timeout=PATIENCE, source_address=("127.0.9.1", 0)
        ) as quiet:
            for _ in range(3):
                quiet.sendall(b"GET /x HTTP/1.1\r\nhost: h\r\nx-deployment-id: h\r\n\r\n")
                assert quiet.recv(1 << 16).startswith(b"HTTP/1.1 204 ")


def test_the_rate_of_calls_is_held_within_five_percent(place: Place, tmp_path: Path) -> None:
    message = tmp_path / "message"
    message.write_bytes(bytes(5))
    headers = ("x-deployment-id: g", "content-type: application/grpc", "te: trailers")
    call = ("--max-concurrent-streams=20", f"--data={message}", *(f"--header={header}" for header in headers))
    with place.load("/pixell.agent.AgentService/Health", call):
        check_rate(place.grpc)


def test_a_burst_is_what_one_second_allows(place: Place) -> None:
    count, began = 3 * RATE, time.monotonic()
    burst = place.h2load("/x", f"--requests={count}", "--max-concurrent-streams=20", "--header=x-deployment-id: burst")
    said, _ = burst.communicate(timeout=PATIENCE)
    took = time.monotonic() - began
    served = place.burst.served
    assert RATE <= served <= min(count, RATE + 1.05 * RATE * took), (served, took)
    assert f"status codes: {served} 2xx, 0 3xx, {count - served} 4xx, 0 5xx" in said
