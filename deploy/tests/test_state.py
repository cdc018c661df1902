"""One run at a time, and apply does exactly what the plan showed."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from pixell_envoy_deploy import state
from pixell_envoy_deploy.aws import Doc
from pixell_envoy_deploy.facts import Facts
from pixell_envoy_deploy.say import Stop

from .account import Account
from .conftest import GREEN, S, Tool

LOCK, RECORD = (f"/pixell-envoy/{S.cluster}/{S.service}/{name}" for name in ("lock", "record"))


def held(account: Account, seconds: int, owner: str) -> None:
    value = json.dumps({"status": "held", "owner": owner, "token": owner, "expires": int(time.time()) + seconds})
    account.api("ssm").put_parameter(Name=LOCK, Value=value, Type="String", Overwrite=True)


def test_two_runs_exclude_each_other(tool: Tool, account: Account) -> None:
    with state.lock(Facts(S)), pytest.raises(Stop, match="runs a command now"), state.lock(Facts(S)):
        pass
    held(account, 600, "ann@laptop")
    assert "ann@laptop runs a command now" in tool("apply --yes", 1) and account.changes() == {"ssm.PutParameter", "ssm.DeleteParameter"}
    held(account, -1, "ann@laptop")
    with state.lock(Facts(S)):
        value = json.loads(account.api("ssm").get_parameter(Name=LOCK)["Parameter"]["Value"])
    assert value["expires"] > time.time() + S.stable_timeout_seconds and "user/moto" in value["owner"], "the lock lasts longer than the longest step"
    tool("apply --yes")
    assert LOCK not in str(account.api("ssm").describe_parameters()), "an expired lock is taken over and released"


def test_services_of_one_name_in_two_clusters_share_neither_lock_nor_record(green: str) -> None:
    assert state.record(Facts(S))
    other = Facts(replace(S, cluster="staging"))
    with state.lock(Facts(S)), state.lock(other):
        assert state.record(other) is None


def test_one_of_two_runs_that_take_over_a_lock_wins(account: Account) -> None:
    held(account, -1, "ann@laptop")

    def race(p: Doc) -> None:
        if p["Overwrite"]:
            account.fail.clear()
            held(account, 600, "bob@desk")

    account.fail["ssm.PutParameter"] = race
    with pytest.raises(Stop, match="runs a command now"), state.lock(Facts(S)):
        pass
    with state.lock(Facts(S)):
        pass  # and neither blocks the next run


def test_a_run_that_lost_its_lock_stops_and_leaves_it_alone(account: Account) -> None:
    with pytest.raises(Stop, match="lost the lock .* to bob@desk"), state.lock(Facts(S)) as hold:
        hold()
        held(account, 600, "bob@desk")
        hold()
    assert "bob@desk" in account.api("ssm").get_parameter(Name=LOCK)["Parameter"]["Value"]


def test_a_deployment_made_at_the_prompt_is_not_reverted(tool: Tool, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def deploy(question: str) -> str:
        account.register({"image": "x/par:8"})
        return "y"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", deploy)
    assert "something has changed since the plan was shown. The rollout changed nothing" in tool("apply", 1)
    assert "ecr.CreateRepository" not in account.calls and account.services[S.service]["taskDefinition"].endswith(":2")


def test_a_script_applies_the_plan_that_a_person_read(tool: Tool, account: Account) -> None:
    number = tool("plan").split()[-1]
    assert f"this is plan {number}, not 0" in tool("apply --yes --plan 0", 1)
    for other in ("--in-place", "--accept zones"):
        assert f", not {number}: something has changed" in tool(f"apply --yes --plan {number} {other}", 1)
    account.services[S.service]["events"].append({"id": "2", "message": "has reached a steady state."})
    account.services[S.service]["currentServiceRevisions"] = [{"arn": "arn:r", "runningTaskCount": 1}]
    tool(f"apply --yes --plan {number}")
    number = tool("plan").split()[-1]
    account.agents({"agent-c": "10.0.1.1"})
    assert "something has changed" in tool(f"apply --yes --plan {number}", 1), "an agent that the plan did not name"


@pytest.mark.parametrize(("reply", "text"), [("y", "Applied"), ("n", "not confirmed"), (None, "--yes was not given")])
def test_a_person_is_asked(tool: Tool, account: Account, monkeypatch: pytest.MonkeyPatch, reply: Any, text: str) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: reply is not None, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: reply)
    assert text in tool("apply", reply != "y") and account.calls["ecr.CreateRepository"] == (reply == "y")


@pytest.mark.parametrize("case", ["retry", "other kind", "overtaken"])
def test_an_unfinished_rollout(tool: Tool, account: Account, case: str) -> None:
    account.progress = ["FAILED"]
    tool("apply --in-place --yes", 1)
    account.progress = ["COMPLETED"]
    if case == "retry":
        assert "kept: the rollout of" in tool("apply --in-place --yes")
        assert "multi-agent:2 -> pixell-runtime-multi-agent:1" in tool("rollback --yes")
    elif case == "other kind":
        assert "finish it or roll it back first" in tool("apply --yes", 1)
    else:
        account.register({"environment": [{"name": "NEW", "value": "1"}]})
        account.settle(S.service)
        assert "the way back is pixell-runtime-multi-agent:3" in tool("apply --in-place --yes"), "somebody has changed the service since"


def test_the_agents_of_the_live_task_stay_known_when_the_new_one_registers_them(tool: Tool, account: Account, green: str) -> None:
    account.agents({"agent-a": "10.0.2.1", "agent-b": "10.0.2.1"})
    account.services[GREEN]["desiredCount"] = 0
    tool("apply --yes")
    assert json.loads(account.api("ssm").get_parameter(Name=RECORD)["Parameter"]["Value"])["agents"] == ["agent-a", "agent-b"]


def test_a_parameter_that_is_not_a_record_is_an_error(tool: Tool, account: Account) -> None:
    account.api("ssm").put_parameter(Name=RECORD, Value="not ours", Type="String")
    assert "was not written by this tool" in tool("rollback --yes", 1) and "was not written by this tool" in tool("check", 1)
