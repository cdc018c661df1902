"""Failures that the usual account does not have: at what was there and is changed, and at the way back itself."""

from __future__ import annotations

from typing import Any

import pytest

from support.account import Account
from support.ecs_scheduler import Behaviour
from support.tool import Result, Tool
from test_apply import assert_applied
from test_failures import WAYS_OUT, planted

# The call, the step that is named, and the step of a rollback that undoes it; a repository stays as it is.
CHANGES = [
    ("ecr put-image-scanning-configuration", "repository"),
    ("ecr put-image-tag-mutability", "repository"),
    ("elbv2 modify-listener", "listener"),
]


@pytest.fixture
def half_there(account: Account) -> dict[str, Any]:
    """A repository with loose settings, and a listener that leads elsewhere; what a rollback has to bring back."""
    account.client("ecr").create_repository(repositoryName="pixell-envoy")
    account.client("elbv2").create_listener(
        LoadBalancerArn=account.nlb,
        Protocol="TCP",
        Port=50051,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": account.target_group("old-router", "TCP", 50052)}],
    )
    return account.state()


@pytest.mark.parametrize("way_out", WAYS_OUT)
@pytest.mark.parametrize("how", ["refused", "answer lost"])
@pytest.mark.parametrize(("call", "step"), CHANGES)
def test_both_ways_out_where_something_is_changed(
    account: Account, tool: Tool, half_there: dict[str, Any], call: str, step: str, how: str, way_out: str
) -> None:
    stopped = tool.run("apply", "--yes", **planted(call, how))
    assert stopped.status == 1, str(stopped)
    assert f"STOPPED at: {step}\n" in stopped.err
    result = tool.run(way_out, "--yes")
    assert result.status == 0, str(result)
    if way_out == "apply":
        assert_applied(account)
    else:
        assert account.state() == half_there


def test_a_listener_that_cannot_be_led_back_can_be_tried_again(
    account: Account, tool: Tool, half_there: dict[str, Any]
) -> None:
    assert tool.run("apply", "--yes").status == 0
    stopped = tool.run("rollback", "--yes", **planted("elbv2 modify-listener", "refused"))
    assert stopped.status == 1, str(stopped)
    assert "run rollback again" in stopped.err
    assert tool.run("rollback", "--yes").status == 0
    assert account.state() == half_there


@pytest.mark.parametrize("deployment", ["fails", "sticks", "goes back"])
def test_a_rollback_whose_deployment_does_not_settle_can_be_run_again(
    account: Account, tool: Tool, before: dict[str, Any], applied: Result, behaviour: Behaviour, deployment: str
) -> None:
    usual, behaviour.deployment = behaviour.deployment, deployment
    tool.settings["STABLE_TIMEOUT_SECONDS"] = "2"
    stopped = tool.run("rollback", "--yes")
    assert stopped.status == 1, str(stopped)
    assert "STOPPED at: " in stopped.err
    assert "run rollback again" in stopped.err
    behaviour.deployment = usual
    tool.settings["STABLE_TIMEOUT_SECONDS"] = "120"
    result = tool.run("rollback", "--yes")
    assert result.status == 0, str(result)
    assert account.state() == before


def test_a_wait_that_sees_nothing_any_more_stops(account: Account, tool: Tool, before: dict[str, Any]) -> None:
    """The first describe-services looks the service up; every later one is the wait's."""
    stopped = tool.run("apply", "--yes", TEST_AWS_FAIL="ecs describe-services@2+")
    assert stopped.status == 1, str(stopped)
    assert "STOPPED at: wait until the service is stable\n" in stopped.err
    assert "cannot see the service any more" in stopped.out + stopped.err
    assert tool.run("rollback", "--yes").status == 0
    assert account.state() == before
