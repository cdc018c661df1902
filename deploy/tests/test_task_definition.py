"""The task definition: valid by AWS's own model and Fargate's rules, true to the image, steady when rendered again."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from support.account import Account
from support.names import DEPLOY, ROOT
from support.stages import Stages
from support.tool import Tool

DOCKERFILE = (ROOT / "Dockerfile.envoy").read_text()


def enum_faults(shape: Any, value: Any, path: str = "") -> list[str]:
    """What ParamValidator leaves out: values that are none of those that AWS lists."""
    if shape.type_name == "structure":
        return [
            fault for key, each in value.items() for fault in enum_faults(shape.members[key], each, f"{path}.{key}")
        ]
    if shape.type_name == "list":
        return [
            fault for number, each in enumerate(value) for fault in enum_faults(shape.member, each, f"{path}[{number}]")
        ]
    allowed = shape.metadata.get("enum")
    return [f"{path}: {value} is none of {allowed}"] if allowed and value not in allowed else []


@pytest.fixture(scope="module")
def printed(stages: Stages) -> str:
    """What render prints in the account before the rollout."""
    result = stages.after("render")
    assert result.status == 0, str(result)
    return result.out


@pytest.fixture
def rendered(printed: str) -> dict[str, Any]:
    definition: dict[str, Any] = json.loads(printed)
    return definition


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    definition: dict[str, Any] = json.loads((DEPLOY / "task-definition.json").read_text())
    return definition


def container(definition: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in definition["containerDefinitions"] if each["name"] == name)


def test_it_is_valid_by_the_services_own_model(rendered: dict[str, Any]) -> None:
    shape = (
        botocore.session.get_session().get_service_model("ecs").operation_model("RegisterTaskDefinition").input_shape
    )
    report = ParamValidator().validate(rendered, shape)
    assert not report.has_errors(), report.generate_report()
    assert enum_faults(shape, rendered) == []


def test_fargates_own_rules_hold(rendered: dict[str, Any]) -> None:
    """What the model does not say and Fargate refuses or ignores."""
    assert rendered["requiresCompatibilities"] == ["FARGATE"]
    assert rendered["networkMode"] == "awsvpc"
    for volume in rendered["volumes"]:
        assert set(volume) == {"name"}, "no Docker volume, no path of a host"
    ports = [mapping["containerPort"] for each in rendered["containerDefinitions"] for mapping in each["portMappings"]]
    assert len(ports) == len(set(ports)), "the containers share one network: a port belongs to one of them"
    for each in rendered["containerDefinitions"]:
        assert not {"links", "hostname", "dockerSecurityOptions", "privileged", "disableNetworking"} & set(each)
        assert {limit["name"] for limit in each.get("ulimits", [])} <= {"nofile"}
        assert each.get("stopTimeout", 0) <= 120
        assert not {item["name"] for item in each["environment"]} & {item["name"] for item in each["secrets"]}
        names = [item["name"] for item in each["environment"]]
        assert len(names) == len(set(names))
    envoy, par = container(rendered, "envoy"), container(rendered, "par")
    assert envoy["memory"] + par["memoryReservation"] <= int(rendered["memory"])
    assert envoy["cpu"] + par["cpu"] <= int(rendered["cpu"])
    health = envoy["healthCheck"]
    assert 5 <= health["interval"] <= 300 and 2 <= health["timeout"] <= 60
    assert 1 <= health["retries"] <= 10 and 0 <= health["startPeriod"] <= 300
    assert 60 <= envoy["restartPolicy"]["restartAttemptPeriod"] <= 1800


def test_nothing_of_the_template_is_left_unfilled(rendered: dict[str, Any]) -> None:
    assert "${" not in json.dumps(rendered)
    assert "null" not in json.dumps(rendered)


def test_envoy_has_no_more_rights_than_it_needs(rendered: dict[str, Any]) -> None:
    envoy = container(rendered, "envoy")
    assert envoy["essential"] is True
    assert envoy["readonlyRootFilesystem"] is True
    user, group = envoy["user"].split(":")
    assert int(user) > 0 and int(group) > 0
    assert [item["name"] for item in envoy["secrets"]] == ["PIXELL_ADMIN_TOKEN"]
    assert all("TOKEN" not in item["name"] for item in envoy["environment"]), "the token is a secret, not a variable"


def test_envoy_meets_its_own_limit_of_memory_before_the_kernels(rendered: dict[str, Any]) -> None:
    heap = re.search(r"max_heap_size_bytes: (\d+)\n", (ROOT / "envoy/envoy.yaml").read_text())
    assert heap is not None
    # The program, the Wasm VMs and the kernel's buffers are no part of the heap (docs/operations.md, Capacity).
    assert int(heap[1]) / 2**20 + 150 <= container(rendered, "envoy")["memory"]


def test_par_starts_when_envoy_is_healthy_and_knows_the_token(rendered: dict[str, Any]) -> None:
    par, envoy = container(rendered, "par"), container(rendered, "envoy")
    assert par["dependsOn"] == [{"containerName": "envoy", "condition": "HEALTHY"}]
    token = {item["name"]: item["valueFrom"] for item in par["secrets"]}["PIXELL_ADMIN_TOKEN"]
    assert token == envoy["secrets"][0]["valueFrom"]
    environment = {item["name"]: item["value"] for item in par["environment"]}
    assert environment["ENVOY_ADMIN_URL"] == "http://localhost:9901"
    assert environment["A2A_EXTERNAL_ENDPOINT"].endswith(".amazonaws.com:50051")


def test_each_container_has_its_log_stream(rendered: dict[str, Any]) -> None:
    for name in ("envoy", "par"):
        options = container(rendered, name)["logConfiguration"]["options"]
        assert options["awslogs-group"] == "/ecs/pixell-runtime-multi-agent"
        assert options["awslogs-stream-prefix"] == name


# ------------------------------------------------------------------ true to the image


def instruction(name: str) -> str:
    """The arguments of the last instruction of that name."""
    found = re.findall(rf"^{name} (.+)$", DOCKERFILE, re.M)
    assert found, f"Dockerfile.envoy has no {name}"
    last: str = found[-1]
    return last


def test_the_ports_are_those_the_image_exposes(template: dict[str, Any]) -> None:
    mapped = [str(each["containerPort"]) for each in container(template, "envoy")["portMappings"]]
    assert mapped == instruction("EXPOSE").split()


def test_the_health_check_is_the_images_own(template: dict[str, Any]) -> None:
    health = container(template, "envoy")["healthCheck"]
    options, command = re.fullmatch(r"(.*) CMD (\[.*\])", instruction("HEALTHCHECK")).groups()  # type: ignore[union-attr]
    assert health["command"] == ["CMD", *json.loads(command)]
    assert options.split() == [
        f"--interval={health['interval']}s",
        f"--timeout={health['timeout']}s",
        f"--start-period={health['startPeriod']}s",
        f"--retries={health['retries']}",
    ]


def test_the_user_is_the_images(template: dict[str, Any]) -> None:
    assert container(template, "envoy")["user"] == instruction("USER")


def test_the_socket_directory_is_a_volume_that_the_image_owns(template: dict[str, Any]) -> None:
    """Fargate gives a volume the owner of the directory only where the image declares it; else it belongs to root."""
    (mount,) = container(template, "envoy")["mountPoints"]
    assert mount["containerPath"] == instruction("VOLUME")
    assert f"path: {mount['containerPath']}/admin.sock" in (ROOT / "envoy/envoy.yaml").read_text()
    assert [mount["sourceVolume"]] == [volume["name"] for volume in template["volumes"]]
    assert mount["readOnly"] is False


def test_the_variables_are_the_images(template: dict[str, Any]) -> None:
    """The entry point warns of a PIXELL_ variable that it does not know."""
    known = set(
        re.findall(r'^pub const \w+: &str = "(PIXELL_\w+)";', (ROOT / "launcher/src/settings.rs").read_text(), re.M)
    )
    envoy = container(template, "envoy")
    given = {item["name"] for item in envoy["environment"] + envoy["secrets"]}
    assert given <= known


@pytest.mark.parametrize("drain", ["0", "30", "90"])
def test_the_stop_timeout_leaves_room_after_the_drain(account: Account, tool: Tool, drain: str) -> None:
    tool.settings["ENVOY_DRAIN_SECONDS"] = drain
    envoy = container(json.loads(tool.run("render").out), "envoy")
    assert {"name": "PIXELL_DRAIN_SECONDS", "value": drain} in envoy["environment"]
    # The entry point gives Envoy twice this to end, once for SIGTERM and once for SIGKILL.
    grace = re.search(
        r"END_GRACE: Duration = Duration::from_secs\((\d+)\)", (ROOT / "launcher/src/supervisor.rs").read_text()
    )
    assert grace is not None
    assert int(drain) + 2 * int(grace[1]) < envoy["stopTimeout"] <= 120


def test_the_default_drain_time_is_the_images(template: dict[str, Any]) -> None:
    default = re.search(r"DEFAULT_DRAIN_SECONDS: u32 = (\d+);", (ROOT / "launcher/src/settings.rs").read_text())
    assert default is not None
    assert f"\nENVOY_DRAIN_SECONDS={default[1]}\n" in (DEPLOY / "settings.example.env").read_text()


# ------------------------------------------------------------------ steady when rendered again


def jq(program: str, value: Any, **files: Any) -> str:
    arguments = [word for name, each in files.items() for word in ("--argjson", name, json.dumps(each))]
    done = subprocess.run(
        ["jq", "-r", "-L", DEPLOY / "lib", *arguments, f'include "task_definition"; {program}'],
        input=json.dumps(value),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def as_ecs_gives_it_back(definition: dict[str, Any]) -> dict[str, Any]:
    """In the words of describe-task-definition: defaults filled in, lists in another order, fields of its own."""
    again: dict[str, Any] = json.loads(json.dumps(definition))
    for each in again["containerDefinitions"]:
        each["environment"].reverse()
        each["secrets"].reverse()
        for mapping in each["portMappings"]:
            mapping["hostPort"] = mapping["containerPort"]
        each.update(volumesFrom=[], systemControls=[])
        each.setdefault("mountPoints", [])
    for volume in again["volumes"]:
        volume["host"] = {}
    again.update(
        taskDefinitionArn="arn",
        revision=9,
        status="ACTIVE",
        requiresAttributes=[{"name": "x"}],
        placementConstraints=[],
    )
    again.update(compatibilities=["EC2", "FARGATE"], registeredAt=1.0, registeredBy="someone")
    return again


def test_what_ecs_adds_is_no_change(rendered: dict[str, Any], template: dict[str, Any]) -> None:
    described = as_ecs_gives_it_back(rendered)
    assert jq("changes(.; $wanted)", described, wanted=rendered) == ""
    filled = json.loads(jq("overlay($template)", described, template=fill(template, rendered)))
    assert jq("changes(.; $wanted)", described, wanted=filled) == ""


def fill(template: dict[str, Any], rendered: dict[str, Any]) -> dict[str, Any]:
    """The template with every placeholder replaced by what was rendered in its place."""
    filled: dict[str, Any] = json.loads(json.dumps(rendered))
    container(filled, "par")["memory"] = container(template, "par")["memory"]
    return filled


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"image": "x"}, "envoy.image: x -> "),
        ({"user": "0"}, "envoy.user: 0 -> 101:101"),
        ({"readonlyRootFilesystem": False}, "envoy.readonlyRootFilesystem: false -> true"),
        ({"command": ["sh"]}, 'envoy.command: ["sh"] -> (none)'),
        ({"essential": False}, "envoy.essential: false -> true"),
    ],
)
def test_a_change_by_hand_is_seen(rendered: dict[str, Any], change: dict[str, Any], line: str) -> None:
    described = as_ecs_gives_it_back(rendered)
    container(described, "envoy").update(change)
    lines = jq("changes(.; $wanted)", described, wanted=rendered).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(line)


def test_a_template_that_names_an_unknown_value_is_refused() -> None:
    done = subprocess.run(
        ["jq", "--argjson", "values", "{}", "-f", DEPLOY / "lib/fill.jq"],
        input='{"a": "${NOT_THERE}"}',
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "the template names NOT_THERE, which has no value" in done.stderr
