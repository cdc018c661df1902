"""An agent that speaks `pixell.agent.AgentService`. Usage: grpc_agent DEPLOYMENT_ID PORT"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from typing import Any

import grpc

import agents.agent_pb2 as agent_pb2
import agents.agent_pb2_grpc as agent_pb2_grpc


class AgentService(agent_pb2_grpc.AgentServiceServicer):
    def __init__(self, deployment_id: str, port: int) -> None:
        self._deployment_id = deployment_id
        self._port = port

    async def Health(self, request: Any, context: Any) -> Any:
        return agent_pb2.HealthStatus(ok=True, message=self._deployment_id, timestamp=int(time.time()))

    async def DescribeCapabilities(self, request: Any, context: Any) -> Any:
        """Also returns the headers that arrived, so that a client sees what Envoy sends to the agent."""
        received = {name: value for name, value in context.invocation_metadata() if isinstance(value, str)}
        metadata = {"deployment_id": self._deployment_id, "port": str(self._port), "received": json.dumps(received)}
        return agent_pb2.Capabilities(methods=["echo", "sleep", "fail"], metadata=metadata)

    async def Invoke(self, request: Any, context: Any) -> Any:
        started = time.monotonic()
        parameters = dict(request.parameters)
        if request.action == "echo":
            result = json.dumps({"deployment_id": self._deployment_id, **parameters})
        elif request.action == "sleep":
            await asyncio.sleep(float(parameters["seconds"]))
            result = json.dumps({"deployment_id": self._deployment_id})
        elif request.action == "fail":
            await context.abort(grpc.StatusCode[parameters["code"]], parameters["message"])
        else:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"no action {request.action!r}")
        duration = int((time.monotonic() - started) * 1000)
        return agent_pb2.ActionResult(success=True, result=result, request_id=request.request_id, duration_ms=duration)

    async def Ping(self, request: Any, context: Any) -> Any:
        return agent_pb2.Pong(message="pong", timestamp=int(time.time()))


async def serve(deployment_id: str, port: int) -> None:
    # Without the first option two agents could share a port, and each would get half of the calls.
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 100 << 20)])
    service = AgentService(deployment_id, port)
    agent_pb2_grpc.add_AgentServiceServicer_to_server(service, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await server.stop(grace=1)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
