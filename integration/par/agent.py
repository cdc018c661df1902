"""One running agent: a subprocess that listens on a port of 127.0.0.1."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import dataclass

import agents.agent_pb2 as agent_pb2
import agents.agent_pb2_grpc as agent_pb2_grpc
import aiohttp
import grpc

START_LIMIT = 30.0
STOP_LIMIT = 5.0
CALL_LIMIT = 5.0
POLL = 0.05

# The token is PAR's own: an agent that had it could reroute the others.
HIDDEN = ("PIXELL_ADMIN_TOKEN",)


@dataclass(frozen=True)
class Agent:
    """What PAR has to know about an agent to call, stop and find it again."""

    deployment_id: str
    kind: str  # "grpc" or "jsonrpc"
    port: int
    pid: int

    @classmethod
    def start(cls, deployment_id: str, kind: str, port: int) -> Agent:
        environment = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        command = [sys.executable, "-m", f"agents.{kind}_agent", deployment_id, str(port)]
        # A session of its own: what ends PAR must not end its agents.
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        return cls(deployment_id, kind, port, process.pid)

    async def health(self) -> str:
        """The deployment id that the agent itself gives, asked straight at its port as PAR's internal calls do."""
        return await (self._grpc_health() if self.kind == "grpc" else self._jsonrpc_health())

    async def _grpc_health(self) -> str:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            stub = agent_pb2_grpc.AgentServiceStub(channel)
            status = await stub.Health(agent_pb2.Empty(), timeout=CALL_LIMIT)
            return str(status.message)

    async def _jsonrpc_health(self) -> str:
        timeout = aiohttp.ClientTimeout(total=CALL_LIMIT)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            async with session.get(f"http://127.0.0.1:{self.port}/.well-known/agent-card.json") as card:
                return str((await card.json())["name"])

    async def is_healthy(self) -> bool:
        """Whether this very agent answers, and not another one that has got its port since."""
        try:
            return await self.health() == self.deployment_id
        except (TimeoutError, grpc.aio.AioRpcError, aiohttp.ClientError):
            return False

    async def wait_healthy(self) -> None:
        """Returns once the agent answers; raises where it dies first or takes too long."""
        async with asyncio.timeout(START_LIMIT):
            while not await self.is_healthy():
                if not self.is_running():
                    raise RuntimeError(f"agent {self.deployment_id} ended before it was healthy")
                await asyncio.sleep(POLL)

    async def stop(self) -> None:
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_LIMIT):
                await self._gone()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._gone()

    def is_running(self) -> bool:
        self._reap()
        return self._signal(0)

    async def _gone(self) -> None:
        while self.is_running():
            await asyncio.sleep(POLL)

    def _signal(self, number: int) -> bool:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def _reap(self) -> None:
        try:
            os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pass  # An earlier PAR started it: process 1 takes it in.
