"""Envoy dies and comes back with an empty map: it has the whole map again within 5 seconds, without PAR's doing."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc

from .callers import GrpcCaller
from .engine import Project
from .par_client import Par
from .wait import wait_until

LIMIT = 5.0
NAMES = [f"agent-{number}" for number in range(5)]
# What the alarm on restarts looks for in the log (deploy/alarms.json, launcher/src/restart.rs).
RESTARTED = "pixell-envoy: restarted in place"


def test_the_map_is_back_after_a_kill(project: Project, par: Par, grpc_caller: GrpcCaller) -> None:
    par.deploy_all(NAMES)
    _check_restart(project, grpc_caller, project.envoy.kill)


def test_the_map_is_back_after_a_crash(project: Project, par: Par, grpc_caller: GrpcCaller) -> None:
    """The process Envoy ends, and with it the container, with Envoy's own exit code."""
    par.deploy_all(NAMES)

    def crash() -> None:
        project.envoy.run("sh", "-c", "kill -SEGV $(cat /proc/1/task/*/children)")
        assert project.envoy.wait_ended() == 128 + 11

    _check_restart(project, grpc_caller, crash)


def test_a_removal_while_envoy_is_away_stays_removed(project: Project, par: Par, grpc_caller: GrpcCaller) -> None:
    par.deploy_all(["agent-a", "agent-b"])
    project.envoy.kill()
    par.remove("agent-a")
    moved = par.deploy("agent-b")
    assert moved["routed"] is False
    project.envoy.start()
    wait_until("agent-b is back", lambda: _answers(grpc_caller, "agent-b"), 10)
    assert grpc_caller.refusal("agent-a")[0] == grpc.StatusCode.NOT_FOUND


def _check_restart(project: Project, caller: GrpcCaller, end: Callable[[], None]) -> None:
    for name in NAMES:
        assert caller.health(name) == name
    end()
    assert caller.refusal(NAMES[0])[0] == grpc.StatusCode.UNAVAILABLE
    # The engine keeps one log over all starts of a container, and scenarios before this one restarted it too.
    told_before = project.envoy.logs().count(RESTARTED)
    started = time.monotonic()
    project.envoy.start()
    wait_until("every agent answers again", lambda: all(_answers(caller, name) for name in NAMES), LIMIT)
    wait_until("the restart is told once", lambda: project.envoy.logs().count(RESTARTED) == told_before + 1)
    print(f"the whole map was back {time.monotonic() - started:.1f} s after the start of the container")


def _answers(caller: GrpcCaller, deployment_id: str) -> bool:
    try:
        return caller.health(deployment_id) == deployment_id
    except grpc.RpcError:
        return False
