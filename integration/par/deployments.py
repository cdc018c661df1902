"""PAR's deployments: which agent runs for which id. Registers the agents with Envoy."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from typing import Optional

from pixell_envoy import EnvoyManager
from pixell_envoy.fleet import Fleet

from . import drain, ports, record
from .agent import Agent

logger = logging.getLogger("par")


class TooManyAgents(Exception):
    """MAX_AGENTS run already."""


class Deployments:
    """All agents of this PAR. Calls for one id run one after the other, calls for different ids at the same time."""

    def __init__(self, envoy: EnvoyManager, max_agents: int, fleet: Optional[Fleet] = None) -> None:
        self.agents: dict[str, Agent] = {}
        self._envoy = envoy
        self._fleet = fleet
        self._max_agents = max_agents
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        # Ports of agents that do not listen yet: a scan would find them free.
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
        """Starts an agent, and ends the id's earlier one. Also returns whether Envoy routes to it already."""
        async with self._locks[deployment_id]:
            old = self.agents.get(deployment_id)
            if old is None and len(self.agents.keys() | self._starting) >= self._max_agents:
                raise TooManyAgents(f"{self._max_agents} agents run already")
            self._starting.add(deployment_id)
            try:
                return await self._begin(deployment_id, kind, old)
            finally:
                self._starting.discard(deployment_id)

    async def remove(self, deployment_id: str, drain_seconds: float = 0) -> bool:
        """Ends an agent; False if there is none. With `drain_seconds` it may finish its requests: a planned move."""
        async with self._locks[deployment_id]:
            agent = self.agents.get(deployment_id)
            if agent is not None:
                if drain_seconds:
                    await drain.one_agent(self._envoy, deployment_id, agent.port, drain_seconds)
                await self._end(agent)
            return agent is not None

    async def stop_agents(self) -> None:
        """Ends all agents when PAR itself ends. Their routes are draining already."""
        await asyncio.gather(*(agent.stop() for agent in self.agents.values()))
        record.write(())

    async def _begin(self, deployment_id: str, kind: str, old: Optional[Agent]) -> tuple[Agent, bool]:
        port = ports.scan(int(os.environ["A2A_PORT"]) + 1, self._reserved)
        self._reserved.add(port)
        try:
            # Before the process starts: an agent that died may have had the port, and its clients must not reach this
            # one. In a fleet another task may have the agent, and goes on to serve it until this one is healthy.
            may_move_here = self._fleet is not None and old is None
            if old is None or not old.is_running():
                routed = await self._envoy.register_agent(
                    deployment_id, port, state="draining" if may_move_here else "active"
                )
            else:
                # The id has both ports, and the old agent serves it until the new one is healthy.
                routed = await self._envoy.register_agent(deployment_id, old.port, {"next": port})
            try:
                agent = await self._start(deployment_id, kind, port)
                if old is not None:
                    routed = await self._envoy.register_agent(deployment_id, port)
                if may_move_here:
                    routed = await self._envoy.register_agent(deployment_id, port)
                    await self._announce_move(deployment_id)
            except BaseException:
                # In a redeploy the old agent still runs, and goes on. If it has ended, its port may be another agent's.
                if old is None or not old.is_running():
                    await self._envoy.deregister_agent(deployment_id)
                else:
                    await self._envoy.register_agent(deployment_id, old.port)
                raise
        finally:
            self._reserved.discard(port)
        self._note(agent)
        if old is not None:
            # It gets no new requests, because the id has another port. Those that it has may finish.
            await self._envoy.wait_idle(old.port, float(os.environ["PAR_DRAIN_SECONDS"]))
            await old.stop()
        logger.info("agent %s is healthy on port %d", deployment_id, port)
        return agent, routed

    async def _announce_move(self, deployment_id: str) -> None:
        """If another task has the agent as well, it may drain it next. So this returns when all tasks know ours."""
        if self._fleet is not None and any(deployment_id in record.ids for record in self._fleet.peers.values()):
            await self._fleet.announce()

    async def _start(self, deployment_id: str, kind: str, port: int) -> Agent:
        agent = Agent.start(deployment_id, kind, port)
        try:
            await agent.wait_healthy()
        except BaseException:
            await agent.stop()
            raise
        return agent

    async def _end(self, agent: Agent) -> None:
        """Deregisters the agent first, so that no client is sent to an agent that is ending."""
        await self._envoy.deregister_agent(agent.deployment_id)
        await self._stop(agent)

    async def _stop(self, agent: Agent) -> None:
        await agent.stop()
        del self.agents[agent.deployment_id]
        record.write(self.agents.values())
        logger.info("agent %s has ended", agent.deployment_id)

    def _note(self, agent: Agent) -> None:
        self.agents[agent.deployment_id] = agent
        record.write(self.agents.values())
