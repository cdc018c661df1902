"""Hooks of pytest for the conftest files: a failed scenario shows the logs of every container since it began."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from .engine import Composed, now

STARTED = pytest.StashKey[float]()
# A fixture puts it here, because the hook below cannot use one.
PROJECT = pytest.StashKey[Composed]()


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[STARTED] = now()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    project = item.config.stash.get(PROJECT, None)
    if report.failed and project is not None:
        report.sections.append(("logs of every container", project.all_logs(item.stash[STARTED])))
    return report
