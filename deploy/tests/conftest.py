"""Fixtures: moto's server with an account in it, and deploy/pixell-envoy with the real AWS CLI pointed at it."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from support import ecs_scheduler
from support.account import Account
from support.envoy import Envoy
from support.stages import Stages
from support.tool import SUPPORT, Result, Tool

# One line a request, for every test: noise beside a failure.
logging.getLogger("werkzeug").setLevel(logging.ERROR)


def pytest_sessionstart() -> None:
    for tool, how in {
        "jq": "apt-get install jq",
        "shellcheck": "apt-get install shellcheck",
        "curl": "apt-get install curl",
    }.items():
        if shutil.which(tool) is None:
            pytest.exit(f"{tool} is not on the PATH: {how}", returncode=1)


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of moto's server."""
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "false"
    ecs_scheduler.install()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def aws_cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of the server that runs the real AWS CLI."""
    path = tmp_path_factory.mktemp("aws") / "socket"
    process = subprocess.Popen([sys.executable, SUPPORT / "aws_cli_server.py", path], stdin=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not path.exists():
        assert process.poll() is None, "the AWS CLI server ended"
        assert time.monotonic() < deadline, "the AWS CLI server did not start within 30 s"
        time.sleep(0.02)
    yield path
    process.communicate(timeout=10)


@pytest.fixture(scope="session")
def stages(moto: str, aws_cli: Path, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Where the account can be taken to."""
    return Stages(Account(moto), lambda: Tool(tmp_path_factory.mktemp("stage"), moto, aws_cli))


@pytest.fixture
def account(stages: Stages) -> Account:
    """The account before the rollout, as new for every test."""
    stages.before()
    return stages.account


@pytest.fixture
def before(account: Account, stages: Stages) -> dict[str, Any]:
    """What was there before the rollout, and what a rollback has to bring back."""
    return stages.state


@pytest.fixture
def applied(account: Account, stages: Stages) -> Result:
    """Takes the account to after a rollout; what apply said and did."""
    return stages.applied()


@pytest.fixture
def applied_with_alarms(account: Account, stages: Stages) -> Result:
    """The same after a rollout with the alarms."""
    return stages.applied("--alarms")


@pytest.fixture
def behaviour() -> ecs_scheduler.Behaviour:
    """How ECS, the targets and IAM act; back to normal with every new account."""
    return ecs_scheduler.behaviour


@pytest.fixture
def tool(tmp_path: Path, moto: str, aws_cli: Path) -> Tool:
    return Tool(tmp_path, moto, aws_cli)


@pytest.fixture(scope="session")
def envoy() -> Iterator[Envoy]:
    """A real Envoy with the filter, in the load balancer's place."""
    envoy = Envoy()
    yield envoy
    envoy.stop()
