"""Checks: each planted fault is found, with its fix, and nothing else is; what cannot be read is never `ok`."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pixell_envoy_deploy import checks, image, settings
from pixell_envoy_deploy.aws import Doc
from pixell_envoy_deploy.facts import Facts
from pixell_envoy_deploy.rollout import Rollout

from .account import ACCOUNT, FAMILY, PAR_IMAGE, QUOTA, SCALED, Account, error
from .conftest import S, Tool

Plant = Callable[[Account], object]
MESH: Doc = {"proxyConfiguration": {"type": "APPMESH", "containerName": "envoy", "properties": []}}
SIDECAR: Doc = {"name": "sidecar", "image": "x/y:1", "cpu": 1400, "essential": False}
SECRETS = {"A": "/sidecar/key", "B": f"arn:aws:secretsmanager:us-east-2:{ACCOUNT}:secret:sidecar-1:key::"}
READER: Doc = SIDECAR | {"cpu": 0, "secrets": [{"name": name, "valueFrom": place} for name, place in SECRETS.items()]}
READER["logConfiguration"] = {"logDriver": "awslogs", "options": {"awslogs-group": "sidecar"}}
LABEL = {"ai.pixell.envoy.routes": "1"}
STRANGER = {"Target": {"Id": "10.7.7.7"}, "TargetHealth": {"State": "healthy"}}


def service(**changes: Any) -> Plant:
    return lambda a: a.services[S.service].update(changes)


def percent(low: int, high: int, **more: Any) -> Plant:
    return service(deploymentConfiguration={"minimumHealthyPercent": low, "maximumPercent": high, **more})


def respond(name: str, **result: Any) -> Plant:
    return lambda a: a.responses.update({name: lambda p: result})


def edit(name: str, where: str, **changes: Any) -> Plant:
    """Changes AWS's response, in the items in which `where` occurs."""
    return lambda a: a.edits.update({name: (where, changes)})


def listener(**changes: Any) -> Plant:
    def plant(a: Account) -> None:
        a.listen(a.nlb, 50051, a.a2a)
        edit(LISTENERS, "50051", **changes)(a)

    return plant


def crossing(a: Account) -> None:
    a.listen(a.nlb, 9, a.rest)
    edit("elbv2.DescribeLoadBalancerAttributes", "cross_zone", Value="true")(a)


def guarded(a: Account) -> None:
    """The load balancer has a security group that lets nobody in and nothing out."""
    edit(BALANCERS, "", SecurityGroups=[a.group])(a)
    edit(RULES, "", IpPermissions=[], IpPermissionsEgress=[])(a)


def reading(forbidden: str) -> Plant:
    """The task has a container with secrets and a log group of its own, and the execution role may not use that service."""

    def plant(a: Account) -> None:
        a.register(None, READER)
        a.forbid(forbidden)

    return plant


def do(name: str, operation: str, **arguments: Any) -> Plant:
    return lambda a: getattr(a.api(name), operation)(**arguments)


BALANCERS, LISTENERS, GROUPS = "elbv2.DescribeLoadBalancers", "elbv2.DescribeListeners", "elbv2.DescribeTargetGroups"
RULES, ATTRIBUTES, A2A = "ec2.DescribeSecurityGroups", "elbv2.DescribeTargetGroupAttributes", S.a2a_target_group
# What is planted in the account or the settings, the check that finds it, its text, and whether it is an error in place, beside the live
# service, both, or neither ("ok").
ERRORS: list[tuple[Plant | Doc, str, str, str]] = [
    (service(status="DRAINING"), "service", "is DRAINING", "both"),
    (service(launchType="EC2"), "service", "runs on EC2", "both"),
    (service(deploymentController={"type": "CODE_DEPLOY"}), "service", "deployed by CODE_DEPLOY", "both"),
    (percent(100, 200, strategy="BLUE_GREEN"), "service", "strategy BLUE_GREEN", "both"),
    (service(platformVersion="1.3.0"), "service", "knows no restart policy", "both"),
    (service(runningCount=0), "service", "0 of 1 tasks", "both"),
    (lambda a: a.services[S.service]["deployments"][0].update(rolloutState="FAILED"), "service", "has failed", "both"),
    (lambda a: a.services[S.service]["deployments"].append({"id": "old", "status": "ACTIVE"}), "service", "is in progress", "both"),
    (lambda a: a.services[S.service]["deployments"][0].update(rolloutState="IN_PROGRESS"), "service", "is in progress", "both"),
    (service(desiredCount=2, runningCount=2), "tasks", "2 tasks without a fleet", "both"),
    (respond("application-autoscaling.DescribeScalableTargets", ScalableTargets=[SCALED]), "tasks", "3 tasks without a fleet", "both"),
    (percent(0, 100), "replacement", "ECS may stop every old task first", "in"),
    (percent(50, 100), "replacement", "neither stop an old task nor start", "in"),
    (do("ecs", "deregister_task_definition", taskDefinition=f"{FAMILY}:1"), "present revision", "INACTIVE", "in"),
    (lambda a: a.register({"name": "other"}), "present revision", "no container par", "both"),
    (lambda a: a.register(executionRoleArn=""), "present revision", "has no execution role", "both"),
    (lambda a: a.register(**MESH), "present revision", "App Mesh proxyConfiguration", "both"),
    (lambda a: a.register(None, SIDECAR), "task definition", "PAR gets 136 and", "both"),
    (lambda a: a.register(runtimePlatform={"cpuArchitecture": "ARM64"}), "images", "is for amd64, the tasks run on arm64", "both"),
    (lambda a: a.config.update(architecture="arm64"), "images", "is for arm64, the tasks run on amd64", "both"),
    (lambda a: a.config.update(config={}), "images", "does not say that it pushes routes", "in"),
    (do("secretsmanager", "delete_secret", SecretId=S.admin_token_secret), "needs", "marked for deletion", "both"),
    (do("logs", "delete_log_group", logGroupName=S.log_group), "needs", "log group", "both"),
    (lambda a: a.forbid("secretsmanager"), "permissions", "may not secretsmanager:GetSecretValue", "both"),
    (lambda a: a.forbid("logs", MissingContextValues=["aws:SourceVpc"]), "permissions", "if aws:SourceVpc does not allow it", "ok"),
    (reading("ssm"), "permissions", "may not ssm:GetParameters", "both"),
    (reading("secretsmanager"), "permissions", ":secret:sidecar-1 (implicitDeny)", "both"),
    (reading("logs"), "permissions", ":log-group:sidecar:log-stream:any (implicitDeny)", "both"),
    (respond("service-quotas.GetServiceQuota", Quota=QUOTA | {"Value": 1.0}), "quotas", "0 of 1 vCPU used, 2 more", "both"),
    (edit(BALANCERS, "", Type="application"), "load balancer", "is of type application", "both"),
    (edit(BALANCERS, "", State={"Code": "provisioning"}), "load balancer", "is provisioning", "both"),
    (edit(GROUPS, A2A, TargetType="instance"), "target groups", "TargetType instance, not ip", "both"),
    (edit(GROUPS, A2A, Port=1), "target groups", "Port 1, not 50051", "both"),
    (edit(GROUPS, A2A, Protocol="TLS"), "target groups", "speaks TLS", "both"),
    (edit(GROUPS, A2A, VpcId="vpc-9"), "target groups", "VpcId vpc-9", "both"),
    (service(loadBalancers=[]), "target groups", "does not serve", "both"),
    (respond("elbv2.DescribeTargetHealth", TargetHealthDescriptions=[STRANGER]), "target groups", "get connections: 10.7.7.7", "both"),
    (listener(Protocol="UDP"), "listeners", "speaks UDP", "both"),
    (listener(Protocol="TLS", AlpnPolicy=["HTTP1Only"]), "listeners", "without ALPN for HTTP/2", "both"),
    (listener(Protocol="TLS", AlpnPolicy=["HTTP2Preferred"]), "listeners", "speaks TLS and leads to", "ok"),
    (lambda a: a.listen(a.nlb, 7000, a.a2a), "listeners", "port 7000 leads to", "ok"),
    (lambda a: a.listen(a.nlb, S.test_port, a.rest), "listeners", "choose another test_port", "beside"),
    (edit(BALANCERS, "", AvailabilityZones=[]), "zones", "sends nothing", "both"),
    (lambda a: a.listen(a.nlb, 9, a.rest), "zones", "no healthy target in us-east-2b", "both"),
    (crossing, "zones", "stay in the DNS", "ok"),
    (edit(ATTRIBUTES, "timeout", Key="preserve_client_ip.enabled", Value="true"), "security groups", "preserves client addresses", "both"),
    (edit(RULES, "", IpPermissions=[]), "security groups", "does not let 50051 in", "both"),
    (edit(RULES, "", IpPermissionsEgress=[]), "security groups", "lets nothing out to 443", "both"),
    (guarded, "security groups", "lets nothing out to 50051", "both"),
    (guarded, "security groups", "lets nobody in on 8081", "beside"),
    ({"task_memory": 4097}, "task definition", "Fargate has no task of 2048 CPU units and 4097 MiB", "both"),
    ({"task_cpu": 3000}, "task definition", "Fargate has no task of 3000 CPU units", "both"),
    ({"envoy_memory": 4000}, "task definition", "raise task_cpu and task_memory", "both"),
    ({"deregistration_seconds": 60}, "task definition", "PAR rejects requests before clients have left", "both"),
    ({"service": "other"}, "service", "service other does not exist in", "both"),
    ({"load_balancer": "other"}, "load balancer", "load balancer other does not exist", "both"),
    ({"rest_target_group": "other"}, "target groups", "target group other does not exist", "both"),
    ({"admin_token_secret": "other"}, "needs", "openssl rand -hex 32 | aws secretsmanager create-secret", "both"),
]


@pytest.mark.parametrize(("plant", "name", "text", "where"), ERRORS, ids=[f"{name}: {text}" for _, name, text, _ in ERRORS])
def test_a_planted_error_is_found(account: Account, configured: Callable[..., Path], plant: Any, name: str, text: str, where: str) -> None:
    levels, path = [], configured(**plant) if isinstance(plant, dict) else configured()
    plant(account) if not isinstance(plant, dict) else None
    for in_place in (True, False):
        rollout = Rollout(Facts(settings.read(path)), in_place)
        every = {each: checks.findings(each, rollout) for each in checks.CHECKS}
        assert "the check failed" not in str(every), "it makes no other check raise"
        found = every[name]
        levels += [(in_place, level) for level, said, fix in found if text in f"{said} {fix}"]
        replacing = [fix for _, _, fix in found if re.search("update-service|Fargate,|controller|VPC,|deploy|revision|count|Percent", fix)]
        assert [fix for fix in replacing if "agent" not in fix] == [], "a fix says what it does to agents"
        assert all(fix for level, _, fix in found if level == "ERROR") and {"ERROR", "ok"} - {level for level, _, _ in found}
    expected = {"both": {True, False}, "in": {True}, "beside": {False}, "ok": set[bool]()}[where]
    assert levels and {in_place for in_place, level in levels if level == "ERROR"} == expected, found


def test_the_account_before_the_rollout_has_no_error(tool: Tool) -> None:
    out = tool("check") + tool("check --in-place")
    assert {line.split()[0] for line in out.splitlines()} == {"account", "ok", "note"}, out
    assert len(checks.CHECKS) == 17 and all(f" {name} " in out for name in checks.CHECKS)


def test_what_aws_does_not_tell_is_never_ok(tool: Tool, account: Account) -> None:
    tool("check")
    names = sorted(account.calls - Counter(["sts.GetCallerIdentity"] * account.calls.total()))
    assert len(names) > 20 and not account.changes()
    for name in names:
        account.fail = {name: lambda p: error("AccessDeniedException", "not allowed to look")}
        assert re.search(r"ERROR .* AWS does not tell: .*not allowed to look[^$]*Nothing was changed", tool("apply --yes", 1)), name
    assert not account.changes()


def test_an_exception_in_a_check_is_an_error_of_that_check(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checks.CHECKS, "zones", lambda r: iter([dict[str, Any]()["missing"]]))
    monkeypatch.setitem(checks.CHECKS, "tasks", lambda r: iter([None]))
    found = [checks.findings(name, Rollout(Facts(S))) for name in ("zones", "tasks")]
    assert found[0][0][:2] == ("ERROR", "the check failed: KeyError: 'missing'") and found[1][0][0] == "ERROR"


def test_an_error_can_be_accepted_and_app_mesh_dropped_by_name(tool: Tool, account: Account) -> None:
    account.forbid("ecr")
    assert "accepted: pixell-runtime-execution-role may not ecr:BatchGetImage" in tool("check --accept permissions")
    account.register(**MESH)
    assert "proxyConfiguration.type: APPMESH -> (none)" in tool("plan --drop proxyConfiguration --accept permissions")


PORTS = [(port, 0, f"A2A_PORT is {port}") for port in (50050, 50051, 9901)] + [(50052, 50054, "fallback_port is 50054"), (50052, 50052, "")]


@pytest.mark.parametrize(("port", "fallback", "text"), PORTS)
def test_ports_that_would_lead_to_another_agent(account: Account, monkeypatch: Any, tmp_path: Path, port: int, fallback: int, text: str) -> None:
    (tmp_path / "envoy").mkdir()
    (tmp_path / "envoy/envoy.yaml").write_text(f'"fallback_port": {fallback}' if fallback else "")
    template = (settings.DEPLOY / "task-definition.json").read_text().replace('"A2A_PORT", "value": "50052"', f'"A2A_PORT", "value": "{port}"')
    (tmp_path / "task-definition.json").write_text(template)
    monkeypatch.setattr("pixell_envoy_deploy.check_ecs.ROOT", tmp_path)
    monkeypatch.setattr("pixell_envoy_deploy.rollout.DEPLOY", tmp_path)
    found = checks.findings("task definition", Rollout(Facts(account.s)))
    assert (text in found[0][1] and found[0][0] == "ERROR") if text else found[0][0] == "ok", found


def test_an_image_is_known_by_its_index_its_configuration_or_not_at_all(account: Account) -> None:
    kinds = ", ".join(f'{{"digest": "sha256:{n}", "platform": {{"architecture": "{kind}"}}}}' for n, kind in ((1, "arm64"), (2, "unknown")))
    index, single = {"images": [{"imageManifest": f'{{"manifests": [{kinds}]}}'}]}, account.responses["ecr.BatchGetImage"]
    account.responses["ecr.BatchGetImage"] = lambda p: single(p) if "imageDigest" in p["imageIds"][0] else index
    assert image.inspect(Facts(S), PAR_IMAGE) == (["arm64"], LABEL)
    account.responses["ecr.BatchGetImage"] = lambda p: {"images": []}
    for reference in (PAR_IMAGE, "registry.example/par:1", f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/par:1"):
        assert image.inspect(Facts(S), reference) == ([], {})
