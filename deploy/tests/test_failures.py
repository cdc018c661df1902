"""An error at every call that changes something: the output says what is done and what is not, a second run finishes, and rollback works."""

import json
import subprocess
from contextlib import nullcontext
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

from pixell_envoy_deploy.aws import Doc
from pixell_envoy_deploy.facts import Facts

from .account import FAMILY, Account, error
from .conftest import GREEN, S, Tool

BESIDE, IN_PLACE, SHIFT, BACK, ALARMS = "apply --yes", "apply --yes --in-place", "shift --yes", "rollback --yes", "alarms --yes"
COMMANDS: list[list[str]] = [[BESIDE], [BESIDE, SHIFT], [IN_PLACE], [IN_PLACE, BACK], [BESIDE, SHIFT, BACK], [ALARMS]]


@pytest.mark.parametrize(("words", "least"), list(zip(COMMANDS, (7, 3, 7, 2, 3, 2), strict=True)), ids=[", ".join(words) for words in COMMANDS])
def test_every_call_that_changes_something_may_fail(tool: Tool, account: Account, calls: object, words: list[str], least: int) -> None:
    def run(fail: str = "") -> None:
        account.reset()
        for each in words[:-1]:
            tool(each)
        account.calls.clear()
        left = [error("AccessDeniedException")]
        account.fail[fail] = lambda p: left.pop() if left else None

    run()
    tool(words[-1])
    names = account.changes() - {"ssm.PutParameter", "ssm.DeleteParameter"}
    assert len(names) >= least
    for name in sorted(names):
        run(fail=name)
        out = tool(words[-1], 1)
        said = ["STOPPED at:", "  done:  ", "  not done: ", "  continue: ", "  go back:"] if words != [ALARMS] else []
        assert [text for text in ("AccessDeniedException", *said) if text not in out] == [], name
        tool(words[-1])
        if words[-1] in (BESIDE, IN_PLACE):
            tool(BACK)
            assert account.services[S.service]["taskDefinition"].endswith(":1") and account.leads(50051) == [], name


@pytest.mark.parametrize("command", ["build", "login", "push"])
def test_a_failed_docker(tool: Tool, docker: list[list[str]], monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    run: Any = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda words, **options: run(["false"], check=True) if words[1] == command else run(words, **options))
    assert f"docker {command}: status 1\n  fix: see above" in tool(BESIDE, 1)


@pytest.mark.parametrize("command", [BESIDE, SHIFT])
def test_without_a_record_or_a_lock_nothing_is_changed(tool: Tool, account: Account, calls: object, command: str) -> None:
    tool(BESIDE) if command == SHIFT else None
    account.calls.clear()
    account.fail["ssm.PutParameter"] = lambda p: error("AccessDeniedException") if p["Name"].endswith("/record") else None
    tool(command, 1)
    assert account.changes() == {"ssm.PutParameter", "ssm.DeleteParameter"}


def test_pages_are_read_to_the_end(tool: Tool, account: Account) -> None:
    def page(p: Doc) -> Doc:
        number = int(p.get("nextToken", 0))
        arn = f"arn:aws:ecs:us-east-2:1:task/{p['serviceName']}/RUNNING{number}"
        return {"taskArns": [arn], **({"nextToken": str(number + 1)} if number < 2 else {})}

    account.responses["ecs.ListTasks"] = page
    tool("check")
    assert account.calls["ecs.ListTasks"] == 3


@pytest.mark.parametrize(("code", "attempts"), [("ThrottlingException", 4), ("AccessDeniedException", 1)])
def test_throttled_calls_are_retried_and_denied_ones_are_not(account: Account, monkeypatch: Any, code: str, attempts: int) -> None:
    """AWS's code tells them apart, in a response like ECS's own: both have the status 400."""
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    sent, body = [0], json.dumps({"__type": code, "message": "ThrottlingException is what the text says"}).encode()

    def respond(request: Any, **more: object) -> AWSResponse | None:
        sent[0] += 1
        response = AWSResponse(request.url, 400, {}, None)
        response._content = body
        return response if sent[0] < 4 else None

    events, account.seen = account.api("ecs").meta.events, {}
    events.register_first("before-send.ecs.DescribeTaskDefinition", respond)
    try:
        with pytest.raises(ClientError, match=code) if attempts == 1 else nullcontext():
            assert Facts(S).revision["family"] == FAMILY
    finally:
        events.unregister("before-send.ecs.DescribeTaskDefinition", respond)
    assert sent[0] == attempts


@pytest.mark.parametrize("failure", [error("ThrottlingException"), error("InternalError"), None])
def test_a_wait_survives_failed_and_stale_reads(tool: Tool, account: Account, failure: Exception | None) -> None:
    real, looks = account.do_DescribeServices, [0]

    def look(p: Doc) -> Any:
        looks[0] += account.calls["ecs.CreateService"]
        if failure and 0 < looks[0] < 3:
            raise failure
        return {"services": []} if 0 < looks[0] < 3 else real(p)

    account.responses["ecs.DescribeServices"] = look
    assert "Applied" in tool(BESIDE)


def test_a_deployment_out_of_sight_or_without_an_end_ends_the_wait(tool: Tool, account: Account, monkeypatch: Any, configured: Any) -> None:
    account.progress = ["IN_PROGRESS"]
    configured(stable_timeout_seconds=1)
    monkeypatch.setattr("pixell_envoy_deploy.follow.STALE_SECONDS", 0)
    assert "is not complete after 1 s" in tool(BESIDE, 1)
    account.responses["ecs.DescribeServices"] = lambda p: {"services": []} if account.number > 2 else account.do_DescribeServices(p)
    account.services[GREEN]["deployments"][0]["rolloutState"] = "FAILED"
    assert "is out of sight for 0 s: the service does not list it" in tool(BESIDE, 1)


def test_errors_are_judged_by_code_and_not_by_text(tool: Tool, account: Account) -> None:
    account.fail["ecr.DescribeImages"] = lambda p: error("AccessDeniedException", "ImageNotFoundException RepositoryNotFoundException")
    assert "AWS does not tell" in tool("check", 1)
    account.fail["sts.GetCallerIdentity"] = lambda p: error("ExpiredToken", "expired")
    assert "fix: log in" in tool("alarms --yes", 1) and "fix: log in" in tool("check", 1)
