"""An agent of the A2A SDK over gRPC."""

from __future__ import annotations

import asyncio
import sys

import grpc
from a2a.server.request_handlers import GrpcHandler
from a2a.types import a2a_pb2_grpc

from agents.a2a_executor import card, handler


async def serve(name: str, port: int, authority: str) -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    servicer = GrpcHandler(handler(card(name, authority)))
    a2a_pb2_grpc.add_A2AServiceServicer_to_server(servicer, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(bound, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
