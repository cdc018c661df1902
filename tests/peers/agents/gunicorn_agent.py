"""An agent under gunicorn with its default keep-alive of 2 seconds."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any


def application(
    environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    body = f"{os.getppid()}".encode()
    start_response("200 OK", [("content-length", str(len(body)))])
    return [body]


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
    print(listener.getsockname()[1], flush=True)
    listener.set_inheritable(True)
    # The default worker closes each connection at once; with threads it keeps them.
    options = ["--bind", f"fd://{listener.fileno()}", "--threads", "32", "--log-level", "error"]
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *options, "agents.gunicorn_agent:application"])
