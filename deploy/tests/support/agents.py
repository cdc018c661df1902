"""Real agents, as PAR starts them: Python gRPC servers of pixell.agent.AgentService, each on a port of 127.0.0.1."""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_tools import protoc

from .names import ROOT

PROTO = ROOT / "harness/proto"


def generated() -> tuple[Any, Any]:
    """The messages and the service of harness/proto/agent.proto, generated anew."""
    if "agent_pb2" not in sys.modules:
        directory = tempfile.mkdtemp(prefix="pixell-agent-proto-")
        status = protoc.main(
            ["protoc", f"-I{PROTO}", f"--python_out={directory}", f"--grpc_python_out={directory}", "agent.proto"]
        )
        assert status == 0, f"protoc does not compile {PROTO}/agent.proto"
        sys.path.append(directory)
    return importlib.import_module("agent_pb2"), importlib.import_module("agent_pb2_grpc")


class Agent:
    """One agent; `methods` is what it says it can do."""

    def __init__(self, message: str, methods: tuple[str, ...] = ()) -> None:
        messages, service = generated()

        class Answers(service.AgentServiceServicer):  # type: ignore[misc, name-defined]
            def Health(self, request: Any, context: Any) -> Any:
                # A clock that never stands still, as agents have.
                return messages.HealthStatus(ok=True, message=message, timestamp=time.time_ns())

            def DescribeCapabilities(self, request: Any, context: Any) -> Any:
                return messages.Capabilities(methods=methods)

        self.server = grpc.server(ThreadPoolExecutor(max_workers=4))
        service.add_AgentServiceServicer_to_server(Answers(), self.server)
        self.port: int = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def stop(self) -> None:
        self.server.stop(grace=None).wait()
