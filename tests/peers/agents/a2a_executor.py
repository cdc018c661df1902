"""What the A2A agents do, and their card, the same over every binding."""

from __future__ import annotations

import asyncio

from a2a.helpers import new_task_from_user_message, new_text_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from a2a.utils.errors import UnsupportedOperationError


class Executor(AgentExecutor):
    """`steps <n>` sends n artifacts, each after the client has said `next`; anything else is given back."""

    def __init__(self) -> None:
        self._next = asyncio.Semaphore(0)

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        words = context.get_user_input()
        if words.startswith("steps "):
            await self._steps(int(words.removeprefix("steps ")), context, event_queue)
            return
        if words == "next":
            self._next.release()
        await event_queue.enqueue_event(new_text_message(words, context_id=context.context_id))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise UnsupportedOperationError

    async def _steps(self, count: int, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        for number in range(count):
            await self._next.acquire()
            await updater.add_artifact([new_text_part(f"step {number}")], name=str(number))
        await updater.complete()


def card(name: str, authority: str) -> AgentCard:
    """The card of the agent `name`, whose clients reach it at `authority`."""
    urls = {"JSONRPC": f"http://{authority}/rpc", "HTTP+JSON": f"http://{authority}/rest", "GRPC": authority}
    return AgentCard(
        name=name,
        description="Says what it hears",
        version="1.0.0",
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding=binding, protocol_version="1.0") for binding, url in urls.items()
        ],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="echo", name="Echo", description="Gives back what it is told", tags=["test"])],
    )


def handler(agent_card: AgentCard) -> DefaultRequestHandler:
    return DefaultRequestHandler(Executor(), InMemoryTaskStore(), agent_card)
