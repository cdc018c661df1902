from __future__ import annotations

import copy
import json
import pickle
from dataclasses import asdict, replace
from typing import Any

import pytest

from pixell_envoy import Fault, InvalidArgument, MapVersion, Route, RouteMap, RoutePatch
from pixell_envoy.models import as_route, to_json


@pytest.mark.parametrize(
    ("version", "etag", "loaded"),
    [(MapVersion("0", 0), '"0-0"', False), (MapVersion("00c0ffee00c0ffee", 12), '"00c0ffee00c0ffee-12"', True)],
)
def test_version_and_etag(version: MapVersion, etag: str, loaded: bool) -> None:
    assert version.etag == etag
    assert MapVersion.from_etag(etag) == version
    assert version.loaded is loaded


@pytest.mark.parametrize("etag", ["", "a-1", '"a"', '"a-"', 'W/"a-1"', '"x-1"', '"a-1" '])
def test_other_etags_are_an_error(etag: str) -> None:
    with pytest.raises(InvalidArgument):
        MapVersion.from_etag(etag)


def test_a_bare_port_is_an_active_route() -> None:
    assert as_route(50054) == Route(50054, "active")
    assert as_route(Route(50054, "draining")) == Route(50054, "draining")


@pytest.mark.parametrize(
    "value",
    [
        *["50054", 50054.0, True, None, {"port": 50054}],
        *[Route(True), Route(None), Route(1, endpoints={"rest": "2"}), Route(1, endpoints={2: 3})],  # type: ignore[arg-type, dict-item]
    ],
)
def test_anything_else_is_no_route(value: Any) -> None:
    with pytest.raises(InvalidArgument):
        as_route(value)


def test_a_route_map_is_read_only() -> None:
    routes = {"a": Route(50054)}
    route_map = RouteMap(MapVersion("a", 1), routes)
    routes.clear()
    assert route_map.routes == {"a": Route(50054)}
    with pytest.raises(TypeError):
        route_map.routes["b"] = Route(50055)  # type: ignore[index]


@pytest.mark.parametrize(
    ("pointer", "deployment_id"),
    [
        ("/routes/a", "a"),
        ("/routes/a/port", "a"),
        ("/routes/a~1b~0c/port", "a/b~c"),
        ("/routes/~01", "~1"),
        ("/routes/", ""),
        ("/routes", None),
        ("/port", None),
        ("", None),
    ],
)
def test_an_error_names_its_deployment(pointer: str, deployment_id: str) -> None:
    assert Fault(pointer, "wrong").deployment_id == deployment_id


def test_the_endpoints_of_a_route_are_its_own_and_cannot_be_changed() -> None:
    endpoints = {"rest": 63001}
    route = Route(50054, endpoints=endpoints)
    endpoints.clear()
    assert route.ports == (50054, 63001)
    assert route == Route(50054, endpoints={"rest": 63001}) != Route(50054)
    with pytest.raises(TypeError):
        route.endpoints["ui"] = 65001  # type: ignore[index]
    with pytest.raises(TypeError):
        route.endpoints.update(ui=65001)  # type: ignore[attr-defined]


def test_a_route_can_be_hashed_copied_pickled_and_written() -> None:
    route = Route(50054, endpoints={"rest": 63001})
    assert {route: 1}[replace(route, state="active")] == 1
    assert copy.deepcopy(route) == pickle.loads(pickle.dumps(route)) == route
    assert json.loads(json.dumps(asdict(route))) == {"port": 50054, "state": "active", "endpoints": {"rest": 63001}}


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        # An API without endpoints understands these as well.
        (50054, {"port": 50054, "state": "active"}),
        (Route(50054, "draining"), {"port": 50054, "state": "draining"}),
        (Route(50054, endpoints={"ui": 1}), {"port": 50054, "state": "active", "endpoints": {"ui": 1}}),
        (RoutePatch(state="draining"), {"state": "draining"}),
        (RoutePatch(endpoints={"ui": None}), {"endpoints": {"ui": None}}),
        (RoutePatch(), {}),
    ],
)
def test_json_has_no_empty_members(route: Any, expected: object) -> None:
    assert to_json(route) == expected
