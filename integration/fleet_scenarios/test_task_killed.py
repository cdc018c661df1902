"""A task is killed: calls of the other tasks' ids never fail there; its own are rejected, and then run elsewhere."""

from __future__ import annotations

import time

import pytest

from scenarios.clients import GrpcClient
from scenarios.load import Load
from scenarios.wait import wait_until

from .fleet import BALANCER, PAUSE, TTL, Fleet, is_served, outcome

# Seconds. No connection to the killed task is left, so it is noticed within 2 s. It is dropped within 2 s of its
# time to live.
REJECTED, DROPPED = 2.0, TTL + 2


def test_a_killed_task_takes_only_its_own_agents_with_it(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    killed, *left = fleet.tasks
    names = [f"agent-{task.name}" for task in fleet.tasks]
    for task, name in zip(fleet.tasks, names, strict=True):
        task.rest.deploy(name)
    # Two tasks serve this one.
    for task in (killed, left[0]):
        task.rest.deploy("agent-both")
    fleet.wait_served(dict.fromkeys([*names, "agent-both"], "grpc"))
    lost, others = names[0], names[1:]
    client = GrpcClient(left[1].address)
    # Each of the others through each of the tasks that are left, over the hop between them and without it.
    with Load(others, [task.address for task in left] * 2, pause=PAUSE) as load:
        load.wait_for_all()
        killed.kill()
        ended = time.monotonic()
        first = outcome(client, lost)
        rejected = time.monotonic() - ended
        assert (first, rejected < REJECTED) == ("UNAVAILABLE", True), (first, rejected)
        wait_until("the id of both tasks is served", lambda: is_served(client, "agent-both"), REJECTED)
        seen = {first}
        while (now := outcome(client, lost)) != "NOT_FOUND":
            seen.add(now)
            assert time.monotonic() - ended < DROPPED, f"not dropped within {DROPPED} s, but {now}"
            time.sleep(0.1)
        dropped = time.monotonic() - ended
        assert seen == {"UNAVAILABLE"}
        load.wait_for_all()
        through_balancer = GrpcClient(BALANCER)
        assert [outcome(through_balancer, name) for name in others] == ["OK", "OK"]
        through_balancer.close()

        # It is deployed elsewhere.
        left[0].rest.deploy(lost)
        deployed = time.monotonic()
        wait_until("another task serves it", lambda: is_served(client, lost), 5)
        served = time.monotonic() - deployed

        # The killed task comes back, without agents, and serves what the others have.
        killed.start()
        back = GrpcClient(killed.address)
        for name in [lost, *others, "agent-both"]:
            assert back.health(name) == name
        back.close()
        load.wait_for_all()
    client.close()
    assert not load.wrong and not load.failed, f"{load.wrong} {load.failed}"
    with capsys.disabled():
        print(
            f"\nkilled: {rejected:.2f} s until UNAVAILABLE, {dropped:.1f} s until dropped, {served:.2f} s until served "
            f"elsewhere; {sum(load.right.values())} calls for ids of the other tasks, 0 failed"
        )
