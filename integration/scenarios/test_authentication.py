"""TLS, tokens, a claim, a rate and a share of connections at once, with the image as it ships."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from . import route_api
from .engine import Container, Project
from .wait import wait_until

PLACE = "/etc/envoy"
SECRET = bytes(range(32))
PORT = 50060
# An agent, and a client beside it: both are the Python of PAR's image.
AGENT = ["python3", "-m", "http.server", str(PORT), "--bind", "127.0.0.1"]
CALL = """
import http.client, json, ssl, sys
token, deployment_id = sys.argv[1:]
context = ssl.create_default_context(cafile="/tmp/ca.pem")
connection = http.client.HTTPSConnection("localhost", 50051, context=context, timeout=10)
headers = {"x-deployment-id": deployment_id} | ({"authorization": "Bearer " + token} if token else {})
connection.request("GET", "/", headers=headers)
response = connection.getresponse()
print(json.dumps([response.status, response.headers.get("x-pixell-error")]))
"""


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token(**claims: Any) -> str:
    common = {"iss": "https://issuer.test", "aud": "agents", "sub": "alice", "exp": int(time.time()) + 600}
    signed = f"{part({'alg': 'HS256', 'kid': 'k'})}.{part(common | claims)}"
    return f"{signed}.{part(hmac.new(SECRET, signed.encode(), hashlib.sha256).digest())}"


def certificate(directory: Path) -> tuple[bytes, bytes]:
    """A certificate for localhost that is its own CA, and its key."""
    made = directory / "tls.crt", directory / "tls.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-out", str(made[0]), "-keyout", str(made[1])], check=True, capture_output=True)
    return made[0].read_bytes(), made[1].read_bytes()


@pytest.mark.parametrize("form", ["wasm", "native"])
def test_everything_at_once(project: Project, form: str, tmp_path: Path) -> None:
    settings = {
        "PIXELL_FILTER": form,
        "PIXELL_CONCURRENCY": "2",
        "PIXELL_TLS_CERT_FILE": f"{PLACE}/tls.crt",
        "PIXELL_TLS_KEY_FILE": f"{PLACE}/tls.key",
        "PIXELL_JWT_ISSUER": "https://issuer.test",
        "PIXELL_JWT_AUDIENCES": "agents",
        "PIXELL_JWKS_FILE": f"{PLACE}/jwks.json",
        "PIXELL_JWT_DEPLOYMENTS_CLAIM": "deployments",
        "PIXELL_RATE_LIMIT": "1/m",
        "PIXELL_CLIENT_CONNECTIONS": "10",
        "PIXELL_ADMIN_TOKEN_FILE": f"{PLACE}/token",
    }
    crt, key = certificate(tmp_path)
    keys = {"keys": [{"kty": "oct", "k": part(SECRET), "kid": "k", "alg": "HS256"}]}
    # Envoy writes only below /run, as in the task definition.
    with (
        project.extra(project.envoy, environment=settings, cap_drop=["ALL"]) as envoy,
        project.extra(project.par, command=AGENT, network_mode=f"container:{envoy.raw.id}") as agent,
    ):
        for name, content in (("tls.crt", crt), ("tls.key", key), ("jwks.json", json.dumps(keys).encode())):
            envoy.put(f"{PLACE}/{name}", content)
        envoy.put(f"{PLACE}/token", b"a-token\n")
        envoy.start()
        envoy.wait_healthy()
        # These files can be read by every user here.
        for name, file in (("PIXELL_TLS_KEY_FILE", "tls.key"), ("PIXELL_ADMIN_TOKEN_FILE", "token")):
            assert f'warning: {name} is "{PLACE}/{file}": every user can read this file' in envoy.logs()
        agent.put("/tmp/ca.pem", crt)
        agent.start()
        routes = {"routes": {"a": PORT}}
        assert route_api.call(agent, "PUT", "/v1/routes", routes, token="a-token").status == 200

        def call(deployment_id: str, bearer: str) -> list[Any]:
            return list(json.loads(agent.run("python3", "-c", CALL, bearer, deployment_id)))

        both, one = token(sub="bob", deployments=["a", "nobody"]), token(deployments=["a"])
        wait_until("the keys are there", lambda: call("nobody", both) == [404, "unknown_deployment"])
        assert call("a", one) == [200, None]
        assert call("a", one) == [429, "rate_limited"]
        assert call("b", one) == [403, "not_allowed"]  # whether there is one or not
        assert call("a", "") == call("a", one[:-2]) == [401, "unauthenticated"]
        assert call("a", both) == [200, None]
        agent.raw.kill()


def test_a_key_that_does_not_fit_ends_the_start(project: Project, tmp_path: Path) -> None:
    settings = {"PIXELL_TLS_CERT_FILE": f"{PLACE}/tls.crt", "PIXELL_TLS_KEY_FILE": f"{PLACE}/tls.key"}
    (tmp_path / "other").mkdir()
    with project.extra(project.envoy, environment=settings) as envoy:
        assert ended(envoy) == (
            f'pixell-envoy: PIXELL_TLS_CERT_FILE is "{PLACE}/tls.crt": expected a file in PEM, but it cannot be read: '
            "No such file or directory (os error 2)"
        )
    with project.extra(project.envoy, environment=settings) as envoy:
        envoy.put(f"{PLACE}/tls.crt", certificate(tmp_path)[0])
        envoy.put(f"{PLACE}/tls.key", certificate(tmp_path / "other")[1])
        assert ended(envoy) == (
            f'pixell-envoy: PIXELL_TLS_CERT_FILE is "{PLACE}/tls.crt", PIXELL_TLS_KEY_FILE is "{PLACE}/tls.key": '
            "the key does not belong to the first certificate"
        )


def ended(envoy: Container) -> str:
    """The last line of a container whose settings are wrong."""
    envoy.start()
    assert envoy.wait_ended() == 78
    return envoy.logs().splitlines()[-1]
