"""Clients that keep calling while something else happens, and count every response."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from types import TracebackType
from typing import Optional

import grpc

from .clients import GrpcClient
from .wait import wait_until

CLIENTS = 4


class Load:
    """`with Load(ids) as load:` calls each of `ids` from several connections until the block ends."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        # For each id: responses of the right agent, responses of another one, and calls that failed.
        self.right: Counter[str] = Counter()
        self.wrong: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.failed: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._call_on) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_all(self) -> None:
        """Returns once the right agent of each id has responded after this call."""
        before = Counter(self.right)
        wait_until(
            "right responses for all", lambda: all(self.right[name] > before[name] + CLIENTS for name in self._ids)
        )

    def _call_on(self) -> None:
        client = GrpcClient()
        while not self._stop.is_set():
            for deployment_id in self._ids:
                self._call(client, deployment_id)
        client.close()

    def _call(self, client: GrpcClient, deployment_id: str) -> None:
        try:
            responder = client.health(deployment_id)
        except grpc.RpcError as error:
            with self._lock:
                self.failed[deployment_id][f"{error.code().name}: {error.details()}"] += 1
            return
        with self._lock:
            if responder == deployment_id:
                self.right[deployment_id] += 1
            else:
                self.wrong[deployment_id][responder] += 1
