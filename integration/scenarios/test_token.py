"""The route API's token: who has none or a wrong one is refused, changes nothing, and PAR keeps working."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from . import route_api
from .callers import GrpcCaller
from .engine import Project
from .par_client import Par

ROUTES = {"routes": {"intruder": 50060}}


@pytest.mark.parametrize("token", [None, "wrong", route_api.TOKEN + "x", route_api.TOKEN[:-1]])
def test_without_the_token_nothing_is_read_or_changed(
    project: Project, par: Par, grpc_caller: GrpcCaller, token: Optional[str]
) -> None:
    par.deploy("agent-a")
    before = route_api.call(project.par, "GET", "/v1/routes")
    calls: list[tuple[str, str, Any]] = [
        ("GET", "/v1/routes", None),
        ("PUT", "/v1/routes", ROUTES),
        ("PATCH", "/v1/routes", ROUTES),
    ]
    calls += [("PUT", "/v1/routes/intruder", {"port": 50060}), ("DELETE", "/v1/routes/agent-a", None)]
    for method, path, body in calls:
        answer = route_api.call(project.par, method, path, body, token)
        assert (answer.status, answer.body["code"]) == (401, "unauthorized"), f"{method} {path}: {answer}"
        assert answer.headers["www-authenticate"].startswith("Bearer")
    after = route_api.call(project.par, "GET", "/v1/routes")
    assert (after.headers["etag"], after.body) == (before.headers["etag"], before.body)
    assert grpc_caller.health("agent-a") == "agent-a"


def test_a_par_with_a_wrong_token_says_so(project: Project, par: Par, grpc_caller: GrpcCaller) -> None:
    par.deploy("agent-a")
    code = (
        "import asyncio; from pixell_envoy import EnvoyManager\n"
        "async def main():\n"
        "    manager = EnvoyManager('http://127.0.0.1:9901', token='wrong')\n"
        "    print(await manager.register_agent('agent-a', 50099), await manager.check_health())\n"
        "    await manager.close()\n"
        "asyncio.run(main())"
    )
    lines = project.par.run("python3", "-c", code).strip().splitlines()
    assert lines[-1] == "False True"
    # The log names the fault and never the token.
    assert any("401" in line or "token" in line.lower() for line in lines[:-1]), lines
    assert grpc_caller.health("agent-a") == "agent-a"


def test_without_a_token_the_api_is_open_to_the_task(project: Project) -> None:
    with (
        project.extra(project.envoy) as envoy,
        project.extra(project.par, command=["sleep", "infinity"], network_mode=f"container:{envoy.raw.id}") as beside,
    ):
        envoy.start()
        envoy.wait_healthy()
        beside.start()
        answer = route_api.call(beside, "PUT", "/v1/routes", {"routes": {}}, token=None)
        assert answer.status == 200, answer
        beside.raw.kill()


@pytest.mark.parametrize("token", ["", "white space", "schlüssel"])
def test_a_token_that_nobody_could_send_stops_the_start(project: Project, token: str) -> None:
    with project.extra(project.envoy, environment={"PIXELL_ADMIN_TOKEN": token}) as envoy:
        envoy.start()
        assert envoy.wait_ended() != 0
        logs = envoy.logs()
        assert "PIXELL_ADMIN_TOKEN is empty or holds characters" in logs
        assert not token or token not in logs
