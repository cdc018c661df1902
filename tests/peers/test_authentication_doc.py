"""The commands of docs/authentication.md, in their order, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from conftest import push
from peer import Peer
from served import Served, until

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs/authentication.md").read_text()
START = "cargo xtask envoy"


@pytest.fixture
def agent() -> Iterator[Peer]:
    peer = Peer("web", "my-agent")
    yield peer
    peer.kill()


@pytest.mark.parametrize("form", ["wasm", "native"])
def test_every_command_works(form: str, agent: Peer, tmp_path: Path) -> None:
    envoy: Served | None = None
    calls = 0
    try:
        for block in re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL):
            if START in block:
                if envoy is not None:
                    envoy.stop()
                said = run(block.replace(START, "env"), tmp_path)
                settings = dict(line.split("=", 1) for line in said.splitlines() if line.startswith("PIXELL_"))
                envoy = Served(form, settings)
                push(envoy, agent.name, agent.port)
            elif "curl" in block:
                assert envoy is not None
                call = block.replace("localhost:50051", f"localhost:{envoy.port}")
                # Envoy may not have its keys yet.
                until(partial(is_healthy, call, tmp_path), "response of the agent")
                calls += 1
            else:
                run(block, tmp_path)
    finally:
        if envoy is not None:
            envoy.stop()
    assert calls == 2


def is_healthy(call: str, directory: Path) -> bool:
    return run(call, directory) == "healthy"


def run(commands: str, directory: Path) -> str:
    shell = ["bash", "-euo", "pipefail", "-c", commands]
    # `python3` is the one of these tests.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(
        shell, cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{commands}\n{done}"
    return done.stdout
