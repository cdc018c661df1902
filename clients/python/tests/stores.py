"""The stores that directories are tested with: this process's memory, a real redis-server, and moto's DynamoDB."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional, Protocol

import boto3
import redis

from pixell_envoy.fleet import Directory, DynamoDbDirectory, MemoryDirectory, MemoryStore, RedisDirectory

TABLE, REGION = "pixell-fleet", "us-east-2"


class Store(Protocol):
    """`port` is None if the store is in this process. `port` of `directory` leads to the store, maybe by a proxy."""

    @property
    def port(self) -> Optional[int]: ...
    def directory(self, fleet: str, port: Optional[int] = None) -> Directory: ...
    def put(self, fleet: str, task: str, document: bytes) -> None:
        """Writes as anybody with access to the store can."""

    def clear(self) -> None: ...


class Memory:
    port = None

    def __init__(self) -> None:
        self.store = MemoryStore()

    def directory(self, fleet: str, port: Optional[int] = None) -> MemoryDirectory:
        return MemoryDirectory(self.store, fleet=fleet)

    def put(self, fleet: str, task: str, document: bytes) -> None:
        self.store.documents[(fleet, task)] = document

    def clear(self) -> None:
        self.store.documents.clear()


class RedisServer:
    """A real redis-server, from the search path."""

    port: int

    def __init__(self, *arguments: str) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="pixell-redis-"))
        self._arguments = arguments
        self._process: Optional[subprocess.Popen[bytes]] = None
        self.port = free_port()

    def start(self) -> None:
        """Starts it with an empty memory, on the same port as before."""
        settings = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._home)]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(["redis-server", *settings, *self._arguments], stdout=log, stderr=log)
        try:
            wait_until_open(self.port, self._process)
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{(self._home / 'log').read_text()}") from None

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._home)

    def client(self) -> Any:
        return redis.Redis(port=self.port)

    def directory(self, fleet: str, port: Optional[int] = None) -> RedisDirectory:
        return RedisDirectory(f"redis://127.0.0.1:{port or self.port}/0", fleet=fleet)

    def put(self, fleet: str, task: str, document: bytes) -> None:
        with contextlib.closing(self.client()) as client:
            client.set(f"pixell:fleet:{fleet}:task:{task}", document)
            client.sadd(f"pixell:fleet:{fleet}:tasks", task)

    def clear(self) -> None:
        with contextlib.closing(self.client()) as client:
            client.flushall()


class DynamoDb:
    """moto's server, in a process of its own."""

    port: int

    def __init__(self) -> None:
        self._process: Optional[subprocess.Popen[bytes]] = None
        self.port = free_port()

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until_open(self.port, self._process)
        self.make_table()

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def client(self) -> Any:
        return boto3.session.Session("test", "test", region_name=REGION).client(
            "dynamodb", endpoint_url=f"http://127.0.0.1:{self.port}"
        )

    def make_table(self) -> None:
        with contextlib.closing(self.client()) as client:
            client.create_table(
                TableName=TABLE,
                KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )

    def directory(self, fleet: str, port: Optional[int] = None, **settings: Any) -> DynamoDbDirectory:
        url = f"http://127.0.0.1:{port or self.port}"
        return DynamoDbDirectory(TABLE, fleet=fleet, region=REGION, endpoint_url=url, **settings)

    def put(self, fleet: str, task: str, document: bytes) -> None:
        item = {"key": {"S": f"{fleet}/{task}"}, "record": {"S": document.decode("utf-8", "replace")}}
        with contextlib.closing(self.client()) as client:
            client.put_item(TableName=TABLE, Item=item)

    def clear(self) -> None:
        with contextlib.closing(self.client()) as client:
            client.delete_table(TableName=TABLE)
        self.make_table()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_open(port: int, process: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise AssertionError(f"the server has not opened port {port}") from None
            time.sleep(0.05)


async def closed(directory: Directory) -> None:
    """Closes it, if it can be closed."""
    close = getattr(directory, "close", None)
    if close is not None:
        await close()


async def in_thread(call: Any) -> Any:
    """Runs what blocks beside the event loop."""
    return await asyncio.get_running_loop().run_in_executor(None, call)


@contextlib.contextmanager
def aws_keys() -> Iterator[None]:
    """Keys that moto accepts, where AWS's own search finds them."""
    names = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
