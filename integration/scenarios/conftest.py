"""Before every scenario: all containers run and no agent is deployed. A failure shows every log."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from .clients import GrpcClient, HttpClient
from .engine import Project, now
from .par_client import Par

STARTED = pytest.StashKey[float]()
# For the hook below, which cannot use a fixture.
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
def grpc_client() -> Iterator[GrpcClient]:
    client = GrpcClient()
    yield client
    client.close()


@pytest.fixture
def http_client() -> Iterator[HttpClient]:
    client = HttpClient()
    yield client
    client.close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[STARTED] = now()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    project = item.config.stash.get(PROJECT, None)
    if report.failed and project is not None:
        report.sections.append(("logs of every container", project.all_logs(item.stash[STARTED])))
    return report
