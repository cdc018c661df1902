"""The alarms are one CloudFormation stack (alarms.yaml). Its change set is shown before it is executed."""

import time
from contextlib import suppress

from botocore.exceptions import WaiterError

from . import state
from .facts import Facts
from .say import Stop, confirm, say
from .settings import DEPLOY


def apply(f: Facts, yes: bool) -> None:
    api, s, name = f.api("cloudformation"), f.settings, f"pixell-envoy-alarms-{f.settings.service}"
    topics = [each["TopicArn"] for each in f.all("sns", "list_topics", "Topics")] if s.alarm_topic else []
    topic = next((arn for arn in topics if arn.endswith(f":{s.alarm_topic}")), "")
    if s.alarm_topic and not topic:
        raise Stop(f"topic {s.alarm_topic} does not exist", f"aws sns create-topic --region {s.region} --name {s.alarm_topic}")
    # CloudWatch identifies both by the last parts of their ARNs.
    balancer, group = f.balancer.split(":loadbalancer/")[1], f.group_arn(f.live.a2a).rsplit(":", 1)[1]
    fixed = {"Service": s.service, "LogGroup": s.log_group, "LoadBalancer": balancer, "TargetGroup": group, "Topic": topic}
    fixed["Rejected"] = str(s.alarm_rejected_per_5_minutes)
    # CloudFormation's code for a stack that does not exist is ValidationError.
    found = f.one("cloudformation", "describe_stacks", "Stacks", "ValidationError", StackName=name)
    kind = "UPDATE" if found and found["StackStatus"] != "REVIEW_IN_PROGRESS" else "CREATE"
    say("IMPACT", "  no task is replaced, no agent stops", "", f"CHANGES of stack {name}")
    with state.lock(f):
        values = [{"ParameterKey": key, "ParameterValue": value} for key, value in fixed.items()]
        change, executed = {"StackName": name, "ChangeSetName": f"pixell-{time.time_ns()}"}, False
        body = (DEPLOY / "alarms.yaml").read_text()
        api.create_change_set(**change, ChangeSetType=kind, TemplateBody=body, Parameters=values)
        try:
            with suppress(WaiterError):
                api.get_waiter("change_set_create_complete").wait(**change, WaiterConfig={"Delay": 2})
            # A change set without changes fails, and has no error code of its own, so look at its changes.
            made, changes = api.describe_change_set(**change), f.all("cloudformation", "describe_change_set", "Changes", **change)
            if made["Status"] == "FAILED" and (changes or kind == "CREATE"):
                raise Stop(f"CloudFormation rejects the change set: {made.get('StatusReason')}", "see alarms.yaml and the settings")
            named = [f"  {each['ResourceChange']['Action']} {each['ResourceChange']['LogicalResourceId']}" for each in changes]
            say(*(named or ["  nothing"]))
            if changes:
                confirm("Make these changes?", yes)
                api.execute_change_set(**change)
                executed = True
        finally:
            if not executed:
                api.delete_change_set(**change)
                api.delete_stack(StackName=name) if kind == "CREATE" else None  # it is empty
        if executed:
            api.get_waiter(f"stack_{kind.lower()}_complete").wait(StackName=name, WaiterConfig={"Delay": 5})
    say("", f"The alarms watch {f.live.a2a}. After a shift, run this again.")
