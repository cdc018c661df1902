"""Every call of the client on routes with endpoints, against a real Envoy."""

from __future__ import annotations

import pytest

from pixell_envoy import Route, RouteApiClient, RoutePatch

FULL = Route(50054, endpoints={"rest": 63001, "ui": 65001})


@pytest.mark.parametrize("deployment_id", ["a", "..", "."])
async def test_put_states_all_endpoints(client: RouteApiClient, deployment_id: str) -> None:
    assert (await client.put_route(deployment_id, FULL)).added == 1
    assert await client.get_route(deployment_id) == FULL
    assert (await client.put_route(deployment_id, Route(50054, endpoints={"ui": 65001}))).changed == 1
    assert await client.get_route(deployment_id) == Route(50054, endpoints={"ui": 65001})
    assert (await client.put_route(deployment_id, 50054)).changed == 1
    assert await client.get_route(deployment_id) == Route(50054)


async def test_a_patch_merges_member_by_member(client: RouteApiClient) -> None:
    await client.replace_routes({"a": FULL})
    await client.patch_routes({"a": RoutePatch(state="draining")})
    assert await client.get_route("a") == Route(50054, "draining", FULL.endpoints)
    await client.patch_routes({"a": RoutePatch(endpoints={"rest": None, "ui": 65002})})
    assert await client.get_route("a") == Route(50054, "draining", {"ui": 65002})
    # A Route works as a patch: endpoints that it does not name stay.
    await client.patch_routes({"a": Route(50055, endpoints={"rest": 63001})})
    assert await client.get_route("a") == Route(50055, "active", {"rest": 63001, "ui": 65002})


async def test_an_update_keeps_endpoints(client: RouteApiClient) -> None:
    await client.replace_routes({"a": FULL, "b": 50055})
    await client.update(lambda routes: {**routes, "c": 50056})
    assert (await client.get_routes()).routes == {"a": FULL, "b": Route(50055), "c": Route(50056)}
    await client.update(lambda routes: {**routes, "a": Route(50054, endpoints={"rest": 63001})})
    assert await client.get_route("a") == Route(50054, endpoints={"rest": 63001})


async def test_a_port_of_an_endpoint_displaces(client: RouteApiClient) -> None:
    await client.put_route("old", FULL)
    assert (await client.put_route("new", 65001)).displaced == ("old",)
    assert (await client.get_routes()).routes == {"new": Route(65001)}
