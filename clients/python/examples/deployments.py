"""When PAR calls EnvoyManager: in this order no request reaches the wrong agent, even if an agent or PAR dies."""

from collections.abc import Awaitable
from typing import Callable, Protocol

from pixell_envoy import EnvoyManager


class Agent(Protocol):
    async def stop(self) -> None: ...


class Deployments:
    def __init__(
        self,
        envoy: EnvoyManager,
        allocate_port: Callable[[], int],
        start_agent: Callable[[str, int], Awaitable[Agent]],  # returns when the agent is healthy
    ) -> None:
        self.envoy = envoy
        self.allocate_port = allocate_port
        self.start_agent = start_agent
        self.agents: dict[str, Agent] = {}

    async def boot(self) -> None:
        # A PAR that starts knows no agents, so no route of an earlier PAR may stay.
        await self.envoy.replace_agents({})

    async def deploy(self, deployment_id: str) -> None:
        port = self.allocate_port()
        # Before the process starts: an agent that died may have had the port, and its clients must not reach this one.
        await self.envoy.register_agent(deployment_id, port)
        try:
            # A redeploy: the id has its new port already, and is not deregistered in between.
            if (old := self.agents.pop(deployment_id, None)) is not None:
                await old.stop()
            self.agents[deployment_id] = await self.start_agent(deployment_id, port)
        except BaseException:
            await self.envoy.deregister_agent(deployment_id)
            raise

    async def remove(self, deployment_id: str) -> None:
        # First, so that no request is sent to an agent that is ending.
        await self.envoy.deregister_agent(deployment_id)
        await self.agents.pop(deployment_id).stop()

    async def ended(self, deployment_id: str) -> None:
        # The agent ended by itself. Its port is free, and the next agent may get it.
        del self.agents[deployment_id]
        await self.envoy.deregister_agent(deployment_id)
