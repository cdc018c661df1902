"""Tokens on the data path: where the keys come from, and what an Envoy does that cannot get them."""

from __future__ import annotations

import concurrent.futures
import datetime
import itertools
import json
import subprocess
import time
from functools import partial
from pathlib import Path

import httpx
import pytest

from conftest import push
from key_server import KeyServer
from peer import Peer
from pki import Authority
from recorder import ask
from served import Served, command, environment, until
from tokens import PATIENCE, Issuer, check_rejection, forged, settings

FAILURES, SUCCESSES = "http.agents.jwt_authn.jwks_fetch_failed", "http.agents.jwt_authn.jwks_fetch_success"


@pytest.mark.parametrize("form", ["wasm", "native"])
def test_keys_of_a_server_that_is_down_slow_and_rotated(form: str) -> None:
    one, two = Issuer("one"), Issuer("two")
    server = KeyServer()
    port = server.port
    server.end()
    web = Peer("web", "h")
    url = f"http://127.0.0.1:{port}/keys"
    envoy = Served(form, settings(PIXELL_JWKS_URL=url, PIXELL_JWKS_CACHE_SECONDS="1", PIXELL_JWT_FORWARD="on"))
    try:
        push(envoy, "h", web.port)

        def get(token: str | None) -> httpx.Response:
            headers = {"x-deployment-id": "h"} | ({"authorization": f"Bearer {token}"} if token else {})
            return httpx.get(f"{envoy.url}/about", headers=headers, timeout=PATIENCE)

        # Down from the start: nobody is let in.
        check_rejection(get(one.token()), 401, "unauthenticated")
        assert is_ready(envoy)
        server = KeyServer(port)
        server.body = json.dumps(one.key_set()).encode()
        until(lambda: get(one.token()).status_code == 200, "keys")
        # Without a claim in the settings a token allows everything, and this setting gives it to the agent.
        token = one.token()
        assert get(token).json()["headers"]["authorization"] == f"Bearer {token}"
        check_rejection(get(two.token()), 401, "unauthenticated")
        # Slow: requests do not wait for it, once Envoy has fetched keys by itself.
        before = envoy.stat(SUCCESSES)
        until(partial(is_above, envoy, SUCCESSES, before + 1), "fetches")
        server.wait.clear()
        time.sleep(1.5)
        began = time.monotonic()
        assert get(one.token()).status_code == 200
        assert time.monotonic() - began < 1
        server.wait.set()
        # Rotated.
        server.body = json.dumps({"keys": one.key_set()["keys"] + two.key_set()["keys"]}).encode()
        until(lambda: get(two.token()).status_code == 200, "both keys")
        assert get(one.token()).status_code == 200
        server.body = json.dumps(two.key_set()).encode()
        until(lambda: get(one.token()).status_code == 401, "the end of the first key")
        # No connection is used twice: the host's name may stand for another server by now.
        assert server.connections >= server.requests > 2
        # Failing, then gone: the last keys stay in use.
        for status in (500, None):
            before = envoy.stat(FAILURES)
            if status:
                server.status = status
            else:
                server.end()
            until(partial(is_above, envoy, FAILURES, before), "failure")
            assert get(two.token()).status_code == 200
            check_rejection(get(one.token()), 401, "unauthenticated")
    finally:
        envoy.stop()
        web.kill()


@pytest.mark.parametrize("form", ["wasm", "native"])
def test_a_server_that_hangs_holds_few_requests(form: str) -> None:
    """Forged tokens before there are any keys: each makes Envoy ask for them, until as many ask as may at a time."""
    server, forger, count = KeyServer(), Issuer(), 60
    server.wait.clear()
    envoy = Served(form, settings(PIXELL_JWKS_URL=f"http://127.0.0.1:{server.port}/keys"))
    try:
        token = forger.token()

        def send(_: int) -> float:
            began = time.monotonic()
            headers = {"x-deployment-id": "h", "authorization": f"Bearer {token}"}
            # Without httpx, whose clients take long to make.
            assert ask(envoy.port, "GET", "/", headers) == (401, "unauthenticated")
            return time.monotonic() - began

        with concurrent.futures.ThreadPoolExecutor(count) as clients:
            responses = clients.map(send, range(count))
            assert is_ready(envoy)
            took = sorted(responses)
        # Those that ask are held for the 5 s of a fetch. The main thread's own fetch is among the eight.
        assert took[count - 9] < 4 and took[-1] < 9, took
        assert server.requests <= 10
        # Once there are keys again, it is as if nothing had been.
        server.body = json.dumps(forger.key_set()).encode()
        server.wait.set()
        headers = {"x-deployment-id": "h", "authorization": f"Bearer {token}"}
        # There is no route map.
        until(lambda: httpx.get(envoy.url, headers=headers, timeout=PATIENCE).status_code == 503, "keys")
    finally:
        envoy.stop()
        server.end()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("form", ["wasm", "native"])
def test_a_server_has_to_prove_its_name(form: str, host: str, tmp_path: Path) -> None:
    """Each certificate but the last is wrong in one respect."""
    own, issuer = Authority("own"), Issuer()
    other_name = {"localhost": "127.0.0.1", "127.0.0.1": "localhost"}[host]
    certificates = {
        "another CA": Authority("own").issue(tmp_path / "ca", "keys"),
        "another name": own.issue(tmp_path / "name", host, names=(other_name, f"not.{host}")),
        "expired": own.issue(tmp_path / "expired", "keys", life=datetime.timedelta(minutes=-30)),
        "right": own.issue(tmp_path / "right", "keys", names=("a.test", host)),
    }
    server = KeyServer()
    server.body = json.dumps(issuer.key_set()).encode()
    server.certify(*certificates["another CA"])
    url = f"https://{host}:{server.port}/keys"
    envoy = Served(form, settings(PIXELL_JWKS_URL=url, PIXELL_JWKS_CA_FILE=str(own.write(tmp_path / "own.pem"))))
    try:
        # There is no route map: a valid token leads to 503. Each connection goes to one worker or the other.
        def status(token: str) -> int:
            return ask(envoy.port, "GET", "/", {"x-deployment-id": "h", "authorization": f"Bearer {token}"})[0]

        for what, pair in certificates.items():
            server.certify(*pair)
            if what == "right":
                break
            until(lambda: server.refused > 0, f"handshake with {what}")
            assert (status(issuer.token()), server.requests, is_ready(envoy)) == (401, 0, True), what
        until(partial(is_above, envoy, SUCCESSES, 0), "keys")
        assert envoy.stat(FAILURES) >= 3
        assert status(issuer.token()) == 503
        # RFC 6066: an address is no name.
        assert server.called == {"localhost" if host == "localhost" else None}
        # Now that there are keys, strangers cause no request for others.
        requests = server.requests
        strangers = [*forged(issuer).values(), Issuer("new").token()]
        assert {status(token) for token in itertools.islice(itertools.cycle(strangers), 50)} == {401}
        assert server.requests == requests
        server.end()
        assert (status(issuer.token()), status(strangers[0]), is_ready(envoy)) == (503, 401, True)
    finally:
        envoy.stop()
        server.end()


def is_ready(envoy: Served) -> bool:
    return httpx.get(f"{envoy.api}/ready", timeout=PATIENCE).text.strip() == "LIVE"


def is_above(envoy: Served, name: str, before: int) -> bool:
    return envoy.stat(name) > before


def test_a_start_without_keys_ends(tmp_path: Path) -> None:
    gone = tmp_path / "gone.json"
    ended = subprocess.run(
        command("wasm"),
        env=environment(settings(PIXELL_JWKS_FILE=str(gone))),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 78
    assert ended.stderr.splitlines()[-1] == (
        f'error: PIXELL_JWKS_FILE is "{gone}": expected a JSON Web Key Set, but the file cannot be read: '
        "No such file or directory (os error 2)"
    )
