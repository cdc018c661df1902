"""Follows one deployment of a service until ECS says how it ended."""

import time

from . import aws
from .aws import Doc
from .facts import Facts, short
from .say import Stop, say

POLL_SECONDS = 5.0
# ECS's reads lag behind its writes, and a read may fail during a deployment.
STALE_SECONDS = 60


def follow(f: Facts, name: str, updated: Doc) -> None:
    """Waits for the PRIMARY deployment of `updated`, which is the service as the call that changed it returned it."""
    wanted = next(each["id"] for each in updated["deployments"] if each["status"] == "PRIMARY")
    started = seen = time.monotonic()
    shown, limit = "", f.settings.stable_timeout_seconds
    say(f"  deployment {wanted} of {name}:")
    while True:
        f.forget()
        try:
            service, problem = f.service(name) or {}, "the service does not list it"
        except aws.FAILURES as error:
            service, problem = {}, aws.code(error)
        now, deployments = time.monotonic(), {each["id"]: each for each in service.get("deployments", [])}
        ours = deployments.get(wanted, {})
        if ours:
            seen, before, shown = now, shown, state(ours, service)
            if shown != before:
                say(f"  {now - started:4.0f}s  {shown}")
            if ours["status"] != "PRIMARY":
                other = next(each for each in deployments.values() if each["status"] == "PRIMARY")
                raise Stop(f"{wanted} was replaced by {other['id']} ({short(other['taskDefinition'])})", "find out who deployed it")
        if ours.get("rolloutState") == "COMPLETED":
            return
        if ours.get("rolloutState") == "FAILED" or now - started > limit:
            stopped_tasks(f, name)
            failed = f"failed: {ours.get('rolloutStateReason')}" if ours.get("rolloutState") == "FAILED" else f"is not complete after {limit} s"
            raise Stop(f"{wanted} {failed}", "docs/deploy/troubleshooting.md; apply waits for it again; rollback goes back")
        if now - seen > STALE_SECONDS:
            raise Stop(f"{wanted} is out of sight for {STALE_SECONDS} s: {problem}", "look at it in the console; apply waits for it again")
        time.sleep(POLL_SECONDS)


def state(deployment: Doc, service: Doc) -> str:
    counts = f"{deployment['runningCount']} of {deployment['desiredCount']} running, {deployment['pendingCount']} starting"
    counts += f", {deployment['failedTasks']} failed" if deployment.get("failedTasks") else ""
    older = sum(each["runningCount"] for each in service["deployments"] if each["id"] != deployment["id"])
    event = service["events"][0]["message"] if service.get("events") else ""
    return f"{deployment.get('rolloutState', 'IN_PROGRESS')}: {counts}, {older} of earlier revisions. {event}".rstrip()


def stopped_tasks(f: Facts, name: str) -> None:
    """Why recent tasks and their containers ended. ECS forgets a stopped task after about an hour."""
    for task in sorted(f.tasks(name, "STOPPED"), key=lambda task: str(task.get("stoppedAt")), reverse=True)[:3]:
        say(f"  stopped task {short(task['taskArn'])} of {short(task['taskDefinitionArn'])}: {task.get('stoppedReason', 'no reason given')}")
        for each in task["containers"]:
            code = f", exit code {each['exitCode']}" if each.get("exitCode") is not None else ""
            say(f"    {each['name']}: {each.get('lastStatus')}, health {each.get('healthStatus')}{code} {each.get('reason', '')}".rstrip())
