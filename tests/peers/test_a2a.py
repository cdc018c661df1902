"""The official A2A SDK on both sides, over each of its bindings. Nothing of it is changed but for the header."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import httpx
import pytest
from a2a.client import A2ACardResolver, Client, ClientCallContext, ClientConfig, ClientFactory
from a2a.helpers import get_artifact_text, get_message_text, new_text_message
from a2a.types import AgentCard, GetTaskRequest, Role, SendMessageRequest, TaskState
from a2a.utils.errors import A2AError, TaskNotFoundError

from conftest import Start

BINDINGS = ["JSONRPC", "HTTP+JSON", "GRPC"]
STEPS = 20
# Nothing here takes long; this only ends what would never end.
PATIENCE = 30


@pytest.fixture(scope="module")
def agents(start: Start, authority: str) -> None:
    start("a2a_http", "a2a-http", 0, authority)
    start("a2a_grpc", "a2a-grpc", 0, authority)


async def fetch_card(authority: str, deployment_id: str) -> AgentCard:
    async with httpx.AsyncClient(headers={"x-deployment-id": deployment_id}) as http:
        return await A2ACardResolver(http, f"http://{authority}").get_agent_card()


@asynccontextmanager
async def client_of(binding: str, authority: str, deployment_id: str, streaming: bool = True) -> AsyncIterator[Client]:
    """A client that the SDK makes of the agent's card, with the header on the HTTP connection."""
    card = await fetch_card(authority, "a2a-http")
    async with httpx.AsyncClient(headers={"x-deployment-id": deployment_id}, timeout=PATIENCE) as http:
        config = ClientConfig(
            streaming=streaming,
            httpx_client=http,
            grpc_channel_factory=grpc.aio.insecure_channel,
            supported_protocol_bindings=[binding],
        )
        async with ClientFactory(config).create(card) as client:
            yield client


def deployment(binding: str) -> str:
    return "a2a-grpc" if binding == "GRPC" else "a2a-http"


def context(binding: str, deployment_id: str) -> ClientCallContext | None:
    """The header for gRPC, whose metadata belongs to a call."""
    return ClientCallContext(service_parameters={"x-deployment-id": deployment_id}) if binding == "GRPC" else None


def says(words: str) -> SendMessageRequest:
    return SendMessageRequest(message=new_text_message(words, role=Role.ROLE_USER))


async def test_agent_card(agents: None, authority: str) -> None:
    card = await fetch_card(authority, "a2a-http")
    assert card.name == "a2a-http"
    assert [interface.protocol_binding for interface in card.supported_interfaces] == BINDINGS
    # It is revalidated as its agent says, not as a proxy thinks.
    async with httpx.AsyncClient(headers={"x-deployment-id": "a2a-http"}) as http:
        url = f"http://{authority}/.well-known/agent-card.json"
        etag = (await http.get(url)).headers["etag"]
        assert (await http.get(url, headers={"if-none-match": etag})).status_code == 304


@pytest.mark.parametrize("binding", BINDINGS)
async def test_message(agents: None, authority: str, binding: str) -> None:
    words = "ä\n\U0001f980 " * 50_000
    async with client_of(binding, authority, deployment(binding), streaming=False) as client:
        responses = [
            response
            async for response in client.send_message(says(words), context=context(binding, deployment(binding)))
        ]
    assert [get_message_text(response.message) for response in responses] == [words]


@pytest.mark.parametrize("binding", BINDINGS)
async def test_streaming_message(agents: None, authority: str, binding: str) -> None:
    """The agent sends a step when it is told so, and is told so when the last one is here: nothing may be held back."""
    header = context(binding, deployment(binding))
    async with client_of(binding, authority, deployment(binding)) as client, asyncio.timeout(PATIENCE):

        async def tell() -> None:
            assert [response async for response in client.send_message(says("next"), context=header)]

        steps, states, task_id = [], [], ""
        async for response in client.send_message(says(f"steps {STEPS}"), context=header):
            match response.WhichOneof("payload"):
                case "task":
                    task_id = response.task.id
                case "status_update":
                    states.append(response.status_update.status.state)
                    if states == [TaskState.TASK_STATE_WORKING]:
                        await tell()
                case "artifact_update":
                    steps.append(get_artifact_text(response.artifact_update.artifact))
                    if len(steps) < STEPS:
                        await tell()
        assert steps == [f"step {number}" for number in range(STEPS)]
        assert states == [TaskState.TASK_STATE_WORKING, TaskState.TASK_STATE_COMPLETED]
        task = await client.get_task(GetTaskRequest(id=task_id), context=header)
        assert len(task.artifacts) == STEPS


@pytest.mark.parametrize("binding", BINDINGS)
async def test_an_agents_own_error(agents: None, authority: str, binding: str) -> None:
    """It comes as what the SDK makes of it: in gRPC that takes `grpc-status-details-bin`."""
    async with client_of(binding, authority, deployment(binding)) as client:
        with pytest.raises(TaskNotFoundError):
            await client.get_task(GetTaskRequest(id="none"), context=context(binding, deployment(binding)))


# What the SDK makes of the status (over HTTP+JSON it takes any 404 for a wrong path).
REJECTIONS = {
    "JSONRPC": "404",
    "HTTP+JSON": "Resource not found",
    "GRPC": "NOT_FOUND: Deployment nobody not found or not ready",
}


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_rejection(agents: None, authority: str, binding: str) -> None:
    async with client_of(binding, authority, "nobody", streaming=False) as client:
        with pytest.raises(A2AError, match=REJECTIONS[binding]):
            [response async for response in client.send_message(says("hello"), context=context(binding, "nobody"))]
