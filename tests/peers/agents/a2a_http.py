"""An agent of the A2A SDK over HTTP/1.1: its card, JSON-RPC and REST, with server-sent events. Served by uvicorn."""

from __future__ import annotations

import socket
import sys

import uvicorn
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from starlette.applications import Starlette

from agents.a2a_executor import card, handler


def serve(name: str, port: int, authority: str) -> None:
    agent_card = card(name, authority)
    requests = handler(agent_card)
    routes = [
        *create_agent_card_routes(agent_card),
        *create_jsonrpc_routes(requests, "/rpc"),
        *create_rest_routes(requests, path_prefix="/rest"),
    ]
    listener = socket.create_server(("127.0.0.1", port))
    print(listener.getsockname()[1], flush=True)
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="warning"))
    server.run(sockets=[listener])


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])
