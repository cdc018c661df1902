"""Serves an ASGI application with uvicorn on a port of 127.0.0.1, and prints the port."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn


def listen(port: int) -> socket.socket:
    """A socket on this port; 0 stands for a free one."""
    return socket.create_server(("127.0.0.1", port))


def serve(application: Any, listener: socket.socket) -> None:
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(application, log_level="warning")).run(sockets=[listener])
