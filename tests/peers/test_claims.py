"""Which agent a request with a token reaches, however it names its agent, and which never."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import push
from programs import run
from recorder import Recorder, ask
from served import Served, until
from tokens import AUDIENCE, ISSUER, Issuer

UPGRADE = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]
A, B = ("x-deployment-id", "a"), ("x-deployment-id", "b")


class Place:
    """An Envoy, the agents `a` and `b`, and a token that allows `a` alone."""

    def __init__(self, form: str, home: Path) -> None:
        issuer = Issuer()
        settings = {
            "PIXELL_JWT_ISSUER": ISSUER,
            "PIXELL_JWT_AUDIENCES": AUDIENCE,
            "PIXELL_JWKS_FILE": str(issuer.write(home / "jwks.json")),
            "PIXELL_JWT_DEPLOYMENTS_CLAIM": "deployments",
            "PIXELL_HOST_SUFFIX": ".agents.test",
        }
        self.token = ("authorization", f"Bearer {issuer.token(deployments=['a'])}")
        self.envoy = Served(form, settings)
        self.agents = {"a": Recorder(), "b": Recorder()}
        for name, recorder in self.agents.items():
            push(self.envoy, name, recorder.port)
        until(lambda: self.ask("/", [A]) == (204, ""), "keys")
        self.taken()

    def remove(self) -> None:
        self.envoy.stop()
        for recorder in self.agents.values():
            recorder.stop()

    def ask(self, target: str, headers: list[tuple[str, str]]) -> tuple[int, str]:
        return ask(self.envoy.port, "GET", target, [*headers, self.token])

    def taken(self) -> dict[str, list[str]]:
        return {name: recorder.taken() for name, recorder in self.agents.items()}


@pytest.fixture(scope="module", params=["wasm", "native"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(request.param, tmp_path_factory.mktemp("claims"))
    yield place
    place.remove()


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/x", [A], 204),
        ("/x", [A, A], 204),
        ("/x", [A, *UPGRADE], 101),
        ("/agents/a/x", UPGRADE, 101),
        ("/agents/a/x", [], 204),
        ("/x", [("host", "a.agents.test")], 204),
        ("/x", [("host", "a.agents.test"), *UPGRADE], 101),
        ("/x", [("x-deployment-id", ""), ("deployment-id", "a")], 204),
        ("/x", [("x-deployment-id", ""), ("deployment_id", "a"), *UPGRADE], 101),
        # The id counts that the request goes to. Another one that it also names does not.
        ("/agents/b/x", [A], 204),
        ("/x", [A, ("deployment-id", "b")], 204),
        ("/agents/a/x", [("host", "b.agents.test")], 204),
    ],
)
def test_what_the_token_allows(place: Place, target: str, headers: list[tuple[str, str]], status: int) -> None:
    assert place.ask(target, headers) == (status, "")
    taken = place.taken()
    assert len(taken["a"]) == 1 and taken["b"] == []
    assert taken["a"][0].count("\r\nx-deployment-id: a\r\n") == 1 and "\r\nauthorization:" not in taken["a"][0]


@pytest.mark.parametrize(
    ("target", "headers", "error"),
    [
        ("/x", [B], "not_allowed"),
        ("/x", [B, *UPGRADE], "not_allowed"),
        ("/agents/b/x", [], "not_allowed"),
        ("/agents/b/x", UPGRADE, "not_allowed"),
        ("/agents/a/x", [B], "not_allowed"),
        ("/x", [("host", "b.agents.test")], "not_allowed"),
        ("/x", [("host", "b.agents.test"), *UPGRADE], "not_allowed"),
        ("/x", [("x-deployment-id", ""), ("deployment-id", "b")], "not_allowed"),
        ("/x", [("x-deployment-id", ""), ("deployment_id", "b"), *UPGRADE], "not_allowed"),
        ("/x", [B, ("deployment-id", "a")], "not_allowed"),
        ("/agents/b/x", [("host", "a.agents.test")], "not_allowed"),
        ("/x", [A, B], "invalid_deployment_id"),
        ("/x", [B, A], "invalid_deployment_id"),
        ("/x", [A, B, *UPGRADE], "invalid_deployment_id"),
        ("/x", [("x-deployment-id", "a,b")], "invalid_deployment_id"),
        # An id is taken as it is sent.
        ("/agents/%61/x", [], "invalid_deployment_id"),
        ("/agents/%62/x", [], "invalid_deployment_id"),
        ("/agents/a%2Fb/x", [], "invalid_deployment_id"),
        ("/x", [("x-deployment-id", "%61")], "invalid_deployment_id"),
    ],
)
def test_what_it_does_not_allow(place: Place, target: str, headers: list[tuple[str, str]], error: str) -> None:
    assert place.ask(target, headers) == (403 if error == "not_allowed" else 400, error)
    assert place.taken() == {"a": [], "b": []}


def test_over_http2(place: Place) -> None:
    def curl(path: str, *headers: str) -> str:
        call = ["curl", "--silent", "--http2-prior-knowledge", "--output", "/dev/null", "--write-out", "%{http_code}"]
        for header in (*headers, ": ".join(place.token)):
            call += ["--header", header]
        return run(*call, place.envoy.url + path)

    for path, *headers in (("/x", "x-deployment-id: a"), ("/agents/a/x",), ("/x", "host: a.agents.test")):
        assert curl(path, *headers) == "204"
        taken = place.taken()
        assert len(taken["a"]) == 1 and taken["b"] == []
    for status, path, *headers in (
        ("403", "/x", "x-deployment-id: b"),
        ("403", "/agents/b/x"),
        ("403", "/x", "host: b.agents.test"),
        ("400", "/x", "x-deployment-id: a", "x-deployment-id: b"),
    ):
        assert curl(path, *headers) == status
    assert place.taken() == {"a": [], "b": []}
