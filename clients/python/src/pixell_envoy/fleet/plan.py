"""The plan: the fleet map that Envoy should have, and what of it Envoy does not have yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Optional, TypeVar

from ..fleet_map import Peer
from ..log import logger_of
from .record import Record
from .rendezvous import in_order

logger = logger_of(__name__)

T = TypeVar("T")

# The API's own limits, and its default for routes.
MAX_PEERS = 1_000
MAX_PEERS_OF_ROUTE = 16
MAX_ROUTES = 100_000


@dataclass(frozen=True)
class Change:
    """What Envoy does not have yet. None stands for a peer or a route that must go."""

    peers: Mapping[str, Optional[Peer]]
    routes: Mapping[str, Optional[tuple[str, ...]]]

    def __bool__(self) -> bool:
        return bool(self.peers or self.routes)


class Plan:
    """Peers and routes from the records of the other tasks.

    It follows changes of records, so that a change of one agent costs the same in a large fleet as in a small one.
    """

    def __init__(self) -> None:
        self.peers: dict[str, Peer] = {}
        self.routes: dict[str, tuple[str, ...]] = {}
        self._records: dict[str, Record] = {}
        self._silent: frozenset[str] = frozenset()
        # The tasks that claim an id.
        self._claims: dict[str, set[str]] = {}
        self._pushed_peers: dict[str, Peer] = {}
        self._pushed_routes: dict[str, tuple[str, ...]] = {}
        self._touched: set[str] = set()
        self._max_peers, self._max_routes = MAX_PEERS, MAX_ROUTES
        # The ids that Envoy does not accept, and those for which there is no room.
        self._left_out: set[str] = set()
        self._waiting: set[str] = set()
        self._has_told_peers = self._has_told_routes = False

    def leave_out(self, deployment_ids: Iterable[str]) -> None:
        """Gives these ids no route."""
        ids = {key for key in deployment_ids if key in self._claims}
        self._left_out |= ids
        for deployment_id in ids:
            self._route(deployment_id)
        self._touched |= ids

    def limit(self, *, peers: Optional[int] = None, routes: Optional[int] = None) -> None:
        """Keeps the plan this small. Fewer peers take effect with the next `follow`."""
        if peers is not None:
            self._max_peers = peers
        if routes is not None:
            self._max_routes = routes
            over = sorted(self.routes)[routes:]
            for deployment_id in over:
                del self.routes[deployment_id]
            self._waiting.update(over)
            self._touched.update(over)

    def lift(self) -> None:
        """Forgets what was left out and limited, with the next `follow`."""
        self._max_peers, self._max_routes = MAX_PEERS, MAX_ROUTES
        self._waiting |= self._left_out
        self._left_out = set()

    def follow(self, records: Mapping[str, Record], silent: Iterable[str] = ()) -> None:
        """Makes this the plan for the records of all other tasks that are alive.

        Those that are `silent` may have lost an agent to another task, so they come after all others.
        """
        is_over = len(records) > self._max_peers
        if is_over:
            if not self._has_told_peers:
                logger.error("the fleet has more than %d tasks: some get no request from here", self._max_peers)
            records = dict(sorted(records.items())[: self._max_peers])
        self._has_told_peers = is_over
        touched: set[str] = set()
        for task in [task for task in self._records if task not in records]:
            touched.update(self._drop(task))
        before, self._silent = self._silent, frozenset(silent)
        for task in before ^ self._silent:
            if task in self._records:
                touched.update(self._records[task].ids)
        for task, record in records.items():
            old = self._records.get(task)
            if old is not None and old.ids is record.ids and old.host == record.host:
                continue
            touched.update(self._claim(task, old, record))
            self._records[task] = record
            self.peers[task] = Peer(record.host, "draining" if record.is_draining else "active")
        for deployment_id in sorted(touched, key=lambda key: bool(self._claims[key])):
            self._route(deployment_id)
        while self._waiting and len(self.routes) < self._max_routes:
            deployment_id = self._waiting.pop()
            touched.add(deployment_id)
            self._route(deployment_id)
        if not self._waiting:
            self._has_told_routes = False
        self._touched |= touched

    def change(self) -> Change:
        """What has changed since `pushed`."""
        peers = {name: self.peers.get(name) for name in {*self.peers, *self._pushed_peers}}
        routes = {key: self.routes.get(key) for key in self._touched}
        return Change(
            {name: peer for name, peer in peers.items() if peer != self._pushed_peers.get(name)},
            {key: route for key, route in routes.items() if route != self._pushed_routes.get(key)},
        )

    def pushed(self, change: Change) -> None:
        """Call it when Envoy has made `change`."""
        _apply(change.peers, self._pushed_peers)
        _apply(change.routes, self._pushed_routes)
        self._forget_touched(change.routes)

    def pushed_whole(self, peers: Mapping[str, Peer], routes: Mapping[str, tuple[str, ...]]) -> None:
        """Call it when these have become Envoy's whole map."""
        self._pushed_peers, self._pushed_routes = dict(peers), dict(routes)
        self._forget_touched(list(self._touched))

    def _forget_touched(self, keys: Iterable[str]) -> None:
        for key in keys:
            if self.routes.get(key) == self._pushed_routes.get(key):
                self._touched.discard(key)

    def _drop(self, task: str) -> set[str]:
        del self.peers[task]
        ids = set(self._records.pop(task).ids)
        for deployment_id in ids:
            self._claims[deployment_id].discard(task)
        return ids

    def _claim(self, task: str, old: Optional[Record], new: Record) -> set[str]:
        before = {} if old is None else old.ids
        touched = {key for key, state in new.ids.items() if before.get(key) != state}
        for deployment_id in touched:
            self._claims.setdefault(deployment_id, set()).add(task)
        for deployment_id in before:
            if deployment_id not in new.ids:
                self._claims[deployment_id].discard(task)
                touched.add(deployment_id)
        return touched

    def _route(self, deployment_id: str) -> None:
        claims = self._claims[deployment_id]
        active = {task for task in claims if self._records[task].ids[deployment_id] == "active"}
        chosen = in_order(deployment_id, active - self._silent) + in_order(deployment_id, active & self._silent)
        # If no task takes new requests for the id, its clients should get UNAVAILABLE and not NOT_FOUND.
        chosen = (chosen or in_order(deployment_id, claims))[:MAX_PEERS_OF_ROUTE]
        self._waiting.discard(deployment_id)
        if not chosen:
            del self._claims[deployment_id]
            self._left_out.discard(deployment_id)
            self.routes.pop(deployment_id, None)
        elif deployment_id in self._left_out:
            self.routes.pop(deployment_id, None)
        elif deployment_id in self.routes or len(self.routes) < self._max_routes:
            self.routes[deployment_id] = chosen
        else:
            self._waiting.add(deployment_id)
            if not self._has_told_routes:
                self._has_told_routes = True
                logger.error("there is room for %d ids: %r and others get no route", self._max_routes, deployment_id)


def _apply(change: Mapping[str, Optional[T]], to: dict[str, T]) -> None:
    for key, value in change.items():
        if value is None:
            to.pop(key, None)
        else:
            to[key] = value
