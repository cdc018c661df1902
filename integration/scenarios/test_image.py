"""The image itself: its user, what it may write, what its settings do, and what its health command says."""

from __future__ import annotations

import time

import pytest

from .engine import Container, Project

HEALTH = "/usr/local/bin/pixell-envoy-health"


def test_it_runs_without_privileges_under_a_read_only_root(project: Project) -> None:
    assert project.envoy.run("id", "-u").strip() == "101"
    assert project.envoy.run("id", "-g").strip() == "101"
    for place in ("/tmp/x", "/etc/envoy/x", "/usr/local/lib/pixell-envoy/x"):
        code, output = project.envoy.try_run("sh", "-c", f": > {place}")
        assert code != 0 and "Read-only file system" in output, f"{place}: {output}"
    facts = project.envoy.run("stat", "-c", "%u:%g %a %F", "/run/pixell-envoy", "/run/pixell-envoy/admin.sock")
    assert facts.splitlines() == ["101:101 700 directory", "101:101 600 socket"]
    status = project.envoy.run("cat", "/proc/1/status")
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


def test_it_declares_user_ports_health_and_labels(project: Project) -> None:
    attributes = project.envoy.image.attrs["Config"]
    assert attributes["User"] == "101:101"
    assert {"50051/tcp", "9901/tcp"} <= attributes["ExposedPorts"].keys()
    assert attributes["Healthcheck"]["Test"] == ["CMD", HEALTH]
    labels = attributes["Labels"]
    for name in ("title", "description", "licenses", "version", "revision", "base.name"):
        assert labels[f"org.opencontainers.image.{name}"], name


def test_it_needs_no_curl(project: Project) -> None:
    code, _ = project.envoy.try_run("sh", "-c", "command -v curl")
    assert code != 0, "if the base image has curl, this test proves nothing"
    assert project.envoy.health == "healthy"


@pytest.mark.parametrize("settings", [{}, {"PIXELL_CONCURRENCY": "3", "PIXELL_LOG_LEVEL": "warning"}])
def test_settings_reach_envoy(project: Project, settings: dict[str, str]) -> None:
    with project.extra(project.envoy, environment=settings, read_only=True) as envoy:
        envoy.start()
        envoy.wait_healthy()
        (child,) = envoy.run("sh", "-c", "cat /proc/1/task/*/children").split()
        words = envoy.run("cat", f"/proc/{child}/cmdline").split("\0")
        names = envoy.run("sh", "-c", f"cat /proc/{child}/task/*/comm").split()
        workers = sum(name.startswith("wrk:worker_") for name in names)
        if settings:
            assert workers == 3
            assert words[words.index("--log-level") + 1] == "warning"
            assert "[info]" not in envoy.logs()
        else:
            assert workers >= 1
            assert "[info]" in envoy.logs()


@pytest.mark.parametrize("name", ["wasm", "native"])
def test_either_filter_runs(project: Project, name: str) -> None:
    with project.extra(project.envoy, environment={"PIXELL_FILTER": name}, read_only=True) as envoy:
        envoy.start()
        envoy.wait_healthy()
        (child,) = envoy.run("sh", "-c", "cat /proc/1/task/*/children").split()
        assert ("/native.so" in envoy.run("cat", f"/proc/{child}/maps")) == (name == "native")


def test_the_health_command_with_and_without_envoy(project: Project) -> None:
    with project.extra(project.envoy, entrypoint=["sleep", "60"]) as idle:
        idle.start()
        code, output = _health(idle)
        assert code == 1 and "not ready: http://127.0.0.1:9901/ready: " in output
        code, output = _health(idle, "--verbose")
        assert code == 2 and "usage" in output
        idle.raw.kill()
    code, output = _health(project.envoy)
    assert (code, output) == (0, "LIVE\n")


def test_it_is_ready_within_seconds(project: Project) -> None:
    with project.extra(project.envoy) as envoy:
        started = time.monotonic()
        envoy.start()
        while _health(envoy)[0] != 0:
            assert time.monotonic() - started < 10, envoy.logs()
        ready = time.monotonic() - started
        envoy.wait_healthy(20)
        print(f"ready after {ready:.1f} s, healthy according to the engine after {time.monotonic() - started:.1f} s")


def test_arguments_are_passed_to_envoy(project: Project) -> None:
    with project.extra(project.envoy, command=["--mode", "validate"]) as envoy:
        envoy.start()
        assert envoy.wait_ended() == 0
        assert "configuration '/etc/envoy/envoy.yaml' OK" in envoy.logs()


def _health(container: Container, *arguments: str) -> tuple[int, str]:
    return container.try_run(HEALTH, *arguments)
