"""A server of keys that can be slow or fail, over HTTP or HTTPS."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

# Seconds that a response or a handshake may take.
PATIENCE = 20.0


class KeyServer(http.server.ThreadingHTTPServer):
    """Serves `body` at every path. With `certify` each further connection is TLS with that certificate."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.body = b""
        self.status = 200
        self.requests = 0
        self.connections = 0
        # Handshakes with this certificate that a client ended.
        self.refused = 0
        # What the clients of TLS called this server.
        self.called: set[str | None] = set()
        self.wait = threading.Event()
        self.wait.set()
        self._context: ssl.SSLContext | None = None
        super().__init__(("127.0.0.1", port), KeyHandler)
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def certify(self, certificate: Path, key: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.sni_callback = lambda _connection, name, _context: self.called.add(name)
        self._context, self.refused = context, 0

    def get_request(self) -> tuple[socket.socket, Any]:
        """A handshake that fails is an `OSError`, which the base class passes over."""
        connection, address = super().get_request()
        self.connections += 1
        if (context := self._context) is not None:
            connection.settimeout(PATIENCE)
            try:
                connection = context.wrap_socket(connection, server_side=True)
            except OSError:
                self.refused += context is self._context
                raise
        return connection, address

    def end(self) -> None:
        self.wait.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


class KeyHandler(http.server.BaseHTTPRequestHandler):
    # It keeps connections, as far as its clients do.
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, KeyServer)
        server.requests += 1
        server.wait.wait(PATIENCE)
        self.send_response(server.status)
        self.send_header("content-length", str(len(server.body)))
        # Envoy may have given up.
        with contextlib.suppress(ConnectionError):
            self.end_headers()
            self.wfile.write(server.body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass
