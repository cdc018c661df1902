"""Callers that go on calling while something else happens, and keep account of every answer."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from types import TracebackType
from typing import Optional

import grpc

from .callers import GrpcCaller
from .wait import wait_until

CALLERS = 4


class Load:
    """`with Load(ids) as load:` calls each of `ids` from several connections until the block ends."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        # For each id: answers by the right agent, answers by another one, and refusals.
        self.right: Counter[str] = Counter()
        self.wrong: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.refused: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._call_on) for _ in range(CALLERS)]
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
        """Returns once each id has been answered rightly after this call."""
        before = Counter(self.right)
        wait_until(
            "right answers for all", lambda: all(self.right[name] > before[name] + CALLERS for name in self._ids)
        )

    def _call_on(self) -> None:
        caller = GrpcCaller()
        while not self._stop.is_set():
            for deployment_id in self._ids:
                self._call(caller, deployment_id)
        caller.close()

    def _call(self, caller: GrpcCaller, deployment_id: str) -> None:
        try:
            answered_by = caller.health(deployment_id)
        except grpc.RpcError as error:
            with self._lock:
                self.refused[deployment_id][f"{error.code().name}: {error.details()}"] += 1
            return
        with self._lock:
            if answered_by == deployment_id:
                self.right[deployment_id] += 1
            else:
                self.wrong[deployment_id][answered_by] += 1
