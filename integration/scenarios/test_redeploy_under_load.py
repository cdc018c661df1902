"""Agents start, get new ports and stop while others are called: no response of the others is wrong or lost."""

from __future__ import annotations

from . import route_api
from .engine import Project
from .load import Load
from .par_client import Par
from .wait import wait_until

OTHERS = ("agent-a", "agent-c")


def check_others(load: Load) -> None:
    for name in OTHERS:
        assert load.right[name] > 100, f"too few calls of {name} to prove anything: {load.right}"
        assert not load.failed[name], f"{name}: {load.failed[name]}"
    assert not load.wrong, f"responses of the wrong agent: {dict(load.wrong)}"


def test_redeploy_on_another_port(project: Project, par: Par) -> None:
    par.deploy_all(["agent-a", "agent-b", "agent-c"])
    with Load([*OTHERS, "agent-b"]) as load:
        load.wait_for_all()
        for _ in range(3):
            before = route_api.ports(project.par)["agent-b"]
            after = par.deploy("agent-b")
            assert after["routed"] is True
            assert after["port"] != before
            assert route_api.ports(project.par)["agent-b"] == after["port"]
        load.wait_for_all()
    check_others(load)
    # Clients of the redeployed agent wait or get UNAVAILABLE, which they may retry. They never get NOT_FOUND.
    codes = {words.partition(":")[0] for words in load.failed["agent-b"]}
    assert codes <= {"UNAVAILABLE"}, load.failed["agent-b"]


def test_deploy_and_remove(project: Project, par: Par) -> None:
    par.deploy_all(OTHERS)
    with Load(OTHERS) as load:
        for round_number in range(3):
            name = f"agent-{round_number}"
            assert par.deploy(name)["routed"] is True
            par.remove(name)
    check_others(load)
    assert route_api.ports(project.par).keys() == set(OTHERS)


def test_an_agent_never_responds_for_the_earlier_owner_of_its_port(par: Par) -> None:
    par.deploy_all(OTHERS)
    ports = {name: agent["port"] for name, agent in par.deployments().items()}
    leaving = par.deploy("agent-old")["port"]
    with Load([*OTHERS, "agent-old"]) as before, Load([*OTHERS, "agent-old", "agent-new"]) as load:
        before.wait_for_all()
        par.remove("agent-old")
        assert par.deploy("agent-new")["port"] == leaving, f"the scan was meant to find the port again; taken: {ports}"
        wait_until("the new agent responds", lambda: load.right["agent-new"] > 10)
        # On a slow machine this happens before the others have been called often enough to prove anything.
        loads = (before, load)
        wait_until("the others are called", lambda: all(each.right[name] > 100 for each in loads for name in OTHERS))
    check_others(before)
    check_others(load)
    assert load.right["agent-old"] > 0
