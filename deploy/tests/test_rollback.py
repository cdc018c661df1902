"""rollback: back to what was recorded or to a revision given, with the REST target group alone where that was so."""

from __future__ import annotations

from typing import Any

from support.account import Account
from support.names import SETTINGS
from support.tool import Result, Tool
from test_apply import assert_applied


def test_rollback_restores_what_was_there(
    account: Account, tool: Tool, before: dict[str, Any], applied_with_alarms: Result
) -> None:
    assert account.state() != before
    result = tool.run("rollback", "--yes")
    assert result.status == 0, str(result)
    assert account.state() == before
    assert account.service_targets() == {("par", 8080, account.rest)}
    assert "with par:8080 in par-multi-agent-tg." in result.out

    again = tool.run("rollback", "--yes")
    assert again.status == 0, str(again)
    assert "Nothing to change: this is what was there before." in again.out
    assert again.changes == []

    assert tool.run("apply", "--yes").status == 0
    assert_applied(account)


def test_the_service_goes_back_first(account: Account, tool: Tool, applied_with_alarms: Result) -> None:
    assert tool.run("rollback", "--yes").changes == [
        "ecs update-service",
        "elbv2 delete-listener",
        "elbv2 modify-target-group",
        "cloudwatch delete-alarms",
        "logs delete-metric-filter",
        "logs delete-metric-filter",
        "ssm put-parameter",
    ]


def test_a_listener_that_was_there_gets_its_target_back(account: Account, tool: Tool) -> None:
    other = account.target_group("old-router", "TCP", 50052)
    account.client("elbv2").create_listener(
        LoadBalancerArn=account.nlb,
        Protocol="TCP",
        Port=50051,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": other}],
    )
    before = account.state()
    assert tool.run("apply", "--yes").status == 0
    assert_applied(account)
    assert tool.run("rollback", "--yes").status == 0
    assert account.state() == before


def test_a_listener_that_others_have_changed_since_is_left_alone(account: Account, tool: Tool, applied: Result) -> None:
    other = account.target_group("others", "TCP", 50053)
    (listener,) = account.listeners()
    account.client("elbv2").modify_listener(
        ListenerArn=listener["ListenerArn"], DefaultActions=[{"Type": "forward", "TargetGroupArn": other}]
    )
    assert tool.run("rollback", "--yes").status == 0
    (listener,) = account.listeners()
    assert listener["DefaultActions"][0]["TargetGroupArn"] == other


def test_alarms_that_were_there_before_stay(account: Account, tool: Tool) -> None:
    name = f"pixell-envoy-{SETTINGS['SERVICE']}-unhealthy-hosts"
    account.client("cloudwatch").put_metric_alarm(
        AlarmName=name,
        Namespace="X",
        MetricName="X",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    assert tool.run("apply", "--yes", "--alarms").status == 0
    assert len(account.state()["alarms"]) == 4
    assert tool.run("rollback", "--yes").status == 0
    assert account.state()["alarms"] == [name]


def test_to_a_revision_given(account: Account, tool: Tool, applied: Result) -> None:
    result = tool.run("rollback", "--yes", "--revision", "1")
    assert result.status == 0, str(result)
    assert account.service()["taskDefinition"] == account.first_revision
    assert account.service_targets() == {("par", 8080, account.rest)}, (
        "a revision without envoy has the REST target group alone"
    )

    result = tool.run("rollback", "--yes", "--revision", "3")
    assert result.status == 0, str(result)
    assert account.service_targets() == {("envoy", 50051, account.a2a), ("par", 8080, account.rest)}


def test_to_a_revision_given_without_a_record(account: Account, tool: Tool) -> None:
    result = tool.run("rollback", "--yes", "--revision", "1")
    assert result.status == 0, str(result)
    assert account.service()["taskDefinition"] == account.first_revision


def test_without_a_record_it_says_what_can_be_done(account: Account, tool: Tool) -> None:
    result = tool.run("rollback", "--yes")
    assert result.status == 1
    assert "nothing is recorded" in result.err
    assert "rollback --revision N; the newest revisions: pixell-runtime-multi-agent:" in result.err
    assert result.changes == []


def test_to_a_revision_that_does_not_exist(account: Account, tool: Tool) -> None:
    result = tool.run("rollback", "--yes", "--revision", "99")
    assert result.status == 1
    assert "pixell-runtime-multi-agent:99 does not exist" in result.err
    assert result.changes == []


def test_to_a_revision_that_is_deregistered(account: Account, tool: Tool, applied: Result) -> None:
    account.client("ecs").deregister_task_definition(taskDefinition=account.par_revision)
    result = tool.run("rollback", "--yes")
    assert result.status == 1
    assert "is deregistered, ECS does not run it" in result.err
    assert result.changes == []


def test_after_a_rollback_it_does_not_undo_what_others_have_deployed(
    account: Account, tool: Tool, applied: Result
) -> None:
    assert tool.run("rollback", "--yes").status == 0
    newer = account.register_par("par-multi-agent:3.0.0")
    account.deploy_par(newer)
    result = tool.run("rollback", "--yes")
    assert result.status == 1
    assert "somebody has moved the service to pixell-runtime-multi-agent:4 since" in result.err
    assert result.changes == []


def test_images_that_go_back_are_shown(account: Account, tool: Tool, applied: Result) -> None:
    """PAR was deployed anew after the rollout: going back takes that back, too, and says so."""
    tool.settings["PAR_IMAGE"] = "registry.example/par-multi-agent:3.0.0"
    assert tool.run("apply", "--yes", "--image", "registry.example/pixell-envoy:1").status == 0
    result = tool.run("rollback", "--yes", "--revision", "2")
    assert "par.image: registry.example/par-multi-agent:3.0.0 -> registry.example/par-multi-agent:2.4.1" in result.out
    assert "envoy.image: registry.example/pixell-envoy:1 -> (none)" in result.out


def test_a_parameter_that_holds_no_record_is_refused(account: Account, tool: Tool) -> None:
    account.client("ssm").put_parameter(Name=SETTINGS["RECORD_PARAMETER"], Value="something else", Type="String")
    for command in ("apply", "rollback"):
        result = tool.run(command, "--yes")
        assert result.status == 1
        assert "of this script" in result.out + result.err
        assert result.changes == []


def test_it_works_from_another_machine(account: Account, tool: Tool, before: dict[str, Any], applied: Result) -> None:
    """All that is recorded is at AWS: a tool in another directory finds it."""
    other = Tool(tool.directory / "elsewhere", tool.endpoint, tool.socket)
    assert other.run("rollback", "--yes").status == 0
    assert account.state() == before


def test_an_unfinished_rollout_that_others_have_overtaken_is_history(account: Account, tool: Tool) -> None:
    """An apply stopped long ago; since then PAR was deployed anew. The way back is then what runs now."""
    result = tool.run("apply", "--yes", TEST_AWS_FAIL="elbv2 create-listener")
    assert result.status == 1
    newer = account.register_par("par-multi-agent:3.0.0")
    account.deploy_par(newer)
    assert tool.run("apply", "--yes").status == 0
    record = account.record()
    assert record is not None
    assert record["taskDefinition"] == newer
    assert account.revision()["containerDefinitions"][1]["image"] == "registry.example/par-multi-agent:3.0.0"
