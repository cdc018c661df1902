"""The metric that says why clients have no valid token."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from agents.protos import agent, agent_services
from conftest import push
from named import named
from peer import Peer
from served import Served, until
from tokens import AUDIENCE, ISSUER, Issuer

PATIENCE = 20.0
COUNT = "tokens.unauthenticated_total.reason."


class Place:
    """An Envoy that asks for tokens with the claim `deployments`, and an agent for HTTP and one for gRPC."""

    def __init__(self, form: str, home: Path) -> None:
        self.issuer = Issuer()
        settings = {
            "PIXELL_JWT_ISSUER": ISSUER,
            "PIXELL_JWT_AUDIENCES": AUDIENCE,
            "PIXELL_JWKS_FILE": str(self.issuer.write(home / "jwks.json")),
            "PIXELL_JWT_DEPLOYMENTS_CLAIM": "deployments",
        }
        self.envoy = Served(form, settings)
        self.agents = [Peer("web", "h"), Peer("grpc_agent", "g")]
        for peer in self.agents:
            push(self.envoy, peer.name, peer.port)
        until(lambda: self.get(self.token()) == 200, "keys")

    def remove(self) -> None:
        self.envoy.stop()
        for peer in self.agents:
            peer.kill()

    def token(self, allowed: Any = "*", **claims: Any) -> str:
        return self.issuer.token(deployments=allowed, **claims)

    def get(self, token: str | None) -> int:
        headers = {"x-deployment-id": "h"} | ({"authorization": f"Bearer {token}"} if token else {})
        return httpx.get(self.envoy.url + "/health", headers=headers, timeout=PATIENCE).status_code

    def call(self, token: str | None) -> grpc.StatusCode:
        metadata = [("authorization", f"Bearer {token}")] if token else []
        with grpc.insecure_channel(self.envoy.authority) as channel, pytest.raises(grpc.RpcError) as raised:
            stub = agent_services.AgentServiceStub(named(channel, "g"))
            stub.Health(agent.Empty(), metadata=metadata, timeout=PATIENCE)
        failed: Any = raised.value
        code: grpc.StatusCode = failed.code()
        return code

    def preflight_with_a_body(self) -> int:
        headers = {"origin": "https://a.test", "access-control-request-method": "GET"}
        body = iter([b"a body"])
        return httpx.request("OPTIONS", self.envoy.url + "/agents/h/x", headers=headers, content=body).status_code

    def counts(self) -> dict[str, int]:
        found = self.envoy.stats(re.escape(COUNT) + ".*")
        return {name.removeprefix(COUNT): count for name, count in found.items()}

    def denied(self) -> int:
        return self.envoy.stat("http.agents.jwt_authn.denied")


@pytest.fixture(scope="module", params=["wasm", "native"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(request.param, tmp_path_factory.mktemp("counts"))
    yield place
    place.remove()


def test_each_reason_is_counted(place: Place) -> None:
    def jwt(reason: str) -> str:
        return f"jwt_authn_access_denied{{{reason}}}"

    cases: dict[str, list[Callable[[], Any]]] = {
        jwt("Jwt_is_missing"): [lambda: place.get(None), lambda: place.call(None)],
        jwt("Jwt_is_expired"): [lambda: place.get(place.token(exp=1)), lambda: place.call(place.token(exp=1))],
        jwt("Audiences_in_Jwt_are_not_allowed"): [
            lambda: place.get(place.token(aud="x")),
            lambda: place.call(place.token(aud="x")),
        ],
        jwt("Jwt_issuer_is_not_configured"): [lambda: place.get(place.token(iss="x"))],
        jwt("Jwt_verification_fails"): [lambda: place.get(Issuer().token(deployments="*"))],
        jwt("Jwks_doesn't_have_key_to_match_kid_or_alg_from_Jwt"): [lambda: place.get(Issuer("other").token())],
        "lua_response": [place.preflight_with_a_body],
    }
    assert place.get(None) == 401
    until(lambda: place.denied() == sum(place.counts().values()) > 0, "the first count")
    before, denied = place.counts(), place.denied()
    # What an agent itself responds is not counted, nor is what a valid token does not allow.
    assert (place.get(place.token(["g"])), place.get(place.token())) == (403, 200)
    assert {attempt() for attempts in cases.values() for attempt in attempts} == {401, grpc.StatusCode.UNAUTHENTICATED}
    expected = {reason: len(attempts) for reason, attempts in cases.items()}

    def grown() -> dict[str, int]:
        return {
            name: count - before.get(name, 0) for name, count in place.counts().items() if count != before.get(name)
        }

    until(lambda: grown() == expected, f"{expected}, not {grown()}")
    # Envoy's own counter does not know the preflight.
    assert place.denied() - denied == sum(expected.values()) - 1


def test_strangers_add_no_reasons_of_their_own(place: Place) -> None:
    for text in ("x", "x.y.z", "a" * 5000, "..", "%7F", "Jwt is new", "{}", "e30.e30.e30"):
        assert place.get(text) == 401
    assert all(
        re.fullmatch(r"lua_response|jwt_authn_access_denied\{[A-Za-z0-9_'\[\].]+\}", name) for name in place.counts()
    )
