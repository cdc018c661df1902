"""All that keeps clients out at once, with the image as it ships, behind a load balancer that speaks PROXY protocol."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from . import route_api
from .engine import Container, Project
from .wait import wait_until

PLACE = "/etc/envoy"
# Of an agent for HTTP, which also serves the issuer's keys; of one for gRPC; and of the load balancer.
WEB, GRPC, BALANCER = 50060, 50062, 50061
# Agents, clients and the load balancer run in one container beside Envoy's, with the image of PAR.
WEB_AGENT = ["python3", "-m", "http.server", str(WEB), "--bind", "127.0.0.1", "--directory", "/srv"]
GRPC_AGENT = ["python3", "-m", "agents.grpc_agent", "g", str(GRPC)]
HAPROXY = f"""
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
listen data
    bind 127.0.0.1:{BALANCER}
    server envoy 127.0.0.1:50051 send-proxy-v2
"""
HTTP_CALL = """
import http.client, json, ssl, sys
port, certificate, token, deployment_id = sys.argv[1:]
context = ssl.create_default_context(cafile="/tmp/ca.pem")
if certificate:
    context.load_cert_chain(f"/tmp/{certificate}.crt", f"/tmp/{certificate}.key")
connection = http.client.HTTPSConnection("localhost", int(port), context=context, timeout=10)
headers = {"x-deployment-id": deployment_id} | ({"authorization": "Bearer " + token} if token else {})
try:
    connection.request("GET", "/", headers=headers)
    response = connection.getresponse()
    print(json.dumps([response.status, response.headers.get("x-pixell-error")]))
except (ssl.SSLError, ConnectionError):
    print(json.dumps(["no response", None]))
"""
GRPC_CALL = """
import json, sys
import grpc
from agents import agent_pb2, agent_pb2_grpc
port, token, deployment_id = sys.argv[1:]
ca, key, certificate = (open("/tmp/" + name, "rb").read() for name in ("ca.pem", "client.key", "client.crt"))
credentials = grpc.ssl_channel_credentials(ca, key, certificate)
metadata = [("x-deployment-id", deployment_id)] + ([("authorization", "Bearer " + token)] if token else [])
with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
    stub = agent_pb2_grpc.AgentServiceStub(channel)
    try:
        print(json.dumps(["OK", stub.Health(agent_pb2.Empty(), metadata=metadata, timeout=10).message]))
    except grpc.RpcError as error:
        trailers = {name: value for name, value in error.trailing_metadata() or ()}
        print(json.dumps([error.code().name, trailers.get("x-pixell-error")]))
"""


def openssl(*arguments: str, given: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=given, check=True, capture_output=True).stdout


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Issuer:
    """An issuer whose tokens are signed as most are, with RS256."""

    def __init__(self, directory: Path) -> None:
        self._key = str(directory / "issuer.key")
        openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self._key)
        modulus = openssl("rsa", "-in", self._key, "-noout", "-modulus").decode().strip().partition("=")[2]
        key = {"kty": "RSA", "n": part(bytes.fromhex(modulus)), "e": "AQAB", "kid": "k", "alg": "RS256", "use": "sig"}
        self.key_set = json.dumps({"keys": [key]}).encode()

    def token(self, **claims: Any) -> str:
        common = {"iss": "https://issuer.test", "aud": "agents", "sub": "alice", "exp": int(time.time()) + 600}
        signed = f"{part({'alg': 'RS256', 'kid': 'k'})}.{part(common | claims)}"
        return f"{signed}.{part(openssl('dgst', '-sha256', '-sign', self._key, given=signed.encode()))}"


def certificate(directory: Path) -> tuple[bytes, bytes]:
    """A certificate for localhost that is its own CA, and its key."""
    directory.mkdir(exist_ok=True)
    made = directory / "tls.crt", directory / "tls.key"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    openssl("req", "-x509", *curve, *name, "-out", str(made[0]), "-keyout", str(made[1]))
    return made[0].read_bytes(), made[1].read_bytes()


@pytest.mark.parametrize(
    ("form", "keys"),
    [
        ("wasm", {"PIXELL_JWKS_FILE": f"{PLACE}/jwks.json"}),
        ("native", {"PIXELL_JWKS_URL": f"http://127.0.0.1:{WEB}/jwks.json"}),
    ],
)
def test_everything_at_once(project: Project, form: str, keys: dict[str, str], tmp_path: Path) -> None:
    settings = {
        "PIXELL_FILTER": form,
        "PIXELL_CONCURRENCY": "2",
        "PIXELL_TLS_CERT_FILE": f"{PLACE}/tls.crt",
        "PIXELL_TLS_KEY_FILE": f"{PLACE}/tls.key",
        "PIXELL_TLS_CLIENT_CA_FILE": f"{PLACE}/clients.pem",
        "PIXELL_PROXY_PROTOCOL": "v2",
        "PIXELL_PROXY_CIDRS": "127.0.0.1/32",
        "PIXELL_JWT_ISSUER": "https://issuer.test",
        "PIXELL_JWT_AUDIENCES": "agents",
        **keys,
        "PIXELL_JWT_DEPLOYMENTS_CLAIM": "deployments",
        "PIXELL_RATE_LIMIT": "1/m",
        "PIXELL_CLIENT_CONNECTIONS": "10",
        "PIXELL_ADMIN_TOKEN_FILE": f"{PLACE}/token",
    }
    issuer = Issuer(tmp_path)
    crt, key = certificate(tmp_path / "server")
    client, stranger = certificate(tmp_path / "client"), certificate(tmp_path / "stranger")
    # Envoy writes only below /run, as in the task definition.
    with (
        project.extra(project.envoy, environment=settings, cap_drop=["ALL"]) as envoy,
        project.extra(project.par, command=WEB_AGENT, network_mode=f"container:{envoy.raw.id}") as beside,
    ):
        files = {"tls.crt": crt, "tls.key": key, "clients.pem": client[0], "token": b"a-token\n"}
        for name, content in (files | {"jwks.json": issuer.key_set}).items():
            envoy.put(f"{PLACE}/{name}", content)
        envoy.start()
        envoy.wait_healthy()
        # These files can be read by every user here.
        for name, file in (("PIXELL_TLS_KEY_FILE", "tls.key"), ("PIXELL_ADMIN_TOKEN_FILE", "token")):
            assert f'warning: {name} is "{PLACE}/{file}": every user can read this file' in envoy.logs()
        beside.put("/srv/jwks.json", issuer.key_set)
        beside.put("/tmp/ca.pem", crt)
        beside.put("/tmp/haproxy.cfg", HAPROXY.encode())
        for name, pair in (("client", client), ("stranger", stranger)):
            beside.put(f"/tmp/{name}.crt", pair[0])
            beside.put(f"/tmp/{name}.key", pair[1])
        beside.start()
        beside.run("haproxy", "-D", "-f", "/tmp/haproxy.cfg")
        beside.raw.exec_run(GRPC_AGENT, detach=True)
        routes = {"routes": {"a": WEB, "g": GRPC}}
        assert route_api.call(beside, "PUT", "/v1/routes", routes, token="a-token").status == 200

        def call(deployment_id: str, bearer: str, pair: str = "client", port: int = BALANCER) -> list[Any]:
            said = beside.run("python3", "-c", HTTP_CALL, str(port), pair, bearer, deployment_id)
            return list(json.loads(said))

        def grpc_call(deployment_id: str, bearer: str) -> list[Any]:
            return list(json.loads(beside.run("python3", "-c", GRPC_CALL, str(BALANCER), bearer, deployment_id)))

        both = issuer.token(sub="bob", deployments=["a", "g", "nobody"])
        one = issuer.token(deployments=["a", "g"])
        wait_until("the keys are there", lambda: call("nobody", both) == [404, "unknown_deployment"])
        assert call("a", one) == [200, None]
        assert call("a", one) == [429, "rate_limited"]
        assert call("b", one) == [403, "not_allowed"]  # whether there is one or not
        assert call("a", "") == call("a", one[:-2]) == [401, "unauthenticated"]
        assert call("a", both) == [200, None]
        # The same for gRPC, with a rate of its own for the other deployment.
        connect = f"import socket; socket.create_connection(('127.0.0.1', {GRPC}))"
        wait_until("the gRPC agent listens", lambda: beside.try_run("python3", "-c", connect)[0] == 0)
        assert grpc_call("g", one) == ["OK", "g"]
        assert grpc_call("g", one) == ["RESOURCE_EXHAUSTED", "rate_limited"]
        assert grpc_call("b", one) == ["PERMISSION_DENIED", "not_allowed"]
        assert grpc_call("g", "") == ["UNAUTHENTICATED", "unauthenticated"]
        # Without a certificate of the clients' CA, or past the load balancer, there is no response at all.
        assert call("a", both, pair="") == call("a", both, pair="stranger") == ["no response", None]
        assert call("a", both, port=50051) == ["no response", None]
        for reason in ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED"):
            wait_until(f"the log says {reason}", partial(logs, envoy, reason))
        beside.raw.kill()


def test_a_key_that_does_not_fit_ends_the_start(project: Project, tmp_path: Path) -> None:
    settings = {"PIXELL_TLS_CERT_FILE": f"{PLACE}/tls.crt", "PIXELL_TLS_KEY_FILE": f"{PLACE}/tls.key"}
    with project.extra(project.envoy, environment=settings) as envoy:
        assert ended(envoy) == (
            f'pixell-envoy: PIXELL_TLS_CERT_FILE is "{PLACE}/tls.crt": expected a file in PEM, but it cannot be read: '
            "No such file or directory (os error 2)"
        )
    with project.extra(project.envoy, environment=settings) as envoy:
        envoy.put(f"{PLACE}/tls.crt", certificate(tmp_path / "one")[0])
        envoy.put(f"{PLACE}/tls.key", certificate(tmp_path / "other")[1])
        assert ended(envoy) == (
            f'pixell-envoy: PIXELL_TLS_CERT_FILE is "{PLACE}/tls.crt", PIXELL_TLS_KEY_FILE is "{PLACE}/tls.key": '
            "the key does not belong to the first certificate"
        )


def logs(envoy: Container, text: str) -> bool:
    return text in envoy.logs()


def ended(envoy: Container) -> str:
    """The last line of a container whose settings are wrong."""
    envoy.start()
    assert envoy.wait_ended() == 78
    return envoy.logs().splitlines()[-1]
