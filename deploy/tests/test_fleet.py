"""A fleet: its table and rights, who reaches port 50050, what its tasks get, and how it is switched on and off."""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Callable
from inspect import signature
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pixell_envoy.fleet import DynamoDbDirectory, Record, RedisDirectory

from pixell_envoy_deploy import checks, settings, task_definition
from pixell_envoy_deploy.aws import Doc
from pixell_envoy_deploy.facts import Facts
from pixell_envoy_deploy.rollout import Rollout
from pixell_envoy_deploy.settings import DEPLOY, ROOT

from .account import ACCOUNT, TASK_ROLE, Account
from .conftest import GREEN, Calls, S, Tool

LABELS = {"ai.pixell.envoy.routes": "1", "ai.pixell.envoy.fleet": "1"}
TABLE = f"arn:aws:dynamodb:us-east-2:{ACCOUNT}:table/{S.fleet_table}"
Fleet = Callable[..., Path]


@pytest.fixture
def fleet(account: Account, configured: Callable[..., Path], tool: Tool) -> Fleet:
    """The account as the fleet needs it. Returns a function that writes settings with a fleet."""

    def write(**changes: Any) -> Path:
        return configured(**{"fleet_directory": "dynamodb"} | changes)

    account.config["config"]["Labels"] = LABELS
    allow(account, 50050, UserIdGroupPairs=[{"GroupId": account.group}])
    allow(account, 9901, IpRanges=[{"CidrIp": "10.0.0.0/16"}])
    write()
    tool("directory --yes")
    return write


def allow(account: Account, port: int, protocol: str = "tcp", **whom: Any) -> None:
    rule = {"IpProtocol": protocol, "FromPort": port, "ToPort": port, **whom}
    account.api("ec2").authorize_security_group_ingress(GroupId=account.group, IpPermissions=[rule])


def errors(path: Path, name: str, in_place: bool = False) -> list[str]:
    return [f"{text} {fix}" for level, text, fix in checks.findings(name, Rollout(Facts(settings.read(path)), in_place)) if level == "ERROR"]


def test_the_stack_has_the_table_and_lets_a_task_write_its_own_record_only(tool: Tool, account: Account, fleet: Fleet) -> None:
    table = account.api("dynamodb").describe_table(TableName=S.fleet_table)["Table"]
    assert table["KeySchema"] == [{"AttributeName": "key", "KeyType": "HASH"}] and table["TableArn"] == TABLE
    assert "may" not in str(errors(fleet(), "directory")) and "writes its own" in tool("check")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["dynamodb:PutItem"], "Resource": TABLE}]}
    account.api("iam").put_role_policy(RoleName=TASK_ROLE, PolicyName="wide", PolicyDocument=json.dumps(policy))
    assert "may dynamodb:PutItem the records of other tasks, and so take their agents' requests" in errors(fleet(), "directory")[0]
    account.api("iam").put_role_policy(RoleName=TASK_ROLE, PolicyName="wide", PolicyDocument=json.dumps(policy).replace("Allow", "Deny"))
    assert "may not dynamodb:PutItem on pixell-envoy-fleet (explicitDeny)" in errors(fleet(), "directory")[0]
    account.register(taskRoleArn="")
    assert "the present revision has no task role" in tool("directory --yes", 1)
    fleet(fleet_directory="redis")
    assert "the fleet needs no table" in tool("directory --yes", 1)


def test_services_of_one_name_in_two_clusters_have_a_table_each(tool: Tool, account: Account, fleet: Fleet) -> None:
    path = fleet(cluster="staging", fleet_table="other")
    tool("directory --yes")
    assert {*account.api("dynamodb").list_tables()["TableNames"]} == {S.fleet_table, "other"}
    assert errors(path, "directory") == errors(fleet(), "directory") == [], "and both are allowed, also if they share the role"


def test_the_client_does_with_the_table_what_a_task_may_do(account: Account, fleet: Fleet) -> None:
    async def live_and_end() -> str:
        directory = DynamoDbDirectory(S.fleet_table, fleet=S.service, role_id=role["RoleId"], region=S.region)
        await directory.publish(Record("task-1", "10.0.1.1", "epoch", 1, 1))
        assert set(await directory.snapshot()) == {"task-1"}
        key = account.api("dynamodb").scan(TableName=S.fleet_table)["Items"][0]["key"]["S"]
        await directory.withdraw("task-1")
        assert await directory.snapshot() == {}
        await directory.close()
        return str(key)

    role = account.api("iam").get_role(RoleName=TASK_ROLE)["Role"]
    account.calls.clear()
    key = asyncio.run(live_and_end())
    context = {"aws:userid": [f"{role['RoleId']}:task-1"], "dynamodb:LeadingKeys": [key]}
    entries = [{"ContextKeyName": name, "ContextKeyValues": values} for name, values in context.items()]
    for action in [name.replace(".", ":") for name in account.calls if name.startswith("dynamodb.")]:
        call = {"PolicySourceArn": role["Arn"], "ActionNames": [action], "ResourceArns": [TABLE], "ContextEntries": entries}
        found = account.api("iam").simulate_principal_policy(**call)
        assert found["EvaluationResults"][0]["EvalDecision"] == "allowed", action
    assert {"dynamodb.PutItem", "dynamodb.Scan", "dynamodb.DeleteItem"} <= account.calls.keys()


@pytest.mark.parametrize(("kind", "directory"), [("dynamodb", DynamoDbDirectory), ("redis", RedisDirectory)])
def test_the_documented_call_of_par_has_its_variables(
    tool: Tool, account: Account, fleet: Fleet, monkeypatch: Any, kind: str, directory: Any
) -> None:
    account.api("secretsmanager").create_secret(Name=S.fleet_redis_password_secret, SecretString="not-a-real-secret")
    fleet(fleet_directory=kind)
    for each in task_definition.container(json.loads(tool("render")), "par")["environment"]:
        monkeypatch.setenv(each["name"], each["value"])
    line = re.search(rf"`({directory.__name__}\(.+?\))`", (ROOT / "docs/deploy/fleet.md").read_text())
    assert line and eval(line[1], {"os": os, directory.__name__: signature(directory).bind})


def test_without_the_table_nothing_is_applied(tool: Tool, account: Account, fleet: Fleet) -> None:
    fleet(fleet_table="other")
    assert "table other does not exist\n" in tool("apply --yes", 1) and "ecs.CreateService" not in account.calls


OUTSIDE: list[tuple[str, Doc]] = [
    ("0.0.0.0/0", {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}),
    ("10.0.0.0/16", {"IpRanges": [{"CidrIp": "10.0.0.0/16"}]}),
    ("::/0", {"Ipv6Ranges": [{"CidrIpv6": "::/0"}]}),
    ("pl-1", {"PrefixListIds": [{"PrefixListId": "pl-1"}]}),
    ("sg-of-others", {"UserIdGroupPairs": [{"GroupId": "sg-of-others"}]}),
]


def test_nobody_else_may_reach_the_peer_port(account: Account, fleet: Fleet) -> None:
    itself: Doc = {"IpProtocol": "tcp", "FromPort": 50050, "ToPort": 50050, "UserIdGroupPairs": [{"GroupId": account.group}]}
    one_port, a_range, all_traffic = ("tcp", 50050, 50050), ("tcp", 0, 65535), ("-1", -1, -1)
    for (source, whom), ports, in_place in product(OUTSIDE, (one_port, a_range, all_traffic), (True, False)):
        rules = [itself, dict(zip(("IpProtocol", "FromPort", "ToPort"), ports, strict=True), **whom)]
        account.edits["ec2.DescribeSecurityGroups"] = ("", {"IpPermissions": rules})
        assert f"lets 50050 in from {source}: " in str(errors(fleet(), "fleet", in_place)), (ports, in_place)


def test_tasks_must_reach_each_other_and_the_load_balancer_their_readiness(account: Account, fleet: Fleet) -> None:
    assert errors(fleet(), "fleet") == [] and errors(fleet(), "security groups") == []
    account.edits["ec2.DescribeSecurityGroups"] = ("", {"IpPermissions": [], "IpPermissionsEgress": []})
    found = str(errors(fleet(), "fleet"))
    assert "does not let 50050 in from itself: tasks do not reach each other aws ec2 authorize-security-group-ingress" in found
    assert "lets nothing out to 50050" in found and "does not let 9901 in" in str(errors(fleet(), "security groups"))
    account.edits["elbv2.DescribeLoadBalancers"] = ("", {"SecurityGroups": [account.group]})
    assert "the load balancer has the tasks' group" in str(errors(fleet(), "fleet"))
    assert "lets nothing out to 9901" in str(errors(fleet(), "security groups"))
    account.services[S.service]["networkConfiguration"]["awsvpcConfiguration"]["securityGroups"] = []
    assert "does not let 50050 in from itself" in str(errors(fleet(), "fleet"))


def test_a_fleet_has_several_tasks_and_each_service_is_one_of_its_own(tool: Tool, account: Account, fleet: Fleet, calls: Calls) -> None:
    account.services[S.service] |= {"desiredCount": 3, "runningCount": 3}
    assert "3 tasks in a fleet" in tool("check") and "3 more tasks run and must be paid for" in tool("plan")
    tool("apply --yes")
    made, group = account.services[GREEN], account.green_group()
    par, envoy = (task_definition.container(account.revision(GREEN), name) for name in ("par", "envoy"))
    role = account.api("iam").get_role(RoleName=TASK_ROLE)["Role"]["RoleId"]
    fixed = {"PIXELL_FLEET": GREEN, "PIXELL_FLEET_TABLE": S.fleet_table, "PIXELL_FLEET_ROLE_ID": role}
    assert made["desiredCount"] == 3 and fixed.items() <= {each["name"]: each["value"] for each in par["environment"]}.items()
    assert {"name": "PIXELL_FLEET_CIDRS", "value": "10.0.1.0/24,10.0.2.0/24"} in envoy["environment"] and "50050" in str(envoy["portMappings"])
    assert (group["HealthCheckProtocol"], group["HealthCheckPort"], group["HealthCheckPath"]) == ("HTTP", "9901", "/ready/traffic")
    assert tool("apply --yes").count("as wanted") == 6
    out = tool("shift --yes")
    assert "3 of pixell-runtime-multi-agent:2 run" in out and "agent agent-a        30 of 30 connections reached it" in out
    made["runningCount"] = 2
    assert "ERROR  tasks                2 of pixell-runtime-multi-agent:2 run, envoy HEALTHY; 3 are wanted" in tool("verify agent-a", 1)
    assert "leads clients back; no agent stops" in tool("rollback --yes")


def test_a_fleet_is_switched_on_beside_the_live_service_and_off_in_either_way(tool: Tool, account: Account, fleet: Fleet, calls: object) -> None:
    assert "they fail its health check, so ECS would replace them, and their agents stop" in tool("apply --yes --in-place", 1)
    tool("apply --yes")
    tool("shift --yes")
    fleet(image_tag="2.0")
    tool("apply --yes --in-place")
    assert account.green_group()["HealthCheckProtocol"] == "HTTP"
    account.api("elbv2").modify_target_group(TargetGroupArn=account.a2a, HealthCheckPath="/elsewhere")
    out = tool("rollback --yes --revision 1")
    assert out.index("HealthCheckProtocol: HTTP -> TCP") < out.index("taskDefinition:"), "first what lets both kinds of tasks pass"
    assert account.green_group()["HealthCheckProtocol"] == "TCP"
    fleet(fleet_directory="", image_tag="3.0")
    tool("apply --yes --in-place")
    text = str(account.revision(GREEN))
    assert "PIXELL_FLEET" not in text and "50050" not in text, "and nothing of the fleet is left"


def test_redis_and_a_certificate_are_secrets_that_no_agent_gets(tool: Tool, account: Account, fleet: Fleet, tmp_path: Path) -> None:
    for name in ("pixell-envoy/redis-password", "peers"):
        account.api("secretsmanager").create_secret(Name=name, SecretString="not-a-real-secret")
    fleet(fleet_directory="redis", peer_certificate_secret="peers")
    tool("apply --yes")
    definition = json.loads(tool("render"))
    account.api("ecs").register_task_definition(**definition)
    par, token, peer, envoy = (task_definition.container(definition, name) for name in ("par", "par-token", "envoy-peer", "envoy"))
    assert [each["name"] for each in definition["containerDefinitions"]].count("envoy-peer") == 1
    assert {"name": "PIXELL_FLEET_REDIS_URL", "value": S.fleet_redis_url} in par["environment"] and not par.get("secrets")
    assert {"name": "PIXELL_FLEET_REDIS_PASSWORD_FILE", "value": "/run/pixell-par/redis-password"} in par["environment"]
    assert "redis-password" in token["secrets"][1]["valueFrom"]
    files = {each["name"]: each["value"].rpartition("/")[2] for each in envoy["environment"] if "PEER" in each["name"]}
    assert files == {"PIXELL_PEER_CERT_FILE": "certificate", "PIXELL_PEER_KEY_FILE": "key", "PIXELL_PEER_CA_FILE": "ca"}
    (there := tmp_path / "volume").mkdir()
    for each, place in ((token, "/run/pixell-par"), (peer, "/run/pixell-peer")):
        secrets = {secret["name"]: f"the {secret['name']}" for secret in each["secrets"]}
        command = "chown() { :; }; " + each["command"][0].replace(place, str(there))
        subprocess.run([*each["entryPoint"], command], env={"PATH": os.environ["PATH"], **secrets}, check=True)
    written = {each.name: (each.read_text(), each.stat().st_mode & 0o77) for each in there.iterdir()}
    assert written == {
        **{"admin-token": ("the PIXELL_ADMIN_TOKEN", 0), "redis-password": ("the REDIS_PASSWORD", 0)},
        **{name: (f"the {name.upper()}\n", 0) for name in files.values()},
    }
    assert re.fullmatch(r"arn:.*:secret:peers-\w+:san::", envoy["secrets"][1]["valueFrom"]), "both sides require the name in the certificate"
    volumes = [{each["sourceVolume"] for each in some["mountPoints"]} for some in (par, token, peer, envoy)]
    assert volumes == [{"par-token"}, {"par-token"}, {"envoy-peer"}, {"envoy-run", "envoy-peer"}], "PAR and its agents cannot read the key"
    assert "may secretsmanager" not in str(errors(fleet(fleet_directory="redis", peer_certificate_secret="peers"), "permissions"))
    account.forbid("secretsmanager")
    assert len(errors(fleet(fleet_directory="redis", peer_certificate_secret="peers"), "permissions")) == 3
    fleet(fleet_directory="redis", fleet_redis_password_secret="gone")
    assert "secret gone does not exist" in tool("check", 1)


def test_an_image_that_joins_no_fleet_is_an_error(account: Account, fleet: Fleet) -> None:
    assert errors(fleet(), "images") == []
    account.config["config"]["Labels"] = {"ai.pixell.envoy.routes": "1"}
    assert "does not say that it joins a fleet (label ai.pixell.envoy.fleet)" in errors(fleet(), "images")[0]


def test_the_documented_certificate_is_one_of_that_name_alone(tmp_path: Path) -> None:
    block = next(each for each in re.findall(r"(?:^    .+\n)+", (ROOT / "docs/deploy/fleet.md").read_text(), re.MULTILINE) if "openssl" in each)
    script = f"mktemp() {{ echo {tmp_path}; }}; aws() {{ cat; }}\n{block}openssl verify -CAfile ca certificate >&2\n"
    done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    secret = json.loads(done.stdout)
    certificate, key = x509.load_pem_x509_certificate(secret["certificate"].encode()), load_pem_private_key(secret["key"].encode(), None)
    assert certificate.public_key() == key.public_key() and x509.load_pem_x509_certificate(secret["ca"].encode()).subject == certificate.issuer
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [secret["san"]] and (tmp_path / "key").stat().st_mode & 0o77 == 0
    parts = (DEPLOY / "task-definition.json").read_text()
    assert all(f"PEER_CERTIFICATE_SECRET_ARN}}:{name}::" in parts for name in secret)
