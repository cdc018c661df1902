"""What passes without a token: CORS preflights as browsers send them, and nothing that only looks like one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from conftest import push
from recorder import Recorder, ask
from served import Served, until
from tokens import AUDIENCE, ISSUER, Issuer, check_rejection

PATIENCE = 20.0
# What Chromium sends.
PREFLIGHT = {
    "accept": "*/*",
    "access-control-request-headers": "authorization,content-type",
    "access-control-request-method": "POST",
    "origin": "https://app.test",
    "sec-fetch-mode": "cors",
    "user-agent": "Mozilla/5.0",
}


class Place:
    """An Envoy that asks for tokens, and an agent that keeps what reaches it."""

    def __init__(self, form: str, home: Path, claim: bool) -> None:
        self.agent = Recorder()
        issuer = Issuer()
        settings = {
            "PIXELL_JWT_ISSUER": ISSUER,
            "PIXELL_JWT_AUDIENCES": AUDIENCE,
            "PIXELL_JWKS_FILE": str(issuer.write(home / "jwks.json")),
            "PIXELL_HOST_SUFFIX": ".agents.test",
        }
        if claim:
            settings["PIXELL_JWT_DEPLOYMENTS_CLAIM"] = "deployments"
        self.envoy = Served(form, settings)
        push(self.envoy, "a", self.agent.port)
        self.token = issuer.token(deployments="*")
        until(lambda: self.ask("GET", {"authorization": f"Bearer {self.token}"})[0] == 204, "keys")
        self.agent.taken()

    def remove(self) -> None:
        self.envoy.stop()
        self.agent.stop()

    def ask(self, method: str, headers: dict[str, str], target: str = "/agents/a/x", body: str = "") -> tuple[int, str]:
        return ask(self.envoy.port, method, target, headers, body)

    def curl(self, *arguments: str) -> tuple[int, str]:
        """The status and `x-pixell-error` of the response to a preflight over HTTP/2."""
        call = ["curl", "--silent", "--http2-prior-knowledge", "--output", "/dev/null", "--request", "OPTIONS"]
        for name, value in PREFLIGHT.items():
            call += ["--header", f"{name}: {value}"]
        form = "%{http_code} %header{x-pixell-error}"
        call += ["--write-out", form, *arguments, f"{self.envoy.url}/agents/a/x"]
        # It complains if the response comes before all of the body was sent.
        said = subprocess.run(call, capture_output=True, text=True, timeout=PATIENCE, check=False).stdout
        status, _, error = said.partition(" ")
        return int(status), error


@pytest.fixture(scope="module", params=[(form, claim) for form in ("wasm", "native") for claim in (True, False)])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    form, claim = request.param
    place = Place(form, tmp_path_factory.mktemp("preflights"), claim)
    yield place
    place.remove()


def test_preflights_need_no_token(place: Place) -> None:
    for headers, target in (
        ({}, "/agents/a/x"),
        ({"content-length": "0"}, "/agents/a/-/a2a/x"),
        ({"host": "a.agents.test"}, "/x"),
    ):
        assert place.ask("OPTIONS", PREFLIGHT | headers, target) == (204, "")
        (head,) = place.agent.taken()
        assert head.startswith("OPTIONS /x HTTP/1.1\r\n") and "\r\nx-deployment-id: a\r\n" in head
        assert "x-pixell" not in head
    assert place.curl() == (204, "")
    assert len(place.agent.taken()) == 1
    # It names no agent by a header, so that nothing is left to look for.
    assert place.ask("OPTIONS", PREFLIGHT, "/x") == (400, "missing_deployment_id")


def test_nothing_else_passes_for_one(place: Place, tmp_path: Path) -> None:
    def check(seen: tuple[int, str], what: object, status: int = 401) -> None:
        assert (seen, place.agent.taken()) == ((status, "unauthenticated"), []), what

    for added, body in (
        ({"content-type": "application/grpc"}, ""),
        ({"content-type": "application/grpc+proto"}, ""),
        ({"content-type": "application/grpc;x=y"}, ""),
        ({"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}, ""),
        ({"content-type": "application/json"}, ""),
        ({"content-type": ""}, ""),
        ({"content-length": "1"}, "x"),
        ({"content-length": "00"}, ""),
        ({"transfer-encoding": "chunked"}, "1\r\nx\r\n0\r\n\r\n"),
        ({"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}, ""),
        ({"authorization": "Bearer forged"}, ""),
        ({"authorization": f"Bearer {place.token[:-4]}"}, ""),
        ({"authorization": "Basic dTpw"}, ""),
        ({"authorization": ""}, ""),
        ({"x-deployment-id": "a"}, ""),
        ({"x-deployment-id": ""}, ""),
        ({"deployment-id": "a"}, ""),
        ({"deployment_id": "a"}, ""),
        ({"x-pixell-claims": "e30", "x-deployment-id": "a"}, ""),
    ):
        is_grpc = added.get("content-type", "").startswith("application/grpc")
        check(place.ask("OPTIONS", PREFLIGHT | added, body=body), added, 200 if is_grpc else 401)
    for missing in ("origin", "access-control-request-method"):
        check(place.ask("OPTIONS", {name: it for name, it in PREFLIGHT.items() if name != missing}), missing)
    for method in ("GET", "HEAD", "POST", "TRACE", "options"):
        check(place.ask(method, PREFLIGHT), method)
    # Over HTTP/2. Where the filters see no header that tells of a body, as with a chunked one above, they wait for it.
    check(place.curl("--header", "authorization: Bearer forged"), "a token")
    check(place.curl("--header", "x-deployment-id: a"), "an id")
    check(place.curl("--upload-file", __file__, "--header", "content-length:"), "a body of unknown length")
    # curl often loses a response that comes before all of the body was sent.
    large = tmp_path / "large"
    large.write_bytes(bytes(1 << 20))
    unknown = ("--upload-file", str(large), "--header", "content-length:")
    for arguments in (("--data", "x"), ("--data", "x", "--header", "content-type:"), unknown):
        seen = place.curl(*arguments)
        assert seen in ((401, "unauthenticated"), (0, "")) and place.agent.taken() == [], (arguments, seen)


def test_its_rejection_is_that_of_any_request_without_a_token(place: Place) -> None:
    """Whether Envoy sees by a header that it has a body, or the proxy waits for the body."""
    for body in (b"x", iter([b"x"])):
        url = f"{place.envoy.url}/agents/a/x"
        response = httpx.request("OPTIONS", url, headers=PREFLIGHT, content=body, timeout=PATIENCE)
        assert check_rejection(response, 401, "unauthenticated")["title"] == "Unauthorized"
        assert response.headers["www-authenticate"].startswith("Bearer")
    assert place.agent.taken() == []


def test_with_a_token_they_are_requests_like_others(place: Place) -> None:
    token = {"authorization": f"Bearer {place.token}"}
    assert place.ask("OPTIONS", PREFLIGHT | token | {"content-length": "5"}, body="hello") == (204, "")
    (head,) = place.agent.taken()
    assert "\r\nauthorization:" not in head and "x-pixell" not in head


def test_connect_needs_a_token(place: Place) -> None:
    """The one method without a path."""
    for target in ("h:80", "a.agents.test:80"):
        for added in ({}, {"x-deployment-id": "a"}, {"content-type": "application/grpc"}):
            status, error = place.ask("CONNECT", {"host": target} | added, target)
            assert (status, error) in ((401, "unauthenticated"), (200, "unauthenticated")), (target, added)
    assert place.agent.taken() == []
