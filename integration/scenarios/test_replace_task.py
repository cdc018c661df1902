"""A task is replaced under load, in place and beside the live one: what clients see, second by second."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from pixell_envoy_deploy import ask

from .clients import GrpcClient
from .engine import Project
from .tasks import AGE, DATA, TEST, Task, deregister, register, task
from .wait import wait_until

NAMES = ["agent-a", "agent-b", "agent-c"]
DRAIN = float(os.environ["PAR_DRAIN_SECONDS"])
# Seconds between the load balancer's last new connection and SIGTERM: longer than the age of a connection and the
# longest call of the clients below together. On AWS it is `deregistration_seconds`.
DEREGISTRATION = 1.2 * AGE + 3 + 2


class Clients:
    """Four clients with default channels. They call one agent after the other, and record when a call is lost."""

    def __init__(self) -> None:
        self.started, self.served, self.lost = time.monotonic(), 0, list[tuple[float, str]]()
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._call_on, args=(number,)) for number in range(4)]

    @contextmanager
    def calling(self) -> Iterator[Clients]:
        for thread in self._threads:
            thread.start()
        try:
            self.wait_for_more()
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def wait_for_more(self) -> None:
        before = self.served
        wait_until("more calls are served", lambda: self.served > before + 20)

    def second(self) -> float:
        return round(time.monotonic() - self.started, 1)

    def _call_on(self, number: int) -> None:
        client = GrpcClient(DATA)
        while not self._stop.is_set():
            for name in NAMES:
                # Up to three seconds, which is shorter than the drain.
                seconds = (0, 0.2, 1, 3)[number]
                try:
                    responder = client.invoke(name, "sleep", seconds=str(seconds))["deployment_id"]
                    assert responder == name
                    outcome = ""
                except grpc.RpcError as error:
                    outcome = f"{error.code().name}: {error.details()}"
                    time.sleep(0.1)
                with self._lock:
                    self.served += not outcome
                    self.lost += [(self.second(), outcome)] if outcome else []
        client.close()


@pytest.fixture
def blue(project: Project) -> Iterator[Task]:
    """A live task with its agents."""
    with task(project) as blue:
        blue.start()
        blue.deploy(NAMES)
        register("live/blue", blue)
        wait_until("the load balancer leads there", lambda: ask.call(DATA, False, "agent-a")[0] == "OK")
        yield blue
        deregister("live/blue")


@pytest.fixture
def green(project: Project) -> Iterator[Task]:
    with task(project) as green:
        yield green
        deregister("live/green")


def test_beside_the_live_task_no_call_is_lost(blue: Task, green: Task, capsys: pytest.CaptureFixture[str]) -> None:
    long = GrpcClient(DATA)
    with Clients().calling() as clients:
        green.start()
        register("test/green", green)
        assert ask.call(TEST, False, "agent-a")[0] in ("NOT_FOUND unknown_deployment", "UNAVAILABLE")
        green.deploy(NAMES)
        wait_until("the test port leads there", lambda: ask.call(TEST, False, "agent-a")[0] == "OK")
        assert ask.agents(TEST, False, NAMES, 5) == 0

        # A call to the old task that is still open when PAR gets SIGTERM, and shorter than its drain.
        open_call = long.begin("agent-c", "sleep", limit=60, seconds=str(DEREGISTRATION + DRAIN / 2))
        register("live/green", green)
        wait_until("the new task is healthy", lambda: green.connections() > 0)
        deregister("live/blue")
        shifted = clients.second()
        time.sleep(DEREGISTRATION)
        left = clients.second()
        codes = blue.stop()
        stopped = clients.second()
        clients.wait_for_more()
    assert codes == (0, 0)
    assert open_call.result().success, "a call that is shorter than the drain succeeds"
    assert stopped - left > 1, "PAR has waited for it"
    assert clients.lost == [] and clients.served > 100
    long.close()
    with capsys.disabled():
        print(f"\nbeside: shift at {shifted} s, SIGTERM at {left} s, stopped at {stopped} s, {clients.served} served")


def test_a_task_that_stops_loses_only_calls_that_are_longer_than_the_drain(blue: Task) -> None:
    short, long = GrpcClient(DATA), GrpcClient(DATA)
    calls = [
        short.begin("agent-a", "sleep", limit=60, seconds=str(DRAIN / 2)),
        long.begin("agent-b", "sleep", limit=60, seconds=str(3 * DRAIN)),
    ]
    wait_until("both are open", lambda: blue.connections() >= 2)
    deregister("live/blue")
    started = time.monotonic()
    assert blue.stop() == (0, 0)
    assert DRAIN <= time.monotonic() - started < DRAIN + 10
    assert calls[0].result().success
    assert calls[1].exception(timeout=5).code() == grpc.StatusCode.UNAVAILABLE
    assert "the drain time is over, open requests: 1" in blue.par.logs()
    short.close()
    long.close()


def test_in_place_every_call_is_lost_until_pac_redeploys(
    blue: Task, green: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    with Clients().calling() as clients:
        green.start()
        register("live/green", green)
        wait_until("the new task is in the load balancer", lambda: green.connections() > 0)
        both = clients.second()
        deregister("live/blue")
        wait_until("clients have left", lambda: blue.connections() == 0, 2 * AGE + 10)
        alone = clients.second()
        assert blue.stop() == (0, 0)
        wait_until("calls are lost", lambda: len(clients.lost) > 20)
        green.deploy(NAMES)
        deployed = clients.second()
        clients.wait_for_more()
    outcomes = Counter(text for _, text in clients.lost)
    # PAR registers an agent before it starts it.
    starting = "UNAVAILABLE: The agent of this deployment cannot be reached"
    expected = {starting, *(f"NOT_FOUND: Deployment {name} not found or not ready" for name in NAMES)}
    assert set(outcomes) <= expected, outcomes
    first, last = clients.lost[0][0], clients.lost[-1][0]
    assert both - 3 <= first <= alone and last <= deployed + 1
    with capsys.disabled():
        print(f"\nin place: both at {both} s, old task empty at {alone} s, agents back at {deployed} s")
        print(f"lost from {first} s to {last} s: {len(clients.lost)} calls")
