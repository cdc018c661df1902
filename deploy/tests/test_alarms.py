"""The alarms: valid by AWS's own models, made once, told to whom the settings name, fed by lines really written."""

from __future__ import annotations

import json
import re

import botocore.session
from botocore.validate import ParamValidator

from support.account import Account
from support.names import DEPLOY, ROOT, SETTINGS
from support.tool import Result, Tool

PREFIX = f"pixell-envoy-{SETTINGS['SERVICE']}-"
WANTED = {PREFIX + name for name in ("unhealthy-hosts", "no-healthy-host", "envoy-restarts", "rejected-requests")}


def test_they_are_made_once_and_valid(account: Account, tool: Tool, applied_with_alarms: Result) -> None:
    model = botocore.session.get_session()
    for service, operation, call in (
        ("cloudwatch", "PutMetricAlarm", "cloudwatch put-metric-alarm"),
        ("logs", "PutMetricFilter", "logs put-metric-filter"),
    ):
        shape = model.get_service_model(service).operation_model(operation).input_shape
        sent = applied_with_alarms.requests(call)
        assert len(sent) == {"PutMetricAlarm": 4, "PutMetricFilter": 2}[operation]
        for request in sent:
            report = ParamValidator().validate(request, shape)
            assert not report.has_errors(), report.generate_report()
    assert set(account.state()["alarms"]) == WANTED
    assert account.state()["filters"] == sorted([PREFIX + "rejected-requests", PREFIX + "envoy-restarts"], reverse=True)

    second = tool.run("apply", "--yes", "--alarms")
    assert second.changes == []
    assert "alarms: as wanted" in second.out


def test_the_load_balancers_metrics_are_those_of_this_target_group(
    account: Account, tool: Tool, applied_with_alarms: Result
) -> None:
    alarms = account.client("cloudwatch").describe_alarms(AlarmNames=[PREFIX + "unhealthy-hosts"])["MetricAlarms"]
    dimensions = {each["Name"]: each["Value"] for each in alarms[0]["Dimensions"]}
    assert account.a2a.endswith(":" + dimensions["TargetGroup"])
    assert account.nlb.endswith(":loadbalancer/" + dimensions["LoadBalancer"])


def test_a_topic_is_told(account: Account, tool: Tool) -> None:
    topic = account.client("sns").create_topic(Name="pager")["TopicArn"]
    tool.settings["ALARM_TOPIC"] = "pager"
    result = tool.run("apply", "--yes", "--alarms")
    assert result.out.count("tells pager") >= 4
    for alarm in account.client("cloudwatch").describe_alarms()["MetricAlarms"]:
        assert alarm["AlarmActions"] == [topic]
        assert alarm["OKActions"] == [topic]


def test_a_changed_threshold_is_one_change(account: Account, tool: Tool, applied_with_alarms: Result) -> None:
    tool.settings["ALARM_REJECTED_PER_5_MINUTES"] = "7"
    assert tool.run("apply", "--yes", "--alarms").changes == ["cloudwatch put-metric-alarm"]


def test_every_metric_of_ours_has_its_filter() -> None:
    definitions = json.loads((DEPLOY / "alarms.json").read_text())
    made = {
        (each["metricNamespace"], each["metricName"])
        for one in definitions["metricFilters"]
        for each in one["metricTransformations"]
    }
    read = {
        (each["Namespace"], each["MetricName"])
        for each in definitions["alarms"]
        if each["Namespace"].startswith("PixellEnvoy/")
    }
    assert made == read


def test_the_restart_filter_looks_for_what_the_entry_point_writes() -> None:
    definitions = json.loads((DEPLOY / "alarms.json").read_text())
    (pattern,) = [
        each["filterPattern"] for each in definitions["metricFilters"] if each["filterName"].endswith("envoy-restarts")
    ]
    notice = re.search(r'pub const NOTICE: &str = "(.+)";', (ROOT / "launcher/src/restart.rs").read_text())
    assert notice is not None
    assert pattern == f'"{notice[1]}"', "a phrase in quotes: CloudWatch looks for it as it stands"
