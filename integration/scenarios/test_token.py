"""The route API's token: a client with none or a wrong one gets 401 and changes nothing, and PAR keeps working."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from . import route_api
from .clients import GrpcClient
from .engine import Project
from .par_client import Par

ROUTES = {"routes": {"intruder": 50060}}


@pytest.mark.parametrize("token", [None, "wrong", route_api.TOKEN + "x", route_api.TOKEN[:-1]])
def test_without_the_token_nothing_is_read_or_changed(
    project: Project, par: Par, grpc_client: GrpcClient, token: Optional[str]
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
        response = route_api.call(project.par, method, path, body, token)
        assert (response.status, response.body["code"]) == (401, "unauthorized"), f"{method} {path}: {response}"
        assert response.headers["www-authenticate"].startswith("Bearer")
    after = route_api.call(project.par, "GET", "/v1/routes")
    assert (after.headers["etag"], after.body) == (before.headers["etag"], before.body)
    assert grpc_client.health("agent-a") == "agent-a"


def test_a_par_with_a_wrong_token_says_so(project: Project, par: Par, grpc_client: GrpcClient) -> None:
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
    # Lines of standard output and standard error may arrive in any order.
    assert "False True" in lines, lines
    # The log names the error and never the token.
    assert any("ERROR: cannot register 'agent-a' on port 50099: 401 unauthorized" in line for line in lines), lines
    assert not any("wrong" in line for line in lines), lines
    assert grpc_client.health("agent-a") == "agent-a"


def test_without_a_token_the_api_is_open_to_the_task(project: Project) -> None:
    with (
        project.extra(project.envoy) as envoy,
        project.extra(project.par, command=["sleep", "infinity"], network_mode=f"container:{envoy.raw.id}") as beside,
    ):
        envoy.start()
        envoy.wait_healthy()
        beside.start()
        response = route_api.call(beside, "PUT", "/v1/routes", {"routes": {}}, token=None)
        assert response.status == 200, response
        beside.raw.kill()


@pytest.mark.parametrize("token", ["", "white space", "schlüssel"])
def test_a_token_that_no_client_could_send_ends_the_start(project: Project, token: str) -> None:
    with project.extra(project.envoy, environment={"PIXELL_ADMIN_TOKEN": token}) as envoy:
        envoy.start()
        assert envoy.wait_ended() == 78
        logs = envoy.logs()
        assert "PIXELL_ADMIN_TOKEN is empty or holds characters" in logs
        assert not token or token not in logs


def test_the_token_may_be_in_a_file(project: Project) -> None:
    place = "/etc/envoy/token"
    with (
        project.extra(project.envoy, environment={"PIXELL_ADMIN_TOKEN_FILE": place}) as envoy,
        project.extra(project.par, command=["sleep", "infinity"], network_mode=f"container:{envoy.raw.id}") as beside,
    ):
        envoy.put(place, b"from-a-file\n")
        envoy.start()
        envoy.wait_healthy()
        beside.start()
        for token, status in ((None, 401), ("from-a-file", 200)):
            response = route_api.call(beside, "PUT", "/v1/routes", {"routes": {}}, token=token)
            assert response.status == status, response
        beside.raw.kill()
