"""What shellcheck and a look at the sources tell: sound shell, every part in use, no account written down anywhere."""

from __future__ import annotations

import re
import subprocess
from uuid import UUID

import pytest

from support.account import ACCOUNT
from support.names import DEPLOY, ROOT, SETTINGS

SCRIPTS = [DEPLOY / "pixell-envoy", *sorted((DEPLOY / "lib").glob("*.sh"))]


def tracked(*patterns: str) -> list[str]:
    """Files of this repository, committed or not."""
    done = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(["shellcheck", "--check-sourced", DEPLOY / "pixell-envoy"], capture_output=True, text=True)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


def test_every_file_of_the_library_is_sourced() -> None:
    sourced = re.findall(r'^\. "\$DEPLOY/lib/([\w.]+)"$', (DEPLOY / "pixell-envoy").read_text(), re.M)
    assert sorted(sourced) == [path.name for path in SCRIPTS[1:]]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_function_is_used(script: object) -> None:
    everything = "\n".join(path.read_text() for path in SCRIPTS)
    for name in re.findall(r"^(\w+)\(\) \{", script.read_text(), re.M):  # type: ignore[attr-defined]
        # Steps and commands are called by a name that is put together.
        composed = re.match(r"(plan|apply|back|back_plan|command)_", name)
        assert composed or len(re.findall(rf"(?<![\w-]){name}(?![\w-])", everything)) > 1, f"{name} is never called"


def test_no_file_is_too_long_to_read() -> None:
    for path in SCRIPTS:
        assert len(path.read_text().splitlines()) < 300, path.name


ARN = re.compile(r"arn:aws[\w-]*:[\w-]*:[\w-]*:\d")
# In all of the tree: such a number alone, or before a host name as in a registry's; here, anywhere.
NUMBERS = {".": re.compile(r"(?<![\w.-])\d{12}(?![\w-])"), "deploy": re.compile(r"(?<!\d)\d{12}(?!\d)")}


@pytest.mark.parametrize("where", NUMBERS)
def test_no_account_number_and_no_arn_is_written_down(where: str) -> None:
    names = tracked(where) + tracked("docs/deploy.md")
    assert len(names) > 20
    for name in names:
        # A picture or an archive has no lines to read.
        for number, line in enumerate((ROOT / name).read_text(errors="replace").splitlines(), 1):
            found = NUMBERS[where].search(line)
            assert found is None, f"{name}:{number} holds what looks like an account number: {line}"
            assert not ARN.search(line), f"{name}:{number} holds an ARN: {line}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (ACCOUNT, True),
        (f"{ACCOUNT}.dkr.ecr.us-east-2.amazonaws.com/pixell-envoy", True),
        (f"account={ACCOUNT},", True),
        (str(UUID(int=1)), False),
    ],
)
def test_an_account_number_would_be_told(text: str, told: bool) -> None:
    assert (NUMBERS["."].search(text) is not None) == told


def test_every_setting_is_known_and_used() -> None:
    known = set(re.findall(r"^  \[(\w+)\]=", (DEPLOY / "lib/settings.sh").read_text(), re.M))
    assert known == set(SETTINGS)
    used = "\n".join(path.read_text() for path in SCRIPTS if path.name != "settings.sh")
    for key in known:
        assert re.search(rf"\b{key}\b", used), f"{key} is never used"


def test_the_script_is_executable_and_says_its_bash() -> None:
    script = DEPLOY / "pixell-envoy"
    assert script.stat().st_mode & 0o111
    assert script.read_text().startswith("#!/usr/bin/env bash\n")
