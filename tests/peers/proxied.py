"""A connection as a load balancer makes it that tells its clients' addresses."""

from __future__ import annotations

import socket
import struct

PATIENCE = 20.0


def connect(port: int, client: str) -> socket.socket:
    """A connection to this local port for a client of this address."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    addresses = socket.inet_aton(client) + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 4711, 50051)
    # haproxy.org, "The PROXY protocol", 2.2: version 2, TCP over IPv4.
    connection.sendall(b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", len(addresses)) + addresses)
    return connection
