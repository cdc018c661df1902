"""CloudFormation stacks: the alarms, and the fleet's table. A stack's change set is shown before it is executed."""

import time
from contextlib import suppress

from botocore.exceptions import WaiterError

from . import state
from .facts import Facts
from .rollout import Rollout
from .say import Stop, confirm, say
from .settings import DEPLOY


def alarms(r: Rollout, yes: bool) -> None:
    """Create or change the CloudWatch alarms."""
    f, s = r.facts, r.settings
    topics = [each["TopicArn"] for each in f.all("sns", "list_topics", "Topics")] if s.alarm_topic else []
    topic = next((arn for arn in topics if arn.endswith(f":{s.alarm_topic}")), "")
    if s.alarm_topic and not topic:
        raise Stop(f"topic {s.alarm_topic} does not exist", f"aws sns create-topic --region {s.region} --name {s.alarm_topic}")
    # CloudWatch identifies both by the last parts of their ARNs.
    balancer, group = f.balancer.split(":loadbalancer/")[1], f.group_arn(f.live.a2a).rsplit(":", 1)[1]
    fixed = {"Cluster": s.cluster, "Service": s.service, "LogGroup": s.log_group, "LoadBalancer": balancer, "TargetGroup": group, "Topic": topic}
    apply(f, "alarms", fixed | {"Rejected": str(s.alarm_rejected_per_5_minutes)}, yes)
    say("", f"The alarms watch {f.live.a2a}. After a shift, run this again.")


def directory(r: Rollout, yes: bool) -> None:
    """Create or change the fleet's table, and the right of the task role to use it."""
    f, s = r.facts, r.settings
    if s.fleet_directory != "dynamodb":
        raise Stop("fleet_directory is not dynamodb in the settings, so the fleet needs no table", 'fleet_directory = "dynamodb"')
    role = f.task_role["RoleName"]
    apply(f, "directory", {"Service": s.service, "Table": s.fleet_table, "TaskRole": role}, yes)
    say("", f"Tasks with the role {role} may use the table {s.fleet_table}. Next: plan, then apply")


def apply(f: Facts, kind: str, parameters: dict[str, str], yes: bool) -> None:
    """Creates or changes the stack of the file `<kind>.yaml`. Each cluster of an account may have a service of that name, so the stack is named
    after both. CloudFormation accepts no underscores there."""
    api, name = f.api("cloudformation"), f"pixell-envoy-{kind}-{f.settings.cluster}-{f.settings.service}".replace("_", "-")
    # CloudFormation's code for a stack that does not exist is ValidationError.
    found = f.one("cloudformation", "describe_stacks", "Stacks", "ValidationError", StackName=name)
    action = "UPDATE" if found and found["StackStatus"] != "REVIEW_IN_PROGRESS" else "CREATE"
    say("IMPACT", "  no task is replaced, no agent stops", "", f"CHANGES of stack {name}")
    with state.lock(f):
        values = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        change, executed = {"StackName": name, "ChangeSetName": f"pixell-{time.time_ns()}"}, False
        body = {"TemplateBody": (DEPLOY / f"{kind}.yaml").read_text(), "Capabilities": ["CAPABILITY_IAM"]}
        api.create_change_set(**change, **body, ChangeSetType=action, Parameters=values)
        try:
            with suppress(WaiterError):
                api.get_waiter("change_set_create_complete").wait(**change, WaiterConfig={"Delay": 2})
            # A change set without changes fails, and has no error code of its own, so look at its changes.
            made, changes = api.describe_change_set(**change), f.all("cloudformation", "describe_change_set", "Changes", **change)
            if made["Status"] == "FAILED" and (changes or action == "CREATE"):
                raise Stop(f"CloudFormation rejects the change set: {made.get('StatusReason')}", f"see {kind}.yaml and the settings")
            for each in [change["ResourceChange"] for change in changes]:
                say(f"  {each['Action']} {each['LogicalResourceId']}{' (replaced)' * (each.get('Replacement') == 'True')}")
            if not changes:
                say("  nothing")
            else:
                confirm("Make these changes?", yes)
                api.execute_change_set(**change)
                executed = True
        finally:
            if not executed:
                api.delete_change_set(**change)
                api.delete_stack(StackName=name) if action == "CREATE" else None  # it is empty
        if executed:
            api.get_waiter(f"stack_{action.lower()}_complete").wait(StackName=name, WaiterConfig={"Delay": 5})
