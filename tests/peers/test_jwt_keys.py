"""Tokens on the data path: where the keys come from, and what an Envoy does that cannot get them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.server
import json
import subprocess
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import push
from peer import Peer
from served import Served, command, environment, until
from tokens import PATIENCE, Issuer, check_rejection, settings


class KeyServer(http.server.ThreadingHTTPServer):
    """A server of keys that can be slow or fail."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.body = b""
        self.status = 200
        self.requests = 0
        self.wait = threading.Event()
        self.wait.set()
        super().__init__(("127.0.0.1", port), KeyHandler)
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()

    def end(self) -> None:
        self.wait.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


class KeyHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, KeyServer)
        server.requests += 1
        server.wait.wait(PATIENCE)
        self.send_response(server.status)
        self.send_header("content-length", str(len(server.body)))
        # Envoy may have given up.
        with contextlib.suppress(ConnectionError):
            self.end_headers()
            self.wfile.write(server.body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.mark.parametrize("form", ["native"])
def test_keys_of_a_server_that_is_down_slow_and_rotated(form: str) -> None:
    one, two = Issuer("one"), Issuer("two")
    server = KeyServer()
    port = server.server_address[1]
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
        server = KeyServer(port)
        server.body = json.dumps(one.key_set()).encode()
        until(lambda: get(one.token()).status_code == 200, "keys")
        # Without a claim in the settings a token allows everything, and this setting gives it to the agent.
        token = one.token()
        assert get(token).json()["headers"]["authorization"] == f"Bearer {token}"
        check_rejection(get(two.token()), 401, "unauthenticated")
        # Slow: requests do not wait for it, once Envoy has fetched keys by itself.
        successes = "http.agents.jwt_authn.jwks_fetch_success"
        before = envoy.stat(successes)
        until(partial(is_above, envoy, successes, before + 1), "fetches")
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
        # Failing, then gone: the last keys stay in use.
        failures = "http.agents.jwt_authn.jwks_fetch_failed"
        for status in (500, None):
            before = envoy.stat(failures)
            if status:
                server.status = status
            else:
                server.end()
            until(partial(is_above, envoy, failures, before), "failure")
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
    envoy = Served(form, settings(PIXELL_JWKS_URL=f"http://127.0.0.1:{server.server_address[1]}/keys"))
    try:
        token = forger.token()

        def send(_: int) -> float:
            began = time.monotonic()
            headers = {"x-deployment-id": "h", "authorization": f"Bearer {token}"}
            check_rejection(httpx.get(envoy.url, headers=headers, timeout=PATIENCE), 401, "unauthenticated")
            return time.monotonic() - began

        with concurrent.futures.ThreadPoolExecutor(count) as clients:
            took = sorted(clients.map(send, range(count)))
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
