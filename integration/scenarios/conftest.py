"""Before every scenario: all containers run and no agent is deployed. A failure shows every log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .clients import GrpcClient, HttpClient
from .engine import Project
from .par_client import Par
from .report import PROJECT, pytest_runtest_makereport, pytest_runtest_setup

__all__ = ["pytest_runtest_makereport", "pytest_runtest_setup"]


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
