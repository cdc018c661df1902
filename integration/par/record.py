"""What PAR remembers of its agents over a restart of its own: a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from .agent import Agent

PLACE = Path("/tmp/par-agents.json")


def write(agents: Iterable[Agent]) -> None:
    """In one step: PAR may be killed at any moment."""
    new = PLACE.with_suffix(".new")
    new.write_text(json.dumps([asdict(agent) for agent in agents]))
    os.replace(new, PLACE)


def read() -> list[Agent]:
    if not PLACE.exists():
        return []
    return [Agent(**fields) for fields in json.loads(PLACE.read_text())]
