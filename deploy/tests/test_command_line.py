"""The command line, the settings and what the machine lacks: each fault is named before anything is looked up."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from support.account import Account
from support.names import DEPLOY
from support.tool import RUN_SECONDS, Tool


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the script with no AWS behind it: none of these faults may get that far."""
    return subprocess.run(
        [DEPLOY / "pixell-envoy", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": os.environ["PATH"], "AWS_ENDPOINT_URL": "http://127.0.0.1:1", **environment},
    )


EXAMPLE = ("--settings", DEPLOY / "settings.example.env")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([], "no command given"),
        (["deploy"], "unknown command deploy"),
        (["plan", "--force"], "unknown option --force"),
        (["plan", "--image"], "--image needs a value"),
        (["check", "--alarms"], "check does not take --alarms"),
        (["plan", "--yes"], "plan does not take --yes"),
        (["apply", "--revision", "3"], "apply does not take --revision"),
        (["plan", "now"], "plan takes no argument now"),
        (["verify"], "verify needs two deployment ids"),
        (["verify", "a"], "verify needs two deployment ids"),
        (["verify", "a", "b", "c"], "verify needs two deployment ids"),
        (["verify", "a", "a"], "two different deployment ids"),
        (["rollback", "--revision", "last"], "--revision is a number, not last"),
    ],
)
def test_wrong_usage_is_named_and_explained(arguments: list[str], fault: str) -> None:
    done = run(*EXAMPLE, *arguments)
    assert done.returncode == 2
    assert fault in done.stderr
    assert "usage: deploy/pixell-envoy" in done.stderr


def test_help_is_no_fault() -> None:
    for word in ("--help", "help"):
        done = run(word)
        assert done.returncode == 0
        assert done.stdout.startswith("usage: ")
        for command in ("check", "plan", "apply", "verify", "rollback", "render"):
            assert f"\n  {command} " in done.stdout


def test_no_settings_file_says_how_to_make_one(tmp_path: Path) -> None:
    done = run("--settings", tmp_path / "none.env", "check")
    assert done.returncode == 2
    assert "none.env cannot be read" in done.stderr
    assert "settings.example.env" in done.stderr


def test_every_fault_of_the_settings_is_told_at_once(tmp_path: Path) -> None:
    example = (DEPLOY / "settings.example.env").read_text()
    settings = tmp_path / "settings.env"
    settings.write_text(
        example.replace("CLUSTER=", "KLUSTER=")
        .replace("REGION=us-east-2", "REGION=Ohio")
        .replace("TASK_CPU=2048", "TASK_CPU=two")
        .replace("ENVOY_DRAIN_SECONDS=30", "ENVOY_DRAIN_SECONDS=120")
        + "SERVICE=again\nnot a setting\nPATH=/nowhere\n"
    )
    done = run("--settings", settings, "check")
    assert done.returncode == 2
    for fault in (
        "unknown key KLUSTER",
        "CLUSTER is missing",
        "REGION cannot be 'Ohio'",
        "TASK_CPU cannot be 'two'",
        "ENVOY_DRAIN_SECONDS cannot be '120'",
        "SERVICE is given a second time",
        "is not KEY=value",
        "unknown key PATH",
    ):
        assert fault in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"ENVOY_CPU": "2048"}, "ENVOY_CPU 2048 leaves PAR nothing of TASK_CPU 2048"),
        ({"ENVOY_MEMORY": "8192"}, "ENVOY_MEMORY 8192 leaves PAR nothing of TASK_MEMORY 4096"),
        ({"IMAGE_TAG": "latest"}, "give each image its own tag"),
    ],
)
def test_settings_that_make_no_sense_together(tool: Tool, change: dict[str, str], fault: str) -> None:
    tool.settings.update(change)
    result = tool.run("check")
    assert result.status == 2
    assert fault in result.err
    assert not result.aws_calls


def test_settings_are_parsed_and_never_executed(tool: Tool) -> None:
    tool.settings["IMAGE_TAG"] = f"$(touch {tool.directory}/executed)"
    assert tool.run("check").status == 2
    assert not (tool.directory / "executed").exists()


def test_settings_written_on_windows_are_read(account: Account, tool: Tool) -> None:
    path = tool.settings_file()
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    done = subprocess.run(
        [DEPLOY / "pixell-envoy", "--settings", path, "check"],
        env=tool.environment,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("program", ["aws", "jq"])
def test_a_missing_program_is_named_with_how_to_get_it(tmp_path: Path, program: str) -> None:
    for name in ("bash", "dirname", "env", "aws", "jq"):
        if name != program:
            (tmp_path / name).symlink_to(f"/usr/bin/{name}" if name != "aws" else "/usr/bin/true")
    done = run(*EXAMPLE, "check", PATH=str(tmp_path))
    assert done.returncode == 1
    assert f"{program} is not on the PATH" in done.stderr
    assert "mend: " in done.stderr


def test_without_a_terminal_nothing_is_changed_unless_yes_is_said(account: Account, tool: Tool) -> None:
    before = account.state()
    result = tool.run("apply")
    assert result.status == 1
    assert "--yes was not given. Nothing has been changed" in result.err
    assert account.state() == before
    assert not result.changes


@pytest.mark.parametrize(("answer", "applied"), [("n", False), ("", False), ("y", True)])
def test_a_person_is_asked(account: Account, tool: Tool, answer: str, applied: bool) -> None:
    person, terminal = pty.openpty()
    tool.aws_log.touch()
    os.write(person, (answer + "\n").encode())
    done = subprocess.run(
        [DEPLOY / "pixell-envoy", "--settings", tool.settings_file(), "apply"],
        env=tool.environment,
        stdin=terminal,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    os.close(person)
    os.close(terminal)
    assert "Make these changes? [y/N]" in done.stderr
    assert done.returncode == (0 if applied else 1), done.stdout + done.stderr
    assert (account.record() is not None) == applied
    if not applied:
        assert "not confirmed. Nothing has been changed" in done.stderr


def test_the_tag_comes_from_the_commit_where_none_is_set(tool: Tool, account: Account) -> None:
    """A work tree of its own, since the one at hand may have changes."""
    root = tool.directory / "clone"
    deploy = root / "deploy"
    deploy.mkdir(parents=True)
    for each in ("pixell-envoy", "lib", "task-definition.json", "alarms.json", "settings.example.env"):
        (deploy / each).symlink_to(DEPLOY / each)
    (root / "Cargo.toml").write_text('[workspace.package]\nversion = "1.2.3"\n')
    git: list[str | Path] = ["git", "-C", root, "-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run(
        [*git, "rev-parse", "--short=12", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    tool.settings["IMAGE_TAG"] = ""

    def plan() -> subprocess.CompletedProcess[str]:
        tool.aws_log.touch()
        return subprocess.run(
            [deploy / "pixell-envoy", "--settings", tool.settings_file(), "plan"],
            env=tool.environment,
            capture_output=True,
            text=True,
        )

    clean = plan()
    assert f"build and push pixell-envoy:1.2.3-{commit}" in clean.stdout, clean.stderr
    (root / "Cargo.toml").write_text("changed\n")
    dirty = plan()
    assert dirty.returncode == 1
    assert "the work tree has changes that no commit names" in dirty.stderr
