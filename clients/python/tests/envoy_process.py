"""A real Envoy with the shipped configuration, for tests: start, kill, restart on the same ports."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parents[3]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
# Envoy compiles the modules for every worker, on what may be a busy machine.
START_SECONDS = 60.0
# How often it is started at most, if another program takes its port.
STARTS = 5


class PortTaken(AssertionError):
    """Another program has a port that Envoy was about to open."""


class EnvoyProcess:
    """One Envoy. Its log goes to a file; `log` reads it."""

    def __init__(self, token: Optional[str] = None, edits: Sequence[tuple[str, str]] = ()) -> None:
        """`edits` change the shipped configuration: each is a text that occurs once, and its replacement."""
        self._edits = edits
        # pytest's tmp_path is too long: a Unix socket's path may have 103 bytes at most.
        self._directory = Path(tempfile.mkdtemp(prefix="pixell-"))
        self._environment = {} if token is None else {"PIXELL_ADMIN_TOKEN": token}
        self._ports = {"agents": 0, "admin": 0}
        self._process: Optional[subprocess.Popen[bytes]] = None

    @property
    def url(self) -> str:
        """The base URL of the route API, readiness and stats."""
        return f"http://127.0.0.1:{self._ports['admin']}"

    @property
    def agents_port(self) -> int:
        """The port of the data path."""
        return self._ports["agents"]

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    def stats(self, pattern: str) -> dict[str, int]:
        """The counters and gauges whose whole names `pattern` matches. An error if there is none, rather than a 0."""
        lines = (line.rpartition(": ") for line in self._admin("/stats").splitlines())
        # The list also has histograms and texts, which are left out.
        found = {name: int(value) for name, _, value in lines if value.isdecimal() and re.fullmatch(pattern, name)}
        if not found:
            raise AssertionError(f"Envoy has no stat {pattern}")
        return found

    def start(self) -> None:
        """Starts Envoy and waits until it is ready. A restart uses the same ports."""
        may_choose = not any(self._ports.values())
        for attempt in range(STARTS):
            try:
                self._start()
            except PortTaken:
                # Another program got a port between the moment that Envoy chose it and that it listened.
                if not may_choose or attempt == STARTS - 1:
                    raise
                self.kill()
                self._log_file.unlink()
                self._ports = dict.fromkeys(self._ports, 0)
            else:
                return

    def _start(self) -> None:
        config = self._directory / "envoy.yaml"
        config.write_text(
            render(self._ports["agents"], self._ports["admin"], modules(), self._admin_socket, self._edits)
        )
        arguments = ["--config-path", str(config), "--concurrency", "2", "--disable-hot-restart"]
        with self._log_file.open("ab") as log:
            # Without the environment of the developer's shell, which must not decide a test.
            self._process = subprocess.Popen(
                [str(binary()), *arguments], env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wait_until_ready(self._process)
        self._ports = self._bound_ports()

    def kill(self) -> None:
        """Ends Envoy as a crash does: its memory, and with it the route map, is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stops Envoy's process: the system accepts connections, but nothing responds."""
        # The signal takes effect later; the parent learns when the process has stopped.
        os.waitpid(self._signal(signal.SIGSTOP), os.WUNTRACED)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.start()

    def remove(self) -> None:
        """Ends Envoy and removes its files."""
        self.kill()
        shutil.rmtree(self._directory)

    def _signal(self, number: signal.Signals) -> int:
        if self._process is None:
            raise AssertionError("Envoy does not run")
        self._process.send_signal(number)
        return self._process.pid

    @property
    def _admin_socket(self) -> Path:
        return self._directory / "admin.sock"

    @property
    def _log_file(self) -> Path:
        return self._directory / "envoy.log"

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                self._check_ports()
                raise AssertionError(f"Envoy ended at its start ({process.returncode}):\n{self.log}")
            try:
                # Envoy says LIVE a moment before its workers have opened their listeners.
                if self._admin("/stats?filter=workers_started").strip() == "listener_manager.workers_started: 1":
                    self._check_ports()
                    return
            except OSError:
                pass  # Envoy has not opened its admin socket yet.
            time.sleep(0.02)
        raise AssertionError(f"Envoy was not ready after {START_SECONDS} s:\n{self.log}")

    def _check_ports(self) -> None:
        # After the first of these Envoy goes on without the listener.
        if any(error in self.log for error in ("cannot listen() errno=98", "Address already in use")):
            raise PortTaken(self.log)

    def _bound_ports(self) -> dict[str, int]:
        listeners = json.loads(self._admin("/listeners?format=json"))["listener_statuses"]
        addresses = {listener["name"]: listener["local_address"] for listener in listeners}
        # The other listeners have no port.
        return {name: addresses[name]["socket_address"]["port_value"] for name in self._ports}

    def _admin(self, path: str) -> str:
        connection = http.client.HTTPConnection("envoy")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(10)
            connection.sock.connect(str(self._admin_socket))
            connection.request("GET", path)
            response = connection.getresponse()
            if response.status != 200:
                raise AssertionError(f"Envoy's admin interface responds {response.status} to {path}")
            return response.read().decode()
        finally:
            connection.close()


def render(
    agents_port: int, admin_port: int, module_directory: Path, admin_socket: Path, edits: Sequence[tuple[str, str]]
) -> str:
    """The shipped configuration with `edits`, and with ports, addresses and paths replaced."""
    text = (ROOT / "envoy/envoy.yaml").read_text()
    replacements: list[tuple[str, str]] = [
        *edits,
        ("address: 0.0.0.0, port_value: 50051", f"address: 127.0.0.1, port_value: {agents_port}"),
        ("address: 0.0.0.0, port_value: 9901", f"address: 127.0.0.1, port_value: {admin_port}"),
        ("/usr/local/lib/pixell-envoy/router.wasm", f"{module_directory}/router.wasm"),
        ("/usr/local/lib/pixell-envoy/responses.wasm", f"{module_directory}/responses.wasm"),
        ("/usr/local/lib/pixell-envoy/admin.wasm", f"{module_directory}/admin.wasm"),
        ("path: /run/pixell-envoy/admin.sock\n", f"path: {admin_socket}\n"),
        ("path: /run/pixell-envoy/admin.sock }", f"path: {admin_socket} }}"),
        ("path: /etc/envoy/log-rate.yaml", f"path: {ROOT}/envoy/log-rate.yaml"),
        ("path: /run/pixell-envoy/launcher.sock", f"path: {admin_socket.with_name('launcher.sock')}"),
    ]
    for old, new in replacements:
        if text.count(old) != 1:
            raise AssertionError(f"envoy/envoy.yaml holds {old!r} {text.count(old)} times, not once: adapt {__file__}")
        text = text.replace(old, new)
    return text


def modules() -> Path:
    """The directory of router.wasm, responses.wasm and admin.wasm."""
    directory = Path(os.environ.get("PIXELL_MODULES", TARGET / "pixell"))
    for name in ("router.wasm", "responses.wasm", "admin.wasm"):
        if not (directory / name).is_file():
            raise AssertionError(
                f"{directory / name} is missing: run `cargo xtask build`, or run the tests by `cargo xtask test python`"
            )
    return directory


def binary() -> Path:
    """$ENVOY_BIN, else the pinned release as `cargo xtask` unpacked it."""
    if "ENVOY_BIN" in os.environ:
        return Path(os.environ["ENVOY_BIN"])
    pinned = re.search(r'^envoy = "([0-9.]+)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    if pinned is None:
        raise AssertionError("Cargo.toml does not name the Envoy release")
    path = TARGET / "envoy" / pinned[1] / "envoy"
    if not path.is_file():
        raise AssertionError(
            f"{path} is missing: run `cargo xtask test python`, which fetches it, or set ENVOY_BIN to an Envoy"
        )
    return path
