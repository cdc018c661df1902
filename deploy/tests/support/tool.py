"""deploy/pixell-envoy as a test runs it: the real AWS CLI pointed at moto's server, a docker that builds nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .names import DEPLOY

VENV = Path(sys.executable).parent
SUPPORT = Path(__file__).parent
# A run takes 2 to 4 s on an idle machine.
RUN_SECONDS = 300


@dataclass
class Tool:
    """deploy/pixell-envoy as a test runs it."""

    directory: Path
    endpoint: str
    socket: Path
    settings: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bin = self.directory / "bin"
        self.bin.mkdir(parents=True)
        self.put("aws", "aws_client.py")
        self.put("docker", "fake_docker.py")
        (self.bin / "grpcurl").symlink_to(VENV / "grpcurl")
        self.aws_log, self.docker_log = self.directory / "aws.log", self.directory / "docker.log"
        self.settings = {
            "IMAGE_TAG": "0.1.0-test",
            "POLL_SECONDS": "0.05",
            "STABLE_TIMEOUT_SECONDS": "120",
            "VERIFY_TIMEOUT_SECONDS": "60",
        }
        self.environment = {
            "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.directory),
            "TMPDIR": str(self.directory),
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "TEST_AWS_SOCKET": str(self.socket),
            "TEST_AWS_LOG": str(self.aws_log),
            "TEST_DOCKER_LOG": str(self.docker_log),
        }

    def put(self, name: str, module: str) -> None:
        """Puts a stand-in on the tool's PATH. Python without site-packages starts in a sixth of the time."""
        script = self.bin / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {SUPPORT / module} "$@"\n')
        script.chmod(0o755)

    def settings_file(self) -> Path:
        path = self.directory / "settings.env"
        lines = (DEPLOY / "settings.example.env").read_text().splitlines()
        keys = [line.partition("=")[0] for line in lines]
        for key, value in self.settings.items():
            lines[keys.index(key)] = f"{key}={value}"
        path.write_text("\n".join(lines) + "\n")
        return path

    def script(self) -> Path:
        return DEPLOY / "pixell-envoy"

    def run(self, *arguments: str, stdin: str | None = "", **environment: str) -> Result:
        """Runs a command to its end, with `environment` added."""
        self.aws_log.write_text("")
        self.docker_log.write_text("")
        done = subprocess.run(
            [self.script(), "--settings", self.settings_file(), *arguments],
            env={**self.environment, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            cwd=self.directory,
        )
        calls: list[list[str]] = [ast.literal_eval(line) for line in self.aws_log.read_text().splitlines()]
        calls = [words for words in calls if "--generate-cli-skeleton" not in words]
        return Result(done.returncode, done.stdout, done.stderr, calls, self.docker_log.read_text().splitlines())


# The AWS operations that change something, as the CLI spells them.
READS = ("describe-", "get-", "list-", "simulate-")


@dataclass
class Result:
    """What a run said and did."""

    status: int
    out: str
    err: str
    # The words of each, from the service on.
    aws_log: list[list[str]]
    docker_calls: list[str]

    def __str__(self) -> str:
        return f"exit status {self.status}\n--- stdout\n{self.out}--- stderr\n{self.err}"

    @property
    def aws_calls(self) -> list[str]:
        """The calls, as "<service> <operation>"."""
        return [" ".join(words[:2]) for words in self.aws_log]

    def requests(self, call: str) -> list[dict[str, Any]]:
        """What was sent in calls of that name as `--cli-input-json`."""
        sent = [words for words in self.aws_log if words[:2] == call.split()]
        return [json.loads(words[words.index("--cli-input-json") + 1]) for words in sent]

    @property
    def changes(self) -> list[str]:
        """The calls that change something."""
        return [call for call in self.aws_calls if not call.split(" ")[1].startswith(READS)]
