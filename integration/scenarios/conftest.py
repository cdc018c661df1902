"""What every scenario starts from: all containers up, no agent deployed. A failure shows every log."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from .callers import GrpcCaller, HttpCaller
from .engine import Project, now
from .par_client import Par

STARTED = pytest.StashKey[float]()
# Where the hook below finds it; a fixture is not within its reach.
PROJECT = pytest.StashKey[Project]()


@pytest.fixture(scope="session")
def project(request: pytest.FixtureRequest) -> Project:
    project = Project()
    request.config.stash[PROJECT] = project
    return project


@pytest.fixture(autouse=True)
def settled(project: Project, par: Par) -> None:
    project.settle()
    par.remove_all()


@pytest.fixture
def par() -> Iterator[Par]:
    par = Par()
    yield par
    par.close()


@pytest.fixture
def grpc_caller() -> Iterator[GrpcCaller]:
    caller = GrpcCaller()
    yield caller
    caller.close()


@pytest.fixture
def http_caller() -> Iterator[HttpCaller]:
    caller = HttpCaller()
    yield caller
    caller.close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[STARTED] = now()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    project = item.config.stash.get(PROJECT, None)
    if report.failed and project is not None:
        report.sections.append(("logs of every container", project.all_logs(item.stash[STARTED])))
    return report
