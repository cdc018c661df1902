"""Calls agents by their id over many new connections, and says which share of the calls reached the agent."""

import re
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as Envelope

from .say import say

UNKNOWN = "pixell-envoy-verify.no-such-deployment"
CALL_SECONDS = 10.0


def read_token(path: str) -> str:
    """The token in a file. No error shows what is in it, or the path, which may be a token by mistake. gRPC's error shows bytes that it rejects,
    so they are rejected here."""
    try:
        found = Path(path).read_text(errors="replace").strip()
    except OSError as error:
        raise ArgumentTypeError(f"cannot read the file: {error.strerror}") from None
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", found):
        raise ArgumentTypeError("the file must hold a token and nothing else" if found else "the file is empty")
    return found


def call(endpoint: str, tls: bool, deployment_id: str, token: str | None = None) -> tuple[str, str]:
    """One call over a connection of its own: its status (with the code of a rejection), and what the agent said.

    A response without x-pixell-error is the agent's own, even with a status such as UNIMPLEMENTED: only the proxy sends that header."""
    make: Callable[..., Any] = grpc.secure_channel if tls else grpc.insecure_channel
    credentials = (grpc.ssl_channel_credentials(),) if tls else ()
    sent = (("x-deployment-id", deployment_id), *([("authorization", f"Bearer {token}")] if token else []))
    with make(endpoint, *credentials, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        # Field 2 of the agents' HealthStatus is `string message`; in protobuf's own Any, field 2 is bytes.
        health = channel.unary_unary("/pixell.agent.AgentService/Health", response_deserializer=Envelope.FromString)
        try:
            status, text = "OK", health(b"", metadata=sent, timeout=CALL_SECONDS).value.decode(errors="replace")
        except grpc.RpcError as error:
            failed: Any = error  # it has the methods of a call as well
            metadata, name = dict([*(failed.initial_metadata() or ()), *(failed.trailing_metadata() or ())]), failed.code().name
            reason = metadata.get("x-pixell-error", "")
            reached = not reason and name not in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
            status, text = "OK" if reached else f"{name} {reason}".strip(), f"{name}: {failed.details()}"
        # An agent that gets the token may repeat it.
        return status, text.replace(token, "(token)") if token else text


def line(good: bool, subject: str, text: str) -> int:
    say(f"{'ok' if good else 'ERROR':<6} {subject:<20} {text}")
    return not good


def agents(endpoint: str, tls: bool, ids: list[str], connections: int, token: str | None = None) -> int:
    """Says which share of the new connections reached each agent. Returns the number of errors. A token may name its deployments, and then does
    not allow an unknown id either."""
    errors, responses = 0, []
    for deployment_id in ids:
        results = [call(endpoint, tls, deployment_id, token) for _ in range(connections)]
        said = sorted({text for status, text in results if status == "OK"})
        failed = Counter(f"{status} ({text})" for status, text in results if status != "OK")
        reached = connections - failed.total()
        text = "; ".join([*said, *(f"{count} x {failure}" for failure, count in failed.items())])
        share = f"{reached} of {connections} connections reached it ({100 * reached // connections} %): {text}"
        errors += line(not failed, f"agent {deployment_id}", share)
        responses.append(said)
    if len(ids) > 1 and responses[0] and all(said == responses[0] for said in responses):
        line(True, "agents", f"note: all {len(ids)} gave the same response, so they may be the same agent")
    status, text = call(endpoint, tls, UNKNOWN, token)
    rejected = status.startswith(("NOT_FOUND", "PERMISSION_DENIED") if token else "NOT_FOUND")
    return errors + line(rejected, "unknown id", text if rejected else f"was not rejected as unknown: {text}")
