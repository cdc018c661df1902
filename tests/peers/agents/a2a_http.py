"""An agent of the A2A SDK over HTTP/1.1: its card, JSON-RPC and REST, with server-sent events. Served by uvicorn.
With `own` in place of an authority, its card names its own address."""

from __future__ import annotations

import sys

from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from starlette.applications import Starlette

from agents.a2a_executor import card, handler
from agents.uvicorn_server import listen, serve


def main(name: str, port: int, authority: str) -> None:
    listener = listen(port)
    agent_card = card(name, f"localhost:{listener.getsockname()[1]}" if authority == "own" else authority)
    requests = handler(agent_card)
    routes = [
        *create_agent_card_routes(agent_card),
        *create_jsonrpc_routes(requests, "/rpc"),
        *create_rest_routes(requests, path_prefix="/rest"),
    ]
    serve(Starlette(routes=routes), listener)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
