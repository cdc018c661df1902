"""Clients of agents: they name the agent in `x-deployment-id` and know only one address."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any, Optional

import agents.agent_pb2 as agent_pb2
import agents.agent_pb2_grpc as agent_pb2_grpc
import aiohttp
import grpc
import httpx

ADDRESS = "task:50051"
LIMIT = 10.0
ID = "x-deployment-id"


class GrpcClient:
    """A gRPC client with a connection of its own."""

    def __init__(self, address: str = ADDRESS) -> None:
        self._channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self.stub = agent_pb2_grpc.AgentServiceStub(self._channel)

    def health(self, deployment_id: str) -> str:
        """The id with which the agent responds."""
        status = self.stub.Health(agent_pb2.Empty(), metadata=((ID, deployment_id),), timeout=LIMIT)
        return str(status.message)

    def invoke(self, deployment_id: str, action: str, limit: float = LIMIT, **parameters: str) -> dict[str, Any]:
        return dict(json.loads(self.begin(deployment_id, action, limit, **parameters).result().result))

    def begin(self, deployment_id: str, action: str, limit: float = LIMIT, **parameters: str) -> Any:
        """Starts a call and returns its future."""
        request = agent_pb2.ActionRequest(action=action, parameters=parameters)
        return self.stub.Invoke.future(request, metadata=((ID, deployment_id),), timeout=limit)

    def rejection(self, deployment_id: Optional[str]) -> tuple[grpc.StatusCode, str]:
        """Status and message of a call that must fail. If `deployment_id` is None, it has no id."""
        metadata = () if deployment_id is None else ((ID, deployment_id),)
        try:
            response = self.stub.Health(agent_pb2.Empty(), metadata=metadata, timeout=LIMIT)
        except grpc.RpcError as error:
            return error.code(), str(error.details())
        raise AssertionError(f"agent {response.message} responded")

    def close(self) -> None:
        self._channel.close()


def grpcurl(deployment_id: str, method: str) -> dict[str, Any]:
    """A call by the real grpcurl."""
    command = ["grpcurl", "-plaintext", "-max-time", str(int(LIMIT)), "-proto", "agents/agent.proto"]
    command += ["-H", f"{ID}: {deployment_id}", ADDRESS, f"pixell.agent.AgentService/{method}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def message(words: str, method: str = "message/send", **metadata: float) -> dict[str, Any]:
    """A JSON-RPC call of A2A."""
    params = {"message": {"role": "user", "parts": [{"kind": "text", "text": words}]}, "metadata": metadata}
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


class HttpClient:
    """A client of agents that speak JSON-RPC and server-sent events over HTTP/1.1."""

    def __init__(self, address: str = ADDRESS) -> None:
        self.http = httpx.Client(base_url=f"http://{address}", timeout=LIMIT)

    def send(self, deployment_id: str, words: str) -> httpx.Response:
        return self.http.post("/", json=message(words), headers={ID: deployment_id})

    def health(self, deployment_id: str) -> str:
        """The id with which the agent responds. Raises httpx.HTTPError."""
        response = self.send(deployment_id, "health").raise_for_status()
        return str(response.json()["result"]["metadata"]["deployment_id"])

    def stream(self, deployment_id: str, words: str, events: int, interval: float) -> Iterator[dict[str, Any]]:
        """The events of one response as they arrive."""
        call = message(words, "message/stream", events=events, interval_s=interval)
        with self.http.stream("POST", "/", json=call, headers={ID: deployment_id}) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"] == "text/event-stream"
            for line in response.iter_lines():
                if line.startswith("data: "):
                    yield dict(json.loads(line.removeprefix("data: ")))

    def close(self) -> None:
        self.http.close()


def over_websocket(address: str, deployment_id: str, words: Sequence[str]) -> list[str]:
    """What the agent's WebSocket responds to each of `words`, on one connection."""

    async def talk() -> list[str]:
        url, headers = f"ws://{address}/ws", {ID: deployment_id}
        async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
            received = []
            for word in words:
                await socket.send_str(word)
                received.append(await socket.receive_str(timeout=LIMIT))
            return received

    return asyncio.run(talk())
