"""The stand-in PAR's REST interface, seen from outside."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

URL = "http://task:8080"


class Par:
    def __init__(self) -> None:
        self._http = httpx.Client(base_url=URL, timeout=60)

    def deploy(self, deployment_id: str, kind: str = "grpc") -> dict[str, Any]:
        """Deploys, or redeploys, and gives PAR's answer: port, pid and whether Envoy routes to it."""
        answer = self._http.post("/deployments", json={"deployment_id": deployment_id, "kind": kind})
        assert answer.status_code in (200, 201), f"{answer.status_code}: {answer.text}"
        return dict(answer.json())

    def deploy_all(self, ids: Iterable[str]) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(max_workers=5) as pool:
            return list(pool.map(self.deploy, ids))

    def try_deploy(self, deployment_id: str) -> httpx.Response:
        return self._http.post("/deployments", json={"deployment_id": deployment_id})

    def remove(self, deployment_id: str) -> None:
        answer = self._http.delete(f"/deployments/{deployment_id}")
        assert answer.status_code == 204, f"{answer.status_code}: {answer.text}"

    def deployments(self) -> dict[str, dict[str, Any]]:
        return dict(self._http.get("/deployments").raise_for_status().json())

    def remove_all(self) -> None:
        with ThreadPoolExecutor(max_workers=5) as pool:
            list(pool.map(self.remove, self.deployments()))

    def call_directly(self, deployment_id: str) -> str:
        """PAR's internal call to an agent."""
        answer = self._http.get(f"/deployments/{deployment_id}/health").raise_for_status()
        return str(answer.json()["message"])

    def envoy(self) -> dict[str, Any]:
        """What PAR sees of Envoy."""
        return dict(self._http.get("/envoy").raise_for_status().json())

    def close(self) -> None:
        self._http.close()
