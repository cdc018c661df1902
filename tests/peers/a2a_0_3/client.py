"""A client of the A2A SDK 0.3 that is given nothing but an agent's URL and a binding. It writes what it saw as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc
import httpx
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.client.helpers import create_text_message_object
from a2a.types import Message
from a2a.utils import get_message_text
from a2a.utils.artifact import get_artifact_text


def channel(url: str) -> grpc.aio.Channel:
    """gRPC has no path that could name the agent: a header does, for every call."""
    return grpc.aio.insecure_channel(url, interceptors=[Named(), NamedStream()])


def named(details: Any) -> Any:
    return details._replace(metadata=grpc.aio.Metadata(*(details.metadata or ()), ("x-deployment-id", sys.argv[3])))


class Named(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, go_on: Any, details: Any, request: Any) -> Any:
        return await go_on(named(details), request)


class NamedStream(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, go_on: Any, details: Any, request: Any) -> Any:
        return await go_on(named(details), request)


async def tell(client: Client, words: str) -> list[str]:
    """What the agent says: messages and artifacts."""
    said = []
    async for event in client.send_message(create_text_message_object(content=words)):
        if isinstance(event, Message):
            said.append(get_message_text(event))
        elif event[1] is not None and event[1].kind == "artifact-update":
            said.append(get_artifact_text(event[1].artifact))
    return said


async def main(url: str, binding: str) -> None:
    async with httpx.AsyncClient(timeout=30) as http:
        card = await A2ACardResolver(http, url).get_agent_card()
        config = ClientConfig(
            httpx_client=http, grpc_channel_factory=channel, supported_transports=[binding], use_client_preference=True
        )
        client = ClientFactory(config).create(card)
        seen = {
            "card": card.model_dump(mode="json", by_alias=True, exclude_none=True),
            "message": await tell(client, "ä hello"),
            "stream": await tell(client, "steps 5"),
        }
    print(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
