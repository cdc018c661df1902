"""The route API. It accepts calls only from inside the task, so a process in the `par` container makes each call."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Optional

from .engine import Container

TOKEN = os.environ["PIXELL_ADMIN_TOKEN"]


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: Any


def call(par: Container, method: str, path: str, body: Any = None, token: Optional[str] = TOKEN) -> Response:
    text = "" if body is None else json.dumps(body)
    return Response(**json.loads(par.run("python3", "-m", "scenarios.loopback", method, path, text, token or "")))


def ports(par: Container) -> dict[str, int]:
    """The route map: port by deployment id."""
    response = call(par, "GET", "/v1/routes")
    assert response.status == 200, response
    return {name: route["port"] for name, route in response.body["routes"].items()}
