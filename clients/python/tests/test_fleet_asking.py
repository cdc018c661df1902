"""Asking silent tasks, with real sockets: what counts as a response, how many are asked at once, and how often."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from virtual_time import Clock, record
from watching import eventually

from pixell_envoy.fleet import Record, asking
from pixell_envoy.fleet.asking import Asking

# The fixture `peer_ports` replaces it in the module.
accepts = asking.accepts


@pytest.fixture
def silent() -> Iterator[int]:
    """A port whose SYN packets the kernel drops, because the queue of connections is full."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as server:
        port: int = server.getsockname()[1]
        waiting = []
        while True:
            one = socket.socket()
            waiting.append(one)
            one.settimeout(0.3)
            try:
                one.connect(("127.0.0.1", port))
            except OSError:
                break
        yield port
        for one in waiting:
            one.close()


async def test_a_connection_is_a_response() -> None:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with closing(socket.create_server((host, 0), family=family)) as server:
            port = server.getsockname()[1]
            assert await accepts(host, port, 5)
            server.settimeout(5)
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(5)
                # It was closed without a byte.
                assert accepted.recv(1) == b""
        assert not await accepts(host, port, 5)


async def test_nothing_else_is_a_response(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic()
    assert not await accepts("127.0.0.1", silent, 0.2)
    assert 0.2 <= time.monotonic() - start < 2
    asked = asyncio.get_running_loop().create_task(accepts("127.0.0.1", silent, 60))
    await asyncio.sleep(0.05)
    asked.cancel()
    await asyncio.wait({asked}, timeout=5)
    assert asked.cancelled()

    def no_more_files(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", no_more_files)
    assert not await accepts("127.0.0.1", silent, 1)


async def test_many_are_asked_in_turn_and_each_again_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    now = most = 0
    may_respond = asyncio.Event()

    async def slow(host: str, port: int, seconds: float) -> bool:
        nonlocal now, most
        assert (port, seconds) == (50050, 1.2)
        now += 1
        most = max(now, most)
        await may_respond.wait()
        now -= 1
        return host != "10.0.0.98"

    monkeypatch.setattr(asking, "accepts", slow)
    clock = Clock()
    told: list[tuple[str, bool]] = []
    asks = Asking(50050, 2.5, lambda record, responds: told.append((record.task, responds)), clock)
    records = {f"t{n}": Record(f"t{n}", "10.0.0.7", "e", 1, 1, {}) for n in range(600)}
    records["b"] = record("b")
    for _ in range(3):
        asks.follow(records)
        await asyncio.sleep(0)
        clock.now += 9

    async def busy() -> bool:
        return now == 250

    async def done() -> bool:
        return len(told) >= count

    await eventually(busy, 5, "250 questions")
    may_respond.set()
    count = len(records)
    await eventually(done, 5, "all responses")
    assert sorted(told) == sorted((task, task != "b") for task in records) and most == 250
    told.clear()
    for passed in (0, 2.4, 0.1, 2.4):
        clock.now += passed
        asks.follow({"b": records["b"]})
        await asyncio.sleep(0.02)
    assert told == [("b", False)]
    asks.follow({})
    asks.follow(records)
    count = 1 + len(records)
    await eventually(done, 5, "all responses again")
    await asks.close()


async def test_closing_ends_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(host: str, port: int, seconds: float) -> bool:
        await asyncio.get_running_loop().create_future()
        return True

    monkeypatch.setattr(asking, "accepts", never)
    told: list[Record] = []
    asks = Asking(50050, 1, lambda record, _: told.append(record))
    before = asyncio.all_tasks()
    asks.follow({task: record(task) for task in "bcdefg"})
    await asyncio.sleep(0.02)
    assert len(asyncio.all_tasks() - before) == 6
    await asks.close()
    assert asyncio.all_tasks() == before and not told
