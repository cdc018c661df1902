"""What the tests share: real Envoys, the document, and the helpers of the Python client's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# The Python client's tests know how to start an Envoy.
sys.path.insert(0, str(ROOT / "clients/python/tests"))

from envoy_process import EnvoyProcess  # noqa: E402

# Switches the fleet on.
FLEET = ('"role": "admin"', '"role": "admin", "fleet": {"peer_cidrs": ["10.0.0.0/8", "fd00::/8"]}')
TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    """docs/openapi.yaml."""
    return yaml.safe_load((ROOT / "docs/openapi.yaml").read_text())


@pytest.fixture(scope="session")
def envoy() -> Iterator[EnvoyProcess]:
    """An Envoy without a token, with a fleet."""
    yield from running(EnvoyProcess(edits=[FLEET]))


@pytest.fixture(scope="session")
def envoy_alone() -> Iterator[EnvoyProcess]:
    """An Envoy without a fleet."""
    yield from running(EnvoyProcess())


@pytest.fixture(scope="session")
def guarded_envoy() -> Iterator[EnvoyProcess]:
    """An Envoy that wants TOKEN."""
    yield from running(EnvoyProcess(token=TOKEN, edits=[FLEET]))


def running(envoy: EnvoyProcess) -> Iterator[EnvoyProcess]:
    try:
        envoy.start()
        yield envoy
    finally:
        # pytest shows it if the test fails. Each call is one line.
        end = "\n".join(envoy.log.splitlines()[-50:])
        print(f"--- the end of the log of the Envoy at {envoy.url}\n{end}")
        envoy.remove()
