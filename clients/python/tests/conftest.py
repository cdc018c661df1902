"""What the tests share: real Envoys, and a clean environment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Optional

import pytest
from envoy_process import EnvoyProcess

from pixell_envoy import EnvoyManager, RouteApiClient, admin_token
from pixell_envoy.fleet import MemoryStore, asking

TOKEN = "correct-horse-battery-staple"


@pytest.fixture(autouse=True)
def no_token_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIXELL_ADMIN_TOKEN", raising=False)
    monkeypatch.delenv("PIXELL_ADMIN_TOKEN_FILE", raising=False)
    monkeypatch.setattr(admin_token, "_read", {})


@pytest.fixture(autouse=True)
def short_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Fleet.drain` waits for readers that poll every second; with the short ttl of tests they poll more often."""
    monkeypatch.setattr("pixell_envoy.fleet.fleet._KNOWN", 0.4)


@pytest.fixture(autouse=True)
def peer_ports(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The ports of 127.0.0.1 that stand for the peers' ports at made-up addresses. Nothing else is connected to."""
    ports: dict[str, int] = {}
    real = asking.responds

    async def responds(host: str, port: int, seconds: float) -> Optional[bool]:
        return host in ports and await real("127.0.0.1", ports[host], seconds)

    monkeypatch.setattr(asking, "responds", responds)
    return ports


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(scope="session")
def shared_envoy() -> Iterator[EnvoyProcess]:
    """One Envoy for all tests that only read and write its map."""
    yield from _running(EnvoyProcess())


@pytest.fixture(scope="session")
def guarded_envoy() -> Iterator[EnvoyProcess]:
    """An Envoy that wants TOKEN."""
    yield from _running(EnvoyProcess(token=TOKEN))


FLEET = [('"role": "admin"', '"role": "admin", "fleet": {"peer_cidrs": ["10.0.0.0/8", "fd00::/8"]}')]
"""The edits that switch the fleet on in the route API, as PIXELL_FLEET_CIDRS does."""


@pytest.fixture(scope="session")
def shared_fleet_envoy() -> Iterator[EnvoyProcess]:
    """An Envoy with a fleet, for all tests that only read and write its maps."""
    yield from _running(EnvoyProcess(edits=FLEET))


@pytest.fixture
def own_fleet_envoys() -> Iterator[list[EnvoyProcess]]:
    """Two Envoys with fleets that the test may kill; no map has been pushed to them."""
    first, second = EnvoyProcess(edits=FLEET), EnvoyProcess(edits=FLEET)
    for one in _running(first):
        for two in _running(second):
            yield [one, two]


@pytest.fixture
def own_envoy() -> Iterator[EnvoyProcess]:
    """An Envoy that the test may kill; no map has been pushed to it."""
    yield from _running(EnvoyProcess())


@pytest.fixture
async def client(shared_envoy: EnvoyProcess) -> AsyncIterator[RouteApiClient]:
    """A client of the shared Envoy, whose map is empty."""
    async with RouteApiClient(shared_envoy.url) as client:
        await client.replace_routes({})
        yield client


@pytest.fixture
async def manager(shared_envoy: EnvoyProcess, client: RouteApiClient) -> AsyncIterator[EnvoyManager]:
    """A manager of the shared Envoy, whose map is empty."""
    manager = EnvoyManager(shared_envoy.url)
    yield manager
    await manager.close()


def _running(envoy: EnvoyProcess) -> Iterator[EnvoyProcess]:
    try:
        envoy.start()
        yield envoy
    finally:
        # pytest shows it if the test fails.
        print(f"--- log of the Envoy at {envoy.url}\n{envoy.log}")
        envoy.remove()
