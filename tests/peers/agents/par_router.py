"""Responds to every call as PAR's own router responds to an id that it does not know."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc


class Unknown(grpc.GenericRpcHandler):
    def service(self, handler_call_details: Any) -> Any:
        metadata = dict(handler_call_details.invocation_metadata)

        def reject(request: bytes, context: grpc.ServicerContext) -> bytes:
            if "x-deployment-id" not in metadata:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Missing x-deployment-id header")
            context.abort(grpc.StatusCode.NOT_FOUND, f"Deployment {metadata['x-deployment-id']} not found or not ready")

        return grpc.unary_unary_rpc_method_handler(reject)


def serve(port: int) -> None:
    # As PAR's: a second one fails to bind.
    server = grpc.server(ThreadPoolExecutor(8), handlers=[Unknown()], options=[("grpc.so_reuseport", 0)])
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print(bound, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    serve(int(sys.argv[2]))
