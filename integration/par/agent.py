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

from . import users

START_LIMIT = 30.0
STOP_LIMIT = 5.0
CALL_LIMIT = 5.0
POLL = 0.05


@dataclass(frozen=True)
class Agent:
    """What PAR must know about an agent to call it, to stop it, and to find it after a restart."""

    deployment_id: str
    kind: str  # "grpc" or "jsonrpc"
    port: int
    pid: int
    uid: int

    @classmethod
    def start(cls, deployment_id: str, kind: str, port: int) -> Agent:
        uid = users.fresh()
        program = [sys.executable, "-m", f"agents.{kind}_agent", deployment_id, str(port)]
        # The agent gets a session of its own, so that a signal that ends PAR does not end its agents. setpriv sets the
        # user, because Popen's `user` would fork this process, and gRPC's threads do not survive that in the child.
        become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs", "--"]
        command = [*become, *program]
        process = subprocess.Popen(command, env=users.environment(), umask=0o077, start_new_session=True)
        return cls(deployment_id, kind, port, process.pid, uid)

    async def health(self) -> str:
        """The deployment id with which the agent responds on its own port, as in PAR's internal calls."""
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
        """True if this agent responds, and not another one that has its port now."""
        try:
            return await self.health() == self.deployment_id
        except (TimeoutError, grpc.aio.AioRpcError, aiohttp.ClientError):
            return False

    async def wait_healthy(self) -> None:
        """Returns once the agent responds; raises if it ends first or takes too long."""
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
        users.end_all(self.uid)

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
            pass  # An earlier PAR started it, so it is a child of process 1 now.
