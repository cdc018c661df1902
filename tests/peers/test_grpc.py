"""grpcio on both sides, with its own health, reflection and status libraries."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from agents.protos import agent, agent_services, streams, streams_services
from conftest import Start
from named import connection, named

# Nothing here takes long; this only ends what would never end.
PATIENCE = 30.0
MESSAGES = 1_000


@pytest.fixture(scope="module")
def channel(start: Start, authority: str) -> Iterator[grpc.Channel]:
    """A channel to an agent."""
    start("grpc_agent", "g")
    with connection(authority) as plain:
        yield named(plain, "g")


@pytest.fixture(scope="module")
def agent_stub(channel: grpc.Channel) -> Any:
    return agent_services.AgentServiceStub(channel)


@pytest.fixture(scope="module")
def streams_stub(channel: grpc.Channel) -> Any:
    return streams_services.StreamsStub(channel)


def test_health(channel: grpc.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for service in ("", "pixell.agent.AgentService"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE).status == serving
    with pytest.raises(grpc.RpcError) as error:
        stub.Check(health_pb2.HealthCheckRequest(service="none"), timeout=PATIENCE)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    # A watch goes on until the client ends it.
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert next(watch).status == serving
    watch.cancel()


def test_reflection(channel: grpc.Channel) -> None:
    """A client that knows only the header calls the methods that the agent lists."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {"pixell.agent.AgentService", "pixell.test.Streams", "grpc.health.v1.Health"} <= set(database.get_services())
    service = DescriptorPool(database).FindServiceByName("pixell.agent.AgentService")
    method = service.methods_by_name["Health"]
    input_type, output_type = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    call = channel.unary_unary(f"/{service.full_name}/Health", input_type.SerializeToString, output_type.FromString)
    response: Any = call(input_type(), timeout=PATIENCE)
    assert (response.ok, response.message) == (True, "g")


def test_the_four_shapes(streams_stub: Any) -> None:
    def chunks() -> Iterator[Any]:
        return (streams.Chunk(number=number, data=bytes(100)) for number in range(MESSAGES))

    assert streams_stub.Unary(streams.Chunk(number=7), timeout=PATIENCE).number == 7
    assert streams_stub.Upload(chunks(), timeout=PATIENCE).number == MESSAGES
    down = streams_stub.Download(streams.Chunk(number=MESSAGES), timeout=PATIENCE)
    assert [chunk.number for chunk in down] == list(range(MESSAGES))
    # Interleaved: the next one is sent when the response to the last one is here.
    outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()
    chat = streams_stub.Chat(iter(outgoing.get, None), timeout=PATIENCE)
    for chunk in chunks():
        outgoing.put(chunk)
        assert next(chat) == chunk
    outgoing.put(None)
    assert list(chat) == []


def test_a_message_of_100_mb_both_ways(streams_stub: Any) -> None:
    data = bytes(range(250)) * 400_000
    assert len(data) == 100_000_000
    response = streams_stub.Unary(streams.Chunk(number=1, data=data), timeout=PATIENCE * 4)
    assert response.data == data


def test_metadata(streams_stub: Any) -> None:
    sent: list[tuple[str, str | bytes]] = [
        ("x-echo-text", "one, two"),
        ("x-echo-text", "three"),
        ("x-echo-with_underscore", "kept"),
        ("x-echo-raw-bin", bytes(range(256))),
        ("x-echo-empty-bin", b""),
    ]
    call = streams_stub.Unary.future(streams.Chunk(), metadata=sent, timeout=PATIENCE)
    call.result()

    def values(metadata: Any, prefix: str) -> dict[str, list[str | bytes]]:
        found: dict[str, list[str | bytes]] = {}
        for key, value in metadata:
            if key.startswith(prefix):
                found.setdefault(key.removeprefix(prefix), []).append(value)
        return found

    for metadata, prefix in ((call.initial_metadata(), "x-echo-"), (call.trailing_metadata(), "x-trailing-")):
        came = values(metadata, prefix)
        # One name's values may be joined by commas (RFC 9110, 5.3).
        assert ", ".join(map(str, came.pop("text"))).replace(",three", ", three") == "one, two, three"
        assert came == {"with_underscore": ["kept"], "raw-bin": [bytes(range(256))], "empty-bin": [b""]}


def failing(action: str, code: int, message: str) -> Any:
    return agent.ActionRequest(action=action, parameters={"code": str(code), "message": message})


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_rich_errors(agent_stub: Any, code: grpc.StatusCode) -> None:
    message = "50 % ä\n\U0001f980"
    for action in ("fail", "fail-late"):
        with pytest.raises(grpc.RpcError) as raised:
            agent_stub.Invoke(failing(action, code.value[0], message), timeout=PATIENCE)
        error: Any = raised.value
        assert (error.code(), error.details()) == (code, message)
        status = rpc_status.from_call(error)
        assert status is not None
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        assert (info.reason, info.domain, dict(info.metadata)) == ("DISK_FULL", "pixell", {"path": "/ä%"})
        trailing = dict(error.trailing_metadata())
        assert (trailing["x-cause"], trailing["x-raw-bin"]) == ("disk", bytes(range(256)))
        assert "x-pixell-error" not in trailing
        # Trailers-only stays so: no headers are made up in front of the trailers.
        initial = dict(error.initial_metadata())
        assert initial.get("x-begun") == ("yes" if action == "fail-late" else None)
        assert action == "fail-late" or not initial, initial


def hanging(agent_stub: Any, number: int, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the agent knows of call `number`, once it is as it should be."""
    deadline = time.monotonic() + PATIENCE
    while True:
        known = json.loads(agent_stub.DescribeCapabilities(agent.Empty(), timeout=PATIENCE).metadata["hanging"])
        call: dict[str, Any] = known.get(str(number), {})
        if call and until(call):
            return call
        assert time.monotonic() < deadline, known
        time.sleep(0.02)


def test_the_deadline_reaches_the_agent(agent_stub: Any, streams_stub: Any) -> None:
    begun = time.monotonic()
    with pytest.raises(grpc.RpcError) as error:
        streams_stub.Hang(streams.Chunk(number=1), timeout=2)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    # grpcio goes by the wall clock, which may be adjusted meanwhile.
    assert time.monotonic() - begun > 1.9
    call = hanging(agent_stub, 1, lambda call: call["cancelled"])
    # gRPC rounds up what it sends.
    assert 0 < call["seconds_left"] <= 2.1


def test_a_cancellation_reaches_the_agent(agent_stub: Any, streams_stub: Any) -> None:
    call = streams_stub.Hang.future(streams.Chunk(number=2))
    hanging(agent_stub, 2, lambda call: not call["cancelled"])
    call.cancel()
    hanging(agent_stub, 2, lambda call: call["cancelled"])


def test_a_rejection(authority: str, channel: grpc.Channel) -> None:
    with connection(authority) as plain:
        for stub, code, message, error_code in [
            (
                agent_services.AgentServiceStub(plain),
                "INVALID_ARGUMENT",
                "Missing x-deployment-id header",
                "missing_deployment_id",
            ),
            (
                agent_services.AgentServiceStub(named(plain, "nobody")),
                "NOT_FOUND",
                "Deployment nobody not found or not ready",
                "unknown_deployment",
            ),
        ]:
            with pytest.raises(grpc.RpcError) as error:
                stub.Health(agent.Empty(), timeout=PATIENCE)
            assert (error.value.code(), error.value.details()) == (grpc.StatusCode[code], message)
            trailing: Any = error.value.trailing_metadata()
            assert dict(trailing)["x-pixell-error"] == error_code
