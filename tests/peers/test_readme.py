"""The quick start of README.md: its push and its calls with curl, grpcurl and Python, as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from envoy_process import EnvoyProcess

from conftest import Start

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text()
QUICK_START = TEXT.split("## Quick start", 1)[1].split("\n## ", 1)[0]


def blocks(language: str, containing: str) -> list[str]:
    return [text for text in re.findall(rf"```{language}\n(.*?)```", QUICK_START, re.DOTALL) if containing in text]


@pytest.fixture
def here(envoy: EnvoyProcess, authority: str, start: Start) -> dict[str, str]:
    """What stands in the README, and what it is here. The agents run; only one has a route."""
    agent = start("web", "not-yet-mine")
    start("grpc_agent", "alpha")
    return {"127.0.0.1:50051": authority, "127.0.0.1:9901": envoy.url.removeprefix("http://"), "50054": str(agent.port)}


def adapted(text: str, here: dict[str, str]) -> str:
    for shown, own in here.items():
        text = text.replace(shown, own)
    return text


def test_push_and_call(here: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    (push,) = blocks("sh", "/v1/routes/my-agent")
    calls = blocks("sh", "curl http://127.0.0.1:50051/")
    assert '{"port": 50054}' in push and calls, "the first example shows the object"
    said = run(adapted(push, here))
    # The agent had a route of another name, so the response warns.
    assert '"warning":"my-agent takes port' in said
    for block in calls:
        # A line may go on in the next one.
        commands = [line for line in block.replace("\\\n", " ").splitlines() if line.startswith("curl ")]
        assert len(commands) >= 2
        for command in commands:
            assert run(adapted(command, here)) == "hello from my-agent", command
    (program,) = blocks("python", "import grpc")
    exec(adapted(program, here), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "hello from my-agent"
    assert "alpha" in lines[1]


def test_grpcurl(here: dict[str, str]) -> None:
    (call,) = blocks("sh", "grpcurl ")
    assert json.loads(run(adapted(call, here)))["message"] == "alpha"


def run(commands: str) -> str:
    shell = ["bash", "-euo", "pipefail", "-c", commands]
    # grpcurl is a package of this environment.
    path = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(shell, cwd=ROOT, env=path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{commands}\n{done}"
    return done.stdout
