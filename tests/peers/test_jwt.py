"""Tokens on the data path: who is let in, what a rejection looks like, and which agents a token allows."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import pytest

from agents.protos import agent, agent_services, streams, streams_services
from conftest import push
from named import named
from peer import Peer
from served import Served, until
from tokens import MAKERS, PATIENCE, Issuer, check_rejection, forged, part, rejected, settings


class Place:
    """An Envoy that asks for tokens with the claim `deployments`, and three agents.

    The file of keys lies where a secret store puts it: behind a link that is swapped.
    """

    def __init__(self, form: str, home: Path) -> None:
        self.issuer = Issuer()
        # With a key for each algorithm.
        self.others = [Issuer(name, name) for name in MAKERS if name != self.issuer.algorithm]
        (home / "v1").mkdir()
        (home / "v2").mkdir()
        self.issuer.write(home / "v1/jwks.json", *self.others)
        (home / "current").symlink_to("v1")
        self.keys = home / "jwks.json"
        self.keys.symlink_to("current/jwks.json")
        self.envoy = Served(form, settings(PIXELL_JWKS_FILE=str(self.keys), PIXELL_JWT_DEPLOYMENTS_CLAIM="deployments"))
        self.agents = [Peer("web", "h"), Peer("grpc_agent", "g"), Peer("web", "other")]
        for peer in self.agents:
            push(self.envoy, peer.name, peer.port)
        self.client = httpx.Client(base_url=self.envoy.url, timeout=PATIENCE)
        until(lambda: self.get(self.token()).status_code == 200, "keys")

    def remove(self) -> None:
        self.client.close()
        self.envoy.stop()
        for peer in self.agents:
            peer.kill()

    def token(self, allowed: Any = "*", **claims: Any) -> str:
        return self.issuer.token(deployments=allowed, **claims)

    def get(self, token: str | None, deployment_id: str = "h", path: str = "/about", **headers: str) -> httpx.Response:
        all_headers = {"x-deployment-id": deployment_id} if deployment_id else {}
        if token is not None:
            all_headers["authorization"] = f"Bearer {token}"
        return self.client.get(path, headers=all_headers | {name.replace("_", "-"): it for name, it in headers.items()})


@pytest.fixture(scope="module", params=["wasm", "native"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(request.param, tmp_path_factory.mktemp("jwt"))
    yield place
    place.remove()


def test_a_valid_token_is_let_in_and_stays_with_the_proxy(place: Place) -> None:
    response = place.get(place.token(), x_pixell_claims="forged")
    assert response.status_code == 200
    received = response.json()["headers"]
    assert "authorization" not in received and "x-pixell-claims" not in received
    # Two fields: whichever is looked at, no token gets through.
    twice = [("x-deployment-id", "h"), *[("authorization", f"Bearer {place.token()}")] * 2]
    response = place.client.get("/about", headers=twice)
    assert response.status_code == 401 or "authorization" not in response.json()["headers"]
    line = place.envoy.logged(lambda line: line.get("deployment_id") == "h" and line["status"] == 200)
    assert line["subject"] == "alice"
    # Clocks differ.
    assert place.get(place.token(exp=int(time.time()) - 30)).status_code == 200


def test_each_algorithm_counts(place: Place) -> None:
    algorithms = []
    for issuer in place.others:
        algorithms.append(jwt.get_unverified_header(issuer.token())["alg"])
        assert place.get(issuer.token(deployments=["h"])).status_code == 200, issuer.algorithm
        check_rejection(place.get(Issuer(issuer.kid, issuer.algorithm).token()), 401, "unauthenticated")
    assert algorithms == ["ES384", "RS256", "PS256", "EdDSA"]


def test_what_is_no_valid_token_is_unauthenticated(place: Place) -> None:
    token = place.token()
    by_rsa = next(issuer for issuer in place.others if issuer.algorithm == "RS256")
    cases = [case for issuer in (place.issuer, by_rsa) for case in (rejected(issuer) | forged(issuer)).items()]
    for what, bad in cases:
        response = place.get(bad)
        assert "Bearer " in response.headers.get("www-authenticate", ""), what
        assert 'error="invalid_token"' in response.headers["www-authenticate"], what
        assert check_rejection(response, 401, "unauthenticated")["detail"], what
    response = place.get(None)
    assert response.headers["www-authenticate"].startswith("Bearer ")
    problem = check_rejection(response, 401, "unauthenticated")
    assert problem == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "Jwt is missing",
        "code": "unauthenticated",
    }
    for scheme in ("Basic dTpw", f"bearer {token}", "Bearer", f"Token {token}", token, f"BearerX {token}"):
        response = place.client.get("/about", headers={"x-deployment-id": "h", "authorization": scheme})
        check_rejection(response, 401, "unauthenticated")
    # A token in the URL does not count: URLs end up in logs.
    check_rejection(place.get(None, path=f"/about?access_token={token}"), 401, "unauthenticated")
    # An id that does not exist is no matter for strangers.
    check_rejection(place.get(None, "nobody"), 401, "unauthenticated")
    line = place.envoy.logged(lambda line: "expired" in str(line.get("code_details")).lower())
    assert (line["error"], line["status"], line["code_details"]) == (
        "unauthenticated",
        401,
        "jwt_authn_access_denied{Jwt_is_expired}",
    )


def test_a_grpc_client_learns_that_its_token_is_not_valid(place: Place) -> None:
    bad = rejected(place.issuer) | forged(place.issuer)
    with grpc.insecure_channel(place.envoy.authority) as channel:
        stub = agent_services.AgentServiceStub(named(channel, "g"))
        for what, token in bad.items():
            with pytest.raises(grpc.RpcError) as raised:
                stub.Health(agent.Empty(), metadata=[("authorization", f"Bearer {token}")], timeout=PATIENCE)
            failed: Any = raised.value
            assert failed.code() == grpc.StatusCode.UNAUTHENTICATED, what
            # Envoy's reason, such as "Jwt is expired".
            assert "Jw" in failed.details(), (what, failed.details())
            assert ("x-pixell-error", "unauthenticated") in [tuple(pair) for pair in failed.trailing_metadata()], what


def test_grpc_clients_get_their_own_status(place: Place) -> None:
    def call(deployment_id: str, token: str | None) -> Any:
        metadata = [("authorization", f"Bearer {token}")] if token else []
        with grpc.insecure_channel(place.envoy.authority) as channel:
            stub = agent_services.AgentServiceStub(named(channel, deployment_id))
            return stub.Health(agent.Empty(), metadata=metadata, timeout=PATIENCE)

    assert call("g", place.token(["g"])).message == "g"
    for token, code, error, message in (
        (None, grpc.StatusCode.UNAUTHENTICATED, "unauthenticated", "Jwt is missing"),
        (place.token(aud="x"), grpc.StatusCode.UNAUTHENTICATED, "unauthenticated", "Audiences in Jwt are not allowed"),
        (place.token(["h"]), grpc.StatusCode.PERMISSION_DENIED, "not_allowed", "The token does not allow deployment g"),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            call("g", token)
        failed: Any = raised.value
        assert (failed.code(), failed.details()) == (code, message)
        assert ("x-pixell-error", error) in [tuple(pair) for pair in failed.trailing_metadata()]
    # Clients that Envoy does not count as gRPC get a written status.
    for content_type, headers in (("application/grpc;x=y", {}), ("application/grpc-web+proto", {"x-grpc-web": "1"})):
        for token, status in ((None, "16"), (place.token(["h"]), "7")):
            all_headers = {"content-type": content_type, "x-deployment-id": "g"} | headers
            if token:
                all_headers["authorization"] = f"Bearer {token}"
            path = "/pixell.agent.AgentService/Health"
            response = place.client.post(path, headers=all_headers, content=bytes(5))
            said = response.headers.get("grpc-status") or response.text
            assert response.status_code == 200 and status in said, response


def test_a_claim_names_the_agents_that_a_token_allows(place: Place) -> None:
    one = place.token(["h"])
    # However the agent is addressed.
    assert place.get(one).status_code == 200
    for path in ("/agents/h/about", "/agents/h/-/a2a/about", "/agents/h/api/about"):
        assert place.get(one, "", path).status_code == 200, path
    for path in ("/agents/other/about", "/agents/other/-/a2a/about", "/agents/other", "/agents/nobody/about"):
        check_rejection(place.get(one, "", path), 403, "not_allowed")
    check_rejection(place.get(one, "other"), 403, "not_allowed")
    response = place.client.get("/about", headers={"deployment-id": "other", "authorization": f"Bearer {one}"})
    check_rejection(response, 403, "not_allowed")
    # The id counts that the request goes to, and not another one that it names.
    response = place.get(one, "h", "/agents/other/about")
    assert response.status_code in (200, 404) and "x-pixell-error" not in response.headers
    check_rejection(place.get(one, "other", "/agents/h/about"), 403, "not_allowed")
    # It is checked before the map is read, so ids that exist look like those that do not.
    assert check_rejection(place.get(one, "nobody"), 403, "not_allowed")["title"] == "Forbidden"
    check_rejection(place.get(place.token("*"), "nobody"), 404, "unknown_deployment")
    check_rejection(place.get(place.token("*"), ""), 400, "missing_deployment_id")
    for allowed in (
        None,
        [],
        "",
        "h",
        ["*"],
        ["h", 1],
        ["h", "not an id"],
        [["h"]],
        {"h": True},
        True,
        1,
        "**",
        "h,other",
    ):
        check_rejection(place.get(place.token(allowed)), 403, "not_allowed")
    line = place.envoy.logged(lambda line: line.get("rejection") == "not_allowed" and line["deployment_id"] == "nobody")
    assert line["subject"] == "alice"
    assert place.envoy.stat("wasmcustom.pixell_rejections_total.reason.not_allowed") >= 10


def is_in_effect(value: bytes, honest: str) -> bool:
    """Whether it is the honest token, but perhaps for those bits of the last character that belong to no byte."""
    token, signed = value.removeprefix(b"Bearer ").split(b"."), honest.encode().split(b".")
    if token[:-1] != signed[:-1] or len(token[-1]) != len(signed[-1]):
        return False
    with contextlib.suppress(ValueError):
        return base64.b64decode(token[-1] + b"==", b"-_", validate=True) == base64.urlsafe_b64decode(signed[-1] + b"==")
    return False


def test_hostile_values_crash_nothing(place: Place) -> None:
    """20,000 values of `Authorization`, on one connection: none is let in, and all get their response."""
    dice = random.Random(7)
    honest = place.token()
    head, body, signature = honest.split(".")
    count = 20_000

    def value(number: int) -> bytes:
        match number % 8:
            case 0:
                raw = bytes(dice.choice([*range(33, 127), *range(128, 256)]) for _ in range(dice.randrange(1, 200)))
                return b"Bearer " + raw
            case 1:
                place_of_change = dice.randrange(len(honest))
                changed = honest[:place_of_change] + dice.choice("AZ.-_=9~") + honest[place_of_change + 1 :]
                return f"Bearer {changed if changed != honest else head}".encode()
            case 2:
                return f"Bearer {honest[: dice.randrange(len(honest) - 4)]}".encode()
            case 3:
                return b"Bearer " + b"." * dice.randrange(1, 2000)
            case 4:
                return f"Bearer {head}.{'A' * dice.randrange(8000)}.{signature}".encode()
            case 5:
                nested = b"[" * dice.randrange(1, 2000)
                return f"Bearer {part(nested)}.{part(nested)}.{signature}".encode()
            case 6:
                strange = json.dumps({"alg": dice.choice([None, 5, [], {}, "ES256", "RS1", "none"]), "kid": 1}).encode()
                return f"Bearer {part(strange)}.{body}.{signature}".encode()
            case _:
                return b"Bearer Bearer " + honest.encode() + b"," + honest.encode()

    with socket.create_connection(("127.0.0.1", place.envoy.port), timeout=PATIENCE) as connection:
        for number in range(count):
            head_of_all = b"HEAD /about HTTP/1.1\r\nhost: h\r\nx-deployment-id: h\r\n"
            sent = value(number)
            connection.sendall(b"%sauthorization: %s\r\n\r\n" % (head_of_all, sent))
            said = b""
            while not said.endswith(b"\r\n\r\n"):
                more = connection.recv(1 << 16)
                assert more, f"the connection ended at {sent!r}"
                said += more
            expected = {b"401", b"200"} if is_in_effect(sent, honest) else {b"401"}
            assert said[9:12] in expected, sent
    assert place.get(honest).status_code == 200
    crashes = r"wasm\..*\.vm_reload.*" if place.envoy.form == "wasm" else r"wasmcustom\.pixell_panics_total"
    assert sum(place.envoy.stats(crashes).values()) == 0


def test_no_log_has_a_token(place: Place) -> None:
    token = place.token()
    place.get(token)
    place.get(f"{token}x")
    place.get(None, path=f"/about?access_token={token}")
    place.envoy.logged(lambda line: line.get("code_details") == "jwt_authn_access_denied{Jwt_verification_fails}")
    everything = json.dumps(place.envoy.log()) + "\n".join(place.envoy.said)
    for text in token.split("."):
        assert text not in everything


def test_new_keys_in_the_file_count(place: Place) -> None:
    old, new = place.token(), Issuer("new")
    token = new.token(deployments="*")
    check_rejection(place.get(token), 401, "unauthenticated")
    with conversation(place, old) as say:
        assert say("before") == "before"
        # A link is swapped, as Kubernetes does it.
        home = place.keys.parent
        new.write(home / "v2/jwks.json")
        (home / "next").symlink_to("v2")
        os.replace(home / "next", home / "current")
        until(lambda: place.get(token).status_code == 200, "the new key")
        check_rejection(place.get(old), 401, "unauthenticated")
        # A token is checked when a request begins.
        assert say("after") == "after"
    # A file is renamed. Keys that cannot be read leave those before in use.
    failures = "http.agents.jwt_authn.jwks_fetch_failed"
    before = place.envoy.stat(failures)
    (home / "next").write_text("{")
    os.replace(home / "next", place.keys)
    until(lambda: place.envoy.stat(failures) > before, "failure")
    assert place.get(token).status_code == 200
    # It is written in place.
    place.issuer.write(place.keys, *place.others)
    until(lambda: place.get(old).status_code == 200, "the old key")


def test_a_stream_outlives_its_token(place: Place) -> None:
    # Envoy lets a token pass for 60 s after its expiry.
    token = place.token(exp=int(time.time()) - 50)
    with conversation(place, token) as say:
        assert say("before") == "before"
        until(lambda: place.get(token).status_code == 401, "the end of the token")
        assert say("after") == "after"


@contextlib.contextmanager
def conversation(place: Place, token: str) -> Iterator[Callable[[str], str]]:
    """A stream that begins with this token. What is said in it is what comes back."""
    said: queue.Queue[str | None] = queue.Queue()
    with grpc.insecure_channel(place.envoy.authority) as channel:
        chunks = (streams.Chunk(data=text.encode()) for text in iter(said.get, None))
        metadata = [("authorization", f"Bearer {token}")]
        stub = streams_services.StreamsStub(named(channel, "g"))
        responses = stub.Chat(chunks, metadata=metadata, timeout=3 * PATIENCE)

        def say(text: str) -> str:
            said.put(text)
            heard: str = next(responses).data.decode()
            return heard

        yield say
        said.put(None)
        assert list(responses) == []
