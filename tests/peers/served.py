"""An Envoy with the image's settings, as `cargo xtask envoy` starts it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from envoy_process import ROOT, TARGET

# Envoy compiles the modules for every worker, on what may be a busy machine.
START_SECONDS = 60.0
PATIENCE = 20.0


@cache
def program(name: str) -> Path:
    """The program behind `cargo xtask envoy`, or another one of that name."""
    build = ["cargo", "build", "--quiet", "--workspace", "--bin", name]
    subprocess.run(build, cwd=ROOT, check=True)
    return TARGET / "debug" / name


def command(form: str, *arguments: str) -> list[str]:
    ports = ["--listen-port", "0", "--admin-port", "0"]
    return [str(program("envoy")), *ports, "--filter", form, "--verbose", *arguments]


def environment(settings: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PIXELL_")} | settings


class Served:
    """A running Envoy with these settings and arguments. Its access log and its own log are read as they come."""

    def __init__(self, form: str, settings: dict[str, str], *arguments: str) -> None:
        self.form = form
        self.said: list[str] = []
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            command(form, *arguments),
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=pair)
            for pair in ((self._process.stdout, self._lines), (self._process.stderr, self.said))
        ]
        for reader in self._readers:
            reader.start()
        try:
            self.url = self._told(r"agents are called at +(\S+)")
            self.api = self._told(r"the route API +(\S+)/v1/")
        except AssertionError:
            self.stop()
            raise
        self.authority = self.url.split("://")[1]
        self.port = int(self.authority.rpartition(":")[2])

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def log(self) -> list[dict[str, Any]]:
        """The lines of the access log so far."""
        found = []
        for line in list(self._lines):
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    def logged(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first line of the access log for which `wanted` is true, once it is there."""
        found = until(lambda: [line for line in self.log() if wanted(line)], "a line of the log")
        first: dict[str, Any] = found[0]
        return first

    def own_log(self, part: str) -> str:
        """The first line of Envoy's own log that holds `part`, once it is there."""
        found: list[str] = until(lambda: [line for line in list(self.said) if part in line], f"{part!r} in Envoy's log")
        return found[0]

    def stats(self, pattern: str) -> dict[str, int]:
        """The counters and gauges whose whole names `pattern` matches; none is an error."""
        with urllib.request.urlopen(f"{self.api}/stats", timeout=PATIENCE) as response:
            lines = (line.rpartition(": ") for line in response.read().decode().splitlines())
        found = {name: int(value) for name, _, value in lines if value.isdecimal() and re.fullmatch(pattern, name)}
        assert found, f"Envoy has no stat {pattern}"
        return found

    def stat(self, name: str) -> int:
        return self.stats(re.escape(name))[name]

    def missing_metrics(self, *names: str) -> list[str]:
        """Those of these metrics that Prometheus does not get."""
        with urllib.request.urlopen(f"{self.api}/stats/prometheus", timeout=PATIENCE) as response:
            text = response.read().decode()
        return [name for name in names if f"\n{name}{{" not in text]

    def _told(self, pattern: str) -> str:
        def look() -> str | None:
            assert self._process.poll() is None, "\n".join(self.said)
            return next((found[1] for line in list(self.said) if (found := re.match(pattern, line))), None)

        told: str = until(look, pattern, START_SECONDS)
        return told

    @staticmethod
    def _read(pipe: Any, lines: list[str]) -> None:
        for line in pipe:
            lines.append(line.rstrip("\n"))


def until(look: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """What `look` returns, once that is not empty."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"no {what} after {seconds} s")


def metrics_of(introduction: str) -> list[str]:
    """The names of metrics in the list of docs/operations.md that follows these words."""
    text = (ROOT / "docs/operations.md").read_text().split(introduction, 1)[1].split("\n\n", 2)[1]
    return re.findall(r"`(envoy_\w+)`", text)
