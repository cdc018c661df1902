"""A broken configuration or setting ends the start, with a log line that names what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from .engine import Project

CONFIG = "/etc/envoy/envoy.yaml"
MODULES = "/usr/local/lib/pixell-envoy"


def _replace(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert text.count(old) >= 1, f"{old!r} is not in the shipped configuration"
        return text.replace(old, new)

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda text: text + "\n  - [", "yaml-cpp: error at line", id="not YAML"),
        pytest.param(_replace("static_resources:", "static_resorces:"), "static_resorces", id="unknown field"),
        pytest.param(_replace('"role": "router"', '"role": "rooter"'), "rooter", id="unknown role"),
        pytest.param(_replace('"role": "admin"', '"role": "admin", "max_rotues": 5'), "max_rotues", id="unknown key"),
        pytest.param(_replace('"role": "admin"', '"role": "admin",,'), "pixell.admin", id="not JSON"),
        pytest.param(_replace("router.wasm", "rooter.wasm"), "rooter.wasm", id="no such module"),
        pytest.param(_replace("port_value: 50051", "port_value: 9901"), "9901", id="port taken"),
    ],
)
def test_a_broken_configuration_ends_the_start(project: Project, change: Callable[[str], str], expected: str) -> None:
    with project.extra(project.envoy) as envoy:
        shipped = envoy.get(CONFIG).decode()
        envoy.put(CONFIG, change(shipped).encode())
        envoy.start()
        assert envoy.wait_ended() == 1
        errors = [line for line in envoy.logs().splitlines() if "[critical]" in line or "[error]" in line]
        assert any(expected in line for line in errors), envoy.logs()


def test_a_broken_module_ends_the_start(project: Project) -> None:
    with project.extra(project.envoy) as envoy:
        place = f"{MODULES}/router.wasm"
        envoy.put(place, envoy.get(place)[:1000])
        envoy.start()
        assert envoy.wait_ended() == 1
        # Envoy may set up either of the module's two places first.
        assert re.search(r"Unable to create Wasm plugin pixell\.(router|retry)", envoy.logs()), envoy.logs()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"PIXELL_LOG_LEVEL": "loud"}, ['PIXELL_LOG_LEVEL is "loud": expected one of trace, debug, info']),
        ({"PIXELL_FILTER": "rust"}, ['PIXELL_FILTER is "rust": expected one of wasm, native']),
        ({"PIXELL_CONCURRENCY": "0"}, ['PIXELL_CONCURRENCY is "0": expected a whole number from 1 to 256']),
        (
            {"PIXELL_CONCURRENCY": "two", "PIXELL_DRAIN_SECONDS": "30s"},
            ['PIXELL_CONCURRENCY is "two"', 'PIXELL_DRAIN_SECONDS is "30s": expected a whole number from 0 to 3600'],
        ),
    ],
)
def test_a_bad_setting_ends_the_start(project: Project, settings: dict[str, str], expected: list[str]) -> None:
    with project.extra(project.envoy, environment=settings) as envoy:
        envoy.start()
        assert envoy.wait_ended() == 78
        logs = envoy.logs()
        assert all(line in logs for line in expected), logs


def test_a_misspelt_setting_gets_a_warning_and_an_empty_one_is_not_set(project: Project) -> None:
    with project.extra(project.envoy, environment={"PIXELL_LOGLEVEL": "debug", "PIXELL_CONCURRENCY": ""}) as envoy:
        envoy.start()
        envoy.wait_healthy()
        assert "warning: PIXELL_LOGLEVEL is not a setting" in envoy.logs()
