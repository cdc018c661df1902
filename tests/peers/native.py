"""An Envoy with the native filter, as `cargo xtask envoy --filter native` runs it."""

from __future__ import annotations

import re
import subprocess
import threading
import urllib.request
from typing import IO, Optional

from envoy_process import ROOT, EnvoyProcess

from served import program


class NativeEnvoy(EnvoyProcess):
    """Runs on free ports, with the shipped configuration."""

    def __init__(self) -> None:
        super().__init__()
        self._said: list[str] = []
        self._reader: Optional[threading.Thread] = None

    @property
    def log(self) -> str:
        return "".join(self._said)

    def start(self) -> None:
        options = ["--filter", "native", "--listen-port", "0", "--admin-port", "0", "--verbose"]
        command = [str(program("envoy")), *options]
        nowhere = subprocess.DEVNULL
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=nowhere, stdout=nowhere, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line.decode(errors="replace"))
            for name, words in (("agents", "agents are called at"), ("admin", "the route API")):
                if found := re.match(rf"{words}\s+http://127\.0\.0\.1:(\d+)", self._said[-1]):
                    self._ports[name] = int(found[1])
            if all(self._ports.values()):
                break
        else:
            raise AssertionError(f"Envoy with the native filter did not start:\n{self.log}")
        self._reader = threading.Thread(target=self._read, args=[self._process.stderr])
        self._reader.start()

    def remove(self) -> None:
        """Ends the program, which ends Envoy."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=60)
        if self._reader is not None:
            self._reader.join()
        super().remove()

    def _read(self, output: IO[bytes]) -> None:
        """The rest of Envoy's log, which must not fill the pipe."""
        with output:
            self._said.extend(line.decode(errors="replace") for line in output)

    def _admin(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=10) as response:
            return str(response.read().decode())
