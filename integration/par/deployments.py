"""PAR's deployments: which agent runs for which id, and telling Envoy about it."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import Optional

from pixell_envoy import EnvoyManager

from . import ports, record
from .agent import Agent

logger = logging.getLogger("par")

# PAR waits this long between the old agent's end and the new one's start.
REDEPLOY_PAUSE = 1.0


class TooManyAgents(Exception):
    """MAX_AGENTS run already."""


class Deployments:
    """All agents of this PAR. Calls for one id are carried out one after the other, those for different ids at once."""

    def __init__(self, envoy: EnvoyManager, max_agents: int) -> None:
        self.agents: dict[str, Agent] = {}
        self._envoy = envoy
        self._max_agents = max_agents
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        # Ports given to agents that do not listen yet, which a scan would take for free.
        self._reserved: set[int] = set()
        self._starting: set[str] = set()

    async def boot(self) -> None:
        """Finds the agents that an earlier PAR left running, and pushes the full map."""
        for agent in record.read():
            if agent.is_running() and await agent.is_healthy():
                self.agents[agent.deployment_id] = agent
                logger.info("found agent %s on port %d", agent.deployment_id, agent.port)
        record.write(self.agents.values())
        await self._envoy.replace_agents({name: agent.port for name, agent in self.agents.items()})

    async def deploy(self, deployment_id: str, kind: str) -> tuple[Agent, bool]:
        """Starts an agent, in the place of the one that may run; also gives whether Envoy routes to it by now."""
        async with self._locks[deployment_id]:
            old = self.agents.get(deployment_id)
            if old is None and len(self.agents.keys() | self._starting) >= self._max_agents:
                raise TooManyAgents(f"{self._max_agents} agents run already")
            self._starting.add(deployment_id)
            try:
                if old is not None:
                    await self._end(old)
                    await asyncio.sleep(REDEPLOY_PAUSE)
                agent = await self._begin(deployment_id, kind, avoid=None if old is None else old.port)
            finally:
                self._starting.discard(deployment_id)
            return agent, await self._envoy.register_agent(deployment_id, agent.port)

    async def remove(self, deployment_id: str) -> bool:
        """Ends an agent; False where there is none."""
        async with self._locks[deployment_id]:
            agent = self.agents.get(deployment_id)
            if agent is not None:
                await self._end(agent)
            return agent is not None

    async def shut_down(self) -> None:
        await asyncio.gather(*(self.remove(deployment_id) for deployment_id in list(self.agents)))

    async def _begin(self, deployment_id: str, kind: str, avoid: Optional[int]) -> Agent:
        port = ports.scan(self._reserved | ({avoid} if avoid is not None else set()))
        self._reserved.add(port)
        try:
            agent = Agent.start(deployment_id, kind, port)
            try:
                await agent.wait_healthy()
            except BaseException:
                await agent.stop()
                raise
        finally:
            self._reserved.discard(port)
        self._note(agent)
        logger.info("agent %s is healthy on port %d", deployment_id, port)
        return agent

    async def _end(self, agent: Agent) -> None:
        """Envoy is told first, so that no caller is sent to an agent that ends."""
        await self._envoy.deregister_agent(agent.deployment_id)
        await agent.stop()
        del self.agents[agent.deployment_id]
        record.write(self.agents.values())
        logger.info("agent %s has ended", agent.deployment_id)

    def _note(self, agent: Agent) -> None:
        self.agents[agent.deployment_id] = agent
        record.write(self.agents.values())
