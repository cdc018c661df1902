"""The messages and services of crates/harness/proto, made at run time: nothing generated has to be kept up to date."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "crates/harness/proto"))

agent: Any
agent_services: Any
streams: Any
streams_services: Any
agent, agent_services = grpc.protos_and_services("agent.proto")
streams, streams_services = grpc.protos_and_services("streams.proto")

# As PAR's agents have it, and a little for what surrounds a message.
MESSAGE_LIMIT = (100 << 20) + 1024
SIZES = [("grpc.max_receive_message_length", MESSAGE_LIMIT), ("grpc.max_send_message_length", MESSAGE_LIMIT)]
