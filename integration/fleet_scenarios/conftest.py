"""Before every scenario: all containers run, all tasks know each other, and no agent is deployed."""

from __future__ import annotations

import pytest

from scenarios.report import PROJECT, pytest_runtest_makereport, pytest_runtest_setup

from .fleet import Fleet

__all__ = ["pytest_runtest_makereport", "pytest_runtest_setup"]


@pytest.fixture(scope="session")
def composed(request: pytest.FixtureRequest) -> Fleet:
    fleet = Fleet()
    request.config.stash[PROJECT] = fleet
    return fleet


@pytest.fixture
def fleet(composed: Fleet) -> Fleet:
    composed.settle()
    return composed
