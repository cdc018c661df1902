"""Rollouts and rollbacks, step by step, and what they leave alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .account import ACCOUNT, FAMILY, Account, error
from .conftest import GREEN, MEDIA, Calls, S, Tool

BLUE_GROUPS, GREEN_GROUPS = [[S.a2a_target_group], [S.rest_target_group]], [[f"{S.a2a_target_group}-green"], [f"{S.rest_target_group}-green"]]


def routes(account: Account) -> list[list[str]]:
    return [account.leads(50051), account.leads(80, account.alb)]


def idle(account: Account) -> list[list[str]]:
    return [account.leads(S.test_port), account.leads(S.rest_test_port, account.alb)]


def test_beside_the_live_service_nothing_that_clients_reach_changes(tool: Tool, account: Account, green: str) -> None:
    live, made = account.services[S.service], account.services[GREEN]
    assert live["taskDefinition"].endswith(":1") and routes(account) == [[], [S.rest_target_group]]
    assert idle(account) == GREEN_GROUPS
    assert made["desiredCount"] == 1 and made["launchType"] == "FARGATE" and made["networkConfiguration"] == live["networkConfiguration"]
    assert {(each["containerName"], each["containerPort"]) for each in made["loadBalancers"]} == {("par", 8080), ("envoy", 50051)}
    assert green.index("listeners:\n") < green.index("service:\n"), "ECS rejects a target group without a load balancer"
    account.calls.clear()
    again = tool("apply --yes")
    assert again.count("as wanted") == 6 and "no agent stops" in again and account.changes() == {"ssm.PutParameter", "ssm.DeleteParameter"}


def test_shift_back_and_on_and_the_next_one_goes_the_other_way(tool: Tool, account: Account, green: str, calls: object, configured: Any) -> None:
    assert "agent agent-b        20 of 20" in tool("shift --yes"), "the recorded agents are verified"
    assert routes(account) == GREEN_GROUPS and account.services[S.service]["runningCount"] == 1
    assert idle(account) == [GREEN_GROUPS[0], BLUE_GROUPS[1]], "the old task has no Envoy: its A2A target group is empty"
    assert "no agent stops" in tool("rollback --yes") and routes(account) == [[], [S.rest_target_group]] and idle(account) == GREEN_GROUPS
    assert f"--service {S.service} --desired-count 0" in tool("shift --yes")
    assert "IMPACT" in tool("shift --yes") and idle(account)[1] == BLUE_GROUPS[1], "nothing is left to do"
    account.services[S.service] |= {"desiredCount": 0, "runningCount": 0}
    assert "runs no task any more" in tool("rollback --yes", 1) and routes(account) == GREEN_GROUPS
    configured(image_tag="2.0")
    assert f"stops no agent that clients reach: {GREEN}" in tool("apply --yes") and account.services[S.service]["desiredCount"] == 1
    assert idle(account) == BLUE_GROUPS
    tool("shift --yes agent-a")
    assert routes(account) == BLUE_GROUPS and idle(account) == GREEN_GROUPS, "the old task keeps its health checks"
    tool("verify --test agent-a")
    tool("rollback --yes")
    assert routes(account) == GREEN_GROUPS and idle(account) == BLUE_GROUPS


def test_an_agent_that_is_not_reached_stops_the_shift(tool: Tool, account: Account, green: str, calls: Calls) -> None:
    calls["agent-b"] = [("NOT_FOUND unknown_deployment", "NOT_FOUND: not deployed")]
    assert "0 of 20 connections reached it" in tool("shift --yes", 1) and account.leads(50051) == []
    assert "ran before and are not verified, so their clients may get NOT_FOUND: agent-b" in tool("shift agent-a --yes")


def test_there_is_nothing_to_shift_to(tool: Tool, account: Account, calls: object) -> None:
    assert "no rollout is recorded" in tool("shift --yes", 1) and "no rollout is recorded" in tool("rollback --yes", 1)
    tool("apply --in-place --yes")
    assert "applied in place: there is nothing to shift to" in tool("shift --yes", 1)


def test_in_place_and_back(tool: Tool, account: Account) -> None:
    before = account.services[S.service]["loadBalancers"]
    assert "their 2 agents stop, and PAC must redeploy them\n    agent-a, agent-b" in tool("apply --in-place --yes")
    assert routes(account)[0] == [S.a2a_target_group] and account.services[S.service]["taskDefinition"].endswith(":2")
    assert len(account.services) == 1
    out = tool("rollback --yes")
    assert "1 task of" in out and "2 agents stop" in out and out.index("service:\n") < out.index("\nlistener:")
    found = account.services[S.service]
    assert found["taskDefinition"].endswith(":1") and found["loadBalancers"] == before and routes(account)[0] == []


def test_a_second_rollout_and_drift_keep_the_right_way_back(tool: Tool, account: Account, configured: Callable[..., Path]) -> None:
    tool("apply --in-place --yes")
    account.api("elbv2").modify_target_group(TargetGroupArn=account.a2a, UnhealthyThresholdCount=9)
    out = tool("apply --in-place --yes")
    assert "no task is replaced" in out and "UnhealthyThresholdCount: 9 -> 3" in out and "the service stays as it is" in out
    configured(image_tag="2.0")
    assert "the way back is pixell-runtime-multi-agent:2" in tool("apply --in-place --yes")
    tool("rollback --yes")
    assert account.services[S.service]["taskDefinition"].endswith(":2") and routes(account)[0] == [S.a2a_target_group]


def test_target_groups_and_listeners_of_others_stay(tool: Tool, account: Account) -> None:
    other = account.target_group("other", "TCP", 9)
    account.listen(account.nlb, 9, other)
    account.services[S.service]["loadBalancers"].append({"targetGroupArn": other, "containerName": "par", "containerPort": 9})
    assert "service loadBalancers: par:9 in other (stays)" in tool("plan --in-place --accept zones")
    tool("apply --in-place --yes --accept zones")
    assert other in str(account.services[S.service]["loadBalancers"]) and account.leads(9) == ["other"]
    moved = {"ListenerArn": account.listener(50051)["ListenerArn"], "DefaultActions": [{"Type": "forward", "TargetGroupArn": other}]}
    account.api("elbv2").modify_listener(**moved)
    tool("rollback --yes")
    assert account.leads(50051) == ["other"], "somebody has led the listener elsewhere since"


@pytest.mark.parametrize("when", ["at the prompt", "at the prompt of a repeated run", "during the deployment"])
def test_a_listener_that_somebody_changes_during_a_rollback_stays(tool: Tool, account: Account, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    def change(*_: object) -> str:
        actions = [{"Type": "forward", "TargetGroupArn": other}]
        account.api("elbv2").modify_listener(ListenerArn=account.listener(50051)["ListenerArn"], DefaultActions=actions)
        return "y"

    other = account.target_group(f"{S.a2a_target_group}-green", "TCP", 50051)
    tool("apply --in-place --yes")
    if "repeated" in when:
        account.fail["elbv2.DeleteListener"] = lambda p: error("AccessDeniedException")
        tool("rollback --yes", 1)
        account.fail.clear()
    if "prompt" in when:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", change)
    else:
        account.responses["ecs.UpdateService"] = lambda p: change() and account.do_UpdateService(p)
    assert "listener: as wanted" in tool("rollback" if "prompt" in when else "rollback --yes")
    assert account.leads(50051) == GREEN_GROUPS[0] and account.services[S.service]["taskDefinition"].endswith(":1")


@pytest.mark.parametrize(("revision", "status", "text"), [("1", 0, "Done: rolled back"), ("7", 1, "multi-agent:3"), ("2", 1, "INACTIVE")])
def test_rollback_to_a_revision(tool: Tool, account: Account, revision: str, status: int, text: str) -> None:
    tool("apply --in-place --yes")
    account.register()
    account.api("ecs").deregister_task_definition(taskDefinition=f"{FAMILY}:2")
    assert text in tool(f"rollback --yes --revision {revision}", status)
    assert len(account.services[S.service]["loadBalancers"]) == 1 + status, "a revision without envoy has only the REST target group"


def test_an_image_that_is_there_is_not_built_and_a_loose_repository_is_tightened(tool: Tool, account: Account, docker: list[list[str]]) -> None:
    account.api("ecr").create_repository(repositoryName=S.repository)
    account.api("ecr").put_image(repositoryName=S.repository, imageTag="1.0-test", **MEDIA)
    out = tool("apply --yes")
    assert "imageTagMutability: MUTABLE -> IMMUTABLE" in out and docker == [], "it is pushed already"


def test_the_password_of_the_registry_is_in_no_argument_and_no_lasting_file(tool: Tool, docker: list[list[str]]) -> None:
    out = tool("apply --yes")
    (*login, secret, place, config), push = docker[1:]
    assert login == ["docker", "login", "--username", "AWS", "--password-stdin", f"{ACCOUNT}.dkr.ecr.us-east-2.amazonaws.com"]
    assert secret and secret not in out and secret not in str([docker[0], login, push]) and place == push[-2] and not Path(place).exists()
    assert config == '{"currentContext": "colima"}', "the same daemon as the build's, and none of the user's other passwords"


def test_stopped_tasks_say_why(tool: Tool, account: Account) -> None:
    container = {"name": "envoy", "lastStatus": "STOPPED", "healthStatus": "UNHEALTHY", "exitCode": 78, "reason": "bad setting"}
    account.progress, task = ["FAILED"], {"taskArn": "arn:task/1", "taskDefinitionArn": "arn:task-definition/f:2", "containers": [container]}
    account.stopped = [task | {"stoppedReason": "Essential container exited"}]
    out = tool("apply --yes", 1)
    assert "stopped task 1 of f:2: Essential container exited" in out and "envoy: STOPPED, health UNHEALTHY, exit code 78 bad setting" in out
    account.progress = ["COMPLETED"]
    assert "restart the deployment that failed" in tool("apply --yes")


def test_a_deployment_that_others_replace_is_not_taken_for_ours(tool: Tool, account: Account) -> None:
    account.progress = [lambda: account.do_UpdateService({"service": GREEN})]
    assert "was replaced by ecs-svc/3" in tool("apply --yes", 1)
