"""The calls for the fleet map, with a real Envoy, and with the stand-in, which so behaves as Envoy does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from envoy_process import EnvoyProcess
from stand_in_api import StandInApi

from pixell_envoy import (
    FleetDisabled,
    FleetMap,
    FleetStatus,
    InvalidArgument,
    InvalidRoutes,
    MapVersion,
    Peer,
    PeerReport,
    PreconditionFailed,
    RouteApiClient,
    UnexpectedAnswer,
)

B, C = Peer("10.0.1.7"), Peer("10.0.1.8", "draining")


@pytest.fixture(params=["envoy", "stand-in"])
async def fleet_client(
    request: pytest.FixtureRequest, shared_fleet_envoy: EnvoyProcess
) -> AsyncIterator[RouteApiClient]:
    """A client of an Envoy whose fleet map is empty."""
    transport = StandInApi() if request.param == "stand-in" else None
    async with RouteApiClient(shared_fleet_envoy.url, transport=transport) as client:
        await client.replace_fleet({}, {})
        yield client


async def test_replaces_patches_and_reads_the_fleet(fleet_client: RouteApiClient) -> None:
    empty = (await fleet_client.get_fleet()).version
    status = (await fleet_client.status()).fleet
    assert status == FleetStatus(enabled=True, version=empty, peers=0, routes=0, loaded=True)
    first = await fleet_client.replace_fleet({"b": B, "c": C}, {"x": ["b", "c"], "y": ("c",)})
    assert (first.added, first.changed, first.removed, first.displaced) == (2, 0, 0, ())
    assert await fleet_client.get_fleet() == FleetMap(first.version, {"b": B, "c": C}, {"x": ("b", "c"), "y": ("c",)})
    assert await fleet_client.get_fleet_if_changed(first.version) is None
    second = await fleet_client.patch_fleet({"c": None}, {"x": ["b"], "y": None, "z": ["b"]})
    assert (second.added, second.changed, second.removed) == (1, 1, 1)
    status = (await fleet_client.status()).fleet
    assert status == FleetStatus(enabled=True, version=second.version, peers=1, routes=2, loaded=True)
    now = await fleet_client.get_fleet_if_changed(first.version)
    assert now == FleetMap(second.version, {"b": B}, {"x": ("b",), "z": ("b",)})


async def test_reports_of_peers_tell_since_when(fleet_client: RouteApiClient) -> None:
    assert await fleet_client.get_fleet_peers() == {}
    # Whole seconds: the beginning of this one.
    before = datetime.now(timezone.utc).replace(microsecond=0)
    await fleet_client.replace_fleet({"b": B, "c": C}, {"x": ["b", "c"], "y": ["c"]})
    first = await fleet_client.get_fleet_peers()
    since = first["b"].since
    assert before <= since <= datetime.now(timezone.utc) and since.utcoffset() == timedelta()
    report = PeerReport("10.0.1.8", "draining", 2, since)
    assert first == {"b": PeerReport("10.0.1.7", "active", 1, since), "c": report}
    await fleet_client.patch_fleet({"b": Peer("10.0.1.9")}, {"x": ["c"], "y": None})
    second = await fleet_client.get_fleet_peers()
    assert second["c"] == PeerReport("10.0.1.8", "draining", 1, since)
    assert (second["b"].host, second["b"].routes) == ("10.0.1.9", 0) and second["b"].since >= since


async def test_conditions_and_dry_runs(fleet_client: RouteApiClient) -> None:
    first = (await fleet_client.replace_fleet({"b": B}, {"x": ["b"]})).version
    assert (await fleet_client.replace_fleet({}, {}, if_match=first, dry_run=True)).removed == 1
    assert (await fleet_client.get_fleet()).version == first
    await fleet_client.patch_fleet({}, {"x": None}, if_match=first)
    for write in (
        fleet_client.replace_fleet({"b": B}, {}, if_match=first),
        fleet_client.patch_fleet({"b": None}, {}, if_match=first),
    ):
        with pytest.raises(PreconditionFailed):
            await write
    assert (await fleet_client.get_fleet()).peers == {"b": B}


async def test_an_error_names_its_peer(fleet_client: RouteApiClient) -> None:
    with pytest.raises(InvalidRoutes) as raised:
        await fleet_client.replace_fleet({"b": B, "far": Peer("192.0.2.1")}, {})
    assert [(fault.peer, fault.deployment_id) for fault in raised.value.faults] == [("far", None)]


async def test_a_peer_may_only_go_with_its_routes(fleet_client: RouteApiClient) -> None:
    await fleet_client.replace_fleet({"b": B, "c": C}, {"x": ["b", "c"]})
    with pytest.raises(InvalidRoutes) as raised:
        await fleet_client.patch_fleet({"b": None}, {})
    assert raised.value.faults
    await fleet_client.patch_fleet({"b": None}, {"x": ["c"]})
    # A write that changes a peer alone counts no route.
    moved = await fleet_client.patch_fleet({"c": Peer("10.0.1.9")}, {})
    assert (moved.added, moved.changed, moved.removed) == (0, 0, 0)
    assert (await fleet_client.get_fleet()).version == moved.version


@pytest.mark.parametrize("kind", ["envoy", "stand-in"])
async def test_without_a_fleet_there_is_an_error_of_its_own(kind: str, shared_envoy: EnvoyProcess) -> None:
    transport = StandInApi(enabled=False) if kind == "stand-in" else None
    async with RouteApiClient(shared_envoy.url, transport=transport) as client:
        status = (await client.status()).fleet
        assert status is not None and not status.enabled
        calls = (
            client.get_fleet(),
            client.get_fleet_peers(),
            client.replace_fleet({}, {}),
            client.patch_fleet({}, {}),
        )
        for call in calls:
            with pytest.raises(FleetDisabled):
                await call


@pytest.mark.parametrize(
    ("peers", "routes"),
    [
        ({"b": "10.0.1.7"}, {}),
        ({"b": Peer(7)}, {}),  # type: ignore[arg-type]
        ({1: B}, {}),
        ({"b": B}, {"x": "b"}),
        ({"b": B}, {"x": [b"b"]}),
        ({"b": B}, {1: ["b"]}),
    ],
)
async def test_what_cannot_be_sent_is_an_error(fleet_client: RouteApiClient, peers: Any, routes: Any) -> None:
    with pytest.raises(InvalidArgument):
        await fleet_client.replace_fleet(peers, routes)


@pytest.mark.parametrize(
    "body",
    [
        {"epoch": "a", "generation": 1, "peers": {"b": {"host": 7, "state": "active"}}, "routes": {}},
        {"epoch": "a", "generation": 1, "peers": {"b": {"host": "10.0.1.7", "state": "asleep"}}, "routes": {}},
        {"epoch": "a", "generation": 1, "peers": {}, "routes": {"x": "b"}},
        {"epoch": "a", "generation": 1, "peers": {}, "routes": {"x": [1]}},
        {"epoch": "a", "generation": 1, "peers": []},
    ],
)
async def test_another_servers_fleet_is_not_believed(body: object) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=json.dumps(body)))
    async with RouteApiClient(transport=transport) as client:
        with pytest.raises(UnexpectedAnswer):
            await client.get_fleet()


@pytest.mark.parametrize(
    "report",
    [
        {"host": "10.0.1.7", "state": "active", "routes": 1},
        {"host": "10.0.1.7", "state": "active", "routes": 1, "since": "yesterday"},
        {"host": "10.0.1.7", "state": "active", "routes": 1, "since": 1_800_000_000},
        {"host": "10.0.1.7", "state": "active", "routes": True, "since": "2027-01-15T08:00:00Z"},
        {"host": "10.0.1.7", "state": "asleep", "routes": 1, "since": "2027-01-15T08:00:00Z"},
    ],
)
async def test_another_servers_report_is_not_believed(report: object) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"b": report}))
    async with RouteApiClient(transport=transport) as client:
        with pytest.raises(UnexpectedAnswer):
            await client.get_fleet_peers()


async def test_a_filter_without_fleets_has_no_status_of_one() -> None:
    body = {"epoch": "a", "generation": 1, "loaded": True, "routes": 0, "version": "0.1.0"}
    async with RouteApiClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=body))) as client:
        assert (await client.status()).fleet is None


def test_a_fleet_map_is_read_only() -> None:
    fleet = FleetMap(MapVersion("a", 1), {"b": B}, {"x": ["b"]})  # type: ignore[dict-item]
    assert fleet.routes == {"x": ("b",)}
    with pytest.raises(TypeError):
        fleet.routes["y"] = ()  # type: ignore[index]
