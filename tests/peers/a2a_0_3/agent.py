"""An agent of the A2A SDK 0.3: its card, JSON-RPC and REST over HTTP/1.1 on one port, gRPC on another one.

All that it knows of where it is reached are these ports."""

from __future__ import annotations

import asyncio
import socket
import sys

import grpc
import uvicorn
from a2a.grpc import a2a_pb2_grpc
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.apps import A2ARESTFastAPIApplication, A2AStarletteApplication
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler, GrpcHandler
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Part, TextPart
from a2a.utils import new_agent_text_message, new_task
from starlette.applications import Starlette
from starlette.routing import Mount


class Executor(AgentExecutor):
    """`steps <n>` sends n artifacts; anything else is given back."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        words = context.get_user_input()
        if not words.startswith("steps "):
            await event_queue.enqueue_event(new_agent_text_message(words))
            return
        assert context.message is not None
        task = new_task(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        for number in range(int(words.removeprefix("steps "))):
            await updater.add_artifact([Part(root=TextPart(text=f"step {number}"))], name=str(number))
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


def card_of(name: str, port: int, grpc_port: int) -> AgentCard:
    return AgentCard(
        name=name,
        description="Says what it hears",
        version="1.0.0",
        url=f"http://localhost:{port}/rpc",
        preferred_transport="JSONRPC",
        additional_interfaces=[
            AgentInterface(url=f"http://0.0.0.0:{port}/rest", transport="HTTP+JSON"),
            AgentInterface(url=f"localhost:{grpc_port}", transport="GRPC"),
        ],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="echo", name="Echo", description="Gives back what it is told", tags=["test"])],
    )


async def serve(name: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    over_grpc = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    grpc_port = over_grpc.add_insecure_port("127.0.0.1:0")
    port = listener.getsockname()[1]
    card = card_of(name, port, grpc_port)
    handler = DefaultRequestHandler(Executor(), InMemoryTaskStore())
    a2a_pb2_grpc.add_A2AServiceServicer_to_server(GrpcHandler(card, handler), over_grpc)
    await over_grpc.start()
    rest = A2ARESTFastAPIApplication(card, handler).build()
    routes = [*A2AStarletteApplication(card, handler).routes(rpc_url="/rpc"), Mount("/rest", app=rest)]
    print(port, grpc_port, flush=True)
    await uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="warning")).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
