"""The route API, which answers inside the task alone: each call is made by a process in the `par` container."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Optional

from .engine import Container

TOKEN = os.environ["PIXELL_ADMIN_TOKEN"]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


def call(par: Container, method: str, path: str, body: Any = None, token: Optional[str] = TOKEN) -> Answer:
    text = "" if body is None else json.dumps(body)
    return Answer(**json.loads(par.run("python3", "-m", "scenarios.loopback", method, path, text, token or "")))


def ports(par: Container) -> dict[str, int]:
    """The route map: port by deployment id."""
    answer = call(par, "GET", "/v1/routes")
    assert answer.status == 200, answer
    return {name: route["port"] for name, route in answer.body["routes"].items()}
