"""An agent of grpcio: the agents' own service, the four shapes of a call, health and reflection."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from agents.protos import SIZES, agent, agent_services, streams, streams_services


class Hanging:
    """The calls that never get a response: the deadline of each, and whether its client has given up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[int, dict[str, Any]] = {}

    def wait(self, number: int, context: grpc.ServicerContext) -> NoReturn:
        over = threading.Event()
        call = {"seconds_left": context.time_remaining(), "cancelled": False}
        with self._lock:
            self._calls[number] = call
        if context.add_callback(over.set):
            over.wait()
        with self._lock:
            call["cancelled"] = True
        context.abort(grpc.StatusCode.CANCELLED, "nobody waits")

    def seen(self) -> str:
        with self._lock:
            return json.dumps(self._calls)


class AgentService(agent_services.AgentServiceServicer):  # type: ignore[misc]
    def __init__(self, name: str, hanging: Hanging) -> None:
        self._name = name
        self._hanging = hanging

    def Health(self, request: Any, context: grpc.ServicerContext) -> Any:
        return agent.HealthStatus(ok=True, message=self._name, timestamp=int(time.time()))

    def DescribeCapabilities(self, request: Any, context: grpc.ServicerContext) -> Any:
        received = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        metadata = {"received": json.dumps(received), "hanging": self._hanging.seen()}
        return agent.Capabilities(methods=["fail", "fail-late"], metadata=metadata)

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.action == "fail-late":
            # The response has begun, so the status follows in trailers.
            context.send_initial_metadata((("x-begun", "yes"),))
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason="DISK_FULL", domain="pixell", metadata={"path": "/ä%"}))
        code, message = int(request.parameters["code"]), request.parameters["message"]
        status = rpc_status.to_status(status_pb2.Status(code=code, message=message, details=[detail]))
        more = (("x-cause", "disk"), ("x-raw-bin", bytes(range(256))))
        context.set_trailing_metadata((*status.trailing_metadata, *more))
        context.abort(status.code, status.details)


class Streams(streams_services.StreamsServicer):  # type: ignore[misc]
    def __init__(self, hanging: Hanging) -> None:
        self._hanging = hanging

    def Unary(self, request: Any, context: grpc.ServicerContext) -> Any:
        echoed = tuple((key, value) for key, value in context.invocation_metadata() if key.startswith("x-echo-"))
        context.send_initial_metadata(echoed)
        context.set_trailing_metadata(tuple((key.replace("x-echo-", "x-trailing-"), value) for key, value in echoed))
        return request

    def Upload(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Any:
        last = streams.Chunk()
        for number, chunk in enumerate(request_iterator, start=1):
            last = streams.Chunk(number=number, data=chunk.data)
        return last

    def Download(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for number in range(request.number):
            yield streams.Chunk(number=number, data=request.data)

    def Chat(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        yield from request_iterator

    def Hang(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        self._hanging.wait(request.number, context)


def serve(name: str, port: int) -> None:
    # Without the option two agents could share a port, and each would get half of the calls.
    server = grpc.server(ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0), *SIZES])
    hanging = Hanging()
    agent_services.add_AgentServiceServicer_to_server(AgentService(name, hanging), server)
    streams_services.add_StreamsServicer_to_server(Streams(hanging), server)
    states = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(states, server)
    services = [
        module.DESCRIPTOR.services_by_name[service].full_name
        for module, service in ((agent, "AgentService"), (streams, "Streams"))
    ]
    for service in ("", *services):
        states.set(service, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection([*services, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print(bound, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
