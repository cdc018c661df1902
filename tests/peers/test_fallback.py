"""PAR's own router as the fallback: an id that the map does not hold reaches the router, and never an agent.

PAR's router binds `A2A_PORT`, and PAR scans for agents' ports from there upwards: it looks for a free one first and
binds it later.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple

import grpc
import pytest
from envoy_process import EnvoyProcess
from ports import is_free, scan

from agents.protos import agent, agent_services
from named import connection, named
from peer import Peer

PATIENCE = 10.0
UNKNOWN = ("nobody", "agent-0x", "a" * 128)


class Task(NamedTuple):
    """Envoy whose fallback is `a2a_port`, a port that no agent may have."""

    envoy: EnvoyProcess
    a2a_port: int


@pytest.fixture
def task() -> Iterator[Task]:
    a2a_port = free_range(8)
    # The shipped list denies 50052; here another port takes its part, so that tests may run side by side.
    settings = [
        ('"role": "router"', f'"role": "router", "fallback_port": {a2a_port}'),
        ('"role": "admin"', f'"role": "admin", "denied_ports": [{a2a_port}]'),
    ]
    envoy = EnvoyProcess(edits=settings)
    try:
        envoy.start()
        yield Task(envoy, a2a_port)
    finally:
        print("--- the end of Envoy's log", *envoy.log.splitlines()[-20:], sep="\n")
        envoy.remove()


def test_an_unknown_id_reaches_the_router_and_no_agent(task: Task) -> None:
    with Running() as running:
        running.start("par_router", "router", task.a2a_port)
        for number in range(3):
            port = scan(task.a2a_port)
            assert port > task.a2a_port
            assert register(task, f"agent-{number}", port) == 201
            running.start("grpc_agent", f"agent-{number}", port)
            for unknown in UNKNOWN:
                assert call(task, unknown) == f"NOT_FOUND Deployment {unknown} not found or not ready"
                # The router speaks HTTP/2 alone: what is not gRPC gets an error, and none of an agent.
                assert get(task, {"x-deployment-id": unknown}) >= 500
                assert get(task, {}, f"/agents/{unknown}/a2a/x") >= 500
        for number in range(3):
            assert call(task, f"agent-{number}") == f"agent-{number}"
        # An agent that is gone is unknown as well, also if another one listens on its port by now.
        assert request(task, "DELETE", "/v1/routes/agent-1") == 204
        assert call(task, "agent-1") == "NOT_FOUND Deployment agent-1 not found or not ready"


def test_without_the_router_its_port_goes_to_no_agent(task: Task) -> None:
    # PAR's router is not up, so the scan finds its port free. PAR registers before it starts an agent, and does not
    # start one that Envoy rejects.
    port = scan(task.a2a_port)
    assert port == task.a2a_port
    assert register(task, "agent-0", port) == 422
    for unknown in ("agent-0", *UNKNOWN):
        assert call(task, unknown).startswith("UNAVAILABLE ")


class Running:
    """Processes that end with a test."""

    def __enter__(self) -> Running:
        self._peers: list[Peer] = []
        return self

    def start(self, kind: str, name: str, port: int) -> None:
        self._peers.append(Peer(kind, name, port))
        assert self._peers[-1].port == port

    def __exit__(self, *_: object) -> None:
        for peer in self._peers:
            peer.kill()


def free_range(count: int) -> int:
    """The first of so many free ports, below those that the system hands out."""
    return next(
        first for first in range(21_000, 30_000, count) if all(is_free(port) for port in range(first, first + count))
    )


def call(task: Task, deployment_id: str) -> str:
    """The name of the agent that serves a gRPC call, or the status and its message."""
    with connection(f"127.0.0.1:{task.envoy.agents_port}") as plain:
        stub = agent_services.AgentServiceStub(named(plain, deployment_id))
        try:
            return str(stub.Health(agent.Empty(), timeout=PATIENCE).message)
        except grpc.RpcError as error:
            return f"{error.code().name} {error.details()}"


def get(task: Task, headers: dict[str, str], path: str = "/") -> int:
    return request(task, "GET", path, headers, port=task.envoy.agents_port)


def register(task: Task, deployment_id: str, port: int) -> int:
    body = json.dumps({"port": port}).encode()
    return request(task, "PUT", f"/v1/routes/{deployment_id}", {"content-type": "application/json"}, body)


def request(
    task: Task,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    port: int | None = None,
) -> int:
    base = task.envoy.url if port is None else f"http://127.0.0.1:{port}"
    asked = urllib.request.Request(base + path, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
