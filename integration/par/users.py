"""A user for each agent, so that the kernel protects agents from each other, and PAR and the token from agents."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Images use lower numbers for their users. PAR gives each number once, so that nothing that an agent leaves behind
# belongs to a later agent.
FIRST = 20000
STATE = Path("/var/lib/par/next-user")

# The variables of PAR's environment that agents get. A list of names, so that agents never get a new secret of PAR's.
PASSED_ON = ("LANG", "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "TZ")


def fresh() -> int:
    """A user id that no agent has had."""
    uid = int(STATE.read_text()) if STATE.exists() else FIRST
    STATE.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = STATE.with_suffix(".new")
    new.write_text(str(uid + 1))
    os.replace(new, STATE)
    return uid


def environment() -> dict[str, str]:
    """The environment of an agent."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {"HOME": "/nonexistent"}


def end_all(uid: int) -> None:
    """Ends every process of an agent's user, in any session and with any parent."""
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdigit() and place.stat().st_uid == uid:
                os.kill(int(place.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            pass  # It has ended by itself.
