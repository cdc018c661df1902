"""docs/route-api.md: every snippet runs unchanged, and its tables agree with docs/openapi.yaml."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest
from conftest import ROOT, TOKEN
from envoy_process import EnvoyProcess
from http_call import call

URL = "http://127.0.0.1:9901"
TEXT = (ROOT / "docs/route-api.md").read_text()


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def run(command: list[str], snippet: str, url: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [*command, snippet.replace(URL, url)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{snippet}\n{done}"
    return done.stdout


def shell(snippet: str, url: str, environment: dict[str, str]) -> str:
    assert shutil.which("curl"), "curl is missing: install it (Debian: apt-get install curl)"
    return run(["bash", "-euo", "pipefail", "-c"], snippet, url, environment)


def routes(envoy: EnvoyProcess) -> Any:
    return call(envoy.url, "GET", "/v1/routes").json["routes"]


@pytest.fixture
def empty(envoy: EnvoyProcess) -> EnvoyProcess:
    """The shared Envoy with an empty map."""
    assert call(envoy.url, "PUT", "/v1/routes", b'{"routes":{}}').status == 200
    return envoy


def test_a_newcomer_pushes_a_first_route_with_curl(empty: EnvoyProcess) -> None:
    first = snippets("sh")[0]
    assert len(first.splitlines()) <= 5
    assert '"agent-a":{"port":50054,"state":"active"}' in shell(first, empty.url, {})
    assert routes(empty) == {"agent-a": {"port": 50054, "state": "active"}}


def test_a_newcomer_pushes_a_first_route_from_python(empty: EnvoyProcess) -> None:
    (first,) = snippets("python")
    assert len(first.splitlines()) == 5
    assert "added=1" in run([sys.executable, "-W", "error", "-c"], first, empty.url, {})
    assert routes(empty) == {"agent-a": {"port": 50054, "state": "active"}}


@pytest.mark.parametrize("number", range(1, len(snippets("sh"))))
def test_each_snippet_runs(number: int, empty: EnvoyProcess) -> None:
    snippet = snippets("sh")[number]
    # This Envoy asks for no token; the reader has set the variable before.
    output = shell(snippet, empty.url, {"PIXELL_ADMIN_TOKEN": TOKEN})
    errors = re.findall(r'"code":"(\w+)"', output)
    assert errors == (["precondition_failed"] if "precondition_failed" in snippet else []), output


def test_the_token_is_sent_as_shown(guarded_envoy: EnvoyProcess) -> None:
    (snippet,) = (snippet for snippet in snippets("sh") if "Bearer" in snippet)
    assert '"loaded"' in shell(snippet, guarded_envoy.url, {"PIXELL_ADMIN_TOKEN": TOKEN})
    assert '"code":"unauthorized"' in shell(snippet, guarded_envoy.url, {"PIXELL_ADMIN_TOKEN": "none"})


def test_its_responses_are_those_of_the_formal_description(document: dict[str, Any]) -> None:
    responses = document["components"]["responses"]
    shown = [json.loads(snippet) for snippet in snippets("json")]
    problem = responses["InvalidRoutes"]["content"]["application/problem+json"]["examples"]["invalid_routes"]["value"]
    assert problem in shown
    members = set(document["components"]["schemas"]["Written"]["properties"])
    assert any(set(response) == members for response in shown)


def test_its_error_table_is_complete(document: dict[str, Any]) -> None:
    table = re.findall(r"^\| ([\d, ]+) \| `(\w+)` \|", TEXT, re.MULTILINE)
    assert sorted(code for _, code in table) == sorted(
        document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    )
    statuses = {code: [int(status) for status in found.split(", ")] for found, code in table}
    for response in document["components"]["responses"].values():
        for example in response.get("content", {}).get("application/problem+json", {}).get("examples", {}).values():
            assert example["value"]["status"] in statuses[example["value"]["code"]]


def test_its_calls_are_those_of_the_formal_description(document: dict[str, Any]) -> None:
    table = set(re.findall(r"^\| `([A-Z]+) (/v1/[^`]*)` \|", TEXT, re.MULTILINE))
    described = {
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
        if method in ("get", "put", "patch", "delete")
    }
    assert table == described
