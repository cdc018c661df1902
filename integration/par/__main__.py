"""PAR's REST API."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

from aiohttp import web
from pixell_envoy import EnvoyManager
from pixell_envoy.fleet import Fleet

from . import drain, fleet
from .deployments import Deployments, TooManyAgents

KINDS = ("grpc", "jsonrpc")

# How long requests of the REST API may go on after SIGTERM.
REST_SECONDS = 5.0

DEPLOYMENTS = web.AppKey("deployments", Deployments)
ENVOY = web.AppKey("envoy", EnvoyManager)
# Only in a fleet.
FLEET = web.AppKey("fleet", Fleet)

routes = web.RouteTableDef()


@routes.get("/health")
async def health(request: web.Request) -> web.Response:
    return web.json_response({"status": "healthy", "deployments": len(request.app[DEPLOYMENTS].agents)})


@routes.get("/envoy")
async def envoy(request: web.Request) -> web.Response:
    """Envoy's health and statistics, as PAR reads them."""
    manager = request.app[ENVOY]
    return web.json_response({"healthy": await manager.check_health(), "stats": await manager.get_stats()})


@routes.get("/fleet")
async def peers(request: web.Request) -> web.Response:
    """The other tasks of the fleet that are alive, with their agents' states."""
    if FLEET not in request.app:
        raise web.HTTPNotFound
    return web.json_response({task: dict(record.ids) for task, record in request.app[FLEET].peers.items()})


@routes.get("/deployments")
async def deployments(request: web.Request) -> web.Response:
    agents = request.app[DEPLOYMENTS].agents
    return web.json_response({name: asdict(agent) for name, agent in agents.items()})


@routes.post("/deployments")
async def deploy(request: web.Request) -> web.Response:
    try:
        body = await request.json()
        deployment_id, kind = body["deployment_id"], body.get("kind", "grpc")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise web.HTTPBadRequest(text='expected {"deployment_id": "...", "kind": "grpc" or "jsonrpc"}') from None
    if not isinstance(deployment_id, str) or kind not in KINDS:
        raise web.HTTPBadRequest(text=f"deployment_id must be a string and kind one of {', '.join(KINDS)}")
    known = deployment_id in request.app[DEPLOYMENTS].agents
    try:
        agent, routed = await request.app[DEPLOYMENTS].deploy(deployment_id, kind)
    except TooManyAgents as error:
        raise web.HTTPServiceUnavailable(text=str(error)) from None
    return web.json_response({**asdict(agent), "routed": routed}, status=200 if known else 201)


@routes.delete("/deployments/{deployment_id}")
async def remove(request: web.Request) -> web.Response:
    """Ends an agent at once, or lets its requests end first, for as many seconds as `drain` says."""
    try:
        seconds = float(request.query.get("drain", 0))
    except ValueError:
        raise web.HTTPBadRequest(text="drain is a number of seconds") from None
    if not await request.app[DEPLOYMENTS].remove(request.match_info["deployment_id"], seconds):
        raise web.HTTPNotFound
    return web.Response(status=204)


@routes.get("/deployments/{deployment_id}/health")
async def agent_health(request: web.Request) -> web.Response:
    """PAR's internal call, which goes directly to the agent's port and not through Envoy."""
    agent = request.app[DEPLOYMENTS].agents.get(request.match_info["deployment_id"])
    if agent is None:
        raise web.HTTPNotFound
    return web.json_response({"message": await agent.health()})


def make_manager() -> EnvoyManager:
    """Makes the manager, which reads the token, and removes the token's file, so that agents never get the token."""
    manager = EnvoyManager(os.environ["ENVOY_ADMIN_URL"])
    if place := os.environ.get("PIXELL_ADMIN_TOKEN_FILE"):
        Path(place).unlink()
    return manager


async def lifetime(app: web.Application) -> AsyncIterator[None]:
    manager = make_manager()
    app[ENVOY] = manager
    joined = fleet.of_environment(manager)
    app[DEPLOYMENTS] = Deployments(manager, int(os.environ["MAX_AGENTS"]), joined)
    # Before the fleet starts, which publishes the agents that are registered.
    await app[DEPLOYMENTS].boot()
    if joined is not None:
        app[FLEET] = joined
        await joined.start()
    yield
    # PAR has rejected requests of its REST API since SIGTERM, so no agent is added.
    deadline = time.monotonic() + float(os.environ["PAR_DRAIN_SECONDS"])
    if joined is not None:
        # The other tasks send nothing more here.
        await joined.drain()
    # What the fleet took is part of the time: the end must fit into the container's stopTimeout.
    await drain.all_agents(manager, max(0, deadline - time.monotonic()))
    if joined is not None:
        await joined.close()
    await manager.close()
    await app[DEPLOYMENTS].stop_agents()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    app = web.Application()
    app.add_routes(routes)
    app.cleanup_ctx.append(lifetime)
    web.run_app(app, port=int(os.environ["PORT"]), access_log=None, print=None, shutdown_timeout=REST_SECONDS)


if __name__ == "__main__":
    main()
