"""A real Envoy with the shipped configuration and the built filter, in the load balancer's place."""

from __future__ import annotations

import importlib.util
import json
import urllib.request
from typing import Any

from .names import ROOT


def load() -> Any:
    """The module of the Python client's tests that runs one: there is one such thing for Python in this repository."""
    path = ROOT / "clients/python/tests/envoy_process.py"
    spec = importlib.util.spec_from_file_location("envoy_process", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Envoy:
    def __init__(self) -> None:
        self.process = load().EnvoyProcess()
        self.process.start()

    @property
    def endpoint(self) -> str:
        """host:port of the data path."""
        return f"127.0.0.1:{self.process.agents_port}"

    @property
    def url(self) -> str:
        """The base URL of readiness and the route API."""
        return str(self.process.url)

    @property
    def log(self) -> str:
        """What it has written to its standard output and error."""
        return str(self.process.log)

    def push(self, routes: dict[str, int]) -> None:
        """Replaces the route map, as PAR does."""
        body = json.dumps({"routes": routes}).encode()
        request = urllib.request.Request(
            f"{self.url}/v1/routes", data=body, method="PUT", headers={"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def stop(self) -> None:
        self.process.remove()
