"""The tool's output: lines on standard output, the error that ends a command, and a question before anything is changed."""

import sys
from typing import Any


class Stop(Exception):
    """Ends the command: what is wrong, and how to fix it. Status 1 is an error at AWS, 2 wrong usage or settings."""

    def __init__(self, text: str, fix: str = "", *, status: int = 1) -> None:
        super().__init__(text)
        self.fix, self.status = fix, status


def need(found: dict[str, Any] | None, text: str, fix: str) -> dict[str, Any]:
    """What was looked up. Ends the command if it is None."""
    if found is None:
        raise Stop(text, fix)
    return found


def say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def confirm(question: str, yes: bool) -> None:
    if not yes and not sys.stdin.isatty():
        raise Stop("standard input is no terminal and --yes was not given: nothing was changed")
    if not yes and input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise Stop("not confirmed: nothing was changed")
