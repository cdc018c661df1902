"""Asking silent tasks, with real sockets: what counts as a response, how many are asked at once, and how often."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from envoy_process import EnvoyProcess
from virtual_time import Clock, record
from watching import eventually

from pixell_envoy.fleet import Record, asking
from pixell_envoy.fleet.asking import Asking

# The fixture `peer_ports` replaces it in the module.
responds = asking.responds


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


@pytest.mark.parametrize("sign", ["end", "byte", "reset", "reset at once"])
async def test_a_sign_of_life_is_a_response(sign: str) -> None:
    loop = asyncio.get_running_loop()
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with closing(socket.create_server((host, 0), family=family)) as server:
            server.setblocking(False)
            port = server.getsockname()[1]
            asked = loop.create_task(responds(host, port, 60))
            accepted, _ = await asyncio.wait_for(loop.sock_accept(server), 5)
            with accepted:
                if sign != "reset at once":
                    # It is half closed without a byte.
                    assert await asyncio.wait_for(loop.sock_recv(accepted, 1), 5) == b""
                if sign.startswith("reset"):
                    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if sign == "byte":
                    accepted.send(b"x")
                else:
                    accepted.close()
                assert await asyncio.wait_for(asked, 5) is True
        assert await responds(host, port, 5) is False


async def test_envoy_responds_at_once_and_not_while_it_is_frozen(own_envoy: EnvoyProcess) -> None:
    port = own_envoy.agents_port
    assert await asyncio.wait_for(responds("127.0.0.1", port, 60), 5) is True
    own_envoy.pause()
    assert await responds("127.0.0.1", port, 0.2) is False
    own_envoy.resume()
    assert await asyncio.wait_for(responds("127.0.0.1", port, 60), 5) is True


async def test_nothing_else_is_a_response(silent: int) -> None:
    # The second one accepts the connection, but never closes it: so does the kernel for a process that is frozen.
    with closing(socket.create_server(("127.0.0.1", 0))) as frozen:
        for port in (silent, frozen.getsockname()[1]):
            start = time.monotonic()
            assert await responds("127.0.0.1", port, 0.2) is False
            assert 0.2 <= time.monotonic() - start < 2
            asked = asyncio.get_running_loop().create_task(responds("127.0.0.1", port, 60))
            await asyncio.sleep(0.05)
            asked.cancel()
            await asyncio.wait({asked}, timeout=5)
            assert asked.cancelled()


@pytest.mark.parametrize("number", ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL"])
async def test_what_this_process_lacks_says_nothing_about_the_task(
    number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OSError(getattr(errno, number), "lacking")

    def fail(*_: object) -> socket.socket:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "sock_connect", fail)
        assert await responds("127.0.0.1", 9, 1) is None
    monkeypatch.setattr(socket, "socket", fail)
    assert await responds("127.0.0.1", 9, 1) is None
    told: list[bool] = []
    monkeypatch.setattr(asking, "responds", responds)
    asks = Asking(50050, 2.5, lambda _, result: told.append(result))
    before = asyncio.all_tasks()
    asks.follow({"b": record("b")})
    (asked,) = asyncio.all_tasks() - before
    await asyncio.wait_for(asked, 5)
    assert told == []
    await asks.close()
    error = OSError(errno.EAFNOSUPPORT, "no IPv6")
    assert await responds("::1", 9, 1) is False


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

    monkeypatch.setattr(asking, "responds", slow)
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

    monkeypatch.setattr(asking, "responds", never)
    told: list[Record] = []
    asks = Asking(50050, 1, lambda record, _: told.append(record))
    before = asyncio.all_tasks()
    asks.follow({task: record(task) for task in "bcdefg"})
    await asyncio.sleep(0.02)
    assert len(asyncio.all_tasks() - before) == 6
    await asks.close()
    assert asyncio.all_tasks() == before and not told
