"""What the tests share: a real Envoy with the shipped configuration, and agents behind it."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

HERE = Path(__file__).resolve().parent
# How to start an Envoy is written down once for Python.
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "clients/python/tests")]
# How PAR finds ports.
sys.path.append(str(HERE.parents[1] / "integration/par"))

from envoy_process import EnvoyProcess  # noqa: E402

from native import NativeEnvoy  # noqa: E402
from peer import Peer  # noqa: E402
from served import Served  # noqa: E402

# Starts an agent of this kind and name, and routes the name to it; a port and more arguments may follow.
Start = Callable[..., Peer]


@contextmanager
def running(envoy: EnvoyProcess, failures: str) -> Iterator[EnvoyProcess]:
    """Runs an Envoy whose statistics with these names must stay 0."""
    try:
        envoy.start()
        yield envoy
        # Envoy counts a VM that has trapped at its next request, so the tests send one.
        assert sum(envoy.stats(failures).values()) == 0
    finally:
        # Shown by pytest where the test fails. Each call is a line of it.
        print("--- the end of Envoy's log", *envoy.log.splitlines()[-50:], sep="\n")
        envoy.remove()


@pytest.fixture(scope="session")
def wasm_envoy() -> Iterator[EnvoyProcess]:
    with running(EnvoyProcess(), r"wasm\..*\.vm_reload.*") as envoy:
        yield envoy


@pytest.fixture(scope="session")
def native_envoy() -> Iterator[EnvoyProcess]:
    with running(NativeEnvoy(), r".*pixell_panics_total") as envoy:
        yield envoy


@pytest.fixture(scope="module")
def envoy(request: pytest.FixtureRequest) -> EnvoyProcess:
    """One Envoy for all tests. Those with `on_both_filters` have another one, too."""
    return cast(EnvoyProcess, request.getfixturevalue(f"{getattr(request, 'param', 'wasm')}_envoy"))


on_both_filters = pytest.mark.parametrize("envoy", ["wasm", "native"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def authority(envoy: EnvoyProcess) -> str:
    """Where clients reach every agent."""
    return f"127.0.0.1:{envoy.agents_port}"


@pytest.fixture(scope="module")
def start(envoy: EnvoyProcess) -> Iterator[Start]:
    """Starts agents that end with the tests of a file."""
    running: list[Peer] = []

    def start_one(kind: str, name: str, port: int = 0, *arguments: str) -> Peer:
        peer = Peer(kind, name, port, *arguments)
        running.append(peer)
        push(envoy, name, peer.port)
        return peer

    yield start_one
    for peer in running:
        peer.kill()


def push(envoy: EnvoyProcess | Served, name: str, port: int, **endpoints: int) -> None:
    """Routes `name` to `port` and its further endpoints, as PAR does."""
    headers = {"content-type": "application/json"}
    body = json.dumps({"port": port, "endpoints": endpoints}).encode()
    api = envoy.api if isinstance(envoy, Served) else envoy.url
    request = urllib.request.Request(f"{api}/v1/routes/{name}", data=body, method="PUT", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.status in (200, 201)


@pytest.fixture(scope="session")
def old_python() -> str:
    """The Python that has the A2A SDK 0.3."""
    python = os.environ["A2A_0_3_PYTHON"]
    assert Path(python).exists(), f"{python} is missing: run `cargo xtask test peers`"
    return python
