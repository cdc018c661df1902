"""Runs redis-server. The user of each task has the rights that docs/fleet.md names, and nobody else has any."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# The image has a copy.
DOCUMENT = Path("docs/fleet.md")


def user(task: str, fleet: str, password: str) -> str:
    """The line for one task. Its user has the task's name."""
    (line,) = (line for line in DOCUMENT.read_text().splitlines() if line.startswith("user "))
    line = line.replace("TASK", task).replace("NAME", task).replace("PASSWORD", password)
    return line.replace("pixell:fleet:prod:", f"pixell:fleet:{fleet}:")


def main() -> None:
    fleet, password = os.environ["PIXELL_FLEET"], os.environ["DIRECTORY_PASSWORD"]
    users = [user(task, fleet, f"{password}-{task}") for task in os.environ["DIRECTORY_TASKS"].split()]
    # Only this process's user can read it.
    handle, rules = tempfile.mkstemp(suffix=".acl")
    with os.fdopen(handle, "w") as file:
        file.write("\n".join(["user default off", *users, ""]))
    # Without files, so that it restarts empty. The protected mode does not know that the default user is off.
    settings = ["--aclfile", rules, "--save", "", "--dir", "/tmp", "--protected-mode", "no"]
    os.execvp("redis-server", ["redis-server", *settings])


if __name__ == "__main__":
    main()
