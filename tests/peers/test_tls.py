"""TLS on the data path: a private CA, protocols and ciphers, certificates that change, and errors at the start."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from envoy_process import ROOT

from agents.protos import agent, agent_services
from conftest import push
from named import named
from peer import Peer
from pki import Authority
from programs import run
from served import Served, command, environment, metrics_of, until

PATIENCE = 20.0
# 15 s for the first bytes, 15 s for the handshake, and what a busy machine adds.
SILENT_SECONDS = 45.0


class Silent(threading.Thread):
    """A client that says only this, and how long Envoy lets it; None if that has not ended."""

    def __init__(self, connection: socket.socket, said: bytes) -> None:
        super().__init__()
        self.lasted: float | None = None
        self._began = time.monotonic()
        self._connection = connection
        connection.settimeout(SILENT_SECONDS)
        connection.sendall(said)
        self.start()

    def run(self) -> None:
        with self._connection, contextlib.suppress(OSError):
            if self._connection.recv(1) == b"":
                self.lasted = time.monotonic() - self._began


class Place:
    """Certificates as a secret store lays them out, an Envoy that uses them, and two agents."""

    def __init__(self, form: str, home: Path, client_ca: Path | None = None) -> None:
        self.home = home
        self.authority = Authority()
        self.ca = self.authority.write(home / "ca.pem")
        for version in ("v1", "v2", "v3"):
            self.authority.issue(home / version, version)
        self.authority.issue(home / "rsa", "rsa", with_rsa=True)
        (home / "current").symlink_to("v1")
        for name in ("tls.crt", "tls.key"):
            (home / name).symlink_to(f"current/{name}")
        settings = {"PIXELL_TLS_CERT_FILE": f"{home}/tls.crt", "PIXELL_TLS_KEY_FILE": f"{home}/tls.key"}
        if client_ca is not None:
            settings["PIXELL_TLS_CLIENT_CA_FILE"] = str(client_ca)
        self.envoy = Served(form, settings)
        self.agents = [Peer("web", "h"), Peer("grpc_agent", "g")]
        for peer in self.agents:
            push(self.envoy, peer.name, peer.port)
        # Clients that never finish their handshake. Their time passes while the other tests run.
        self.silent = [Silent(self.connect(), said) for said in (b"", b"\x16\x03")]

    def remove(self) -> None:
        self.envoy.stop()
        for client in self.silent:
            client.join()
        for peer in self.agents:
            peer.kill()

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.envoy.port), timeout=PATIENCE)

    def handshake(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        return (context or self.context()).wrap_socket(self.connect(), server_hostname="localhost")

    def served(self) -> str:
        """The name in the certificate that a new connection gets."""
        return name_served(self.envoy, self.context())

    def swap(self, version: str) -> None:
        """Has the link lead to another version, in one step."""
        (self.home / "next").symlink_to(version)
        os.replace(self.home / "next", self.home / "current")

    def get(self, path: str = "/health", **arguments: Any) -> httpx.Response:
        with httpx.Client(verify=self.context(), timeout=PATIENCE, **arguments) as client:
            return client.get(f"https://localhost:{self.envoy.port}{path}", headers={"x-deployment-id": "h"})


def name_served(envoy: Served, context: ssl.SSLContext) -> str:
    plain = socket.create_connection(("127.0.0.1", envoy.port), timeout=PATIENCE)
    with context.wrap_socket(plain, server_hostname="localhost") as connection:
        certificate: Any = connection.getpeercert()
        name: str = certificate["subject"][0][0][1]
        return name


@pytest.fixture(scope="module", params=["wasm", "native"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(request.param, tmp_path_factory.mktemp("tls"))
    yield place
    place.remove()


def test_clients_of_a_private_ca_reach_agents(place: Place) -> None:
    port = place.envoy.port
    response = place.get("/about")
    assert response.status_code == 200
    assert response.json()["headers"]["x-forwarded-proto"] == "https"
    for version, expected in (("--http1.1", "1.1"), ("--http2", "2")):
        call = ["curl", "--silent", "--cacert", str(place.ca), version, "--write-out", " %{http_version}"]
        said = run(*call, f"https://localhost:{port}/agents/h/health")
        assert said == f"healthy {expected}"
    credentials = grpc.ssl_channel_credentials(place.ca.read_bytes())
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        stub = agent_services.AgentServiceStub(named(channel, "g"))
        assert stub.Health(agent.Empty(), timeout=PATIENCE).message == "g"
    service = "pixell.agent.AgentService/Health"
    said = run("grpcurl", "-cacert", str(place.ca), "-H", "x-deployment-id: g", f"localhost:{port}", service)
    assert '"message": "g"' in said


def test_protocols_and_ciphers(place: Place) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = place.context()
        context.minimum_version = context.maximum_version = version
        with place.handshake(context) as connection:
            assert connection.version() == version.name.replace("_", ".")
    for offered, chosen in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), (["h2"], "h2"), ([], None)):
        context = place.context()
        if offered:
            context.set_alpn_protocols(offered)
        with place.handshake(context) as connection:
            assert connection.selected_alpn_protocol() == chosen
    # What a scanner tries: old protocols.
    for old in ("-tls1", "-tls1_1"):
        assert "alert protocol version" in s_client(place, old, "-cipher", "ALL:@SECLEVEL=0")
    place.envoy.logged(lambda line: line["log"] == "tls" and "UNSUPPORTED_PROTOCOL" in line["tls_error"])
    # And each cipher of TLS 1.2 by itself. Authenticated encryption with forward secrecy is taken, and nothing else.
    ciphers = ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    assert ciphers_taken(place) == {f"ECDHE-ECDSA-{name}" for name in ciphers}
    place.swap("rsa")
    until(lambda: place.served() == "rsa", "certificate with an RSA key")
    assert ciphers_taken(place) == {f"ECDHE-RSA-{name}" for name in ciphers}
    place.swap("v1")
    until(lambda: place.served() == "v1", "certificate v1")
    place.envoy.logged(lambda line: line["log"] == "tls" and "NO_SHARED_CIPHER" in line["tls_error"])
    described = metrics_of("(authentication.md#tls) there are also:")
    assert len(described) == 5
    assert place.envoy.missing_metrics(*described) == []


def test_certificates_change_under_load_without_an_error(place: Place) -> None:
    over = threading.Event()
    errors: list[str] = []
    calls = [0, 0]

    def connect() -> None:
        while not over.is_set():
            try:
                assert place.get().status_code == 200
                calls[0] += 1
            except Exception as error:
                errors.append(repr(error))

    def keep() -> None:
        credentials = grpc.ssl_channel_credentials(place.ca.read_bytes())
        with grpc.secure_channel(f"localhost:{place.envoy.port}", credentials) as channel:
            stub = agent_services.AgentServiceStub(named(channel, "g"))
            while not over.is_set():
                try:
                    stub.Health(agent.Empty(), timeout=PATIENCE)
                    calls[1] += 1
                except grpc.RpcError as error:
                    errors.append(repr(error))

    def in_use(version: str) -> None:
        until(lambda: place.served() == version, f"certificate {version}")

    def more_calls() -> None:
        before = list(calls)
        until(lambda: all(now > then for now, then in zip(calls, before, strict=True)), "calls")

    clients = [threading.Thread(target=target) for target in (connect, connect, keep)]
    for client in clients:
        client.start()
    try:
        for version in ("v2", "v3", "v1"):
            place.swap(version)
            in_use(version)
            more_calls()
    finally:
        over.set()
        for client in clients:
            client.join()
    assert errors == []


def test_a_broken_pair_keeps_the_one_before(place: Place) -> None:
    failed = "sds.pixell_tls.key_rotation_failed"
    before = place.envoy.stat(failed)
    broken = place.home / "broken"
    shutil.copytree(place.home / "v2", broken, dirs_exist_ok=True)
    shutil.copy(place.home / "v3/tls.key", broken / "tls.key")
    place.swap("broken")
    until(lambda: place.envoy.stat(failed) > before, "counted failure")
    assert "KEY_VALUES_MISMATCH" in place.envoy.own_log("Failed to reload certificates")
    assert place.served() == "v1" and place.get().status_code == 200
    place.swap("v1")


@pytest.mark.parametrize("form", ["wasm", "native"])
@pytest.mark.parametrize("directories", [("own", "own"), ("own", "keys")])
def test_files_that_are_no_links_are_used(directories: tuple[str, str], form: str, tmp_path: Path) -> None:
    authority = Authority()
    for version in ("v1", "v2", "own"):
        authority.issue(tmp_path / version, version)
    ca = authority.write(tmp_path / "ca.pem")
    homes = [tmp_path / name for name in directories]
    homes[1].mkdir(exist_ok=True)
    certificate, key = homes[0] / "tls.crt", homes[1] / "tls.key"
    if homes[0] != homes[1]:
        shutil.move(homes[0] / key.name, key)
    envoy = Served(form, {"PIXELL_TLS_CERT_FILE": str(certificate), "PIXELL_TLS_KEY_FILE": str(key)})
    try:
        in_use = partial(name_served, envoy, ssl.create_default_context(cafile=ca))
        assert in_use() == "own"
        # Files in different directories have to be renamed.
        if homes[0] == homes[1]:
            for path in (certificate, key):
                shutil.copy(tmp_path / "v1" / path.name, path)
            until(lambda: in_use() == "v1", "certificate v1")
        for path in (key, certificate):
            shutil.copy(tmp_path / "v2" / path.name, path.with_name("next"))
            os.replace(path.with_name("next"), path)
        until(lambda: in_use() == "v2", "certificate v2")
    finally:
        envoy.stop()


def test_cleartext_to_the_port_is_told_in_the_log(place: Place) -> None:
    with place.connect() as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        plain.recv(1000)
        caller = f"127.0.0.1:{plain.getsockname()[1]}"
    line = place.envoy.logged(lambda line: line["log"] == "tls" and line["caller"] == caller)
    assert "HTTP_REQUEST" in line["tls_error"]
    with grpc.insecure_channel(f"127.0.0.1:{place.envoy.port}") as channel:
        stub = agent_services.AgentServiceStub(named(channel, "g"))
        with pytest.raises(grpc.RpcError):
            stub.Health(agent.Empty(), timeout=1)
    place.envoy.logged(lambda line: line["log"] == "tls" and "WRONG_VERSION_NUMBER" in line["tls_error"])
    assert place.envoy.stat("listener.agents.ssl.connection_error") >= 2


def test_a_handshake_that_is_never_finished_ends(place: Place) -> None:
    for client in place.silent:
        client.join()
        # It is a limit of time that ends it, and not what it said.
        assert client.lasted is not None and client.lasted > 5


@pytest.mark.parametrize("form", ["wasm", "native"])
def test_tls_to_a_cleartext_port_is_told_in_the_log(form: str) -> None:
    """As the table of docs/authentication.md says."""
    envoy = Served(form, {})
    try:
        with socket.create_connection(("127.0.0.1", envoy.port), timeout=PATIENCE) as plain:
            caller = f"127.0.0.1:{plain.getsockname()[1]}"
            with pytest.raises((ssl.SSLError, OSError)):
                ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")
        line = envoy.logged(lambda line: line["caller"] == caller)
        assert (line["log"], line["response_flags"], line["status"]) == ("access", "DPE", 400)
        assert line.get("path") is None
    finally:
        envoy.stop()
    told = 'a line `"log":"access"` with `"response_flags":"DPE"`, status 400 and no `path`'
    assert told in (ROOT / "docs/authentication.md").read_text()


@pytest.mark.parametrize("has_link", [True, False])
@pytest.mark.parametrize("form", ["wasm", "native"])
def test_clients_need_a_certificate_if_a_ca_is_set(form: str, has_link: bool, tmp_path: Path) -> None:
    clients, next_clients = Authority("clients"), Authority("clients")
    for name, authority in (("ca-1", clients), ("ca-2", next_clients)):
        (tmp_path / name).mkdir()
        authority.write(tmp_path / name / "ca.pem")
    link = tmp_path / "ca"
    link.symlink_to("ca-1")
    place = Place(form, tmp_path, (link if has_link else tmp_path / "ca-1") / "ca.pem")

    def context_of(issuer: Authority, name: str) -> ssl.SSLContext:
        context = place.context()
        context.load_cert_chain(*issuer.issue(tmp_path / name, "client"))
        return context

    try:
        assert welcomes(place, context_of(clients, "client"))
        assert not welcomes(place, context_of(next_clients, "client-of-another"))
        with pytest.raises(httpx.HTTPError):
            place.get()
        for reason in ("CERTIFICATE_VERIFY_FAILED", "PEER_DID_NOT_RETURN_A_CERTIFICATE"):
            place.envoy.logged(partial(failed_by, reason))
        # The link is swapped, or the file is written in place.
        if has_link:
            (tmp_path / "next").symlink_to("ca-2")
            os.replace(tmp_path / "next", link)
        else:
            next_clients.write(tmp_path / "ca-1" / "ca.pem")
        context = context_of(next_clients, "client-next")
        until(lambda: welcomes(place, context), "welcome for clients of the new CA")
    finally:
        place.remove()


def test_files_that_cannot_be_used_end_the_start(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.issue(tmp_path / "one", "one")
    other = authority.issue(tmp_path / "two", "two")[1]
    (tmp_path / "empty").touch()
    unreadable = 'PIXELL_TLS_{} is "{}": expected a file in PEM, but it cannot be read: '
    for files, expected in (
        (
            (certificate, tmp_path / "no"),
            unreadable.format("KEY_FILE", tmp_path / "no") + "No such file or directory (os error 2)",
        ),
        ((tmp_path, key), unreadable.format("CERT_FILE", tmp_path) + "Is a directory (os error 21)"),
        (
            (certificate, tmp_path / "empty"),
            f'PIXELL_TLS_KEY_FILE is "{tmp_path}/empty": expected a file in PEM, but it holds no PEM block',
        ),
        (
            (certificate, other),
            f'PIXELL_TLS_CERT_FILE is "{certificate}", PIXELL_TLS_KEY_FILE is "{other}": '
            "the key does not belong to the first certificate",
        ),
    ):
        settings = {"PIXELL_TLS_CERT_FILE": str(files[0]), "PIXELL_TLS_KEY_FILE": str(files[1])}
        ended = subprocess.run(
            command("wasm"), env=environment(settings), capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 78, ended
        assert ended.stderr.splitlines()[-1] == f"error: {expected}"


def ciphers_taken(place: Place) -> set[str]:
    """The ciphers of TLS 1.2, of all that this client knows, with which a handshake succeeds."""
    taken = set()
    context = place.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    for cipher in context.get_ciphers():
        if cipher["protocol"] == "TLSv1.3":
            continue
        one = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        one.check_hostname, one.verify_mode = False, ssl.CERT_NONE
        one.maximum_version = ssl.TLSVersion.TLSv1_2
        one.set_ciphers(f"{cipher['name']}:@SECLEVEL=0")
        try:
            place.handshake(one).close()
        except (ssl.SSLError, ConnectionError):
            continue
        taken.add(cipher["name"])
    return taken


def welcomes(place: Place, context: ssl.SSLContext) -> bool:
    try:
        with httpx.Client(verify=context, timeout=PATIENCE) as client:
            url = f"https://localhost:{place.envoy.port}/health"
            return client.get(url, headers={"x-deployment-id": "h"}).status_code == 200
    except httpx.HTTPError:
        return False


def failed_by(reason: str, line: dict[str, Any]) -> bool:
    return line["log"] == "tls" and reason in line["tls_error"]


def s_client(place: Place, *arguments: str) -> str:
    call = ["openssl", "s_client", "-connect", f"127.0.0.1:{place.envoy.port}", *arguments]
    done = subprocess.run(call, input="", capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode != 0, done
    return done.stderr
