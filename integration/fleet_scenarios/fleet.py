"""The composed fleet: its tasks, each with an Envoy, a PAR and agents, the directory, and the load balancer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar, Union

import grpc
import httpx

from scenarios.clients import GrpcClient, HttpClient
from scenarios.engine import Composed, Container
from scenarios.par_client import Par
from scenarios.stats import active
from scenarios.tasks import balancer
from scenarios.wait import wait_until

# Seconds until a task that fell silent is dropped.
TTL = float(os.environ["PAR_FLEET_TTL"])
# Seconds until all tasks know what one has published. docs/fleet.md, "The order of a planned move".
KNOWN = 2.0
LETTERS = "abc"
# Seconds between two calls of a client, so that the load leaves the machine time for what happens meanwhile.
PAUSE = 0.01
BALANCER = "balancer:50051"

T = TypeVar("T")
Client = Union[GrpcClient, HttpClient]


class Task:
    """Starts and stops as ECS does: PAR starts once Envoy is healthy, and stops before Envoy."""

    def __init__(self, composed: Composed, letter: str) -> None:
        self.name, self.address = f"task-{letter}", f"task-{letter}:50051"
        self.network = composed.service(self.name)
        self.envoy, self.par = composed.service(f"envoy-{letter}"), composed.service(f"par-{letter}")
        self.rest = Par(f"http://{self.name}:8080")

    def start(self) -> None:
        """Returns once the load balancer may lead clients here."""
        self.network.start()
        self.envoy.start()
        self.envoy.wait_healthy()
        self.par.start()
        wait_until(f"{self.name} is ready for clients", self._is_ready)

    def stop(self) -> tuple[int, int]:
        """SIGTERM to PAR, and to Envoy when PAR has ended. Returns both exit codes. The address is free after that."""
        codes = self.par.stop(), self.envoy.stop()
        self.network.kill()
        return codes

    def kill(self) -> None:
        """`docker kill` of each container of the task. Envoy's connections end with it, while the network is there."""
        self.envoy.kill()
        in_parallel(Container.kill, [self.par, self.network])

    def connections(self) -> int:
        """Clients' connections to Envoy's data path."""
        return active(self.name, "cx")

    def _is_ready(self) -> bool:
        try:
            ready = httpx.get(f"http://{self.name}:9901/ready/traffic", timeout=2)
            # PAR's REST API as well: the map of an earlier PAR would do for the first.
            return ready.status_code == 200 and self.rest.is_up()
        except httpx.HTTPError:
            return False


class Fleet(Composed):
    """All of it. `tasks` are a, b and c."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks = [Task(self, letter) for letter in LETTERS]
        self.directory = self.service("directory")
        networks = self.engine.networks.list(names=[f"{self.name}_directory"])
        (self._network,) = (network for network in networks if network.name == f"{self.name}_directory")

    @property
    def addresses(self) -> list[str]:
        return [task.address for task in self.tasks]

    def settle(self) -> None:
        """Starts and connects everything that a scenario may have stopped or cut off, and ends all agents."""
        self.directory.start()
        self.directory.wait_healthy()
        for task in self.tasks:
            self.connect(task)
        in_parallel(Task.start, self.tasks)
        in_parallel(lambda task: task.rest.remove_all(), self.tasks)
        for task in self.tasks:
            self.lead_clients_to(task)
        wait_until(
            "each task knows the two others, without agents",
            lambda: all(map(_knows_others_without_agents, self.tasks)),
            60,
        )

    def connect(self, task: Task) -> None:
        """Connects a task to the directory's network, unless it is."""
        task.network.raw.reload()
        if self._network.name not in task.network.raw.attrs["NetworkSettings"]["Networks"]:
            self._network.connect(task.network.raw)

    @contextmanager
    def cut_off_from_directory(self, task: Task) -> Iterator[None]:
        """All other connections of the task stay."""
        self._network.disconnect(task.network.raw)
        try:
            yield
        finally:
            self.connect(task)

    def lead_clients_to(self, task: Task) -> None:
        """Lets the load balancer send new clients to this task once it is ready."""
        balancer(f"set server live/{task.name} state ready")

    def lead_clients_away_from(self, task: Task) -> None:
        """No new connection goes there; returns when the last one has ended."""
        balancer(f"set server live/{task.name} state drain")
        wait_until(f"clients have left {task.name}", lambda: task.connections() == 0)

    def wait_served(self, kinds: Mapping[str, str], limit: float = 30.0) -> None:
        """Returns once each task and the load balancer lead to all these agents, which have a kind by id."""
        for address in [*self.addresses, BALANCER]:
            clients: dict[str, Client] = {"grpc": GrpcClient(address), "jsonrpc": HttpClient(address)}
            for name, kind in kinds.items():
                wait_until(f"{address} leads to {name}", partial(is_served, clients[kind], name), limit)
            for client in clients.values():
                client.close()


def outcome(client: Client, deployment_id: str) -> str:
    """`OK`, the id of another agent that responded, or what went wrong."""
    try:
        responder = client.health(deployment_id)
    except grpc.RpcError as error:
        return str(error.code().name)
    except httpx.HTTPStatusError as error:
        return str(error.response.status_code)
    except httpx.HTTPError as error:
        return repr(error)
    return "OK" if responder == deployment_id else f"wrong agent {responder}"


def is_served(client: Client, deployment_id: str) -> bool:
    return outcome(client, deployment_id) == "OK"


def deploy(task: Task, kinds: Mapping[str, str]) -> None:
    """Deploys agents of these kinds, by id."""
    in_parallel(lambda each: task.rest.deploy(*each), kinds.items())


def move(
    kinds: Mapping[str, str], old: Task, new: Task, drain: float = 10.0, check: Callable[[], None] = lambda: None
) -> None:
    """A planned move, in the order of docs/fleet.md: steps 1 and 2, after which all tasks know it, `check`, 3 and 4."""
    deploy(new, kinds)
    check()
    in_parallel(lambda name: old.rest.remove(name, drain=drain), kinds)


def in_parallel(call: Callable[[T], object], each: Iterable[T]) -> None:
    with ThreadPoolExecutor(max_workers=len(LETTERS)) as pool:
        list(pool.map(call, each))


def _others(task: Task) -> set[str]:
    return {f"task-{letter}" for letter in LETTERS} - {task.name}


def _knows_others_without_agents(task: Task) -> bool:
    return task.rest.peers() == {name: {} for name in _others(task)}
