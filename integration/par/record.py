"""The file in which PAR remembers its agents while it restarts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from .agent import Agent

# Agents can neither read nor write this directory. With it an agent could choose which processes PAR takes for agents.
PLACE = Path("/var/lib/par/agents.json")


def write(agents: Iterable[Agent]) -> None:
    """Replaces the file in one step, because PAR may be killed at any moment."""
    PLACE.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = PLACE.with_suffix(".new")
    new.write_text(json.dumps([asdict(agent) for agent in agents]))
    os.replace(new, PLACE)


def read() -> list[Agent]:
    if not PLACE.exists():
        return []
    return [Agent(**fields) for fields in json.loads(PLACE.read_text())]
