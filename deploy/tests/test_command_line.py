"""Settings, the command line, the plan, the task definition, the alarms, and the pages of the documentation."""

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import cfnlint.api
import pytest
from botocore import xform_name

from pixell_envoy_deploy import __main__ as command_line
from pixell_envoy_deploy import checks, image, settings, task_definition
from pixell_envoy_deploy.aws import Doc, client
from pixell_envoy_deploy.say import Stop
from pixell_envoy_deploy.settings import DEPLOY, ROOT

from .account import PAR_IMAGE, SCALED, Account
from .conftest import GREEN, S, Tool

XRAY: Doc = {"name": "xray", "image": "x/xray:1", "essential": False, "cpu": 32, "portMappings": [{"containerPort": 2000}]}
SECRET_ARN = "arn:aws:secretsmanager:us-east-2:123456789012:secret:db-1"
TEXTS = [key.name for key in fields(settings.Settings) if isinstance(vars(S)[key.name], str)]
WRONG: list[tuple[Doc, str]] = [
    (dict.fromkeys(TEXTS, "--profile=evil"), "; ".join(f"{name}: '--profile=evil' does not match .*" for name in sorted(TEXTS))),
    ({"load_balancer": "x" * 33, "a2a_target_group": "y" * 27, "par_user": "0:0"}, "a2a_target_group.*load_balancer.*par_user: '0:0'"),
    ({"task_cpu": "2048", "envoy_drain_seconds": 91}, "envoy_drain_seconds: 91 is not a number from 0 to 90; task_cpu: '2048' is not a number"),
    ({"container_engine": "/x/y"}, "container_engine: unknown"),
    *(({"fleet_redis_url": url}, "fleet_redis_url") for url in ("http://redis", "redis://user:password@redis", "redis://", "--evil")),
]


def git(where: Path, *words: str) -> str:
    command = ["git", "-C", str(where), "-c", "user.name=n", "-c", "user.email=e", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("changes", "text"), WRONG, ids=[text[:30] for _, text in WRONG])
def test_every_error_of_the_settings_is_reported_at_once(configured: Callable[..., Path], changes: Doc, text: str) -> None:
    with pytest.raises(Stop, match=text):
        settings.read(configured(**changes))


def test_no_settings_and_no_toml_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad").write_text("region = ")
    for name in ("none", "bad"):
        assert command_line.main(["--settings", str(tmp_path / name), "check"]) == 2 and "fix: cp " in capsys.readouterr().err


USAGE = "|check --yes|verify|frob|rollback --revision x|shift --share 0|verify a --connections 0|apply --im x|check --accept service"


def test_wrong_usage() -> None:
    for words in USAGE.split("|"):
        with pytest.raises(SystemExit, match="2"):
            command_line.main(words.split())


def test_the_tag_names_the_commit_of_a_clean_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixell_envoy_deploy.image.ROOT", tmp_path)
    with pytest.raises(Stop, match="no commit names the image"):
        image.tag_of_commit()
    (tmp_path / "Cargo.toml").write_text('[workspace.package]\nversion = "1.2.3"\n')
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    for words in ("init -q", "add .", "commit -qm x"):
        git(tmp_path, *words.split())
    for name in ("deploy/settings.toml", "deploy/settings.env", "deploy/.venv/bin/x", "deploy/pixell_envoy_deploy/__pycache__/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a file that the docs let a reader make is not a change")
    assert re.fullmatch(r"1\.2\.3-[0-9a-f]{12}", image.tag_of_commit())
    (tmp_path / "new").write_text("")
    with pytest.raises(Stop, match="changes that are not committed"):
        image.tag_of_commit()


@pytest.fixture
def rendered(tool: Tool, account: Account) -> Doc:
    """The definition, laid over a revision with everything that must stay. Account.call has checked it against ECS's model."""
    secrets = [{"name": "DB", "valueFrom": SECRET_ARN}, {"name": "HOME", "valueFrom": SECRET_ARN}]
    account.register({"secrets": secrets}, XRAY, volumes=[{"name": "cache"}], ephemeralStorage={"sizeInGiB": 30})
    return dict(json.loads(tool("render")))


def test_what_is_rendered_is_valid_and_keeps_what_is_pars_and_others(rendered: Doc, account: Account) -> None:
    account.api("ecs").register_task_definition(**rendered)
    par, envoy, text = task_definition.container(rendered, "par"), task_definition.container(rendered, "envoy"), json.dumps(rendered)
    assert not re.search(r"\$\{[A-Z_]+[|}]|\"//|\"if\"|\"add\"", text)
    for each in rendered["containerDefinitions"]:
        names = [item["name"] for key in ("environment", "secrets") for item in each.get(key, [])]
        assert len(names) == len(set(names)), "ECS rejects a name that is a variable and a secret"
        assert each.get("stopTimeout", 0) <= settings.STOP_TIMEOUT_LIMIT
    assert par["image"] == PAR_IMAGE and {"name": "OWN", "value": "stays"} in par["environment"]
    assert par["secrets"] == [{"name": "DB", "valueFrom": SECRET_ARN}] and par["cpu"] == 2048 - 512 - 32 and "memory" not in par
    assert task_definition.container(rendered, "xray")["portMappings"] and rendered["ephemeralStorage"] == {"sizeInGiB": 30}
    assert [each["name"] for each in rendered["volumes"]] == ["cache", "envoy-run", "par-token"]
    assert {"containerPort": 8080, "protocol": "tcp", "name": "rest"} in par["portMappings"], "Service Connect's name stays"
    assert {"containerPort": 50051, "protocol": "tcp", "name": "a2a", "appProtocol": "grpc"} in envoy["portMappings"], "and goes with its port"


def test_par_has_neither_root_nor_the_token_and_stops_first(rendered: Doc) -> None:
    par, envoy = task_definition.container(rendered, "par"), task_definition.container(rendered, "envoy")
    assert par["user"] == "1000:1000" and par["linuxParameters"]["capabilities"]["drop"] == ["ALL"]
    assert '"PIXELL_ADMIN_TOKEN"' not in json.dumps(par) and "admin-token-" not in json.dumps(par) and par["stopTimeout"] == 120
    assert {"name": "PAR_DRAIN_SECONDS", "value": "100"} in par["environment"]
    assert {each["containerName"]: each["condition"] for each in par["dependsOn"]} == {"envoy": "HEALTHY", "par-token": "SUCCESS"}
    assert envoy["healthCheck"]["interval"] * envoy["healthCheck"]["retries"] >= 60 and envoy["restartPolicy"]["enabled"] and envoy["essential"]
    assert envoy["stopTimeout"] == S.envoy_drain_seconds + settings.STOP_MARGIN
    logs = [each["logConfiguration"]["options"] for each in rendered["containerDefinitions"] if each["name"] != "xray"]
    assert all(each["mode"] == "non-blocking" and each["max-buffer-size"].endswith("m") for each in logs)


def test_it_fits_the_image() -> None:
    envoy: Doc = json.loads((DEPLOY / "task-definition.json").read_text())["containerDefinitions"][0]
    expected = [f"EXPOSE {' '.join(str(each['containerPort']) for each in envoy['portMappings'] if 'if' not in each)}", f"USER {envoy['user']}"]
    expected += [f"VOLUME {envoy['mountPoints'][0]['containerPath']}", envoy["healthCheck"]["command"][1]]
    assert all(text in (ROOT / "Dockerfile.envoy").read_text() for text in expected)
    assert {f"// {key}" for key in ("essential", "healthCheck", "restartPolicy", "stopTimeout")} <= envoy.keys(), "each with its reason"
    set_by_us = [each["name"] for each in envoy["environment"] + envoy["secrets"]]
    known = git(ROOT, "grep", "-hoE", '"PIXELL_[A-Z_]+"', "--", "*/launcher/src/settings/names.rs")
    assert [name for name in set_by_us if f'"{name}"' not in known] == []


def test_no_secret_of_par_is_shown(tool: Tool, account: Account) -> None:
    values = {"DB_PASSWORD": "s3cret", "API_KEY": "s3cret", "TOKEN": "s3cret", "URL": "postgres://me:s3cret@db"}
    account.register({"environment": [{"name": name, "value": value} for name, value in values.items()]})
    out = tool("plan")
    assert all(f"par.environment.{name}: (hidden)" in out for name in values) and "s3cret" not in out


def test_what_ecs_adds_is_no_change_and_a_change_by_hand_is_one(rendered: Doc) -> None:
    stored = json.loads(json.dumps(rendered)) | {"revision": 7, "status": "ACTIVE", "compatibilities": ["FARGATE"], "tags": []}
    for each in stored["containerDefinitions"]:
        each |= {"volumesFrom": [], "cpu": each.get("cpu", 0)}
    assert task_definition.changes(stored, rendered) == []
    task_definition.container(stored, "envoy")["healthCheck"]["retries"] = 3
    assert task_definition.changes(stored, rendered) == ["envoy.healthCheck.retries: 3 -> 6"]


KEPT: Doc = {"healthCheckGracePeriodSeconds": 60, "platformVersion": "1.4.0", "tags": [{"key": "owner", "value": "par"}]}
KEPT_ALONE: Doc = {"serviceRegistries": [{"registryArn": "arn:x"}]}
MESHED: Doc = {"enabled": True, "namespace": "pixell", "services": [{"portName": "rest", "discoveryName": "par"}]}
VOLUMES: list[Doc] = [{"name": "data", "managedEBSVolume": {"roleArn": "arn:r", "sizeInGiB": 9}}]


def test_the_plan_has_impact_then_changes_then_each_field_that_is_kept(tool: Tool, account: Account) -> None:
    service = account.services[S.service]
    service |= KEPT | KEPT_ALONE
    service["deployments"][0] |= {"serviceConnectConfiguration": MESHED, "volumeConfigurations": VOLUMES}
    service["deploymentConfiguration"] |= {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}
    account.responses["application-autoscaling.DescribeScalableTargets"] = lambda p: {"ScalableTargets": [SCALED | {"MaxCapacity": 1}]}
    account.register(None, XRAY, runtimePlatform={"cpuArchitecture": "X86_64"}, tags=[{"key": "team", "value": "par"}, {"key": "cost", "value": "1"}])
    account.calls.clear()
    for out in (tool("plan"), tool("plan --in-place")):
        places = [out.index(text) for text in ("IMPACT", "CHANGES", "KEPT, NOT OURS", "tags.team: par", "deploymentCircuitBreaker")]
        named = [*KEPT, *KEPT_ALONE, "volumeConfigurations", "serviceConnectConfiguration", "networkConfiguration", "launchType"]
        assert places == sorted(places) and [name for name in named if f"service {name}: " not in out] == [], out
        more = ["X86_64", "tags.cost", '"discoveryName":"par"', "xray.image: x/xray:1", "service autoscaling: 1 to 1 tasks"]
        assert [text for text in more if text not in out] == []
    assert not account.changes()
    assert tool("apply --yes").count(f"stays with {S.service} alone") == 3 and "arn:x" not in str(account.services[GREEN])
    made = account.services[GREEN]["deployments"][0] | account.services[GREEN]
    assert all(made[key] == value for key, value in {**KEPT, "volumeConfigurations": VOLUMES}.items())
    account.responses["servicediscovery.ListNamespaces"] = lambda p: {"Namespaces": []}
    assert "their number is unknown" in tool("plan --in-place")


def test_the_alarms_are_one_stack(tool: Tool, account: Account, configured: Callable[..., Path]) -> None:
    account.api("sns").create_topic(Name="oncall")
    configured(alarm_topic="oncall")
    out, stacks = tool("alarms --yes"), account.api("cloudformation").describe_stacks
    given = {each["ParameterKey"]: each["ParameterValue"] for each in stacks()["Stacks"][0]["Parameters"]}
    assert "no agent stops" in out and "Add UnhealthyHostsAlarm" in out and given["Topic"].endswith(":oncall") and given["Rejected"] == "100"
    assert account.nlb.endswith(f":loadbalancer/{given['LoadBalancer']}") and account.a2a.endswith(f":{given['TargetGroup']}")
    configured(alarm_topic="oncall", cluster="staging_2")
    assert "stack pixell-envoy-alarms-staging-2-" in tool("alarms --yes") and len(stacks()["Stacks"]) == 2, "one stack for each cluster"
    configured(alarm_topic="oncall")
    account.responses["cloudformation.DescribeChangeSet"] = lambda p: {"Status": "FAILED", "Changes": []}
    assert "nothing" in tool("alarms --yes")
    account.api("cloudformation").delete_stack(StackName=f"pixell-envoy-alarms-{S.cluster}-{S.service}")
    assert "CloudFormation rejects the change set" in tool("alarms --yes", 1)
    configured(alarm_topic="nobody")
    assert "aws sns create-topic" in tool("alarms --yes", 1)


@pytest.mark.parametrize("name", ["alarms.yaml", "directory.yaml"])
def test_each_stack_passes_cfn_lint(name: str) -> None:
    assert [str(each) for each in cfnlint.api.lint_all((DEPLOY / name).read_text()) if not each.rule.id.startswith("I")] == []


def test_the_alarms_count_what_envoy_writes() -> None:
    text = (DEPLOY / "alarms.yaml").read_text()
    assert "pixell-envoy: restarted in place" in text and git(ROOT, "grep", "-l", "pixell-envoy: restarted in place", "--", "*/restart.rs")
    assert 'rejection: "%FILTER_STATE' in (ROOT / "envoy/envoy.yaml").read_text()


PAGES = {page: page.read_text() for page in [ROOT / "docs/deploy.md", *sorted((ROOT / "docs/deploy").glob("*.md"))]}
TEXT = "\n".join(PAGES.values())
# Services and actions as IAM names them, if boto3 names them differently.
IAM = {"elbv2": "elasticloadbalancing", "service-quotas": "servicequotas"}


def test_every_documented_command_prints_what_the_page_shows_with_the_documented_rights(
    tool: Tool, account: Account, calls: object, configured: Callable[..., Path]
) -> None:
    blocks = re.findall(r"```console\n\$ python3 -m pixell_envoy_deploy ([^\n]+)\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == TEXT.count("```console") > 6
    for words, expected in blocks:
        configured(fleet_directory="dynamodb" if words == "directory" else "")
        out, place = tool(f"{words} --yes" if words.split()[0] in command_line.CHANGE else words), 0
        for line in [line for line in expected.splitlines() if line != "..."]:
            assert line in out[place:], f"{words}: {line!r} is not printed (after the line before it) in:\n{out}"
            place = out.index(line, place)
    assert "secretsmanager.GetSecretValue" not in account.calls, "no secret is read"
    rights = TEXT.partition("## Rights")[2].partition("\n## ")[0]
    used = {f"{IAM.get(service, service)}:{action}" for service, action in (name.split(".") for name in account.calls)}
    looks = {name for name in used if name.split(":")[1].startswith(("Describe", "List")) and f"`{name.split(':')[0]}`" in rights}
    assert {name for name in used - looks if name not in rights} == set() and '"iam:PassedToService": "ecs-tasks.amazonaws.com"' in rights


def test_the_first_steps_make_settings_and_install_what_the_tests_run_with(tmp_path: Path) -> None:
    block = next(each for each in re.findall(r"(?:^    .+\n)+", TEXT, re.MULTILINE) if "settings.toml" in each)
    for name in ("requirements.txt", "settings.example.toml"):
        (tmp_path / "deploy" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "deploy" / name).write_text((DEPLOY / name).read_text())
    without = 'python3() { command python3 "$@" --without-pip; }; pip() { echo "$VIRTUAL_ENV: $*"; }\n'
    done = subprocess.run(["bash", "-ec", without + block], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path}/deploy/.venv: install --require-hashes -r requirements.txt\n"
    assert settings.read(tmp_path / "deploy/settings.toml") == S
    pinned = [set(re.findall(r"^\S+==\S+", (DEPLOY / place).read_text(), re.MULTILINE)) for place in ("requirements.txt", "tests/requirements.txt")]
    assert pinned[0] and pinned[0] <= pinned[1]


def test_commands_of_awss_own_tool_exist() -> None:
    """The aws commands in pages and fixes. `own` are options of the aws tool that are not parameters of a call."""
    own = {"region", "protocol", "port", "cidr", "source-group", "group-id"}
    text = "\n".join([TEXT, *(each.read_text() for each in (DEPLOY / "pixell_envoy_deploy").glob("*.py"))]).replace("{{}}", "ingress")
    found = re.findall(r"aws ([a-z0-9-]+) ([a-z]+-[a-z-]+[a-z])([^\"`;|()]*)", text)
    assert len(found) > 12
    for service, command, rest in found:
        api = client(service, "us-east-2")
        model = api.meta.service_model.operation_model(api.meta.method_to_api_mapping[command.replace("-", "_")])
        options = {xform_name(each, "-") for each in model.input_shape.members} | own
        assert set(re.findall(r"--([a-z-]+)", rest)) <= options, f"aws {service} {command}{rest}"


def test_pages_name_what_exists() -> None:
    for page, text in PAGES.items():
        for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
    names = [*command_line.COMMANDS, *checks.CHECKS, *checks.ACCEPTABLE]
    assert [name for name in names if name not in TEXT] == [] and re.findall(r"[^0-9][0-9]{12}[^0-9]", TEXT) == []
