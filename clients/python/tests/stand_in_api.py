"""Stands in for one Envoy's fleet map, for tests of many tasks in one process: no test has hundreds of Envoys."""

from __future__ import annotations

import ipaddress
import json
import time
from datetime import datetime, timezone
from typing import Any, Optional

import httpx

from pixell_envoy import EnvoyManager, Route, RouteApiClient


class StandInApi(httpx.AsyncBaseTransport):
    """`/v1/status`, `/v1/fleet` and `/v1/fleet/peers`. It counts the writes."""

    def __init__(self, *, cidr: str = "10.0.0.0/8", enabled: bool = True) -> None:
        self._cidr = ipaddress.ip_network(cidr)
        self.enabled = enabled
        self.max_id, self.max_peers, self.max_routes, self.max_body = 128, 1_000, 100_000, 32_000_000
        self.is_down = False
        self.puts = self.patches = 0
        self.cpu = 0.0
        """Seconds that its writes took."""
        self._epochs = 0
        self.restart()

    def restart(self) -> None:
        self.peers: dict[str, dict[str, str]] = {}
        self.since: dict[str, str] = {}
        self.routes: dict[str, list[str]] = {}
        self.generation = 0

    @property
    def epoch(self) -> str:
        return f"{self._epochs:x}" if self.generation else "0"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.is_down:
            raise httpx.ConnectError("down")
        await request.aread()
        if request.url.path == "/v1/status":
            counts = {"peers": len(self.peers), "routes": len(self.routes)}
            fleet = {"enabled": self.enabled, "loaded": self.generation > 0, **self._version(), **counts}
            return httpx.Response(
                200,
                json={"epoch": "0", "generation": 0, "loaded": False, "routes": 0, "version": "1.0.0", "fleet": fleet},
            )
        assert request.url.path in ("/v1/fleet", "/v1/fleet/peers")
        if not self.enabled:
            return problem(409, "fleet_disabled")
        if request.url.path == "/v1/fleet/peers":
            return httpx.Response(200, json={name: self._report(name) for name in self.peers})
        if request.method == "GET":
            if request.headers.get("If-None-Match") == self._etag():
                return httpx.Response(304)
            return httpx.Response(200, json={**self._version(), "peers": self.peers, "routes": self.routes})
        start = time.process_time()
        try:
            return self._write(request)
        finally:
            self.cpu += time.process_time() - start

    def _write(self, request: httpx.Request) -> httpx.Response:
        if request.headers.get("If-Match") not in (None, self._etag()):
            return problem(412, "precondition_failed")
        if len(request.content) > self.max_body:
            return problem(413, "payload_too_large")
        body = json.loads(request.content)
        peers, routes = body["peers"], body["routes"]
        if request.method == "PUT":
            self.puts += 1
        else:
            self.patches += 1
            peers, routes = merged(self.peers, peers), merged(self.routes, routes)
        errors = [
            {"pointer": f"/peers/{name}/host", "detail": "outside the allowed networks"}
            for name, peer in peers.items()
            if ipaddress.ip_address(peer["host"]) not in self._cidr
        ]
        errors += [
            {"pointer": f"/routes/{key}/0", "detail": "no such peer"}
            for key, names in routes.items()
            if not 1 <= len(names) <= 16 or not peers.keys() >= set(names)
        ]
        errors += [
            {"pointer": f"/routes/{key}", "detail": f"is longer than {self.max_id} bytes"}
            for key in routes
            if len(key) > self.max_id
        ]
        for what, entries, most in (("peers", peers, self.max_peers), ("routes", routes, self.max_routes)):
            if len(entries) > most:
                detail = f"the map would hold {len(entries)} {what}; at most {most} are allowed"
                errors.append({"pointer": f"/{what}", "detail": detail})
        if errors:
            return problem(422, "invalid_fleet", errors[:100])
        result = {
            "added": len(routes.keys() - self.routes.keys()),
            "changed": sum(self.routes[key] != routes[key] for key in self.routes.keys() & routes.keys()),
            "removed": len(self.routes.keys() - routes.keys()),
        }
        if (peers, routes) != (self.peers, self.routes) or not self.generation:
            if request.url.params.get("dry_run") == "true":
                return httpx.Response(200, json={**self._version(), **result})
            self._epochs += not self.generation
            self.generation += 1
            now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            kept = {name for name, peer in peers.items() if self.peers.get(name) == peer}
            self.since = {name: self.since[name] if name in kept else now for name in peers}
            self.peers, self.routes = peers, routes
        return httpx.Response(200, json={**self._version(), **result})

    def _report(self, name: str) -> dict[str, Any]:
        routes = sum(name in names for names in self.routes.values())
        return {**self.peers[name], "routes": routes, "since": self.since[name]}

    def _version(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "generation": self.generation}

    def _etag(self) -> str:
        return f'"{self.epoch}-{self.generation}"'


def merged(old: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**old, **patch}.items() if value is not None}


def problem(status: int, code: str, errors: Optional[list[dict[str, str]]] = None) -> httpx.Response:
    body = {"code": code, "title": code, "detail": "", "errors": errors or []}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json"})


class StandInManager(EnvoyManager):
    """A manager whose agents are set by the test, and whose Envoy is a StandInApi."""

    def __init__(self, api: Optional[StandInApi] = None) -> None:
        super().__init__(reconcile=False)
        self.api = StandInApi() if api is None else api
        self._api_client = RouteApiClient(transport=self.api, timeout=0.5)
        self._agents: dict[str, Route] = {}

    def client(self) -> RouteApiClient:
        return self._api_client

    def agents(self) -> dict[str, Route]:
        return dict(self._agents)

    def set(self, **agents: str) -> None:
        """Sets the agents: the state of each by its id, with `_` for `-`."""
        self._agents = {
            key.replace("_", "-"): Route(50054, "draining" if state == "draining" else "active")
            for key, state in agents.items()
        }
        self._tell_changed()
