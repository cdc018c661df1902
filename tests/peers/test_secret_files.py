"""Files with secrets: one that every user can read is named, and no line shows what is in one that cannot be used."""

from __future__ import annotations

import base64
import json
import os
import socket
from functools import partial
from pathlib import Path

import pytest

from pki import Authority
from served import Served, until
from tokens import AUDIENCE, ISSUER

SECRET = base64.urlsafe_b64encode(bytes(range(100, 148))).decode()
KEYS = json.dumps({"keys": [{"kty": "oct", "k": SECRET, "kid": "k", "alg": "HS256"}]})


class Files:
    """A certificate of this task for clients and one for peers, keys of tokens, and the settings that name them."""

    def __init__(self, home: Path) -> None:
        self.authority = Authority()
        self.certificate, self.key = self.authority.issue(home / "tls", "localhost")
        self.ca = self.authority.write(home / "ca.pem")
        self.keys = home / "jwks.json"
        self.keys.write_text(KEYS)
        self.keys.chmod(0o600)
        self.settings = {
            "PIXELL_TLS_CERT_FILE": str(self.certificate),
            "PIXELL_TLS_KEY_FILE": str(self.key),
            "PIXELL_TLS_CLIENT_CA_FILE": str(self.ca),
            "PIXELL_JWT_ISSUER": ISSUER,
            "PIXELL_JWT_AUDIENCES": AUDIENCE,
            "PIXELL_JWKS_FILE": str(self.keys),
        }

    def join_fleet(self, home: Path) -> Path:
        """Adds the settings of a task with peers, and returns the key for them."""
        certificate, key = self.authority.issue(home / "peer", "localhost")
        self.settings |= {
            "PIXELL_FLEET_CIDRS": "10.0.0.0/8",
            "PIXELL_PEER_CERT_FILE": str(certificate),
            "PIXELL_PEER_KEY_FILE": str(key),
            "PIXELL_PEER_CA_FILE": str(self.ca),
            "PIXELL_PEER_SAN": "localhost",
        }
        return key


@pytest.mark.parametrize(("form", "mode"), [("wasm", 0o644), ("native", 0o644), ("native", 0o640)])
def test_secrets_that_every_user_can_read_are_named(form: str, mode: int, tmp_path: Path) -> None:
    files = Files(tmp_path)
    token = tmp_path / "token"
    token.write_text("a-token\n")
    files.settings["PIXELL_ADMIN_TOKEN_FILE"] = str(token)
    secrets = {
        "PIXELL_ADMIN_TOKEN_FILE": token,
        "PIXELL_TLS_KEY_FILE": files.key,
        "PIXELL_JWKS_FILE": files.keys,
        "PIXELL_PEER_KEY_FILE": files.join_fleet(tmp_path),
    }
    for file in secrets.values():
        file.chmod(mode)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    envoy = Served(form, files.settings, "--peer-port", str(port))
    try:
        advice = "every user can read this file, agents too; expected mode 0600 or 0640"
        every = [f'warning: {name} is "{file}": {advice}' for name, file in secrets.items()]
        said = [line for line in list(envoy.said) if line.startswith("warning: ")]
        assert said == (every if mode == 0o644 else [])
    finally:
        envoy.stop()


@pytest.mark.parametrize("form", ["wasm", "native"])
def test_no_line_shows_what_is_in_a_new_file_that_cannot_be_used(form: str, tmp_path: Path) -> None:
    files = Files(tmp_path)
    other = files.authority.issue(tmp_path / "other", "other")[1].read_text()
    inner = "".join(other.splitlines()[1:-1])
    # A key of another certificate, broken ones, one without its frame, and one in a place where none belongs.
    keys = [other, other[: len(other) // 2], other.replace("\n", ""), other.replace("M", "-"), inner]
    key_sets = [KEYS[:-3], KEYS.replace('"oct"', '"EC"'), SECRET, other]
    failed = {
        files.key: ("sds.pixell_tls.key_rotation_failed", keys),
        files.ca: ("sds.pixell_tls_client_ca.key_rotation_failed", [other, inner]),
        files.keys: ("http.agents.jwt_authn.jwks_fetch_failed", key_sets),
    }
    envoy = Served(form, files.settings)
    try:
        for file, (counter, contents) in failed.items():
            for content in contents:
                # A fetch of keys that began before may have failed for what was in the file before.
                before = envoy.stat(counter) + (file == files.keys)
                replace(file, content)
                until(partial(is_above, envoy, counter, before), f"failure for {file.name}")
        envoy.own_log("Failed to reload certificates")
        envoy.own_log("Jwks async fetching")
    finally:
        envoy.stop()
    everything = "\n".join(envoy.said) + json.dumps(envoy.log())
    shown = [piece for secret in (inner, SECRET) for piece in pieces(secret) if piece in everything]
    assert shown == []


def replace(file: Path, content: str) -> None:
    following = file.with_name("next")
    following.touch(mode=0o600)
    following.write_text(content)
    os.replace(following, file)


def is_above(envoy: Served, counter: str, before: int) -> bool:
    return envoy.stat(counter) > before


def pieces(secret: str, size: int = 12) -> list[str]:
    return [secret[start : start + size] for start in range(len(secret) - size + 1)]
