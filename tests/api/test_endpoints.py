"""The endpoints of a route: docs/openapi.yaml allows what a running Envoy takes, and describes what it returns."""

from __future__ import annotations

import json
from typing import Any

import pytest
from envoy_process import EnvoyProcess
from http_call import call
from misfits import escaped, misfits

PORT = {"port": 50054}
# Endpoints of a route, and whether a PUT and a PATCH may have them.
ENDPOINTS = [
    ({}, True, True),
    ({"rest": 63001, "ui": 65001}, True, True),
    ({"rest": 63001, "ui": 63001, "next": 50054}, True, True),
    ({"0": 63001, "--": 63002, "-a": 63003, "a-": 63004, "abcdefghijklmnop": 63005}, True, True),
    ({f"e{number}": 63001 + number for number in range(8)}, True, True),
    ({f"e{number}": 63001 + number for number in range(9)}, False, None),
    ({f"e{number}": None for number in range(9)}, False, True),
    ({"ui": None}, False, True),
    (None, False, True),
    ({"a2a": 63001}, False, False),
    ({"-": 63001}, False, False),
    ({"": 63001}, False, False),
    ({"abcdefghijklmnopq": 63001}, False, False),
    ({"UI": 63001}, False, False),
    ({"u_i": 63001}, False, False),
    ({"ü": 63001}, False, False),
    ({"ui": 80}, False, False),
    ({"ui": 50051}, False, False),
    ({"ui": 65536}, False, False),
    ({"ui": "65001"}, False, False),
    ({"ui": {"port": 65001}}, False, False),
    ([65001], False, False),
    (65001, False, False),
]


@pytest.mark.parametrize(("endpoints", "put", "patch"), ENDPOINTS, ids=[json.dumps(row[0])[:40] for row in ENDPOINTS])
def test_the_schema_and_the_api_agree_on_endpoints(
    endpoints: Any, put: bool, patch: bool | None, document: dict[str, Any], envoy: EnvoyProcess
) -> None:
    """None: the schema cannot tell, because it depends on the route; the API rejects it."""
    route = {**PORT, "endpoints": endpoints}
    for method, path, body, allowed in [
        ("put", "/v1/routes", {"routes": {"agent-a": route}}, put),
        ("put", "/v1/routes/{id}", route, put),
        ("patch", "/v1/routes", {"routes": {"agent-a": route}}, patch),
    ]:
        call(envoy.url, "PUT", "/v1/routes", json.dumps({"routes": {"agent-a": PORT}}).encode())
        response = call(envoy.url, method.upper(), path.replace("{id}", "agent-a"), json.dumps(body).encode())
        assert response.status == (200 if allowed else 422), f"{method} {path}: {response}"
        place = f"/paths/{escaped(path)}/{method}/requestBody/content/application~1json/schema"
        fits = not misfits(document, place, body)
        assert fits == (True if allowed is None else allowed), f"{method} {path}"
        shown = call(envoy.url, "GET", "/v1/routes")
        assert not misfits(document, "/components/schemas/RouteMap", shown.json), shown
        one = call(envoy.url, "GET", "/v1/routes/agent-a")
        assert not misfits(document, "/components/schemas/RouteAtGeneration", one.json), one
        kept = {name: port for name, port in endpoints.items() if port is not None} if allowed and endpoints else {}
        assert shown.json["routes"]["agent-a"].get("endpoints", {}) == one.json.get("endpoints", {}) == kept
