"""plan: exactly the changes, field by field, and none of them made."""

from __future__ import annotations

import re

from support.account import ACCOUNT, DEAD_PATH, Account
from support.names import REGION, SETTINGS
from support.tool import Result, Tool

SERVICE = SETTINGS["SERVICE"]
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/pixell-envoy:0.1.0-test"

# Of the account before the rollout; SECRET and DNS stand for what AWS makes up.
FULL_PLAN = f"""\
account {ACCOUNT}, region {REGION}, service {SERVICE}

repository:
  create pixell-envoy with scan on push and immutable tags

image:
  build and push pixell-envoy:0.1.0-test for linux/amd64

health check:
  pixell-runtime-a2a-tg.HealthCheckProtocol: HTTP -> TCP
  pixell-runtime-a2a-tg.HealthCheckPort: 8080 -> traffic-port
  pixell-runtime-a2a-tg.HealthCheckIntervalSeconds: 10 -> 30
  pixell-runtime-a2a-tg.HealthCheckTimeoutSeconds: 6 -> 10
  pixell-runtime-a2a-tg.HealthyThresholdCount: 3 -> 2

task definition:
  register a new revision of {SERVICE}; against {SERVICE}:2, which runs now:
    envoy.cpu: (none) -> 512
    envoy.environment.PIXELL_CONCURRENCY: (none) -> 2
    envoy.environment.PIXELL_DRAIN_SECONDS: (none) -> 30
    envoy.environment.PIXELL_LOG_LEVEL: (none) -> info
    envoy.essential: (none) -> true
    envoy.healthCheck.command: (none) -> ["CMD","/usr/local/bin/pixell-envoy-health"]
    envoy.healthCheck.interval: (none) -> 5
    envoy.healthCheck.retries: (none) -> 3
    envoy.healthCheck.startPeriod: (none) -> 10
    envoy.healthCheck.timeout: (none) -> 3
    envoy.image: (none) -> {IMAGE}
    envoy.logConfiguration.logDriver: (none) -> awslogs
    envoy.logConfiguration.options.awslogs-group: (none) -> /ecs/{SERVICE}
    envoy.logConfiguration.options.awslogs-region: (none) -> {REGION}
    envoy.logConfiguration.options.awslogs-stream-prefix: (none) -> envoy
    envoy.memory: (none) -> 512
    envoy.mountPoints./run/pixell-envoy.sourceVolume: (none) -> envoy-run
    envoy.portMappings.50051.protocol: (none) -> tcp
    envoy.portMappings.9901.protocol: (none) -> tcp
    envoy.readonlyRootFilesystem: (none) -> true
    envoy.restartPolicy.enabled: (none) -> true
    envoy.restartPolicy.restartAttemptPeriod: (none) -> 60
    envoy.secrets.PIXELL_ADMIN_TOKEN.valueFrom: (none) -> SECRET
    envoy.stopTimeout: (none) -> 60
    envoy.ulimits.nofile.hardLimit: (none) -> 262144
    envoy.ulimits.nofile.softLimit: (none) -> 262144
    envoy.user: (none) -> 101:101
    par.cpu: (none) -> 1536
    par.dependsOn.envoy.condition: (none) -> HEALTHY
    par.environment.A2A_EXTERNAL_ENDPOINT: old.example:50051 -> DNS:50051
    par.environment.A2A_PORT: (none) -> 50051
    par.environment.ADMIN_PORT: (none) -> 9090
    par.environment.ENVOY_ADMIN_URL: (none) -> http://localhost:9901
    par.environment.MAX_AGENTS: (none) -> 20
    par.environment.PORT: (none) -> 8080
    par.environment.SERVICE_DISCOVERY_NAMESPACE: (none) -> pixell-runtime.local
    par.environment.SERVICE_DISCOVERY_SERVICE: (none) -> agents
    par.memory: 4096 -> (none)
    par.memoryReservation: (none) -> 3584
    par.portMappings.50051.protocol: tcp -> (none)
    par.secrets.PIXELL_ADMIN_TOKEN.valueFrom: (none) -> SECRET
    volumes.envoy-run.present: (none) -> true

listener:
  pixell-runtime-nlb: create listener TCP 50051 -> pixell-runtime-a2a-tg

service:
  {SERVICE}.taskDefinition: {SERVICE}:2 -> (the new revision)
  {SERVICE}.loadBalancers: (none) -> envoy:50051 in pixell-runtime-a2a-tg

"""


def without_made_up_names(text: str) -> str:
    text = re.sub(r"arn:aws:secretsmanager:\S+", "SECRET", text)
    return re.sub(r"pixell-runtime-nlb-[\w.-]+\.amazonaws\.com", "DNS", text)


def test_the_plan_lists_exactly_the_changes_and_makes_none(account: Account, tool: Tool) -> None:
    before = account.state()
    result = tool.run("plan")
    assert result.status == 0, str(result)
    assert without_made_up_names(result.out) == FULL_PLAN
    assert account.state() == before
    assert account.record() is None
    assert not result.changes
    assert not result.docker_calls


def test_a_given_image_needs_no_repository_and_no_build(account: Account, tool: Tool) -> None:
    result = tool.run("plan", "--image", "registry.example/pixell-envoy@sha256:" + "0" * 64)
    headings = [line for line in result.out.splitlines() if re.fullmatch(r"[a-z ]+:", line)]
    assert headings == ["health check:", "task definition:", "listener:", "service:"]
    assert f"envoy.image: (none) -> registry.example/pixell-envoy@sha256:{'0' * 64}" in result.out


def test_alarms_are_planned_only_when_asked_for(account: Account, tool: Tool) -> None:
    assert "alarm" not in tool.run("plan").out
    alarms = tool.run("plan", "--alarms").out.partition("\nalarms:\n")[2]
    assert len(re.findall(r"^  alarm pixell-envoy-", alarms, re.M)) == 4
    assert len(re.findall(r"^  metric filter pixell-envoy-", alarms, re.M)) == 2
    assert alarms.count("tells nobody") == 4


def test_where_all_is_as_wanted_the_plan_is_empty(account: Account, tool: Tool, applied: Result) -> None:
    result = tool.run("plan")
    assert result.out.splitlines()[1:] == ["", "Nothing to change."]


def test_a_listener_that_forwards_elsewhere_is_planned_with_its_price(account: Account, tool: Tool) -> None:
    other = account.target_group("old-router", "TCP", 50052)
    account.client("elbv2").create_listener(
        LoadBalancerArn=account.nlb,
        Protocol="TCP",
        Port=50051,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": other}],
    )
    result = tool.run("plan")
    assert (
        "pixell-runtime-nlb listener 50051: old-router -> pixell-runtime-a2a-tg (calls on it fail from here until"
        in result.out
    )


def test_the_plan_shows_a_single_changed_field(account: Account, tool: Tool, applied: Result) -> None:
    tool.settings["ENVOY_DRAIN_SECONDS"] = "45"
    result = tool.run("plan")
    fields = [line.strip() for line in result.out.splitlines() if line.startswith("    ")]
    assert fields == ["envoy.environment.PIXELL_DRAIN_SECONDS: 30 -> 45", "envoy.stopTimeout: 60 -> 75"]


def test_what_cannot_be_seen_is_not_planned_on(account: Account, tool: Tool) -> None:
    result = tool.run("plan", TEST_AWS_FAIL="elbv2 describe-listeners")
    assert result.status == 1
    assert "FAULT  listener" in result.out
    assert "InjectedFailure" in result.out


def test_nothing_is_rendered_from_what_is_not_there(account: Account, tool: Tool) -> None:
    tool.settings["ADMIN_TOKEN_SECRET"] = "no-secret"
    result = tool.run("render")
    assert result.status == 1
    assert result.out == ""
    assert "there is no secret no-secret" in result.err
    assert f"  mend: {tool.script()} --settings {tool.directory}/settings.env check says more" in result.err


def test_render_prints_what_apply_registers(account: Account, tool: Tool) -> None:
    rendered = tool.run("render")
    assert rendered.status == 0, str(rendered)
    assert DEAD_PATH not in rendered.out
    assert f'"image": "{IMAGE}"' in rendered.out
    assert not rendered.changes
