"""Everything that keeps clients apart, at once, behind a load balancer that sends PROXY protocol."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path

import pytest

from conftest import push
from peer import Peer
from pki import Authority
from proxied import connect
from served import Served, until
from tokens import AUDIENCE, ISSUER, Issuer

ORIGIN = "https://app.test"


class Client:
    """A client behind a load balancer that tells its address, with a certificate of its own."""

    def __init__(self, envoy: Served, context: ssl.SSLContext, address: str) -> None:
        plain = connect(envoy.port, address)
        self.http = http.client.HTTPConnection("localhost")
        try:
            self.http.sock = context.wrap_socket(plain, server_hostname="localhost")
        except (OSError, ssl.SSLError):
            plain.close()
            raise

    def ask(self, method: str, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
        """Status, `x-pixell-error` and all headers of a response."""
        all_headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.http.request(method, path, headers=all_headers)
        response = self.http.getresponse()
        response.read()
        found = {name.lower(): value for name, value in response.getheaders()}
        return response.status, found.get("x-pixell-error", ""), found

    def close(self) -> None:
        self.http.close()


@pytest.mark.parametrize("form", ["wasm", "native"])
def test_all_settings_at_once(form: str, tmp_path: Path) -> None:
    servers, clients, issuer = Authority("servers"), Authority("clients"), Issuer()
    certificate, key = servers.issue(tmp_path / "server", "server")
    settings = {
        "PIXELL_TLS_CERT_FILE": str(certificate),
        "PIXELL_TLS_KEY_FILE": str(key),
        "PIXELL_TLS_CLIENT_CA_FILE": str(clients.write(tmp_path / "clients.pem")),
        "PIXELL_JWT_ISSUER": ISSUER,
        "PIXELL_JWT_AUDIENCES": AUDIENCE,
        "PIXELL_JWKS_FILE": str(issuer.write(tmp_path / "jwks.json")),
        "PIXELL_JWT_DEPLOYMENTS_CLAIM": "deployments",
        "PIXELL_RATE_LIMIT": "1/m",
        "PIXELL_CLIENT_CONNECTIONS": "2",
        "PIXELL_PROXY_PROTOCOL": "v2",
        "PIXELL_PROXY_CIDRS": "127.0.0.0/8",
        "PIXELL_CORS_ORIGINS": ORIGIN,
        "PIXELL_EXTERNAL_ORIGINS": "https://agents.example.com",
        "PIXELL_HOST_SUFFIX": ".agents.example.com",
        "PIXELL_MAX_CONNECTION_SECONDS": "600",
        "PIXELL_CALL_TIMEOUT_SECONDS": "60",
        "PIXELL_OTLP_ENDPOINT": "127.0.0.1:9",
    }
    context = ssl.create_default_context(cadata=servers.pem.decode())
    context.load_cert_chain(*clients.issue(tmp_path / "client", "client"))
    envoy, web = Served(form, settings), Peer("web", "h")
    open_ones: list[Client] = []

    def client(address: str, context: ssl.SSLContext = context) -> Client:
        open_ones.append(Client(envoy, context, address))
        return open_ones[-1]

    def bearer(subject: str, *allowed: str) -> str:
        return "Bearer " + issuer.token(sub=subject, deployments=list(allowed))

    try:
        push(envoy, "h", web.port)
        one = client("203.0.113.1")
        probe = bearer("probe", "nobody")
        until(lambda: one.ask("GET", "/", x_deployment_id="nobody", authorization=probe)[0] == 404, "keys")
        status, _, _ = one.ask("GET", "/health", x_deployment_id="h", authorization=bearer("alice", "h"))
        assert status == 200
        # The next thing that is wrong is what the client learns.
        limited = one.ask("GET", "/health", x_deployment_id="h", authorization=bearer("alice", "h"), origin=ORIGIN)
        assert limited[:2] == (429, "rate_limited") and limited[2]["access-control-allow-origin"] == ORIGIN
        other = one.ask("GET", "/health", host="h.agents.example.com", authorization=bearer("alice", "other"))
        assert other[:2] == (403, "not_allowed")
        stranger = one.ask("GET", "/agents/h/health", origin=ORIGIN)
        assert stranger[:2] == (401, "unauthenticated")
        preflight = {"access_control_request_method": "GET", "access_control_request_headers": "x-deployment-id"}
        status, _, headers = one.ask("OPTIONS", "/health", origin=ORIGIN, **preflight)
        assert status == 200 and headers["access-control-allow-origin"] == ORIGIN
        assert one.ask("GET", "/health", x_deployment_id="h", authorization=bearer("bob", "h"))[0] == 200
        # Two connections of an address, and no third one. Others have their own.
        client("203.0.113.1")
        with pytest.raises((OSError, http.client.HTTPException)):
            client("203.0.113.1").ask("GET", "/health")
        assert client("203.0.113.2").ask("GET", "/health")[0] == 401
        line = envoy.logged(lambda line: line.get("error") == "rate_limited")
        assert line["subject"] == "alice" and line["caller"] == "203.0.113.1:4711"
        # Without a certificate there is no request.
        with pytest.raises((OSError, http.client.HTTPException)):
            client("203.0.113.3", ssl.create_default_context(cadata=servers.pem.decode())).ask("GET", "/")
    finally:
        for each in open_ones:
            each.close()
        envoy.stop()
        web.kill()
