"""A channel whose calls all carry the header: the one change that a gRPC program needs."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc

from agents.protos import SIZES


class Details(NamedTuple):
    """grpcio has no class of its own for changed details of a call."""

    method: str
    timeout: float | None
    metadata: list[tuple[str, str | bytes]]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class Header(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self, deployment_id: str) -> None:
        self._header = ("x-deployment-id", deployment_id)

    # One method for all four shapes: what they do not share is nothing to it.
    def _intercept(self: Any, go_on: Any, details: Any, request: Any) -> Any:
        metadata = [self._header, *(details.metadata or [])]
        wait_for_ready, compression = details.wait_for_ready, details.compression
        named = Details(details.method, details.timeout, metadata, details.credentials, wait_for_ready, compression)
        return go_on(named, request)

    intercept_unary_unary: Any = _intercept
    intercept_unary_stream: Any = _intercept
    intercept_stream_unary: Any = _intercept
    intercept_stream_stream: Any = _intercept


def named(channel: grpc.Channel, deployment_id: str) -> grpc.Channel:
    """`channel`, for the agent `deployment_id`."""
    return grpc.intercept_channel(channel, Header(deployment_id))


def connection(authority: str) -> grpc.Channel:
    """A connection that no other channel of this process shares."""
    return grpc.insecure_channel(authority, options=[*SIZES, ("grpc.use_local_subchannel_pool", 1)])
