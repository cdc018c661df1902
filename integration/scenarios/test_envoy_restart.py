"""Envoy dies and restarts with an empty map: within 5 s of being ready it has the whole map from the client in PAR."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc

from .clients import GrpcClient
from .engine import Project
from .par_client import Par
from .wait import wait_until

LIMIT = 5.0
NAMES = [f"agent-{number}" for number in range(5)]
# What the alarm on restarts looks for in the log (deploy/alarms.yaml, crates/launcher/src/restart.rs).
RESTARTED = "pixell-envoy: restarted in place"


def test_the_map_is_back_after_a_kill(project: Project, par: Par, grpc_client: GrpcClient) -> None:
    par.deploy_all(NAMES)
    _check_restart(project, grpc_client, project.envoy.kill)


def test_the_map_is_back_after_a_crash(project: Project, par: Par, grpc_client: GrpcClient) -> None:
    """The Envoy process ends, and with it the container, with Envoy's own exit code."""
    par.deploy_all(NAMES)

    def crash() -> None:
        project.envoy.run("sh", "-c", "kill -SEGV $(cat /proc/1/task/*/children)")
        assert project.envoy.wait_ended() == 128 + 11

    _check_restart(project, grpc_client, crash)


def test_an_agent_that_is_removed_while_envoy_is_away_stays_removed(
    project: Project, par: Par, grpc_client: GrpcClient
) -> None:
    par.deploy_all(["agent-a", "agent-b"])
    project.envoy.kill()
    par.remove("agent-a")
    moved = par.deploy("agent-b")
    assert moved["routed"] is False
    project.envoy.start()
    wait_until("agent-b is back", lambda: _responds(grpc_client, "agent-b"), 10)
    assert grpc_client.rejection("agent-a")[0] == grpc.StatusCode.NOT_FOUND


def _check_restart(project: Project, client: GrpcClient, end: Callable[[], None]) -> None:
    for name in NAMES:
        assert client.health(name) == name
    end()
    assert client.rejection(NAMES[0])[0] == grpc.StatusCode.UNAVAILABLE
    # The engine keeps one log for all starts of a container, and earlier scenarios have restarted it as well.
    restarts = project.envoy.logs().count(RESTARTED)
    started = time.monotonic()
    project.envoy.start()
    # The limit counts from here: on a busy machine Envoy needs seconds to compile its modules.
    project.envoy.wait_healthy()
    wait_until("every agent responds again", lambda: all(_responds(client, name) for name in NAMES), LIMIT)
    wait_until("the restart is logged once", lambda: project.envoy.logs().count(RESTARTED) == restarts + 1)
    print(f"the whole map was back {time.monotonic() - started:.1f} s after the start of the container")


def _responds(client: GrpcClient, deployment_id: str) -> bool:
    try:
        return client.health(deployment_id) == deployment_id
    except grpc.RpcError:
        return False
