"""An agent that keeps everything that reaches it, and a client that sends headers exactly as they are given."""

from __future__ import annotations

import contextlib
import socket
import threading


class Recorder:
    """Responds with 204 to each request, or with 101 to an upgrade, and ends the connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._heads: list[str] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def taken(self) -> list[str]:
        """The heads of all requests since the last time, or the first bytes of what is no HTTP/1.1."""
        taken = list(self._heads)
        del self._heads[: len(taken)]
        return taken

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, contextlib.suppress(OSError):
                    self._respond(connection)

    def _respond(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        head = b""
        while b"\r\n\r\n" not in head and (more := connection.recv(1 << 16)):
            head += more
        if not head:
            return
        self._heads.append(head.decode("latin-1"))
        if b"\r\nupgrade: websocket\r\n" in head.lower():
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        else:
            connection.sendall(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")


Headers = dict[str, str] | list[tuple[str, str]]


def ask(port: int, method: str, target: str, headers: Headers, body: str = "") -> tuple[int, str]:
    """The status and `x-pixell-error` of the response to a request of HTTP/1.1."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        return ask_on(connection, method, target, headers, body)


def ask_on(connection: socket.socket, method: str, target: str, headers: Headers, body: str = "") -> tuple[int, str]:
    """The same on a connection that is there."""
    fields = list(headers.items()) if isinstance(headers, dict) else headers
    if all(name != "host" for name, _ in fields):
        fields = [*fields, ("host", "h")]
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", body]
    connection.sendall("\r\n".join(lines).encode())
    said = b""
    while b"\r\n\r\n" not in said:
        more = connection.recv(1 << 16)
        assert more, said
        said += more
    status, *rest = said.split(b"\r\n\r\n")[0].decode().split("\r\n")
    errors = [line.partition(": ")[2] for line in rest if line.startswith("x-pixell-error: ")]
    return int(status.split()[1]), "".join(errors)
