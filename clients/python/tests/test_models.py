from __future__ import annotations

from typing import Any

import pytest

from pixell_envoy import Fault, InvalidArgument, MapVersion, Route, RouteMap
from pixell_envoy.models import as_route


@pytest.mark.parametrize(
    ("version", "etag", "loaded"),
    [(MapVersion("0", 0), '"0-0"', False), (MapVersion("00c0ffee00c0ffee", 12), '"00c0ffee00c0ffee-12"', True)],
)
def test_version_and_etag(version: MapVersion, etag: str, loaded: bool) -> None:
    assert version.etag == etag
    assert MapVersion.from_etag(etag) == version
    assert version.loaded is loaded


@pytest.mark.parametrize("etag", ["", "a-1", '"a"', '"a-"', 'W/"a-1"', '"x-1"', '"a-1" '])
def test_refuses_other_etags(etag: str) -> None:
    with pytest.raises(InvalidArgument):
        MapVersion.from_etag(etag)


def test_a_bare_port_is_an_active_route() -> None:
    assert as_route(50054) == Route(50054, "active")
    assert as_route(Route(50054, "draining")) == Route(50054, "draining")


@pytest.mark.parametrize("value", ["50054", 50054.0, True, None, {"port": 50054}])
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
def test_a_fault_names_its_deployment(pointer: str, deployment_id: str) -> None:
    assert Fault(pointer, "wrong").deployment_id == deployment_id
