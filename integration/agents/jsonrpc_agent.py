"""An agent that speaks A2A as JSON-RPC and server-sent events over HTTP/1.1, and has a WebSocket at /ws.

Usage: jsonrpc_agent DEPLOYMENT_ID PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from aiohttp import web

METHOD_NOT_FOUND = -32601
PARSE_ERROR = -32700


class A2A:
    def __init__(self, deployment_id: str) -> None:
        self._deployment_id = deployment_id

    async def card(self, request: web.Request) -> web.Response:
        return web.json_response({"name": self._deployment_id, "capabilities": {"streaming": True}})

    async def call(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json()
        except ValueError:
            return web.json_response(error(None, PARSE_ERROR, "not JSON"))
        if body.get("method") == "message/send":
            return web.json_response(self._result(body, text(body)))
        if body.get("method") == "message/stream":
            return await self._stream(request, body)
        return web.json_response(error(body.get("id"), METHOD_NOT_FOUND, "no such method"))

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """As many events as the client asks for, at the interval that it asks for."""
        wanted = body["params"].get("metadata", {})
        events, interval = int(wanted.get("events", 3)), float(wanted.get("interval_s", 0))
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-store"})
        await response.prepare(request)
        for number in range(events):
            event = json.dumps(self._result(body, f"{text(body)} {number}"))
            await response.write(f"data: {event}\n\n".encode())
            if number + 1 < events:
                await asyncio.sleep(interval)
        await response.write_eof()
        return response

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        """Responds to each message with its own id and the message."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"{self._deployment_id}: {message.data}")
        return socket

    def _result(self, body: dict[str, Any], words: str) -> dict[str, Any]:
        parts = [{"kind": "text", "text": words}]
        metadata = {"deployment_id": self._deployment_id}
        return {
            "jsonrpc": "2.0",
            "id": body.get("id"),
            "result": {"role": "agent", "parts": parts, "metadata": metadata},
        }


def text(body: dict[str, Any]) -> str:
    return "".join(part.get("text", "") for part in body["params"]["message"]["parts"])


def error(call_id: Any, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": call_id, "error": {"code": code, "message": message}}


def main(deployment_id: str, port: int) -> None:
    agent = A2A(deployment_id)
    app = web.Application()
    app.router.add_get("/.well-known/agent-card.json", agent.card)
    app.router.add_post("/", agent.call)
    app.router.add_get("/ws", agent.socket)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, shutdown_timeout=1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
