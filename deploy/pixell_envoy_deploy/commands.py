"""The commands, each with its options. Each that changes something shows first what it does to agents, and asks."""

import json
from functools import partial

from . import checks, form, state, task_definition
from .ask import agents, line
from .aws import Doc
from .facts import PASSING, Facts, Slot, address, leads, short
from .rollout import COPIED, HEALTH_CHECK, Rollout, check_health, health_check, lead, sets, targets, test_listeners, update
from .say import Stop, confirm, count, say
from .settings import A2A_PORT
from .steps import Changes, Step, run, show

# Fields of a service that identify it or that the rollout sets. All others are kept.
OWN = PASSING | {"clusterArn", "createdAt", "createdBy", "desiredCount", "loadBalancers", "roleArn", "serviceArn", "serviceName", "status"}
OWN |= {"taskDefinition", "taskSets"}


def plan(r: Rollout) -> bool:
    """Show what apply would change, what it would keep, and what it does to running agents; changes nothing."""
    checks.check(r, quiet=True)
    say("", "IMPACT", *(f"  {line}" for line in impact(r)))
    changes = show(r.steps())
    say("", "KEPT, NOT OURS", *(f"  {line}" for line in kept(r) or ["nothing"]), "", f"plan {r.number()}")
    return changes


def impact(r: Rollout) -> list[str]:
    f, slot, ids = r.facts, r.slot, r.facts.agents
    if not list(r.service()):
        return ["no task is replaced, no agent stops"]
    known = "agents (their number is unknown: Cloud Map has none)" if ids is None else count(len(ids), "agent")
    names, there = [f"  {', '.join(ids)}"] if ids else [], (f.service(slot.service) or {}).get("runningCount", 0)
    if r.in_place:
        return [
            f"replaces {count(there, 'task')} of {slot.service}; their {known} stop, and PAC must redeploy them",
            *names,
            "requests to a stopped agent get UNAVAILABLE (no route map yet), then NOT_FOUND, until PAC has redeployed it",
            "without --in-place no agent stops before its successor runs: docs/deploy.md",
        ]
    return [
        f"stops no agent that clients reach: {f.live.service} and its {known} stay as they are",
        *names,
        *([f"replaces {count(there, 'task')} of {slot.service} and stops their agents, which no client reaches"] if there else []),
        f"PAC must deploy these agents to the new task as well (port {r.settings.rest_test_port}) before shift leads clients to it",
        f"until {f.live.service} is ended after shift, {count(r.tasks, 'more task')} {'run' if r.tasks > 1 else 'runs'} and must be paid for",
    ]


def kept(r: Rollout) -> list[str]:
    """The settings of the present revision and service that this project does not set and that stay."""
    f, service, live = r.facts, r.facts.present, r.facts.live
    alone = "stays" if r.in_place else f"stays with {live.service} alone"
    lines = task_definition.kept(f.revision, r.definition, r.template)
    for name in sorted(key for key, value in service.items() if key not in OWN and value):
        where = "the new service has it as well" if name in COPIED and not r.in_place else alone
        lines.append(f"service {name}: {task_definition.shown(service[name])} ({where})")
    for each in service["loadBalancers"]:
        if (group := short(each["targetGroupArn"])) not in (live.a2a, live.rest):
            lines.append(f"service loadBalancers: {each['containerName']}:{each['containerPort']} in {group} ({alone})")
    return lines + [f"service autoscaling: {each['MinCapacity']} to {each['MaxCapacity']} tasks ({alone})" for each in f.scaling]


def apply(r: Rollout, yes: bool, number: str) -> None:
    """Build and push the image, start a task with Envoy before PAR, wait until it is healthy."""
    changes, shown = plan(r), r.number()
    if number and number != shown:
        raise Stop(f"this is plan {shown}, not {number}: something has changed", "read the plan above, then apply --plan with its number")
    confirm("Make these changes?", yes or not changes)
    with state.lock(r.facts) as hold:
        r = Rollout(Facts(r.settings), r.in_place, r.drop, r.accept)
        if r.number() != shown:
            raise Stop("something has changed since the plan was shown. The rollout changed nothing", "run apply again, and read the new plan")
        if changes:
            hold()
            say(f"record: {write_record(r)}")
        run(r.facts.forget, r.steps(), hold, "fix the cause and run apply again: it skips what is done", "rollback")
        if (before := state.record(r.facts)) and before["status"] == "applying":
            state.write(r.facts, before | {"status": "applied"})
    port = "" if r.in_place else f" through port {r.settings.rest_test_port}"
    say("", f"Applied. Next: PAC deploys the agents{port}; then verify {'ID...' if r.in_place else '--test ID..., then shift'}")


def write_record(r: Rollout) -> str:
    """Records what is there now as the way back, unless a rollout of this kind is unfinished or leaves the service alone."""
    f, slot, before, in_place = r.facts, r.slot, state.record(r.facts) or {}, r.in_place
    ours = before.get("slot") == slot.service and before.get("in_place") == in_place
    if r.unfinished():
        if not ours:
            raise Stop("an unfinished rollout of the other kind is recorded", "finish it or roll it back first")
        state.write(f, before | {"image": r.reference})
        return f"kept: the rollout of {before['at']} is unfinished"
    if ours and before["status"] == "applied" and not list(r.service()):
        return "kept: the service stays as it is"
    service = f.service(slot.service)
    # PAR in the new task takes over the agents' records in Cloud Map, so keep the ids that an earlier apply recorded.
    known = before.get("agents", []) if ours and before["status"] == "applied" else []
    document: Doc = {"status": "applying", "in_place": in_place, "slot": slot.service, "image": r.reference}
    document |= {"agents": sorted({*known, *(f.agents or [])}), "listener": leads(f.listener(A2A_PORT))}
    document["form"] = form.spoken(f.listener(A2A_PORT))
    document["service"] = {key: (service or {}).get(key) for key in ("taskDefinition", "loadBalancers")}
    state.write(f, document)
    return f"the way back is {short(service['taskDefinition']) if service and in_place else f.live.service}"


def verify(r: Rollout, ids: list[str], connections: int | None, endpoint: str, token: str | None, test: bool) -> None:
    """Check tasks and targets, and call agents over new connections."""
    reach(r.facts, r.facts.idle if test else r.facts.live, ids, connections, endpoint, token)


def reach(f: Facts, slot: Slot, ids: list[str], connections: int | None, endpoint: str, token: str | None) -> None:
    """Checks tasks and targets as AWS sees them, and agents as clients reach them. An error ends the command."""
    service, running, bad = f.service(slot.service) or {"taskDefinition": "", "desiredCount": 1}, f.tasks(slot.service), []
    wanted, least = service["taskDefinition"], max(1, service["desiredCount"])
    # With ten for each task, one of a hundred tasks is missed once in two hundred runs.
    connections = connections or max(20, 10 * least)
    for task in running:
        health = next((each.get("healthStatus") for each in task["containers"] if each["name"] == "envoy"), "absent")
        if task["taskDefinitionArn"] != wanted or health != "HEALTHY":
            bad.append(f"{address(task)} runs {short(task['taskDefinitionArn'])} (wanted {short(wanted)}), envoy is {health}")
    counted = f"{len(running)} of {short(wanted)} run"
    errors = line(
        len(running) >= least and not bad, "tasks", "; ".join(bad) or f"{counted}, envoy HEALTHY" + f"; {least} are wanted" * (len(running) < least)
    )
    for group in (slot.a2a, slot.rest):
        found = f.targets(group)
        ill = [f"{each['Target']['Id']} is {each['TargetHealth']['State']}" for each in found if each["TargetHealth"]["State"] != "healthy"]
        errors += line(bool(found) and not ill, "targets", f"{group}: {'; '.join(ill) or f'{len(found)} healthy'}")
    port = A2A_PORT if slot == f.live else f.settings.test_port
    definition = f.definition(wanted) if wanted else None
    # The load balancer speaks TLS, or passes it to an Envoy that does.
    tls = (f.listener(port) or {}).get("Protocol") == "TLS" or bool(definition and sets(definition, "PIXELL_TLS_CERT_FILE"))
    # The certificate is for the domain, and not for the load balancer's own name.
    name = f.settings.certificate_domain if tls and f.settings.certificate_domain else f.load_balancer["DNSName"]
    endpoint = endpoint or f"{name}:{port}"
    if errors := errors + agents(endpoint, tls, ids, connections, token):
        raise Stop(f"{errors} not as wanted (ERROR above)", "docs/deploy/troubleshooting.md; or rollback")
    say(f"Verified: {len(ids)} agents through {endpoint}, {connections} connections each.")


def recorded(f: Facts) -> tuple[Doc, Slot, Slot]:
    """The record, the slot it is about, and the other one."""
    if (found := state.record(f)) is None:
        raise Stop("no rollout is recorded", "apply first; to go to a revision without a record: rollback --revision N")
    return found, *((f.blue, f.green) if found["slot"] == f.blue.service else (f.green, f.blue))


def perform(f: Facts, impact: list[str], steps: list[Step], yes: bool, go_back: str, before: Doc | None, status: str) -> None:
    say("IMPACT", *(f"  {line}" for line in impact))
    changes = show(steps)
    confirm("Make these changes?", yes or not changes)
    with state.lock(f) as hold:
        if before and state.record(f) != before:
            raise Stop("another run has finished meanwhile. This one changed nothing", "run this again")
        if before and changes:
            state.write(f, before | {"status": status})
        run(f.forget, steps, hold, "fix the cause and run this again", go_back)
    say("", f"Done: {status}. The alarms still watch the target group of before: run alarms again.")


def shift(r: Rollout, ids: list[str], connections: int | None, endpoint: str, token: str | None, yes: bool) -> None:
    """Verify the agents of the new task, then lead clients to it."""
    f, (before, slot, other) = r.facts, recorded(r.facts)
    if before["in_place"] or before["status"] == "applying":
        raise Stop(f"the last rollout is {before['status']}{' in place' * before['in_place']}: there is nothing to shift to", "apply first")
    ids = ids or before["agents"]
    if not ids:
        raise Stop("no agent is recorded, so none can be verified", "shift ID... with the agents that PAC has deployed to the new task")
    reach(f, slot, ids, connections, endpoint, token)
    impact = [f"new connections go to {slot.service}; open ones stay with {other.service} until they end or reach their age"]
    impact += [f"from then on PAC deploys to {slot.service}; no agent stops"]
    if missing := sorted(set(before["agents"]) - set(ids)):
        impact.append(f"these agents ran before and are not verified, so their clients may get NOT_FOUND: {', '.join(missing)}")
    perform(f, impact, routes(f, [slot.a2a], other, slot, form.wanted(f)), yes, "rollback", before, "shifted")
    end = f"aws ecs update-service --region {f.name} --cluster {f.settings.cluster} --service {other.service} --desired-count 0"
    say(f"{other.service} stays as it is, and rollback leads back to it. After a day, end it and its agents:", f"  {end}")


def routes(f: Facts, a2a: list[str], old: Slot, new: Slot, wanted: Doc | None) -> list[Step]:
    """Leads the data path's listener, and every listener and rule of PAR's REST API, from `old` to `new`. Other actions of a rule stay.
    The test listeners are led to `old`: without a listener the old task would have no health check, and ECS could not replace it. But
    if one target group is empty, a network load balancer treats all its targets as healthy. So the A2A target group of a service
    without Envoy gets no listener."""

    def rest() -> Changes:
        api = f.api("elbv2")
        for each in f.routes(old.rest):
            actions, rule = json.loads(json.dumps(each["Actions"]).replace(f.group_arn(old.rest), f.group_arn(new.rest))), each.get("RuleArn")
            listener = partial(api.modify_listener, ListenerArn=each["ListenerArn"], DefaultActions=actions)
            if each["Port"] != f.settings.rest_test_port:
                place = f"{short(each['LoadBalancerArn'])}, port {each['Port']}{', a rule' if rule else ''}"
                yield [f"{place}: {old.rest} -> {new.rest}"], partial(api.modify_rule, RuleArn=rule, Actions=actions) if rule else listener

    groups = [short(each["targetGroupArn"]) for each in (f.service(old.service) or {"loadBalancers": []})["loadBalancers"]]
    tests = ("test listeners", lambda: test_listeners(f, old, new.rest, old.a2a in groups))
    return [("listener", lambda: lead(f, f.balancer, A2A_PORT, a2a, wanted=wanted)), ("REST", rest), tests]


def rollback(r: Rollout, revision: int | None, yes: bool) -> None:
    """Go back to what the record says, or to a revision."""
    f = r.facts
    by_number: Doc = {"in_place": True, "slot": f.live.service, "service": {"taskDefinition": f"{f.revision['family']}:{revision}"}}
    before, slot, other = (by_number, f.live, f.live) if revision else recorded(f)
    known, tasks = "agents" if f.agents is None else count(len(f.agents), "agent"), count(f.present["runningCount"], "task")
    impact = f"leads clients back; no agent stops. {slot.service} stays, for another shift"
    if before["in_place"]:
        impact = f"replaces {tasks} of {slot.service}; their {known} stop, and PAC must redeploy them"
    elif not (f.service(other.service) or {"runningCount": 0})["runningCount"]:
        raise Stop(f"{other.service} runs no task any more: there is nothing to lead clients back to", "apply starts a task beside this one")
    steps = back(f, before) if before["in_place"] else routes(f, before["listener"], slot, other, before.get("form"))
    perform(f, [impact], steps, yes, "apply", None if revision else before, "rolled back")


def back(f: Facts, before: Doc) -> list[Step]:
    """The service first, so that requests are served as soon as possible; then the listener, unless somebody else has changed it. Before both,
    the health check of a fleet, which no task outside of a fleet passes."""
    slot, target, family = f.live, f.definition(before["service"]["taskDefinition"]), f.revision["family"]
    if target is None or target["status"] != "ACTIVE":
        newest = ", ".join(map(short, f.all("ecs", "list_task_definitions", "taskDefinitionArns", familyPrefix=family, sort="DESC")[:5]))
        raise Stop(f"{before['service']['taskDefinition']} does not exist or is INACTIVE", f"rollback --revision N; the newest: {newest}")
    # A revision named by its number gets the target groups whose container it has.
    names = [each["name"] for each in target["containerDefinitions"]]
    wanted = before["service"].get("loadBalancers", [each for each in targets(f, slot, f.present) if each["containerName"] in names])

    def service() -> Changes:
        for lines, act in update(f, slot.service, target["taskDefinitionArn"], wanted, (f.service(slot.service) or f.present)["desiredCount"]):
            yield [*lines, *(f"  {each['name']} runs {each['image']}" for each in target["containerDefinitions"])], act

    def health() -> Changes:
        if f.target_group(slot.a2a) and health_check(target) == HEALTH_CHECK:
            yield from check_health(f, slot.a2a, target)

    def listener() -> Changes:
        if slot.a2a in leads(f.listener(A2A_PORT)):
            yield from lead(f, f.balancer, A2A_PORT, before["listener"], wanted=before.get("form"))

    return [("health check", health), ("service", service), *([("listener", listener)] if "listener" in before else [])]


def render(r: Rollout) -> None:
    """Print the task definition that apply would register."""
    say(json.dumps(r.definition, indent=2))
