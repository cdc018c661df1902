"""The directory is lost: down longer than a peer's time to live, restarted without data, or cut off from one task.

No request fails that would not have failed before.
"""

from __future__ import annotations

import os
import time
from functools import partial

import pytest

from scenarios.engine import now
from scenarios.load import Load
from scenarios.wait import wait_until

from .fleet import BALANCER, PAUSE, TTL, Fleet, Task

OUTAGE = float(os.environ["FLEET_OUTAGE_SECONDS"])


def deploy_everywhere(fleet: Fleet) -> list[str]:
    """An agent in each task."""
    assert OUTAGE > TTL, "a shorter outage proves nothing"
    ids = [f"agent-{task.name}" for task in fleet.tasks]
    for task, name in zip(fleet.tasks, ids, strict=True):
        task.rest.deploy(name)
    fleet.wait_served(dict.fromkeys(ids, "grpc"))
    return ids


def all_entrances(fleet: Fleet) -> list[str]:
    return [*fleet.addresses, BALANCER]


def check(load: Load, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert not load.wrong and not load.failed, f"{dict(load.wrong)} {dict(load.failed)}"
    with capsys.disabled():
        print(f"\n{what}: {sum(load.right.values())} calls, 0 failed")


def add(fleet: Fleet, task: Task, name: str) -> float:
    """Deploys an agent, and returns the seconds until all tasks serve it."""
    task.rest.deploy(name)
    started = time.monotonic()
    fleet.wait_served({name: "grpc"}, TTL)
    return time.monotonic() - started


def keeps(task: Task, other: Task, since: float) -> bool:
    """Whether `task` has found since then that `other` is silent, and has not dropped it."""
    return f"keeping task '{other.name}'" in task.par.logs(since)


def test_no_call_fails_while_the_directory_is_down_and_after_it_is_back_empty(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = deploy_everywhere(fleet)
    with Load(ids, all_entrances(fleet), pause=PAUSE) as load:
        load.wait_for_all()
        fleet.directory.kill()
        time.sleep(OUTAGE)
        load.wait_for_all()
        # It has no data at first.
        fleet.directory.start()
        fleet.directory.wait_healthy()
        # The record of each task is back: the others would keep the old one, and not know the new agent.
        took = max(add(fleet, task, f"agent-new-{task.name}") for task in fleet.tasks)
        # Longer than a task's time to live: records that did not come back would be missed by now.
        time.sleep(TTL + 1)
        load.wait_for_all()
    check(
        load, f"directory down for {OUTAGE:.0f} s, then empty, each new agent known after {took:.1f} s at most", capsys
    )


def test_no_call_fails_while_one_task_is_cut_off_from_the_directory(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = deploy_everywhere(fleet)
    with Load(ids, all_entrances(fleet), pause=PAUSE) as load:
        load.wait_for_all()
        started = now()
        cut_off, *others = fleet.tasks
        with fleet.cut_off_from_directory(cut_off):
            time.sleep(OUTAGE)
            for task in others:
                wait_until(f"{task.name} keeps it", partial(keeps, task, cut_off, started), TTL)
            load.wait_for_all()
        took = add(fleet, cut_off, "agent-new")
        load.wait_for_all()
    check(load, f"a task cut off from the directory for {OUTAGE:.0f} s, its new agent known after {took:.1f} s", capsys)
