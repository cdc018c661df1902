"""Log lines as PAR prints them: the message alone, so the message must say everything. Against a real Envoy."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest
from envoy_process import EnvoyProcess
from watching import WITHIN, eventually, settled_at

from pixell_envoy import EnvoyManager, RouteApiClient


@pytest.fixture
def printed() -> Iterator[io.StringIO]:
    """The output of a program whose root logger has the format `%(message)s` and the level INFO."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def lines(printed: io.StringIO) -> list[str]:
    said = printed.getvalue().splitlines()
    printed.seek(0)
    printed.truncate()
    return said


async def test_each_line_names_package_level_and_cause(
    manager: EnvoyManager, client: RouteApiClient, printed: io.StringIO
) -> None:
    lines(printed)
    assert await manager.register_agent("a", 50054, {"ui": 65001})
    version = (await client.get_routes()).version.etag
    assert lines(printed) == [
        f"pixell-envoy INFO: registered 'a' on port 50054 with endpoints {{'ui': 65001}}, the map is now {version}"
    ]
    assert await manager.deregister_agent("a")
    version = (await client.get_routes()).version.etag
    assert lines(printed) == [f"pixell-envoy INFO: deregistered 'a', the map is now {version}"]
    assert await manager.replace_agents({"a": 50054, "b": 50055})
    (line,) = lines(printed)
    assert line.startswith("pixell-envoy INFO: replaced all routes by those of 2 agents: 2 added, 0 changed, 0 removed")
    assert await manager.register_agent("c", 50055)
    displaced, _ = lines(printed)
    assert displaced.startswith("pixell-envoy ERROR: agent 'c' took port 50055 from agent 'b', which was never")
    assert not await manager.register_agent("d", 80)
    (line,) = lines(printed)
    assert line.startswith("pixell-envoy ERROR: cannot register 'd' on port 80: 422 invalid_routes: ")


async def test_the_message_has_an_unexpected_error(
    manager: EnvoyManager, client: RouteApiClient, printed: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def put_route(*_: object, **__: object) -> None:
        raise RuntimeError("out of the blue")

    monkeypatch.setattr(RouteApiClient, "put_route", put_route)
    lines(printed)
    assert not await manager.register_agent("a", 50054)
    assert lines(printed)[0] == "pixell-envoy ERROR: cannot register 'a' on port 50054: RuntimeError('out of the blue')"


async def test_the_background_task_prints_whole_lines_too(own_envoy: EnvoyProcess, printed: io.StringIO) -> None:
    manager = EnvoyManager(own_envoy.url)
    assert await manager.register_agent("a", 50054)
    own_envoy.kill()

    async def noticed() -> bool:
        return "cannot reconcile" in printed.getvalue()

    await eventually(noticed, WITHIN, "that Envoy is away")
    await asyncio.get_running_loop().run_in_executor(None, own_envoy.start)
    async with RouteApiClient(own_envoy.url) as client:
        await settled_at(client, {"a": 50054}, "the agent")
    await manager.close()
    said = lines(printed)
    assert all(line.startswith("pixell-envoy ") for line in said)
    assert any(line.startswith("pixell-envoy WARNING: cannot reconcile the route map, will retry: ") for line in said)
    assert any(line.startswith("pixell-envoy INFO: pushed routes to Envoy: 1 added") for line in said)


async def test_the_record_names_the_place_of_the_log_call(caplog: pytest.LogCaptureFixture) -> None:
    assert await EnvoyManager("not a url").check_health() is False
    (record,) = caplog.records
    assert (record.name, record.funcName) == ("pixell_envoy.manager", "_attempt")
