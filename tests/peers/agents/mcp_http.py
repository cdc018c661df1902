"""An agent of the MCP SDK over streamable HTTP, with its default settings or with the hosts that it serves."""

from __future__ import annotations

import sys

from mcp.server.fastmcp import FastMCP
from mcp.server.transport_security import TransportSecuritySettings

from agents.uvicorn_server import listen, serve


def main(name: str, port: int, hosts: list[str]) -> None:
    server = FastMCP(name, transport_security=TransportSecuritySettings(allowed_hosts=hosts) if hosts else None)

    @server.tool()
    def add(one: int, other: int) -> int:
        """The sum."""
        return one + other

    serve(server.streamable_http_app(), listen(port))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
