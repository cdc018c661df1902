"""Fixtures: an account in moto, and the tool, run in this process as from the command line."""

import os
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from pixell_envoy_deploy import __main__ as command_line
from pixell_envoy_deploy import settings

from .account import Account

MEDIA = {"imageManifest": '{"schemaVersion": 2}', "imageManifestMediaType": "application/vnd.oci.image.manifest.v1+json"}
S = settings.read(settings.DEPLOY / "settings.example.toml")
GREEN = f"{S.service}-green"
Calls = dict[str, list[tuple[str, str]]]
Tool = Callable[..., str]


@pytest.fixture(scope="session", autouse=True)
def aws() -> Iterator[None]:
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    os.environ |= {"MOTO_IAM_LOAD_MANAGED_POLICIES": "false", "MOTO_EC2_LOAD_DEFAULT_AMIS": "false"}
    with mock_aws():
        yield


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., Path]:
    """Writes the example settings with changes."""

    def write(**changes: Any) -> Path:
        values = tomllib.loads((settings.DEPLOY / "settings.example.toml").read_text())
        values |= {"image_tag": "1.0-test", "stable_timeout_seconds": 5} | changes
        (tmp_path / "settings.toml").write_text("\n".join(f"{key} = {value!r}" for key, value in values.items()))
        return tmp_path / "settings.toml"

    return write


@pytest.fixture
def account(configured: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Account:
    monkeypatch.setattr("pixell_envoy_deploy.follow.POLL_SECONDS", 0)
    return Account(settings.read(configured()), monkeypatch)


@pytest.fixture
def tool(configured: Callable[..., Path], capsys: pytest.CaptureFixture[str], docker: list[list[str]]) -> Tool:
    """Runs a command, checks its exit status and returns its output."""
    path = configured()

    def run(words: str, status: int = 0) -> str:
        found = command_line.main(["--settings", str(path), *words.split()])
        captured = capsys.readouterr()
        assert found == status, captured.out + captured.err
        return captured.out + captured.err

    return run


@pytest.fixture
def docker(account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Docker's commands, each with its input, its configuration directory and that file. A push adds the image to ECR, as a real one does."""
    commands, real, own = list[list[str]](), subprocess.run, tmp_path / "docker"
    (own / "contexts").mkdir(parents=True)
    (own / "config.json").write_text('{"currentContext": "colima", "auths": {"elsewhere": {"auth": "bWU6cHc="}}}')
    monkeypatch.setenv("DOCKER_CONFIG", str(own))

    def run(command: list[str], **options: Any) -> Any:
        if command[0] != "docker":
            return real(command, **options)
        place = Path(options["env"]["DOCKER_CONFIG"])
        assert place == own or (place.stat().st_mode & 0o77 == 0 and (place / "contexts").samefile(own / "contexts"))
        commands.append([*command, options["input"], str(place), (place / "config.json").read_text()])
        if command[1] == "push":
            name, tag = command[2].split("/", 1)[1].split(":")
            account.api("ecr").put_image(repositoryName=name, imageTag=tag, **MEDIA)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Results of calls to an agent: each in turn, then the last one for ever. An unknown id gets NOT_FOUND."""
    results: Calls = {name: [("OK", f"{name} is up")] for name in ("agent-a", "agent-b")}

    def call(endpoint: str, tls: bool, name: str, token: str | None) -> tuple[str, str]:
        found = results.get(name, [("NOT_FOUND unknown_deployment", "NOT_FOUND: no")])
        return found.pop(0) if len(found) > 1 else found[0]

    monkeypatch.setattr("pixell_envoy_deploy.ask.call", call)
    return results


@pytest.fixture
def green(tool: Tool) -> str:
    """Applies beside the live service, and returns the output."""
    return tool("apply --yes")
