"""A client of the stand-in PAR's REST API."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

URL = "http://task:8080"


class Par:
    def __init__(self, url: str = URL) -> None:
        self._http = httpx.Client(base_url=url, timeout=60)

    def is_up(self) -> bool:
        try:
            return self._http.get("/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def deploy(self, deployment_id: str, kind: str = "grpc") -> dict[str, Any]:
        """Deploys or redeploys, and returns PAR's response: port, pid, and whether Envoy routes to the agent."""
        response = self._http.post("/deployments", json={"deployment_id": deployment_id, "kind": kind})
        assert response.status_code in (200, 201), f"{response.status_code}: {response.text}"
        return dict(response.json())

    def deploy_all(self, ids: Iterable[str]) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(max_workers=5) as pool:
            return list(pool.map(self.deploy, ids))

    def try_deploy(self, deployment_id: str) -> httpx.Response:
        return self._http.post("/deployments", json={"deployment_id": deployment_id})

    def remove(self, deployment_id: str, drain: float = 0) -> None:
        """Ends the agent. With `drain` it has so many seconds for its requests: the end of a planned move."""
        response = self._http.delete(f"/deployments/{deployment_id}", params={"drain": drain} if drain else None)
        assert response.status_code == 204, f"{response.status_code}: {response.text}"

    def deployments(self) -> dict[str, dict[str, Any]]:
        return dict(self._http.get("/deployments").raise_for_status().json())

    def remove_all(self) -> None:
        with ThreadPoolExecutor(max_workers=5) as pool:
            list(pool.map(self.remove, self.deployments()))

    def peers(self) -> dict[str, dict[str, str]]:
        """The states of the agents of each other task of the fleet."""
        return dict(self._http.get("/fleet").raise_for_status().json())

    def call_directly(self, deployment_id: str) -> str:
        """PAR's internal call to an agent."""
        response = self._http.get(f"/deployments/{deployment_id}/health").raise_for_status()
        return str(response.json()["message"])

    def envoy(self) -> dict[str, Any]:
        """Envoy's health and statistics, as PAR reads them."""
        return dict(self._http.get("/envoy").raise_for_status().json())

    def close(self) -> None:
        self._http.close()
