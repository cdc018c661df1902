"""An agent as a process of its own, so that it can be killed as agents are."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# An agent of the A2A SDK imports for some seconds, on what may be a busy machine.
START_SECONDS = 60.0


class Peer:
    """A running agent; `port` is where it listens on 127.0.0.1, `others` where it listens, too."""

    def __init__(self, kind: str, name: str, port: int = 0, *arguments: str, python: str = sys.executable) -> None:
        self.name = name
        module = kind if "." in kind else f"agents.{kind}"
        command = [python, "-m", module, name, str(port), *arguments]
        self._process = subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert self._process.stdout is not None
        # The agent's first line is its ports. Its end, should it fail, is the end of the line, too.
        ports = self._process.stdout.readline().split()
        if not ports or not all(port.isdigit() for port in ports):
            self.kill()
            raise AssertionError(f"the agent {name} ({kind}) did not start; what it says is above")
        self.port, *self.others = map(int, ports)
        self._wait_until_it_listens()

    def terminate(self) -> None:
        """Asks it to end, as PAR does first."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends it as a crash does: when this returns its port is free and its connections are broken."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            except OSError:
                time.sleep(0.02)
        self.kill()
        raise AssertionError(f"the agent {self.name} does not listen on port {self.port}")
