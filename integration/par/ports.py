"""Finds ports for agents as PAR does: it scans upward from the port after its own."""

from __future__ import annotations

import socket
from collections.abc import Container


def scan(base: int, taken: Container[int] = ()) -> int:
    """The lowest free port from `base` on that is not `taken`."""
    for port in range(base, 65536):
        if port not in taken and is_free(port):
            return port
    raise RuntimeError(f"no port is free from {base} on")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # A server can bind a port whose last connections are still in TIME_WAIT, and so must the probe.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
