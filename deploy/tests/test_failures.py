"""A failure at each step: said plainly, and both ways out of it work, forward with apply and back with rollback."""

from __future__ import annotations

import re
from typing import Any

import pytest

from support.account import Account
from support.names import DEPLOY, SETTINGS
from support.stages import Stages
from support.tool import Result, Tool
from test_apply import assert_applied

# Where it fails: the call (of the AWS CLI, or of docker), and the step that is named. In the order of a rollout.
STEPS = [
    ("ssm put-parameter", "record what is there"),
    ("ecr create-repository", "repository"),
    ("docker build", "image"),
    ("ecr get-login-password", "image"),
    ("docker login", "image"),
    ("docker push", "image"),
    ("elbv2 modify-target-group", "health check"),
    ("ecs register-task-definition", "task definition"),
    ("elbv2 create-listener", "listener"),
    ("ecs update-service", "service"),
    ("logs put-metric-filter", "alarms"),
    ("cloudwatch put-metric-alarm", "alarms"),
    ("ssm put-parameter@2", "record that it is applied"),
]
# Calls that change something at AWS may also be carried out and their answer lost.
LOST = [(call, step) for call, step in STEPS if not call.startswith("docker") and call != "ecr get-login-password"]
CASES = [(call, step, "refused") for call, step in STEPS] + [(call, step, "answer lost") for call, step in LOST]
WAYS_OUT = ["apply", "rollback"]


def planted(call: str, how: str) -> dict[str, str]:
    """The environment in which that call fails."""
    if call.startswith("docker "):
        return {"TEST_DOCKER_FAIL": call.removeprefix("docker ")}
    return {"TEST_AWS_FAIL": call} | ({"TEST_AWS_FAIL_AFTER": "yes"} if how == "answer lost" else {})


def assert_way_out(account: Account, tool: Tool, before: dict[str, Any], way_out: str) -> None:
    """From where an apply has stopped, the rollout can be brought to its end, or back to its beginning."""
    if way_out == "apply":
        result = tool.run("apply", "--yes", "--alarms")
        assert result.status == 0, str(result)
        assert_applied(account)
        assert len(account.state()["alarms"]) == 4
        arns = account.client("ecs").list_task_definitions(familyPrefix=SETTINGS["TASK_FAMILY"])["taskDefinitionArns"]
        assert len(arns) == 3, "an earlier try's revision is used, not made again"
        record = account.record()
        assert record is not None
        assert record["taskDefinition"] == account.par_revision, "the way back is what was there before the first try"
    elif account.record() is None:
        result = tool.run("rollback", "--yes")
        assert result.status == 1
        assert "so apply has changed nothing here" in result.err
        assert account.state() == before
    else:
        result = tool.run("rollback", "--yes")
        assert result.status == 0, str(result)
        assert account.state() == before


def grouped(*values: str) -> Any:
    """Cases that begin with the same failure belong to one process, where it is made once."""
    name = ", ".join(values)
    return pytest.param(*values, id=name, marks=pytest.mark.xdist_group(name))


@pytest.mark.parametrize("way_out", WAYS_OUT)
@pytest.mark.parametrize(("call", "step", "how"), [grouped(*case) for case in CASES])
def test_both_ways_out_of_a_failed_call(
    account: Account, tool: Tool, before: dict[str, Any], stages: Stages, call: str, step: str, how: str, way_out: str
) -> None:
    stopped = stages.after("apply", "--yes", "--alarms", **planted(call, how))
    assert stopped.status == 1, str(stopped)
    assert f"STOPPED at: {step}\n" in stopped.err
    assert "  done:     " in stopped.err
    assert "apply again" in stopped.err
    assert stopped.err.rstrip().endswith(" rollback"), "how to go back is the last thing said"
    assert_way_out(account, tool, before, way_out)


@pytest.mark.parametrize("way_out", WAYS_OUT)
@pytest.mark.parametrize(
    ("deployment", "fault"),
    [
        grouped("fails", "the deployment of pixell-runtime-multi-agent:3 failed"),
        grouped("goes back", "ECS went back to pixell-runtime-multi-agent:2 by itself"),
        grouped("sticks", "the service is not stable after 2 s"),
    ],
)
def test_both_ways_out_of_a_deployment_that_does_not_settle(
    account: Account, tool: Tool, before: dict[str, Any], stages: Stages, deployment: str, fault: str, way_out: str
) -> None:
    stopped = stages.after("apply", "--yes", "--alarms", deployment=deployment)
    assert stopped.status == 1, str(stopped)
    assert fault in stopped.out + stopped.err
    assert "STOPPED at: wait until the service is stable" in stopped.err
    if deployment != "goes back":
        assert "Essential container in task exited" in stopped.out
        assert "envoy: STOPPED, health UNHEALTHY, exit code 78" in stopped.out
    assert_way_out(account, tool, before, way_out)


@pytest.mark.xdist_group("fails, the deployment of pixell-runtime-multi-agent:3 failed")
def test_a_deployment_that_was_given_up_is_planned_anew(account: Account, tool: Tool, stages: Stages) -> None:
    stages.after("apply", "--yes", "--alarms", deployment="fails")
    assert tool.run("plan").out.splitlines()[1:] == [
        "",
        "service:",
        "  pixell-runtime-multi-agent.deployment: of pixell-runtime-multi-agent:3 has failed -> deployed anew",
        "",
    ]


def test_every_step_has_its_failure() -> None:
    plan = (DEPLOY / "lib/plan.sh").read_text()
    steps = re.search(r"^readonly STEPS=\((.+)\)$", plan, re.M)
    assert steps is not None
    assert {step.replace("_", " ") for step in steps[1].split()} <= {step for _, step in STEPS}


@pytest.mark.xdist_group("elbv2 create-listener, listener, refused")
def test_what_was_done_is_listed(account: Account, stages: Stages) -> None:
    said = stages.after("apply", "--yes", "--alarms", **planted("elbv2 create-listener", "refused")).err
    assert "  done:     repository, image, health check, task definition\n" in said
    assert "  not done: service, alarms\n" in said


@pytest.mark.xdist_group("ssm put-parameter, record what is there, refused")
def test_a_failure_before_anything_is_done_changes_nothing(
    account: Account, before: dict[str, Any], stages: Stages
) -> None:
    said = stages.after("apply", "--yes", "--alarms", **planted("ssm put-parameter", "refused")).err
    assert "  done:     nothing\n" in said
    assert account.state() == before


def test_the_wait_survives_a_few_lost_answers(account: Account, tool: Tool) -> None:
    """The first describe-services looks the service up; the second is the wait's first."""
    result = tool.run("apply", "--yes", TEST_AWS_FAIL="ecs describe-services@2")
    assert result.status == 0, str(result)
    assert_applied(account)


BACK = [
    "ecs update-service",
    "elbv2 delete-listener",
    "elbv2 modify-target-group",
    "cloudwatch delete-alarms",
    "logs delete-metric-filter",
    "ssm put-parameter",
]


@pytest.mark.parametrize("call", BACK)
def test_a_rollback_that_fails_can_be_run_again(
    account: Account, tool: Tool, call: str, before: dict[str, Any], applied_with_alarms: Result
) -> None:
    stopped = tool.run("rollback", "--yes", **planted(call, "refused"))
    assert stopped.status == 1, str(stopped)
    assert "STOPPED at: " in stopped.err
    assert "run rollback again" in stopped.err
    result = tool.run("rollback", "--yes")
    assert result.status == 0, str(result)
    assert account.state() == before
