"""A gRPC router in Python that opens a channel for each call, as the Pixell Agent Runtime does today.

Its argument is a JSON object of deployment ids and ports. It prints the port that it listens on. It forwards messages
as bytes, so it does less work than a router that parses them.
"""

import asyncio
import json
import sys

import grpc


class Router(grpc.GenericRpcHandler):
    def __init__(self, routes):
        self.routes = routes

    def service(self, details):
        async def forward(request, context):
            metadata = dict(context.invocation_metadata())
            deployment_id = metadata.get("x-deployment-id")
            if not deployment_id:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Missing x-deployment-id header")
            port = self.routes.get(deployment_id)
            if port is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, f"Deployment {deployment_id} not found or not ready")
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                return await channel.unary_unary(details.method)(request)

        return grpc.unary_unary_rpc_method_handler(forward)


async def main():
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Router(json.loads(sys.argv[1]))])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


asyncio.run(main())
