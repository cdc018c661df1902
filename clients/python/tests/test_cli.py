"""`python -m pixell_envoy`, against a real Envoy."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import pytest
from conftest import TOKEN
from envoy_process import EnvoyProcess
from stand_in_api import StandInApi
from watching import eventually

from pixell_envoy import Peer, Route, RouteApiClient, RouteApiError
from pixell_envoy.cli import commands
from pixell_envoy.cli.output import Output
from pixell_envoy.cli.watch import watch


def run(*arguments: str, code: int = 0, **environment: str) -> tuple[str, str]:
    command = [sys.executable, "-W", "error", "-m", "pixell_envoy", *arguments]
    finished = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    assert finished.returncode == code, finished
    return finished.stdout, finished.stderr


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


async def test_status(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    await client.replace_routes({"a": 50054})
    version = (await client.get_routes()).version
    said, _ = run("status", "--url", shared_envoy.url)
    lines = words(said)
    assert lines[0] == ["Envoy", shared_envoy.url]
    assert lines[1] == ["ready", "yes"]
    assert lines[3] == f"routes 1 route, generation {version.generation}, epoch {version.epoch}".split()
    assert lines[4][:2] == ["fleet", "off:"]
    found = json.loads(run("status", "--json", ENVOY_ADMIN_URL=shared_envoy.url)[0])
    assert found["url"] == shared_envoy.url and found["ready"] is True
    assert found["routes"] == {"loaded": True, "epoch": version.epoch, "generation": version.generation, "routes": 1}
    assert found["fleet"] is None or found["fleet"]["enabled"] is False


def test_status_before_a_push(own_envoy: EnvoyProcess) -> None:
    said, _ = run("status", "--url", own_envoy.url)
    assert "routes  not pushed" in said


async def test_routes(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    assert run("routes", "--url", shared_envoy.url)[0] == "ID  STATE  PORT  ENDPOINTS\n"
    await client.replace_routes({"long-name": Route(50054, "draining", {"rest": 63001, "ui": 65001}), "b": 50055})
    said, _ = run("routes", "--url", shared_envoy.url)
    assert said.splitlines() == [
        "ID         STATE     PORT   ENDPOINTS",
        "b          active    50055  -",
        "long-name  draining  50054  rest=63001 ui=65001",
    ]
    found = json.loads(run("routes", "--json", "--url", shared_envoy.url)[0])
    assert found["routes"] == {
        "b": {"port": 50055, "state": "active"},
        "long-name": {"port": 50054, "state": "draining", "endpoints": {"rest": 63001, "ui": 65001}},
    }


def test_a_task_without_a_fleet_says_so(shared_envoy: EnvoyProcess) -> None:
    said, error = run("fleet", "--url", shared_envoy.url, code=1)
    assert said == "" and error.startswith("pixell_envoy: 40")


async def test_fleet(shared_fleet_envoy: EnvoyProcess) -> None:
    url = shared_fleet_envoy.url
    async with RouteApiClient(url) as client:
        peers = {"task-b": Peer("10.0.1.7"), "task-c": Peer("10.0.1.8", "draining")}
        await client.replace_fleet(peers, {"x": ["task-c", "task-b"], "long-name": ["task-b"]})
        fleet = await client.get_fleet()
        since = {
            name: f"{report.since:%Y-%m-%dT%H:%M:%SZ}" for name, report in (await client.get_fleet_peers()).items()
        }
    said, _ = run("fleet", "--url", url)
    # The age grows meanwhile.
    assert re.sub(r"\d+ (s|min)$", "AGO", said, flags=re.MULTILINE).splitlines() == [
        "PEER    HOST      STATE     IDS  AGE",
        "task-b  10.0.1.7  active    2    AGO",
        "task-c  10.0.1.8  draining  1    AGO",
        "",
        "ID         PEERS, THE PREFERRED ONE FIRST",
        "long-name  task-b",
        "x          task-c, task-b",
    ]
    assert json.loads(run("fleet", "--json", "--url", url)[0]) == {
        "epoch": fleet.version.epoch,
        "generation": fleet.version.generation,
        "peers": {
            "task-b": {"host": "10.0.1.7", "state": "active", "since": since["task-b"]},
            "task-c": {"host": "10.0.1.8", "state": "draining", "since": since["task-c"]},
        },
        "routes": {"x": ["task-c", "task-b"], "long-name": ["task-b"]},
    }
    assert "fleet   2 peers, 2 ids, generation" in run("status", "--url", url)[0]
    watching = Watching(url, "--json")
    assert watching.event()["map"] == "routes"
    assert watching.event() == {
        "map": "fleet",
        "event": "found",
        "epoch": fleet.version.epoch,
        "generation": fleet.version.generation,
        "peers": 2,
        "routes": 2,
    }
    async with RouteApiClient(url) as client:
        await client.patch_fleet({"task-c": Peer("10.0.1.8")}, {"x": ["task-b"]})
    changed = {"map": "fleet", "event": "changed"}
    assert watching.event() == {**changed, "peer": "task-c", "host": "10.0.1.8", "state": "active"}
    assert watching.event() == {**changed, "route": "x", "peers": ["task-b"]}
    assert watching.end() == (130, "")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-5, "0 s"), (0, "0 s"), (59, "59 s"), (60, "1 min"), (3_599, "59 min"), (7_300, "2 h"), (200_000, "2 d")],
)
def test_an_age_is_told_in_one_unit(seconds: int, expected: str) -> None:
    assert commands.age(datetime.now(timezone.utc) - timedelta(seconds=seconds)) == expected


class Between(StandInApi):
    """As told, changes a peer after the whole map was read, or knows no reports of peers."""

    is_old = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.is_old and request.url.path == "/v1/fleet/peers":
            problem = {"code": "not_found", "title": "Not Found", "detail": ""}
            return httpx.Response(404, json=problem, headers={"Content-Type": "application/problem+json"})
        response = await super().handle_async_request(request)
        if request.method == "GET" and request.url.path == "/v1/fleet":
            self.peers = {**self.peers, "c": {"host": "10.0.1.9", "state": "active"}, "d": self.peers["b"]}
            self.since["d"] = self.since["b"]
        return response


@pytest.mark.parametrize("is_old", [False, True])
async def test_no_peer_is_shown_with_the_age_of_another(is_old: bool) -> None:
    api, stream = Between(), io.StringIO()
    api.is_old = is_old
    async with RouteApiClient(transport=api) as client:
        await client.replace_fleet({"b": Peer("10.0.1.7"), "c": Peer("10.0.1.8")}, {})
        await commands.fleet(client, Output(stream, as_json=True), "")
    peers = json.loads(stream.getvalue())["peers"]
    assert {name: "since" in peer for name, peer in peers.items()} == {"b": not is_old, "c": False}


def test_the_token(guarded_envoy: EnvoyProcess, tmp_path: Path) -> None:
    url = guarded_envoy.url
    _, error = run("routes", "--url", url, code=1)
    assert "401" in error
    run("routes", "--url", url, PIXELL_ADMIN_TOKEN=TOKEN)
    place = tmp_path / "token"
    place.write_text(TOKEN)
    run("routes", "--url", url, PIXELL_ADMIN_TOKEN_FILE=str(place))
    _, error = run("routes", "--url", url, code=2, PIXELL_ADMIN_TOKEN=TOKEN, PIXELL_ADMIN_TOKEN_FILE=str(place))
    assert "both" in error and TOKEN not in error
    _, error = run("routes", "--url", url, code=2, PIXELL_ADMIN_TOKEN="zwei Wörter")
    assert "zwei" not in error


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["status", "--url", "http://127.0.0.1:1"], 3, "shell inside its task"),
        (["status", "--url", "no-url"], 2, "admin URL"),
        (["status", "--timeout", "0"], 2, "--timeout"),
        (["watch", "--interval", "nan"], 2, "--interval"),
        ([], 2, "COMMAND"),
        (["delete"], 2, "invalid choice"),
    ],
)
def test_errors_have_their_exit_codes(arguments: list[str], code: int, reason: str) -> None:
    said, error = run(*arguments, code=code)
    assert said == "" and reason in error and "Traceback" not in error


def test_the_data_path_is_not_the_route_api(shared_envoy: EnvoyProcess) -> None:
    _, error = run("routes", "--url", f"http://127.0.0.1:{shared_envoy.agents_port}", code=1)
    assert "9901" in error


def test_help_names_address_token_and_exit_codes() -> None:
    said, _ = run("--help")
    for word in ("ENVOY_ADMIN_URL", "PIXELL_ADMIN_TOKEN_FILE", "Exit codes", "watch"):
        assert word in said


class Watching:
    """`watch --json` in a process of its own."""

    def __init__(self, url: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "pixell_envoy", "watch", "--interval", "0.05", "--url", url, *arguments]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A test run in the background of a shell ignores SIGINT, and its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self._lines: Queue[str] = Queue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def line(self) -> str:
        return self._lines.get(timeout=30)

    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.line())
        assert event.pop("time", "").endswith("+00:00")
        return event

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, error = self.process.communicate(timeout=30)
        self._thread.join()
        return self.process.returncode, error


@pytest.fixture
def watching(own_envoy: EnvoyProcess) -> Iterator[Watching]:
    watching = Watching(own_envoy.url, "--json", "--timeout", "5")
    yield watching
    if watching.process.poll() is None:
        watching.end()


async def test_watch(own_envoy: EnvoyProcess, watching: Watching) -> None:
    assert watching.event() == {"map": "routes", "event": "found", "epoch": "0", "generation": 0, "routes": 0}
    assert watching.event() == {"map": "fleet", "event": "off"}
    async with RouteApiClient(own_envoy.url) as client:
        await client.replace_routes({"a": 50054, "b": 50055})
        assert watching.event()["event"] == "pushed"
        added = {"map": "routes", "event": "added", "state": "active"}
        assert watching.event() == {**added, "route": "a", "port": 50054}
        assert watching.event() == {**added, "route": "b", "port": 50055}
        await client.patch_routes({"a": Route(50054, "draining"), "b": None})
        changed = {"map": "routes", "event": "changed", "route": "a", "port": 50054, "state": "draining"}
        assert watching.event() == changed
        assert watching.event() == {"map": "routes", "event": "removed", "route": "b"}
    own_envoy.kill()
    assert watching.event()["event"] == "unreachable"
    own_envoy.start()
    event = watching.event()
    assert (event["event"], event["epoch"]) == ("restarted", "0")
    assert watching.event() == {"map": "routes", "event": "removed", "route": "a"}
    assert watching.end() == (130, "")


class PassingErrors(StandInApi):
    """No route map; and as told, a response that is not one of the route API."""

    is_strange = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.is_strange:
            return httpx.Response(200, text="<html>")
        if request.url.path == "/v1/routes":
            body = {"epoch": "0", "generation": 0, "routes": {}}
            return httpx.Response(200, json=body, headers={"ETag": '"0-0"'})
        return await super().handle_async_request(request)


async def test_watch_goes_on_after_errors_and_sees_a_fleet_that_is_switched_on() -> None:
    api, stream = PassingErrors(enabled=False), io.StringIO()
    async with RouteApiClient(transport=api) as client:
        watching = asyncio.get_running_loop().create_task(watch(client, Output(stream, as_json=True), 0.01))

        async def said(event: str, count: int = 1) -> None:
            async def reached() -> bool:
                assert not watching.done(), watching
                return stream.getvalue().count(f'"event":"{event}"') == count

            await eventually(reached, 5, event)

        await said("off")
        await asyncio.sleep(0.1)
        await said("off")
        api.is_strange = True
        await said("unreachable")
        api.is_strange, api.enabled = False, True
        # The route map and, now, the fleet map.
        await said("found", 2)
        await said("unreachable")
        watching.cancel()
        await asyncio.wait({watching})
        # A wrong URL shows at once.
        api.is_strange = True
        with pytest.raises(RouteApiError):
            await watch(client, Output(stream, as_json=True), 0.01)


async def test_watch_for_people(shared_envoy: EnvoyProcess, client: RouteApiClient) -> None:
    watching = Watching(shared_envoy.url)
    assert watching.line().split()[1:3] == ["routes", "found"]
    assert watching.line().split()[1:] == ["fleet", "off"]
    await client.put_route("a", Route(50054, endpoints={"ui": 65001}))
    assert watching.line().split()[1:] == "routes added route=a port=50054 state=active endpoints=ui:65001".split()
    assert watching.end()[0] == 130


def test_a_reader_that_has_enough_is_no_error(shared_envoy: EnvoyProcess) -> None:
    script = f"{sys.executable} -m pixell_envoy watch --interval 0.05 --url {shared_envoy.url} | true"
    finished = subprocess.run(["bash", "-c", f"set -o pipefail; {script}"], capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stderr) == (0, "")
