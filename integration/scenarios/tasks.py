"""Tasks beside the composed one, each with its own Envoy and PAR, and the load balancer before them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx

from .engine import Container, Project
from .par_client import Par
from .stats import active
from .wait import wait_until

DATA, TEST = "balancer:50051", "balancer:50061"
# Seconds. Envoy asks a connection to leave after 2 to 2.4 s, so that a scenario takes seconds and not minutes.
AGE = 2


class Task:
    """Starts and stops as ECS does: PAR starts once Envoy is healthy, and stops before Envoy."""

    def __init__(self, project: Project, network: Container, envoy: Container, par: Container) -> None:
        self._project, self._network, self.envoy, self.par = project, network, envoy, par

    @property
    def address(self) -> str:
        networks: dict[str, Any] = self._network.raw.attrs["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    def start(self) -> None:
        self._network.start()
        self._network.raw.reload()
        self.envoy.start()
        self.envoy.wait_healthy()
        self.par.start()
        wait_until("PAR responds", self._par_responds)

    def _par_responds(self) -> bool:
        try:
            return httpx.get(f"http://{self.address}:8080/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def deploy(self, names: Iterable[str]) -> None:
        """Deploys agents through PAR's REST API, as PAC does."""
        par = Par(f"http://{self.address}:8080")
        par.deploy_all(names)
        par.close()

    def connections(self) -> int:
        """Clients' connections to Envoy's data path."""
        return active(self.address, "cx")

    def stop(self) -> tuple[int, int]:
        """SIGTERM to PAR, and to Envoy when PAR has ended. Returns both exit codes."""
        return self.par.stop(grace=120), self.envoy.stop()


@contextmanager
def task(project: Project) -> Iterator[Task]:
    """A task that is not started yet; removed at the end."""
    with ExitStack() as stack:
        own = project.engine.containers.get(socket.gethostname())
        network = next(iter(own.attrs["NetworkSettings"]["Networks"]))
        pause = stack.enter_context(
            project.extra(project.par, command=["sleep", "infinity"], network=network, stop_signal="SIGKILL")
        )
        token = {"PIXELL_ADMIN_TOKEN": os.environ["PIXELL_ADMIN_TOKEN"]}
        place = {"network_mode": f"container:{pause.raw.id}"}
        settings = token | {"PIXELL_MAX_CONNECTION_SECONDS": str(AGE), "PIXELL_CONCURRENCY": "1"}
        check = {"test": ["CMD", "/usr/local/bin/pixell-envoy-health"], "interval": 500_000_000}
        envoy = stack.enter_context(project.extra(project.envoy, settings, healthcheck=check, **place))
        variables = ("PORT", "A2A_PORT", "MAX_AGENTS", "ENVOY_ADMIN_URL", "PAR_DRAIN_SECONDS")
        given = dict(each.split("=", 1) for each in project.par.raw.attrs["Config"]["Env"])
        settings = token | {name: given[name] for name in variables}
        par = stack.enter_context(
            project.extra(project.par, settings, command=["python3", "-m", "par.supervise"], **place)
        )
        yield Task(project, pause, envoy, par)


def balancer(*commands: str) -> None:
    """Sends commands of HAProxy's runtime API to the load balancer."""
    for command in commands:
        with socket.create_connection(("balancer", 9999), timeout=5) as connection:
            connection.sendall(f"{command}\n".encode())
            response = b"".join(iter(lambda: connection.recv(4096), b"")).decode().strip()
        # It responds with what has changed, or with nothing.
        assert not response or "changed" in response or "no need" in response, f"{command}: {response}"


def register(server: str, task: Task) -> None:
    """Gives the server `backend/name` the task's address. It takes connections once it is healthy."""
    balancer(
        f"set server {server} addr {task.address} port 50051",
        f"enable health {server}",
        f"set server {server} state ready",
    )


def deregister(server: str) -> None:
    """No new connection; open ones stay, as with a network load balancer."""
    balancer(f"set server {server} state drain")
