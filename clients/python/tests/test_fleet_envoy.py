"""Fleet with real Envoys: what one task registers, the other one's Envoy knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Union

import pytest
from conftest import FLEET, TOKEN
from envoy_process import EnvoyProcess
from stores import DynamoDb, aws_keys, in_thread
from watching import WITHIN, eventually

from pixell_envoy import EnvoyManager, FleetMap, MapVersion, Peer, RouteApiClient
from pixell_envoy.fleet import Fleet, MemoryDirectory, MemoryStore, Record, read_record

TTL = 2.0


@asynccontextmanager
async def task(
    store: Union[MemoryStore, DynamoDb], envoy: EnvoyProcess, name: str, host: str, ttl: float = TTL
) -> AsyncIterator[EnvoyManager]:
    manager = EnvoyManager(envoy.url)
    assert await manager.replace_agents({})
    directory = MemoryDirectory(store, fleet="prod") if isinstance(store, MemoryStore) else store.directory("prod")
    try:
        async with Fleet(manager, directory, task_id=name, host=host, ttl=ttl):
            yield manager
    finally:
        await manager.close()


async def until_routes(client: RouteApiClient, routes: dict[str, tuple[str, ...]], seconds: float = WITHIN) -> FleetMap:
    async def reached() -> bool:
        return dict((await client.get_fleet()).routes) == routes

    await eventually(reached, seconds, f"the fleet's routes {routes}")
    return await client.get_fleet()


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[Union[MemoryStore, DynamoDb]]:
    if request.param == "memory":
        yield MemoryStore()
        return
    server = DynamoDb()
    with aws_keys():
        server.start()
        try:
            yield server
        finally:
            server.stop()


async def documents(store: Union[MemoryStore, DynamoDb]) -> Mapping[str, bytes]:
    """What the store has of the fleet."""
    if isinstance(store, MemoryStore):
        return {task: document for (_, task), document in store.documents.items()}
    directory = store.directory("prod")
    try:
        return await directory.snapshot()
    finally:
        await directory.close()


@pytest.mark.parametrize("store", ["memory", "dynamodb"], indirect=True)
async def test_a_fleet_of_two(own_fleet_envoys: list[EnvoyProcess], store: Union[MemoryStore, DynamoDb]) -> None:
    first, second = own_fleet_envoys
    async with RouteApiClient(first.url) as one, RouteApiClient(second.url) as two:
        # Before anything is known, load balancers must not send requests.
        assert (await one.get_fleet()).version == MapVersion("0", 0)
        async with task(store, first, "task-a", "10.0.0.1") as a:
            # The first task of a fleet is ready without any other.
            async with task(store, second, "task-b", "10.0.0.2") as b:
                assert await b.register_agent("x", 50054) and await b.register_agent("y", 50055)
                fleet = await until_routes(one, {"x": ("task-b",), "y": ("task-b",)})
                assert fleet.peers == {"task-b": Peer("10.0.0.2")}
                # An agent that is moved: both have it, then only the new one.
                assert await a.register_agent("x", 50060)
                await until_routes(two, {"x": ("task-a",)})
                assert await b.drain_agent("x")
                await until_routes(one, {"x": ("task-b",), "y": ("task-b",)})
                assert await b.deregister_agent("x")
                await until_routes(one, {"y": ("task-b",)})
                # An agent whose port another one takes is not published any more.
                assert await b.register_agent("z", 50055)
                await until_routes(one, {"z": ("task-b",)})
                # A restarted Envoy.
                first.kill()
                await in_thread(first.start)
                assert (await until_routes(one, {"z": ("task-b",)})).peers == {"task-b": Peer("10.0.0.2")}
            # b has gone in order.
            await until_routes(one, {})
            assert (await one.get_fleet()).peers == {}
            assert read_record("task-a", (await documents(store))["task-a"]).ids == {"x": "active"}
        assert await documents(store) == {}


async def test_hostile_records_with_a_real_envoy(
    own_fleet_envoys: list[EnvoyProcess], caplog: pytest.LogCaptureFixture
) -> None:
    envoy = own_fleet_envoys[0]
    store = MemoryStore()
    hosts = ["192.0.2.1", "10.255.255.1", "2001:db8::1", "fd00::1", "255.255.255.255", "240.0.0.1", "100.64.0.1"]
    hosts += [f"172.16.0.{n}" for n in range(1, 250)]
    for number, host in enumerate(hosts):
        record = Record(f"t{number}", host, "e", 1, 1, {f"id-{number}": "active", "shared": "active"})
        store.documents[("prod", record.task)] = record.to_json()
    store.documents[("prod", "damaged")] = b'{"version":1'
    async with RouteApiClient(envoy.url) as client, task(store, envoy, "task-a", "10.0.0.1", ttl=60):

        async def pushed() -> bool:
            return (await client.get_fleet()).version.loaded

        await eventually(pushed, 10, "a push")
        fleet = await client.get_fleet()
        # Those outside the networks are left out, and the rest is there.
        assert fleet.peers == {"t1": Peer("10.255.255.1"), "t3": Peer("fd00::1")}
        assert set(fleet.routes) == {"id-1", "id-3", "shared"} and set(fleet.routes["shared"]) == {"t1", "t3"}
    assert sum("does not accept" in message for message in caplog.messages) == len(hosts) - 2


async def test_a_large_fleet_map_is_pushed_whole_and_changed_in_part(shared_fleet_envoy: EnvoyProcess) -> None:
    store = MemoryStore()
    records = {
        f"task-{n}": Record(f"task-{n}", f"10.0.{n}.1", "e", 1, 1, {f"id-{n}-{m}": "active" for m in range(200)})
        for n in range(1, 101)
    }
    for record in records.values():
        store.documents[("prod", record.task)] = record.to_json()
    # Nobody beats for these records, so they must not count as silent before the end.
    async with RouteApiClient(shared_fleet_envoy.url) as client:
        async with task(store, shared_fleet_envoy, "task-a", "10.0.0.1", ttl=60):
            await until_size(client, 20, peers=100, routes=20_000)
            before = await client.get_fleet()
            old = records["task-7"]
            new = Record(old.task, "10.7.7.7", "e", 2, 2, {**old.ids, "new": "active"})
            store.documents[("prod", "task-7")] = new.to_json()
            store.changed("prod")
            await until_size(client, 2, peers=100, routes=20_001)
            after = await client.get_fleet()
            assert after.routes["new"] == ("task-7",)
            assert after.version.generation == before.version.generation + 1
            assert after.peers["task-7"] == Peer("10.7.7.7")
        await client.replace_fleet({}, {})


async def until_size(client: RouteApiClient, seconds: float, *, peers: int, routes: int) -> None:
    async def reached() -> bool:
        # Not `get_fleet`: to parse 20,000 routes every 20 ms would leave the fleet, in the same event loop, no time.
        fleet = (await client.status()).fleet
        return fleet is not None and (fleet.peers, fleet.routes) == (peers, routes)

    await eventually(reached, seconds, f"a fleet of {peers} peers and {routes} routes")


async def test_the_fleet_uses_the_managers_token() -> None:
    envoy = EnvoyProcess(token=TOKEN, edits=FLEET)
    await in_thread(envoy.start)
    try:
        manager = EnvoyManager(envoy.url, token=TOKEN)
        store = MemoryStore()
        async with Fleet(manager, MemoryDirectory(store, fleet="prod"), task_id="a", host="10.0.0.1", ttl=TTL):
            async with RouteApiClient(envoy.url, token=TOKEN) as client:

                async def pushed() -> bool:
                    return (await client.get_fleet()).version.loaded

                await eventually(pushed, WITHIN, "a push")
        await manager.close()
    finally:
        await in_thread(envoy.remove)


async def test_an_envoy_without_a_fleet(shared_envoy: EnvoyProcess, caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    async with task(store, shared_envoy, "task-a", "10.0.0.1") as manager:
        assert await manager.register_agent("x", 50054)
        await asyncio.sleep(TTL)
    assert store.documents == {}
    errors = [message for message in caplog.messages if "ERROR" in message]
    assert len(errors) == 1 and "PIXELL_FLEET_CIDRS" in errors[0]
