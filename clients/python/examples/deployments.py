"""When PAR calls EnvoyManager: in this order no request reaches the wrong agent, even if an agent or PAR dies."""

from collections.abc import Awaitable
from typing import Callable, Protocol

from pixell_envoy import EnvoyManager


class Agent(Protocol):
    port: int

    def is_running(self) -> bool: ...
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
        old = self.agents.pop(deployment_id, None)
        # Before the process starts: an agent that died may have had the port, and its clients must not reach this one.
        if old is None or not old.is_running():
            await self.envoy.register_agent(deployment_id, port)
        else:
            # A redeploy: the id has both ports, and the old agent serves it until the new one is healthy.
            await self.envoy.register_agent(deployment_id, old.port, {"next": port})
        try:
            self.agents[deployment_id] = await self.start_agent(deployment_id, port)
        except BaseException:
            # In a redeploy the old agent still runs, and goes on. If it has ended, its port may be another agent's.
            if old is None or not old.is_running():
                await self.envoy.deregister_agent(deployment_id)
            else:
                self.agents[deployment_id] = old
                await self.envoy.register_agent(deployment_id, old.port)
            raise
        if old is not None:
            await self.envoy.register_agent(deployment_id, port)
            # It gets no new requests, because the id has another port. Those that it has may finish.
            await self.envoy.wait_idle(old.port, 60)
            await old.stop()

    async def remove(self, deployment_id: str) -> None:
        # First, so that no request is sent to an agent that is ending.
        await self.envoy.deregister_agent(deployment_id)
        await self.agents.pop(deployment_id).stop()

    async def ended(self, deployment_id: str, agent: Agent) -> None:
        # The agent ended by itself. Its port is free, and the next agent may get it. A redeploy has another port.
        if self.agents.get(deployment_id) is agent:
            del self.agents[deployment_id]
            await self.envoy.deregister_agent(deployment_id)
