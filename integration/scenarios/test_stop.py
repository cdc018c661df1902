"""`docker stop`: open streams end in order, new clients are asked to leave, and the drain time is the longest wait."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import grpc
import httpx

from .clients import ADDRESS, ID, GrpcClient, HttpClient, message
from .engine import Project
from .par_client import Par
from .stats import active
from .wait import wait_until

DRAIN = float(os.environ["PIXELL_DRAIN_SECONDS"])
# A stop during the start waits for the start, which takes seconds on a busy machine, but never for the drain time.
AT_ONCE = DRAIN / 3


class Stop:
    """`docker stop` of Envoy in the background."""

    def __init__(self, project: Project) -> None:
        self._started = time.monotonic()
        self._ended = 0.0
        self._code = -1
        self._thread = threading.Thread(target=self._run, args=(project,))
        self._thread.start()
        wait_until("Envoy drains", _is_draining)

    def _run(self, project: Project) -> None:
        self._code = project.envoy.stop(grace=int(DRAIN) + 15)
        self._ended = time.monotonic()

    def join(self) -> tuple[int, float]:
        """Exit code and seconds."""
        self._thread.join()
        return self._code, self._ended - self._started


def test_open_streams_end_in_order(
    project: Project, par: Par, grpc_client: GrpcClient, http_client: HttpClient
) -> None:
    par.deploy("agent-a")
    par.deploy("agent-j", "jsonrpc")
    call = grpc_client.begin("agent-a", "sleep", limit=60, seconds="5")
    events: list[dict[str, Any]] = []
    reader = threading.Thread(
        target=lambda: events.extend(http_client.stream("agent-j", "tick", events=11, interval=0.5))
    )
    reader.start()
    wait_until("both streams are open", lambda: _open_streams() == 2)
    stop = Stop(project)

    # Requests that arrive during the drain are served, and their clients are asked to leave.
    late = httpx.post(f"http://{ADDRESS}/", json=message("late"), headers={ID: "agent-j"})
    assert (late.status_code, late.headers["connection"]) == (200, "close")
    newcomer = GrpcClient()
    assert newcomer.health("agent-a") == "agent-a"
    newcomer.close()

    code, took = stop.join()
    reader.join()
    assert call.result().success
    assert [event["result"]["parts"][0]["text"] for event in events] == [f"tick {number}" for number in range(11)]
    assert code == 0
    # Envoy ended because the streams ended, not because the drain time was over.
    assert 3 < took < 10, took


def test_without_streams_it_ends_at_once(project: Project, par: Par, grpc_client: GrpcClient) -> None:
    par.deploy("agent-a")
    # An idle connection is no reason to wait.
    grpc_client.health("agent-a")
    started = time.monotonic()
    assert project.envoy.stop() == 0
    assert time.monotonic() - started < 5


def test_the_drain_time_is_the_longest_wait(project: Project, par: Par, grpc_client: GrpcClient) -> None:
    par.deploy("agent-a")
    call = grpc_client.begin("agent-a", "sleep", limit=10 * DRAIN, seconds=str(5 * DRAIN))
    wait_until("the stream is open", lambda: _open_streams() == 1)
    code, took = Stop(project).join()
    assert code == 0
    assert DRAIN <= took < DRAIN + 5, took
    assert call.exception(timeout=5).code() == grpc.StatusCode.UNAVAILABLE
    assert "the drain time is over, open streams: 1" in project.envoy.logs()


def test_a_second_signal_cuts_the_drain_short(project: Project, par: Par, grpc_client: GrpcClient) -> None:
    par.deploy("agent-a")
    call = grpc_client.begin("agent-a", "sleep", limit=10 * DRAIN, seconds=str(5 * DRAIN))
    wait_until("the stream is open", lambda: _open_streams() == 1)
    stop = Stop(project)
    project.envoy.raw.kill(signal="SIGTERM")
    code, took = stop.join()
    assert code == 0
    assert call.exception(timeout=5).code() == grpc.StatusCode.UNAVAILABLE
    assert took < 10, took


def test_a_stop_during_the_start_ends_at_once(project: Project) -> None:
    with project.extra(project.envoy) as envoy:
        envoy.start()
        # Envoy's first log line. Before it, process 1 might not exist yet, and the signal would be lost.
        wait_until("Envoy starts", lambda: "initializing epoch" in envoy.logs())
        started = time.monotonic()
        code = envoy.stop()
        assert time.monotonic() - started < AT_ONCE
        # SIGTERM ends Envoy like any other process until it has set up its signal handling.
        assert code in (0, 128 + 15)


def _open_streams() -> int:
    return active("task", "rq")


def _is_draining() -> bool:
    response = httpx.get("http://task:9901/ready")
    return (response.status_code, response.text.strip()) == (503, "DRAINING")
