"""docs/openapi.yaml is valid, and a running Envoy accepts and returns every example in it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import pytest
import yaml
from conftest import ROOT
from envoy_process import EnvoyProcess
from http_call import call
from misfits import escaped, misfits
from openapi_spec_validator import validate

METHODS = ("get", "put", "patch", "delete")
# The epoch in the examples.
EPOCH = "9f3c1d2b4a5e6f70"
# The time in the examples.
SINCE = "2027-01-15T08:00:00Z"


def test_it_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_each_example_fits_its_schema(document: dict[str, Any]) -> None:
    found = 0
    for media_type in media_types(document):
        for name, example in media_type.examples.items():
            errors = misfits(document, media_type.place + "/schema", example["value"])
            assert not errors, f"{media_type.place} {name}: {errors}"
            found += 1
    assert found > 20


def test_each_success_has_the_response_of_its_example(document: dict[str, Any], envoy: EnvoyProcess) -> None:
    """A request and a response with the same name belong together. Each is tested on the two routes of the first example, a read on those
    of its own name, and calls of the fleet map on its first example."""
    start = request_example(document, "/v1/routes", "two")
    fleet = request_example(document, "/v1/fleet", "two_peers")
    replayed = 0
    for path, method, operation in operations(document):
        responses = success_examples(operation)
        requests = request_examples(operation)
        if method == "get":
            requests = [("", name, None) for name in responses]
        if method == "delete":
            requests = [("", "agent", None)]
        assert requests, f"{method} {path} has no example"
        assert set(responses) <= {name for _, name, _ in requests} | others(document, path), f"{method} {path}"
        for content_type, name, body in requests:
            resource, empty, full = "/v1/routes", b'{"routes":{}}', start
            if method == "get" and name == "endpoints":
                full = request_example(document, "/v1/routes", name)
            if path.startswith("/v1/fleet"):
                resource, empty, full = "/v1/fleet", b'{"peers":{},"routes":{}}', fleet
            call(envoy.url, "PUT", resource, empty)
            before = call(envoy.url, "GET", resource).json
            if (path, method, name) not in [("/v1/routes", "put", "two"), ("/v1/fleet", "put", "two_peers")]:
                before = call(envoy.url, "PUT", resource, full).json
                # In the examples, generations count from the first map.
                before["generation"] -= 1
            if path == "/v1/status":
                call(envoy.url, "PUT", "/v1/fleet", fleet)
            target = path.replace("{id}", "agent-a")
            sent = None if body is None else json.dumps(body).encode()
            response = call(envoy.url, method.upper(), target, sent, {"Content-Type": content_type} if sent else None)
            assert response.status in (200, 201, 204), f"{method} {target} {name}: {response}"
            assert str(response.status) in operation["responses"], f"{method} {target} {name}: {response}"
            if response.body:
                place = f"/paths/{escaped(path)}/{method}/responses/{response.status}/content/application~1json/schema"
                assert not misfits(document, place, response.json), f"{method} {target} {name}: {response}"
            if name in responses:
                assert at_first_version(response.json, before) == responses[name], f"{method} {target} {name}"
            replayed += 1
    assert replayed >= 12


def request_example(document: dict[str, Any], path: str, name: str) -> bytes:
    content = document["paths"][path]["put"]["requestBody"]["content"]["application/json"]
    return json.dumps(content["examples"][name]["value"]).encode()


class Provocation(NamedTuple):
    """A call whose response is a problem, on the two routes of the first example."""

    method: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = {}


PROVOCATIONS = {
    "malformed_json": Provocation("PUT", "/v1/routes", b'{"routes": }'),
    "invalid_deployment_id": Provocation("GET", "/v1/routes/a%2Fb"),
    "invalid_query": Provocation("PUT", "/v1/routes?dry_run=yes", b"{}"),
    "invalid_precondition": Provocation("GET", "/v1/routes", None, {"If-Match": "0123456789abcdef-7"}),
    "unauthorized": Provocation("GET", "/v1/routes"),
    "foreign_origin": Provocation("GET", "/v1/routes", None, {"Host": "agents.example.com"}),
    "not_found": Provocation("GET", "/v1/routes/nobody"),
    "method_not_allowed": Provocation("POST", "/v1/routes"),
    "port_in_use": Provocation("PUT", "/v1/routes", b'{"routes":{"agent-a":50054,"agent-b":50054}}'),
    "precondition_failed": Provocation("PUT", "/v1/routes/agent-a", b"50061", {"If-Match": '"0-0"'}),
    "payload_too_large": Provocation("PUT", "/v1/routes", b" " * 2564097),
    "unsupported_media_type": Provocation("PUT", "/v1/routes", b"{}", {"Content-Type": "text/plain"}),
    "invalid_routes": Provocation(
        "PUT", "/v1/routes", b'{"routes":{"agent-a":{"port":80},"agent-b":{"port":50055,"state":"up"}}}'
    ),
    "invalid_fleet": Provocation(
        "PUT", "/v1/fleet", b'{"peers":{"task-b":{"host":"127.0.0.1"}},"routes":{"agent-x":"task-b"}}'
    ),
    "fleet_disabled": Provocation("GET", "/v1/fleet"),
    "refused_by_envoy": Provocation("GET", "/v1/routes", None, {"X-Long": "x" * 70_000}),
}


@pytest.mark.parametrize("code", PROVOCATIONS)
def test_each_problem_has_the_response_of_its_example(
    code: str,
    document: dict[str, Any],
    envoy: EnvoyProcess,
    guarded_envoy: EnvoyProcess,
    envoy_alone: EnvoyProcess,
) -> None:
    described, example = problems(document)[code]
    url = {"unauthorized": guarded_envoy.url, "fleet_disabled": envoy_alone.url}.get(code, envoy.url)
    before = call(envoy.url, "PUT", "/v1/routes", b'{"routes":{"agent-a":50054,"agent-b":50055}}').json
    method, path, body, headers = PROVOCATIONS[code]
    response = call(url, method, path, body, headers)
    assert (response.status, response.headers["content-type"]) == (example["status"], "application/problem+json"), response
    version = f"{before['epoch']}-{before['generation']}"
    found = json.loads(response.body.decode().replace(version, f"{EPOCH}-1"))
    assert found == example
    for name in described.get("headers", {}):
        assert name.lower() in response.headers, f"{code}: {name} is missing"


def test_the_other_problems_are_those_of_the_source(document: dict[str, Any]) -> None:
    """A test cannot provoke these over loopback: the 403 of another address, sixteen lost races, unfinished bodies."""
    shown = problems(document)
    assert set(shown) - set(PROVOCATIONS) == {"forbidden", "conflict_retries_exhausted", "overloaded"}
    known = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert sorted(shown) == sorted(known)
    shipped = yaml.safe_load((ROOT / "envoy/envoy.yaml").read_text())
    formats = list(values(shipped, "json_format"))
    assert shown["forbidden"][1] in formats
    assert shown["conflict_retries_exhausted"][1]["detail"] in (ROOT / "crates/core/src/admin/mod.rs").read_text()
    assert shown["overloaded"][1]["detail"] in (ROOT / "crates/core/src/admin/exchange.rs").read_text()


def test_each_call_may_meet_too_many_writers(document: dict[str, Any]) -> None:
    """Reads as well: the test of crates/core loses each race of each of them."""
    missing = [
        f"{method} {path}"
        for path, method, operation in operations(document)
        if operation["responses"].get("503") != {"$ref": "#/components/responses/ConflictRetriesExhausted"}
    ]
    assert missing == []


class MediaType(NamedTuple):
    place: str
    examples: dict[str, Any]


def media_types(document: dict[str, Any]) -> list[MediaType]:
    """Every media type of the document, with its JSON pointer."""
    found: list[MediaType] = []

    def look(value: Any, place: str) -> None:
        if isinstance(value, dict):
            if "schema" in value and "examples" in value and "name" not in value:
                found.append(MediaType(place, value["examples"]))
            for key, member in value.items():
                look(member, f"{place}/{escaped(str(key))}")
        elif isinstance(value, list):
            for number, item in enumerate(value):
                look(item, f"{place}/{number}")

    look(document, "")
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, item[method]) for path, item in document["paths"].items() for method in METHODS if method in item
    ]


def request_examples(operation: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """Content type, name and value of each request example."""
    contents = operation.get("requestBody", {}).get("content", {})
    return [
        (content_type, name, example["value"])
        for content_type, media_type in contents.items()
        for name, example in media_type["examples"].items()
    ]


def success_examples(operation: dict[str, Any]) -> dict[str, Any]:
    """The value of each success example, by name."""
    return {
        name: example["value"]
        for status, response in operation["responses"].items()
        if status.startswith("2")
        for name, example in response.get("content", {}).get("application/json", {}).get("examples", {}).items()
    }


def others(document: dict[str, Any], path: str) -> set[str]:
    """Names of the request examples of a path, whose PUT and PATCH share their responses."""
    item = document["paths"][path]
    return {name for method in METHODS if method in item for _, name, _ in request_examples(item[method])}


def problems(document: dict[str, Any]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """The response and the example of each problem code."""
    found = {}
    for response in document["components"]["responses"].values():
        for media_type in response.get("content", {}).values():
            for name, example in media_type["examples"].items():
                assert name == example["value"]["code"]
                found[name] = (response, example["value"])
    return found


def values(tree: Any, key: str) -> Any:
    """Every value of `key` in a tree."""
    if isinstance(tree, dict):
        for name, member in tree.items():
            if name == key:
                yield member
            yield from values(member, key)
    elif isinstance(tree, list):
        for item in tree:
            yield from values(item, key)


def at_first_version(body: Any, before: dict[str, Any]) -> Any:
    """The response as if the map before it had been at generation 0 of the examples' epoch, and just now had been the examples' time."""
    body = dict(body)
    if "generation" in body:
        body["generation"] -= before["generation"]
    if "epoch" in body:
        body["epoch"] = EPOCH
    if "fleet" in body:
        # Its generation depends on the tests before.
        body["fleet"] = {**body["fleet"], "epoch": EPOCH, "generation": 1}
    for name, member in body.items():
        if isinstance(member, dict) and "since" in member:
            then = datetime.strptime(member["since"], "%Y-%m-%dT%H:%M:%S%z")
            assert timedelta() <= datetime.now(timezone.utc) - then < timedelta(minutes=1), member
            body[name] = {**member, "since": SINCE}
    return body
