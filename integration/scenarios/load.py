"""Clients that keep calling while something else happens, and count every response."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from types import TracebackType
from typing import Optional

import grpc
import httpx

from .clients import ADDRESS, GrpcClient, HttpClient
from .wait import wait_until

CLIENTS = 4


class Load:
    """`with Load(ids) as load:` calls each of `ids` from several connections until the block ends.

    Each of `addresses` gets a client: of gRPC, or with `jsonrpc` of agents that speak JSON-RPC over HTTP/1.1. It pauses
    for `pause` seconds after each call.
    """

    def __init__(
        self,
        ids: Sequence[str],
        addresses: Sequence[str] = (ADDRESS,) * CLIENTS,
        *,
        jsonrpc: bool = False,
        pause: float = 0,
    ) -> None:
        self._ids = ids
        self._addresses = addresses
        self._pause = pause
        self._client = HttpClient if jsonrpc else GrpcClient
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        # For each id: responses of the right agent, responses of another one, and calls that failed.
        self.right: Counter[str] = Counter()
        self.wrong: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.failed: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._call_on, args=(address,)) for address in self._addresses]
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
        enough = len(self._addresses)
        wait_until(
            "right responses for all", lambda: all(self.right[name] > before[name] + enough for name in self._ids)
        )

    def _call_on(self, address: str) -> None:
        client = self._client(address)
        while not self._stop.is_set():
            for deployment_id in self._ids:
                self._call(client, deployment_id)
                self._stop.wait(self._pause)
        client.close()

    def _call(self, client: GrpcClient | HttpClient, deployment_id: str) -> None:
        try:
            responder = client.health(deployment_id)
        except grpc.RpcError as error:
            with self._lock:
                self.failed[deployment_id][f"{error.code().name}: {error.details()}"] += 1
            return
        except httpx.HTTPError as error:
            with self._lock:
                self.failed[deployment_id][repr(error)] += 1
            return
        with self._lock:
            if responder == deployment_id:
                self.right[deployment_id] += 1
            else:
                self.wrong[deployment_id][responder] += 1
