"""check: every planted fault is found and named with how to mend it, and a sound account has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from moto.ec2.models import ec2_backends
from moto.elbv2.models import elbv2_backends

from support import ecs_scheduler
from support.account import ACCOUNT, TRUST, Account
from support.ecs_scheduler import behaviour
from support.names import REGION, SETTINGS
from support.stages import Stages
from support.tool import Result, Tool


@dataclass
class Planted:
    """An account with several faults that have nothing to do with each other, and what check says of each."""

    faults: list[tuple[str, str, str, str]]
    plant: Callable[[Account, Tool], None] = lambda account, tool: None
    settings: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def missing(subject: str, name: str, mend: str) -> tuple[str, str, str, str]:
    return ("FAULT", subject, f"{name} does not exist in {REGION}", mend)


NOTHING_THERE = Planted(
    settings={
        "CLUSTER": "no-cluster",
        "LOAD_BALANCER": "no-nlb",
        "A2A_TARGET_GROUP": "no-a2a",
        "REST_TARGET_GROUP": "no-rest",
        "EXECUTION_ROLE": "no-execution",
        "TASK_ROLE": "no-task",
        "ADMIN_TOKEN_SECRET": "no-secret",
        "LOG_GROUP": "/ecs/no-group",
        "ALARM_TOPIC": "no-topic",
        "TASK_MEMORY": "5000",
        "CONTAINER_ENGINE": "no-such-engine",
    },
    faults=[
        missing("cluster", "no-cluster", "check CLUSTER"),
        missing("service", SETTINGS["SERVICE"], "check SERVICE"),
        missing("load balancer", "no-nlb", "check LOAD_BALANCER"),
        missing("A2A target group", "no-a2a", "check A2A_TARGET_GROUP"),
        missing("REST target group", "no-rest", "check REST_TARGET_GROUP"),
        missing("execution role", "no-execution", "make the role"),
        missing("task role", "no-task", "make the role"),
        missing("admin token", "secret no-secret", "aws secretsmanager create-secret"),
        missing("log group", "/ecs/no-group", "aws logs create-log-group"),
        missing("alarm topic", "no-topic", "aws sns create-topic"),
        ("FAULT", "sizes", "no task of 2048 CPU units with 5000 MiB", "TASK_MEMORY is 4096 to 16384 in steps of 1024"),
        ("FAULT", "image", "there is no no-such-engine to build it with", "pass --image"),
    ],
)


def plant_wrong_things(account: Account, tool: Tool) -> None:
    other_vpc = account.client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    account.target_group("wrong-a2a", "UDP", 9000, TargetType="instance", VpcId=other_vpc)
    account.target_group("wrong-rest", "HTTP", 8080)
    elbv2_backends[ACCOUNT][REGION].load_balancers[account.nlb].state = "failed"
    service = account.moto_service()
    service.deployment_controller = {"type": "CODE_DEPLOY"}
    service.launch_type = "EC2"
    service.desired_count = 0
    service.deployments[0].update(rolloutState="FAILED", rolloutStateReason="tasks failed to start")
    service.task_definition = account.register_par("par-multi-agent:2.4.1", name="app")
    iam = account.client("iam")
    for_ec2 = json.dumps(TRUST).replace("ecs-tasks.amazonaws.com", "ec2.amazonaws.com")
    iam.update_assume_role_policy(RoleName=SETTINGS["TASK_ROLE"], PolicyDocument=for_ec2)
    iam.delete_role(RoleName="AWSServiceRoleForECS")
    iam.delete_role_policy(RoleName=SETTINGS["EXECUTION_ROLE"], PolicyName="start")
    account.client("secretsmanager").delete_secret(SecretId=SETTINGS["ADMIN_TOKEN_SECRET"], RecoveryWindowInDays=7)
    account.client("ecr").create_repository(repositoryName=SETTINGS["REPOSITORY"])


def may_not_log_or_pull() -> list[tuple[str, str, str, str]]:
    actions = ["logs:CreateLogStream", "logs:PutLogEvents", "ecr:GetAuthorizationToken"]
    actions += ["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"]
    return [("FAULT", "execution role", f"may not {action}", "aws iam put-role-policy") for action in actions]


WRONG_THINGS = Planted(
    plant=plant_wrong_things,
    settings={"A2A_TARGET_GROUP": "wrong-a2a", "REST_TARGET_GROUP": "wrong-rest"},
    faults=[
        ("FAULT", "A2A target group", "wrong-a2a has port 9000, not 50051", "make a new one"),
        ("FAULT", "A2A target group", "wrong-a2a speaks UDP, not TCP", "make a new one"),
        ("FAULT", "A2A target group", "targets of type instance, not ip", "make a new one of type ip"),
        ("FAULT", "A2A target group", "wrong-a2a is in vpc-", "make a target group in vpc-"),
        ("FAULT", "load balancer", "wrong-a2a in vpc-", "both must be in one VPC"),
        ("FAULT", "load balancer", "pixell-runtime-nlb is failed", "wait until it is active"),
        (
            "FAULT",
            "REST target group",
            "wrong-rest is not what the service's container par answers on",
            "par:8080 in par-multi-agent-tg",
        ),
        ("FAULT", "service", "is deployed by CODE_DEPLOY", "make a service with the ECS deployment controller"),
        ("FAULT", "service", "runs on EC2, not on Fargate", "made for Fargate alone"),
        ("FAULT", "service", "wants 0 tasks", "--desired-count 1"),
        (
            "FAULT",
            "service",
            "the deployment of pixell-runtime-multi-agent:2 has failed: tasks failed to start",
            "a revision that works first",
        ),
        ("FAULT", "present revision", "has no container par, it has: app", "deploy PAR as container par first"),
        ("FAULT", "task role", "may not be taken on by ECS tasks", "aws iam update-assume-role-policy"),
        ("FAULT", "service-linked role", "AWSServiceRoleForECS does not exist", "aws iam create-service-linked-role"),
        ("FAULT", "execution role", "may not secretsmanager:GetSecretValue", "aws iam put-role-policy"),
        *may_not_log_or_pull(),
        ("FAULT", "admin token", "is marked for deletion", "aws secretsmanager restore-secret"),
        ("apply", "repository", "imageTagMutability: MUTABLE -> IMMUTABLE", ""),
    ],
)


def plant_network_faults(account: Account, tool: Tool) -> None:
    ec2 = account.client("ec2")
    rules = ec2.describe_security_groups(GroupIds=[account.task_group])["SecurityGroups"][0]["IpPermissions"]
    ec2.revoke_security_group_ingress(
        GroupId=account.task_group, IpPermissions=[rule for rule in rules if rule["FromPort"] == 50051]
    )
    # One of the load balancer's two subnets alone is not enough.
    account.let_in(account.task_group, 50051, "10.0.1.0/25")
    subnet = ec2.create_subnet(VpcId=account.vpc, CidrBlock="10.0.3.0/24", AvailabilityZone=REGION + "c")["Subnet"][
        "SubnetId"
    ]
    account.moto_service().network_configuration["awsvpcConfiguration"]["subnets"].append(subnet)
    elbv2_backends[ACCOUNT][REGION].load_balancers[account.nlb].security_groups = [account.nlb_group]
    account.client("elbv2").create_listener(
        LoadBalancerArn=account.nlb,
        Protocol="TLS",
        Port=50051,
        Certificates=[{"CertificateArn": account.certificate()}],
        DefaultActions=[{"Type": "forward", "TargetGroupArn": account.a2a}],
    )
    elbv2_backends[ACCOUNT][REGION].target_groups[account.a2a].attributes["preserve_client_ip.enabled"] = "true"
    service = account.moto_service()
    service.deployments.append(ecs_scheduler.new_deployment(service, "ACTIVE", 1, "IN_PROGRESS"))
    behaviour.deployment = "sticks"
    behaviour.may_simulate = False


NETWORK = Planted(
    plant=plant_network_faults,
    environment={"TEST_AWS_FAIL": "ssm get-parameter"},
    faults=[
        (
            "FAULT",
            "security group",
            "the rules leave out its subnets 10.0.1.0/24, 10.0.2.0/24",
            "aws ec2 authorize-security-group-ingress",
        ),
        ("FAULT", "security group", "does not let 50051 in from the load balancer", "--port 50051 --source-group sg-"),
        ("FAULT", "callers", "lets nobody in on 50051", "aws ec2 authorize-security-group-ingress"),
        (
            "FAULT",
            "zones",
            f"tasks may run in {REGION}c, where {SETTINGS['LOAD_BALANCER']} is not enabled",
            "aws elbv2 set-subnets",
        ),
        ("FAULT", "listener", "the one on 50051 speaks TLS, not TCP", "aws elbv2 delete-listener"),
        ("FAULT", "service", "a deployment of pixell-runtime-multi-agent:2 is under way", "wait for it"),
        (
            "FAULT",
            "record",
            "cannot read /pixell-envoy/pixell-runtime-multi-agent/before: An error occurred (InjectedFailure)",
            "ssm:GetParameter",
        ),
        ("note", "client addresses", "preserves them", ""),
        ("note", "execution role", "cannot tell whether it may read the secret", ""),
    ],
)

REFUSED = Planted(
    environment={"TEST_AWS_FAIL": "ecr describe-repositories", "TEST_DOCKER_FAIL": "version"},
    faults=[
        (
            "FAULT",
            "repository",
            "cannot look up pixell-envoy: An error occurred (InjectedFailure)",
            "ask for the right to make this call",
        ),
        (
            "FAULT",
            "image",
            "pixell-envoy:0.1.0-test is not pushed, and docker cannot build it now",
            "is its service running",
        ),
        ("note", "more than one task", "a call that lands on a task without its agent gets NOT_FOUND", ""),
    ],
)

ALL = {"nothing there": NOTHING_THERE, "wrong things": WRONG_THINGS, "network": NETWORK, "refused": REFUSED}


@pytest.fixture(scope="module")
def checked(stages: Stages) -> Callable[[str], Result]:
    """Runs check once for all the faults of one planted account."""
    results: dict[str, Result] = {}

    def check(name: str) -> Result:
        if name not in results:
            planted = ALL[name]
            stages.before()
            tool = stages.new_tool()
            tool.settings.update(planted.settings)
            planted.plant(stages.account, tool)
            results[name] = tool.run("check", **planted.environment)
        return results[name]

    return check


def grouped(name: str, *values: str) -> Any:
    """Cases of one planted account belong to one process, where it is checked once."""
    return pytest.param(
        name, *values, id=f"{values[1]}: {values[2][:40]}" if values else name, marks=pytest.mark.xdist_group(name)
    )


EACH = [grouped(name) for name in ALL]
CASES = [grouped(name, *fault) for name, planted in ALL.items() for fault in planted.faults]


def entries(result: Result) -> list[tuple[str, str, str, str]]:
    """The lines of check as (verdict, subject, text, mend)."""
    found: list[tuple[str, str, str, str]] = []
    for line in result.out.splitlines():
        if line.strip().startswith("mend: "):
            found[-1] = (*found[-1][:3], line.strip().removeprefix("mend: "))
        elif line[:6].strip() in ("ok", "apply", "note", "FAULT"):
            found.append((line[:6].strip(), line[7:27].strip(), line[28:], ""))
    return found


@pytest.mark.parametrize(("name", "verdict", "subject", "text", "mend"), CASES)
def test_fault_is_found(
    checked: Callable[[str], Result], name: str, verdict: str, subject: str, text: str, mend: str
) -> None:
    result = checked(name)
    matching = [
        each for each in entries(result) if each[:2] == (verdict, subject) and text in each[2] and mend in each[3]
    ]
    assert matching, str(result)


@pytest.mark.parametrize("name", EACH)
def test_faults_are_counted_and_are_the_exit_status(checked: Callable[[str], Result], name: str) -> None:
    result = checked(name)
    number = sum(verdict == "FAULT" for verdict, *_ in entries(result))
    assert result.status == 1
    assert f"{number} to mend by hand" in result.err
    assert not result.changes


@pytest.mark.parametrize("name", EACH)
def test_every_fault_says_how_to_mend_it(checked: Callable[[str], Result], name: str) -> None:
    assert all(mend for verdict, _, _, mend in entries(checked(name)) if verdict == "FAULT"), str(checked(name))


@pytest.mark.parametrize("name", EACH)
def test_no_fault_beyond_the_planted(checked: Callable[[str], Result], name: str) -> None:
    expected = {(subject, text) for _, subject, text, _ in ALL[name].faults}
    for verdict, subject, text, _ in entries(checked(name)):
        if verdict == "FAULT":
            assert any(subject == each and part in text for each, part in expected), f"{name}: {subject}: {text}"


def test_the_account_before_the_rollout_has_no_fault_by_hand(
    account: Account, tool: Tool, before: dict[str, Any]
) -> None:
    result = tool.run("check")
    assert result.status == 0, str(result)
    verdicts = {subject: verdict for verdict, subject, *_ in entries(result)}
    assert {subject for subject, verdict in verdicts.items() if verdict == "apply"} == {
        "A2A health check",
        "listener",
        "repository",
        "image",
    }
    assert {subject for subject, verdict in verdicts.items() if verdict == "note"} == {"more than one task"}
    assert set(verdicts.values()) == {"ok", "apply", "note"}
    assert account.state() == before
    assert not result.changes


def test_the_right_to_pull_is_asked_for_before_there_is_a_repository(account: Account, tool: Tool) -> None:
    account.client("iam").delete_role_policy(RoleName=SETTINGS["EXECUTION_ROLE"], PolicyName="start")
    found = entries(tool.run("check"))
    assert any(verdict == "apply" and subject == "repository" for verdict, subject, *_ in found)
    (mend,) = [mend for _, _, text, mend in found if "may not ecr:BatchGetImage" in text]
    assert f":ecr:{REGION}:{ACCOUNT}:repository/{SETTINGS['REPOSITORY']}" in mend
    (log_in,) = [mend for _, _, text, mend in found if "may not ecr:GetAuthorizationToken" in text]
    assert '"Resource":"*"' in log_in


def test_apply_and_plan_stop_at_a_fault_and_show_it(account: Account, tool: Tool) -> None:
    account.client("iam").delete_role(RoleName="AWSServiceRoleForECS")
    for command in ("plan", "apply"):
        result = tool.run(command)
        assert result.status == 1
        assert "FAULT  service-linked role" in result.out
        assert "Nothing has been changed" in result.err
        assert not result.changes


EXPIRED = "ExpiredToken: The security token included in the request is expired"
REFUSALS = {
    "expired": (
        {"TEST_AWS_FAIL": "sts get-caller-identity", "TEST_AWS_ERROR": EXPIRED},
        "AWS does not accept the credentials: An error occurred (ExpiredToken)",
        "log in, or set AWS_PROFILE",
    ),
    "none": (
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        "AWS does not accept the credentials: Unable to locate credentials",
        "log in, or set AWS_PROFILE",
    ),
    "no such profile": (
        {"AWS_PROFILE": "nobody"},
        "AWS does not accept the credentials: The config profile (nobody) could not be found",
        "log in, or set AWS_PROFILE",
    ),
    "unreachable": (
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
        'AWS cannot be reached: Could not connect to the endpoint URL: "http://127.0.0.1:1/"',
        "VPN, proxy",
    ),
}


@pytest.mark.parametrize(("environment", "fault", "mend"), REFUSALS.values(), ids=REFUSALS)
def test_an_aws_that_does_not_answer_is_said_once(
    account: Account, tool: Tool, environment: dict[str, str], fault: str, mend: str
) -> None:
    result = tool.run("check", **environment)
    assert result.status == 1
    assert fault in result.err
    assert mend in result.err.partition("\n  mend: ")[2]
    assert result.out == ""
    assert result.aws_calls == ["sts get-caller-identity"]


@pytest.mark.parametrize("source", ["group", "wide range", "every protocol", "prefix list"])
def test_what_lets_the_load_balancer_in(account: Account, tool: Tool, source: str) -> None:
    groups = ec2_backends[ACCOUNT][REGION]
    ec2 = account.client("ec2")
    rules = ec2.describe_security_groups(GroupIds=[account.task_group])["SecurityGroups"][0]["IpPermissions"]
    ec2.revoke_security_group_ingress(GroupId=account.task_group, IpPermissions=rules)
    rule: dict[str, object] = {"IpProtocol": "tcp", "FromPort": 50000, "ToPort": 51000}
    if source == "group":
        elbv2_backends[ACCOUNT][REGION].load_balancers[account.nlb].security_groups = [account.nlb_group]
        account.let_in(account.nlb_group, 50051, "0.0.0.0/0")
        rule["UserIdGroupPairs"] = [{"GroupId": account.nlb_group}]
    elif source == "wide range":
        rule["IpRanges"] = [{"CidrIp": "10.0.0.0/16"}]
    elif source == "every protocol":
        rule = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    else:
        prefixes = ec2.create_managed_prefix_list(PrefixListName="offices", MaxEntries=1, AddressFamily="IPv4")
        rule["PrefixListIds"] = [{"PrefixListId": prefixes["PrefixList"]["PrefixListId"]}]
    ec2.authorize_security_group_ingress(GroupId=account.task_group, IpPermissions=[rule])
    assert groups.get_security_group_from_id(account.task_group)
    found = {(verdict, text) for verdict, subject, text, _ in entries(tool.run("check")) if subject == "security group"}
    verdict, text = found.pop()
    expected = {"group": "security group sg-", "prefix list": "names a prefix list"}.get(
        source, "to its subnets 10.0.1.0/24, 10.0.2.0/24"
    )
    assert verdict == ("FAULT" if source == "prefix list" else "ok")
    assert expected in text
