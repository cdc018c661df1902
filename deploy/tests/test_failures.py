"""A failure at each step: said plainly, and both ways out of it work, forward with apply and back with rollback."""

from __future__ import annotations

import pytest

from support.account import Account
from support.names import SETTINGS
from support.tool import Tool
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


def fail_at(tool: Tool, call: str, how: str, command: str, *options: str) -> str:
    """Runs a command that fails at `call`; what it said on standard error."""
    environment = {"TEST_DOCKER_FAIL": call.removeprefix("docker ")} if call.startswith("docker") else {"TEST_AWS_FAIL": call}
    if how == "answer lost":
        environment["TEST_AWS_FAIL_AFTER"] = "yes"
    result = tool.run(command, "--yes", *options, **environment)
    assert result.status == 1, str(result)
    return result.err


@pytest.mark.parametrize("way_out", ["apply", "rollback"])
@pytest.mark.parametrize(("call", "step", "how"), CASES, ids=[f"{call}, {how}" for call, _, how in CASES])
def test_both_ways_out(account: Account, tool: Tool, call: str, step: str, how: str, way_out: str) -> None:
    before = account.state()
    said = fail_at(tool, call, how, "apply", "--alarms")
    assert f"STOPPED at: {step}\n" in said
    assert "  done:     " in said
    assert "apply again" in said
    assert said.rstrip().endswith(" rollback"), "how to go back is the last thing said"

    if way_out == "apply":
        result = tool.run("apply", "--yes", "--alarms")
        assert result.status == 0, str(result)
        assert_applied(account)
        assert len(account.state()["alarms"]) == 4
        revisions = account.client("ecs").list_task_definitions(familyPrefix=SETTINGS["TASK_FAMILY"])["taskDefinitionArns"]
        assert len(revisions) == 3, "an earlier try's revision is used, not made again"
        record = account.record()
        assert record is not None
        assert record["taskDefinition"] == account.par_revision, "the way back is still what was there before the first try"
    elif account.record() is None:
        result = tool.run("rollback", "--yes")
        assert result.status == 1
        assert "so apply has changed nothing here" in result.err
        assert account.state() == before
    else:
        result = tool.run("rollback", "--yes")
        assert result.status == 0, str(result)
        assert account.state() == before


def test_what_was_done_is_listed(account: Account, tool: Tool) -> None:
    said = fail_at(tool, "elbv2 create-listener", "refused", "apply")
    assert "  done:     repository, image, health check, task definition\n" in said
    assert "  not done: service\n" in said


def test_a_failure_before_anything_is_done_changes_nothing(account: Account, tool: Tool) -> None:
    before = account.state()
    said = fail_at(tool, "ssm put-parameter", "refused", "apply")
    assert "  done:     nothing\n" in said
    assert account.state() == before


def test_the_wait_survives_a_few_lost_answers(account: Account, tool: Tool) -> None:
    """The first describe-services looks the service up; the second is the wait's first."""
    result = tool.run("apply", "--yes", TEST_AWS_FAIL="ecs describe-services@2")
    assert result.status == 0, str(result)
    assert_applied(account)


BACK = ["ecs update-service", "elbv2 delete-listener", "elbv2 modify-target-group", "cloudwatch delete-alarms", "logs delete-metric-filter", "ssm put-parameter"]


@pytest.mark.parametrize("call", BACK)
def test_a_rollback_that_fails_can_be_run_again(account: Account, tool: Tool, call: str) -> None:
    before = account.state()
    assert tool.run("apply", "--yes", "--alarms").status == 0
    said = fail_at(tool, call, "refused", "rollback")
    assert "STOPPED at: " in said
    assert "run rollback again" in said
    result = tool.run("rollback", "--yes")
    assert result.status == 0, str(result)
    assert account.state() == before
