"""An agent is killed while calls to it are in flight: what its clients see, and that no other client sees anything."""

from __future__ import annotations

import queue
from typing import Any, NamedTuple

import grpc
import pytest
from envoy_process import EnvoyProcess

from agents.protos import agent, agent_services, streams, streams_services
from conftest import Start
from named import connection, named

PATIENCE = 30.0
# Enough that both workers have some; the test makes sure.
CONNECTIONS = 16
# Connections that each worker has taken so far.
TAKEN = r"listener\.agents\.worker_\d+\.downstream_cx_total"


class Talk:
    """A stream whose response has begun."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.call = streams_services.StreamsStub(channel).Chat(iter(self._outgoing.get, None))
        self._number = 0
        self.go_on()

    def go_on(self) -> None:
        self._number += 1
        self._outgoing.put(streams.Chunk(number=self._number))
        assert next(self.call).number == self._number

    def end(self) -> None:
        self._outgoing.put(None)


class Client(NamedTuple):
    """One connection with a stream to each of two agents and a call to the first that never gets a response."""

    channel: grpc.Channel
    hanging: Any
    with_mortal: Talk
    with_other: Talk


def call_both(authority: str) -> Client:
    plain = connection(authority)
    mortal, other = named(plain, "mortal"), named(plain, "other")
    hanging = streams_services.StreamsStub(mortal).Hang.future(streams.Chunk(), timeout=PATIENCE)
    return Client(plain, hanging, Talk(mortal), Talk(other))


def test_nobody_else_notices(envoy: EnvoyProcess, authority: str, start: Start) -> None:
    mortal = start("grpc_agent", "mortal")
    start("grpc_agent", "other")
    before = envoy.stats(TAKEN)
    clients = [call_both(authority) for _ in range(CONNECTIONS)]
    assert all(count > before[worker] for worker, count in envoy.stats(TAKEN).items()), "a worker has no client"
    mortal.kill()
    heir = start("grpc_agent", "heir", mortal.port)

    for client in clients:
        # The call had no response yet, so its client gets the rejection as a gRPC status.
        error = client.hanging.exception(timeout=PATIENCE)
        assert (error.code(), error.details()) == (
            grpc.StatusCode.UNAVAILABLE,
            "The agent ended the request before it responded, or its response headers exceed 1 MiB or 1000 fields",
        )
        assert ("x-pixell-error", "agent_closed") in error.trailing_metadata()
        # After the headers nothing but a reset can follow, and gRPC makes INTERNAL of that.
        with pytest.raises(grpc.RpcError) as raised:
            next(client.with_mortal.call)
        assert raised.value.code() == grpc.StatusCode.INTERNAL
        assert "RST_STREAM" in (raised.value.details() or "")

    for client in clients:
        # The other agent's stream on the same connection goes on, and the port serves only its new owner.
        client.with_other.go_on()
        response = agent_services.AgentServiceStub(named(client.channel, "heir")).Health(
            agent.Empty(), timeout=PATIENCE
        )
        assert response.message == heir.name
        with pytest.raises(grpc.RpcError) as raised:
            agent_services.AgentServiceStub(named(client.channel, "mortal")).Health(agent.Empty(), timeout=PATIENCE)
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND
        client.with_mortal.end()
        client.with_other.end()
        client.channel.close()
