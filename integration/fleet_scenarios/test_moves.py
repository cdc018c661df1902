"""Planned changes under load: an agent moves, and all tasks are replaced. No call fails or reaches a wrong agent."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from scenarios.clients import GrpcClient
from scenarios.load import Load

from .fleet import BALANCER, KNOWN, PAUSE, Fleet, deploy, move

MOVES = int(os.environ["FLEET_MOVES"])
# Fewer calls of an agent would prove nothing.
LEAST = 50


@contextmanager
def loads(kinds: Mapping[str, str], entrances: Sequence[str]) -> Iterator[list[Load]]:
    """Calls all agents in their protocol through each of `entrances`, and checks the outcome."""
    ids = {kind: [name for name in kinds if kinds[name] == kind] for kind in ("grpc", "jsonrpc")}
    with (
        Load(ids["grpc"], entrances, pause=PAUSE) as one,
        Load(ids["jsonrpc"], entrances, jsonrpc=True, pause=PAUSE) as other,
    ):
        both = [one, other]
        wait_for_all(both)
        yield both
        wait_for_all(both)
    for load in both:
        assert not load.failed, f"failed: {dict(load.failed)}"
        assert not load.wrong, f"responses of the wrong agent: {dict(load.wrong)}"
    right = one.right + other.right
    assert all(right[name] > LEAST for name in kinds), f"too few calls to prove anything: {right}"


def wait_for_all(loads: Sequence[Load]) -> None:
    for load in loads:
        load.wait_for_all()


def figures(loads: Sequence[Load]) -> str:
    return f"{sum(sum(load.right.values()) for load in loads)} calls, 0 failed, 0 at the wrong agent"


def test_no_call_fails_while_agents_move(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {"agent-moves": "grpc", "agent-stays": "grpc", "json-moves": "jsonrpc"}
    began = time.monotonic()
    deploy(fleet.tasks[0], kinds)
    # A move starts agents, too, which takes long on a busy machine.
    starting = time.monotonic() - began
    fleet.wait_served(kinds)
    moving = {name: kind for name, kind in kinds.items() if name != "agent-stays"}
    # Through the task that has the agents, those that forward to it, and the load balancer.
    with loads(kinds, [*fleet.addresses, BALANCER]) as both:
        for number in range(MOVES):
            old, new = fleet.tasks[number % 3], fleet.tasks[(number + 1) % 3]
            # Longer than all waits of the move before the agent drains. It finishes where it began.
            client = GrpcClient(fleet.addresses[(number + 2) % 3])
            call = client.begin("agent-moves", "sleep", limit=120, seconds=str(KNOWN + 6 + 2 * starting))

            def is_open(call: Any = call) -> None:
                assert not call.done(), "the call ended before the old agent drained, and proves nothing"

            move(moving, old, new, drain=20 + 2 * starting, check=is_open)
            assert call.result().success
            client.close()
    assert set(fleet.tasks[MOVES % 3].rest.deployments()) >= set(moving)
    with capsys.disabled():
        print(f"\n{MOVES} moves of {len(moving)} agents: {figures(both)}")


def test_no_call_fails_while_all_tasks_are_replaced(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Each task in turn: the next one gets its agents, of which one moves and the others drain with it; it restarts."""
    kinds = {"agent-0": "grpc", "agent-1": "grpc", "json-2": "jsonrpc"}
    for task, (name, kind) in zip(fleet.tasks, kinds.items(), strict=True):
        task.rest.deploy(name, kind)
    fleet.wait_served(kinds)
    started = time.monotonic()
    with loads(kinds, [BALANCER] * 3) as both:
        for number, task in enumerate(fleet.tasks):
            successor = fleet.tasks[(number + 1) % 3]
            here = {name: agent["kind"] for name, agent in task.rest.deployments().items()}
            # One moves. The others are in both tasks when this one ends.
            deploy(successor, here)
            task.rest.remove(min(here), drain=10)
            fleet.lead_clients_away_from(task)
            assert task.stop() == (0, 0)
            task.start()
            fleet.lead_clients_to(task)
            wait_for_all(both)
    assert set(fleet.tasks[0].rest.deployments()) == set(kinds)
    with capsys.disabled():
        print(f"\nall tasks replaced in {time.monotonic() - started:.0f} s: {figures(both)}")
