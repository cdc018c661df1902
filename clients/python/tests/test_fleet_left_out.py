"""Fleet: what is forged, damaged or not accepted by Envoy is left out, and everything else is pushed."""

from __future__ import annotations

import asyncio
import re

import pytest
from fleet_tasks import TTL, Task, running, stored, until
from stand_in_api import StandInApi

from pixell_envoy import RouteState
from pixell_envoy.fleet import MemoryStore, Record


async def test_forged_records_fail_nothing(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    a, b = Task(store, "a", "10.0.0.1"), Task(store, "b", "10.0.0.2")
    b.manager.set(x="active")
    good = Record("b", "10.0.0.2", "e", 1, 1, {"x": "active"})
    store.documents[("prod", "forged")] = good.to_json()
    store.documents[("prod", "far")] = Record("far", "192.0.2.1", "e", 1, 1, {"x": "active", "f": "active"}).to_json()
    store.documents[("prod", "self")] = Record("self", "10.0.0.1", "e", 1, 1, {"s": "active"}).to_json()
    store.documents[("prod", "deep")] = b"[" * 100_000
    async with running(a, b):
        await until(lambda: a.api.routes == {"x": ["b"]}, "b's agent alone")
        await asyncio.sleep(0.5)
        # `self` has a's address, which would make a hop to a itself.
        assert set(a.api.peers) == {"b"} and set(b.api.peers) == {"a", "self"}
    told = [message for message in caplog.messages if "ERROR" in message]
    # Once in each of the two tasks.
    assert sorted(re.findall(r"task '(\w+)'", " ".join(told))) == ["deep", "deep", "far", "far", "forged", "forged"]
    assert all("192.0.2.1" in message for message in told if "'far'" in message)


async def test_what_envoy_does_not_accept_stops_no_push(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    a, b, c = (Task(store, name, f"10.0.0.{n}") for n, name in enumerate("abc", 1))
    a.api.max_id, a.api.max_routes, a.api.max_peers = 5, 3, 1
    b.manager.set(too_long="active", x="active")
    async with running(a, b):
        await until(lambda: a.api.routes == {"x": ["b"]}, "x without the long id")
        b.manager.set(**{"too_long": "active", **{f"x{n}": "active" for n in range(6)}})
        await until(lambda: len(a.api.routes) == 3, "as many routes as Envoy takes")
        c.manager.set(z="active")
        async with running(c):
            await until(lambda: set(c.api.peers) == {"a", "b"}, "c has read")
            await asyncio.sleep(0.5)
            assert set(a.api.peers) == {"b"} and "z" not in a.api.routes
            b.manager.set(y="active")
            await until(lambda: a.api.routes == {"y": ["b"]}, "changes are still pushed")
    told = [message for message in caplog.messages if "does not accept" in message]
    assert len(told) == 3 and not [message for message in caplog.messages if "cannot give Envoy" in message]


async def test_a_fleet_that_is_too_large_for_a_request_is_pushed_in_part(store: MemoryStore) -> None:
    a = Task(store, "a", "10.0.0.1")
    a.api.max_body = 3_000
    ids: dict[str, RouteState] = {f"id-{n:0>30}": "active" for n in range(400)}
    store.documents[("prod", "b")] = Record("b", "10.0.0.2", "e", 1, 1, ids).to_json()
    async with running(a):
        await until(lambda: 25 <= len(a.api.routes) < 400, "a part")


async def test_a_task_that_changes_its_address_for_ever_takes_no_memory(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    a = Task(store, "a", "10.0.0.1")
    async with running(a):
        for n in range(1, 9):
            record = Record("far", f"192.0.2.{n}", "e", n, n, {"x": "active"})
            store.documents[("prod", "far")] = record.to_json()
            store.changed("prod")
            await until(lambda host=record.host: a.fleet._push._rejected == {"far": host}, "it is left out")  # type: ignore[misc]
    assert sum("leaving out" in message for message in caplog.messages) == 1


async def test_an_id_that_is_none_hides_no_other(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    a, b = Task(store, "a", "10.0.0.1"), Task(store, "b", "10.0.0.2")
    b.manager.set(**{"no/id": "active", "x" * 129: "active", "x": "active"})
    async with running(a, b):
        await until(lambda: a.api.routes == {"x": ["b"]}, "x")
        b.manager.set(**{"no/id": "active", "y": "active"})
        await until(lambda: a.api.routes == {"y": ["b"]}, "y")
    assert sum("is not published" in message for message in caplog.messages) == 1


async def test_many_peers_outside_the_networks_are_all_left_out(store: MemoryStore) -> None:
    a, b = Task(store, "a", "10.0.0.1"), Task(store, "b", "10.0.0.2")
    b.manager.set(x="active")
    for n in range(250):
        record = Record(f"far-{n}", f"192.0.2.{n + 1}", "e", 1, 1, {"x": "active", f"f{n}": "active"})
        store.documents[("prod", record.task)] = record.to_json()
    async with running(a, b):
        await until(lambda: a.api.routes == {"x": ["b"]}, "b's agent alone")


async def test_peers_are_tried_again_after_envoy_was_restarted_with_other_networks(store: MemoryStore) -> None:
    a, b = Task(store, "a", "10.0.0.1", cidr="192.168.0.0/16"), Task(store, "b", "10.0.0.2")
    b.manager.set(x="active")
    async with running(a, b):
        await until(lambda: a.api.generation == 1, "a push without peers")
        assert a.api.peers == {}
        other = StandInApi()
        other._epochs = 7
        a.api.__dict__.update(other.__dict__)
        await until(lambda: a.api.routes == {"x": ["b"]}, "b is accepted")


async def test_without_a_fleet_map_nothing_is_published(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    a, b = Task(store, "a", "10.0.0.1", enabled=False), Task(store, "b", "10.0.0.2")
    a.manager.set(x="active")
    async with running(a, b):
        await until(lambda: b.api.generation == 1, "b's push")
        await asyncio.sleep(2 * TTL)
        assert stored(store, "a") is None and b.api.peers == {}
        (told,) = [message for message in caplog.messages if "ERROR" in message]
        assert "PIXELL_FLEET_CIDRS" in told
        a.api.enabled = True
        await until(lambda: b.api.routes == {"x": ["a"]}, "a is published")
