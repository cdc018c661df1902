"""apply: makes the plan true, touches nothing else, and the second time changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

from support.account import ACCOUNT, Account
from support.ecs_scheduler import Behaviour
from support.names import REGION, SETTINGS
from support.tool import RUN_SECONDS, VENV, Result, Tool

WANTED_HEALTH_CHECK = {
    "HealthCheckProtocol": "TCP",
    "HealthCheckPort": "traffic-port",
    "HealthCheckIntervalSeconds": 30,
    "HealthCheckTimeoutSeconds": 10,
    "HealthyThresholdCount": 2,
    "UnhealthyThresholdCount": 3,
}


def assert_applied(
    account: Account, image: str = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/pixell-envoy:0.1.0-test"
) -> None:
    """The wanted column of the resources, as AWS tells it."""
    group = account.a2a_group()
    assert {name: group[name] for name in WANTED_HEALTH_CHECK} == WANTED_HEALTH_CHECK
    (listener,) = account.listeners()
    assert (listener["Port"], listener["Protocol"]) == (50051, "TCP")
    assert listener["DefaultActions"][0]["TargetGroupArn"] == account.a2a
    assert account.service_targets() == {("envoy", 50051, account.a2a), ("par", 8080, account.rest)}
    containers = {each["name"]: each for each in account.revision()["containerDefinitions"]}
    assert containers["envoy"]["image"] == image
    assert containers["par"]["dependsOn"] == [{"containerName": "envoy", "condition": "HEALTHY"}]
    assert account.revision()["taskDefinitionArn"] != account.par_revision
    record = account.record()
    assert record is not None
    assert record["status"] == "applied"


def revisions(account: Account) -> list[str]:
    found: list[str] = account.client("ecs").list_task_definitions(familyPrefix=SETTINGS["TASK_FAMILY"])[
        "taskDefinitionArns"
    ]
    return found


def repository(account: Account) -> dict[str, Any]:
    found: dict[str, Any] = account.client("ecr").describe_repositories(repositoryNames=["pixell-envoy"])[
        "repositories"
    ][0]
    return found


def test_apply_makes_every_change_and_a_second_apply_none(
    account: Account, tool: Tool, before: dict[str, Any], applied: Result
) -> None:
    assert_applied(account)
    assert repository(account)["imageTagMutability"] == "IMMUTABLE"
    assert repository(account)["imageScanningConfiguration"]["scanOnPush"] is True
    assert account.client("ecr").describe_images(repositoryName="pixell-envoy")["imageDetails"][0]["imageTags"] == [
        "0.1.0-test"
    ]

    # What it does not own is as it was.
    after = account.state()
    for same in ("desiredCount", "network", "alarms", "filters"):
        assert after[same] == before[same]

    # What was there before is written down.
    record = account.record()
    assert record is not None
    assert record["taskDefinition"] == account.par_revision
    assert [each["containerName"] for each in record["loadBalancers"]] == ["par"]
    assert record["healthCheck"]["HealthCheckProtocol"] == "HTTP"
    assert record["listener"] is None

    made = revisions(account)
    second = tool.run("apply", "--yes")
    assert second.status == 0, str(second)
    assert "Nothing to change." in second.out
    for step in ("repository", "image", "health check", "task definition", "listener", "service"):
        assert f"{step}: as wanted" in second.out
    assert second.changes == []
    assert second.docker_calls == []
    assert revisions(account) == made
    assert account.state() == after
    assert account.record() == record


def test_the_waiting_is_visible(applied: Result) -> None:
    progress = applied.out.partition("\nstable:\n")[2]
    states = [line.split("  ")[-1].split(":")[0] for line in progress.splitlines() if "of earlier revisions" in line]
    assert states == ["under way", "under way", "stable"]
    assert "has reached a steady state." in progress


def test_the_image_is_built_logged_in_for_and_pushed(applied: Result) -> None:
    registry = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
    build, login, push = applied.docker_calls
    assert build.startswith("build --platform linux/amd64 --build-arg VERSION=0.1.0-test --build-arg REVISION=")
    assert f"--tag {registry}/pixell-envoy:0.1.0-test" in build
    assert "Dockerfile.envoy" in build
    assert login == f"login --username AWS --password-stdin {registry}"
    assert push == f"push {registry}/pixell-envoy:0.1.0-test"


def test_a_given_image_is_taken_as_it_is(account: Account, tool: Tool) -> None:
    result = tool.run("apply", "--yes", "--image", "registry.example/pixell-envoy:7")
    assert result.status == 0, str(result)
    assert result.docker_calls == []
    assert_applied(account, image="registry.example/pixell-envoy:7")
    assert "ecr create-repository" not in result.changes


def test_an_image_that_is_pushed_already_is_not_built_again(account: Account, tool: Tool, applied: Result) -> None:
    assert tool.run("rollback", "--yes").status == 0
    again = tool.run("apply", "--yes")
    assert again.docker_calls == []
    assert "task definition: as wanted" in again.out
    assert_applied(account)


def test_a_repository_with_loose_settings_is_tightened(account: Account, tool: Tool) -> None:
    account.client("ecr").create_repository(repositoryName="pixell-envoy")
    assert tool.run("apply", "--yes").status == 0
    assert repository(account)["imageTagMutability"] == "IMMUTABLE"
    assert repository(account)["imageScanningConfiguration"]["scanOnPush"] is True


def test_pars_own_settings_and_other_containers_stay(account: Account, tool: Tool) -> None:
    collector = {"name": "collector", "image": "registry.example/collector:1", "essential": False, "memory": 128}
    present = account.client("ecs").describe_task_definition(taskDefinition=account.par_revision)["taskDefinition"]
    par = {**present["containerDefinitions"][0], "healthCheck": {"command": ["CMD", "par-health"]}}
    revision = account.client("ecs").register_task_definition(
        family=SETTINGS["TASK_FAMILY"],
        requiresCompatibilities=["FARGATE"],
        networkMode="awsvpc",
        cpu=SETTINGS["TASK_CPU"],
        memory=SETTINGS["TASK_MEMORY"],
        containerDefinitions=[par, collector],
        volumes=[{"name": "packages"}],
        tags=[{"key": "team", "value": "runtime"}],
        ephemeralStorage={"sizeInGiB": 40},
    )["taskDefinition"]["taskDefinitionArn"]
    account.deploy_par(revision)
    assert tool.run("apply", "--yes").status == 0

    made = account.revision()
    containers = {each["name"]: each for each in made["containerDefinitions"]}
    assert list(containers) == ["envoy", "par", "collector"]
    assert {"name": "PAR_BUCKET", "value": "par-packages"} in containers["par"]["environment"]
    assert {"name": "PAR_DATABASE_URL", "valueFrom": "par/database-url"} in containers["par"]["secrets"]
    assert containers["par"]["image"] == "registry.example/par-multi-agent:2.4.1"
    assert containers["par"]["healthCheck"] == {"command": ["CMD", "par-health"]}
    assert containers["collector"]["image"] == collector["image"]
    assert {each["name"] for each in made["volumes"]} == {"packages", "envoy-run"}
    assert made["ephemeralStorage"] == {"sizeInGiB": 40}
    tags = account.client("ecs").describe_task_definition(taskDefinition=made["taskDefinitionArn"], include=["TAGS"])[
        "tags"
    ]
    assert tags == [{"key": "team", "value": "runtime"}]
    assert tool.run("apply", "--yes").changes == []


def test_other_target_groups_of_the_service_stay(account: Account, tool: Tool) -> None:
    metrics = account.target_group("par-metrics", "TCP", 9090)
    account.client("elbv2").create_listener(
        LoadBalancerArn=account.nlb,
        Protocol="TCP",
        Port=9090,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": metrics}],
    )
    account.moto_service().load_balancers.append(
        {"targetGroupArn": metrics, "containerName": "par", "containerPort": 9090}
    )
    assert tool.run("apply", "--yes").status == 0
    assert account.service_targets() == {
        ("envoy", 50051, account.a2a),
        ("par", 8080, account.rest),
        ("par", 9090, metrics),
    }
    assert tool.run("apply", "--yes").changes == []


def test_an_a2a_target_group_that_par_had_goes_to_envoy(account: Account, tool: Tool) -> None:
    account.client("elbv2").create_listener(
        LoadBalancerArn=account.nlb,
        Protocol="TCP",
        Port=50051,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": account.a2a}],
    )
    account.moto_service().load_balancers.append(
        {"targetGroupArn": account.a2a, "containerName": "par", "containerPort": 50051}
    )
    result = tool.run("apply", "--yes")
    assert "loadBalancers: par:50051 in pixell-runtime-a2a-tg -> (none)" in result.out
    assert_applied(account)


def test_a_new_image_is_a_new_revision_and_the_way_back_is_the_one_before(
    account: Account, tool: Tool, applied: Result
) -> None:
    first = account.state()
    tool.settings["IMAGE_TAG"] = "0.2.0-test"
    result = tool.run("apply", "--yes")
    assert result.status == 0, str(result)
    assert_applied(account, image=f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/pixell-envoy:0.2.0-test")
    assert "listener: as wanted" in result.out
    assert tool.run("rollback", "--yes").status == 0
    assert account.state() == first


def test_adding_alarms_later_does_not_take_the_way_back_away(
    account: Account, tool: Tool, before: dict[str, Any], applied: Result
) -> None:
    record = account.record()
    assert tool.run("apply", "--yes", "--alarms").status == 0
    assert account.record() == record
    assert tool.run("rollback", "--yes").status == 0
    assert account.state() == before


def test_interrupted_by_hand_it_says_where_it_stopped(account: Account, tool: Tool, behaviour: Behaviour) -> None:
    behaviour.deployment = "sticks"
    tool.settings["STABLE_TIMEOUT_SECONDS"] = "600"
    process = subprocess.Popen(
        [tool.script(), "--settings", tool.settings_file(), "apply", "--yes"],
        env=tool.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ctrl-C at a terminal reaches every process of the group.
        start_new_session=True,
    )
    assert process.stdout is not None
    while "under way:" not in (line := process.stdout.readline()):
        assert line, "it ended before it waited"
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=RUN_SECONDS)
    assert process.returncode == 130
    assert "STOPPED at: wait until the service is stable" in said
    assert said.rstrip().endswith(" rollback")
    assert not list(tool.directory.glob("pixell-envoy.*")), "the working directory is left behind"


def test_the_installed_aws_does_the_same(account: Account, tool: Tool) -> None:
    """The other tests run the CLI in a server of their own; this one runs the program a person would."""
    (tool.bin / "aws").unlink()
    (tool.bin / "aws").symlink_to(VENV / "aws")
    version = subprocess.run([tool.bin / "aws", "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("aws-cli/1.")
    result = tool.run("apply", "--yes", "--alarms")
    assert result.status == 0, str(result)
    assert_applied(account)
    result = tool.run("rollback", "--yes")
    assert result.status == 0, str(result)
    assert account.service()["taskDefinition"] == account.par_revision


def test_a_listener_comes_before_the_service(applied: Result) -> None:
    """ECS refuses a target group that no load balancer uses; the stand-in for ECS does, too."""
    calls = applied.changes
    assert calls.index("elbv2 create-listener") < calls.index("ecs update-service")
    assert calls[0] == "ssm put-parameter", "what was there is recorded before the first change"
