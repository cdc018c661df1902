"""A rollout: the steps that bring Envoy before PAR, in place or beside the live service."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from . import form, image, state, task_definition
from .aws import Doc
from .facts import Facts, Slot, leads, short
from .follow import follow
from .say import Stop, count, say
from .settings import A2A_PORT, ADMIN_PORT, DEPLOY, PAR_END_SECONDS, REST_PORT, STOP_MARGIN, STOP_TIMEOUT_LIMIT
from .steps import Changes, Step, difference
from .task_definition import container

# The load balancer checks only whether the traffic port takes a TCP connection, not whether an agent is there.
HEALTH_CHECK: Doc = {"HealthCheckProtocol": "TCP", "HealthCheckPort": "traffic-port", "HealthCheckIntervalSeconds": 30}
HEALTH_CHECK |= {"HealthCheckTimeoutSeconds": 10, "HealthyThresholdCount": 2, "UnhealthyThresholdCount": 3}
# In a fleet a task without its maps would reject what another one could serve, so it gets no connection before it has them.
FLEET_HEALTH_CHECK = HEALTH_CHECK | {"HealthCheckProtocol": "HTTP", "HealthCheckPort": str(ADMIN_PORT)}
FLEET_HEALTH_CHECK |= {"HealthCheckPath": "/ready/traffic", "Matcher": {"HttpCode": "200"}}
# Fields that the second service copies from the first. Not its names in Service Connect, VPC Lattice or Cloud Map, which would then lead
# to both, and not autoscaling, which would start another task without agents.
COPIED = ["launchType", "capacityProviderStrategy", "platformVersion", "deploymentConfiguration", "networkConfiguration"]
COPIED += ["healthCheckGracePeriodSeconds", "enableECSManagedTags", "enableExecuteCommand", "availabilityZoneRebalancing", "propagateTags"]
COPIED += ["volumeConfigurations", "tags"]


@dataclass
class Rollout:
    """The options of the command line, and the ARN of the task definition once it is registered."""

    facts: Facts
    in_place: bool = False
    drop: Sequence[str] = ()
    accept: Sequence[str] = ()
    registered: str = ""

    def __post_init__(self) -> None:
        self.settings = self.facts.settings

    @property
    def slot(self) -> Slot:
        """The slot of the new tasks."""
        return self.facts.live if self.in_place else self.facts.idle

    @property
    def tasks(self) -> int:
        """How many tasks the service is to run: as many as the live one, but beside it only one without a fleet."""
        return int(self.facts.present["desiredCount"]) if self.in_place or self.settings.fleet_directory else 1

    def number(self) -> str:
        """The plan's number: a hash of what AWS has, of the command line, and of the task definition made from both."""
        what = [self.facts.state(), vars(self.settings), self.in_place, self.drop, self.accept, self.definition]
        return hashlib.sha256(json.dumps(what, default=str, sort_keys=True).encode()).hexdigest()[:12]

    def unfinished(self) -> bool:
        """Whether a rollout was begun and not finished. If somebody has changed the service since, it no longer counts."""
        if (record := state.record(self.facts)) is None or record["status"] != "applying":
            return False
        present = (self.facts.present["taskDefinition"], container(self.facts.revision, "envoy").get("image"))
        return not record["in_place"] or record["service"]["taskDefinition"] == present[0] or record["image"] == present[1]

    @cached_property
    def tag(self) -> str:
        return self.settings.image_tag or image.tag_of_commit()

    @property
    def reference(self) -> str:
        registry = f"{self.facts.identity['Account']}.dkr.ecr.{self.facts.name}.amazonaws.com{'.cn' * self.facts.name.startswith('cn-')}"
        return f"{registry}/{self.settings.repository}:{self.tag}"

    def pushed(self) -> bool:
        """Whether the registry has the image already."""
        absent, place = ("RepositoryNotFoundException", "ImageNotFoundException"), {"repositoryName": self.settings.repository}
        return self.facts.one("ecr", "describe_images", "imageDetails", *absent, **place, imageIds=[{"imageTag": self.tag}]) is not None

    @property
    def architecture(self) -> str:
        """The tasks' architecture, named as for images. X86_64 is the default of a task definition."""
        return {"X86_64": "amd64", "ARM64": "arm64"}[self.facts.revision.get("runtimePlatform", {}).get("cpuArchitecture", "X86_64")]

    @cached_property
    def template(self) -> Doc:
        s, f = self.settings, self.facts
        others = [each for each in f.revision["containerDefinitions"] if each["name"] not in (*task_definition.OURS, "par")]
        par = container(f.revision, "par")
        if not par:
            raise Stop("container par is missing", "check says what to do")
        values: dict[str, Any] = {name.upper(): value for name, value in vars(s).items()}
        values["TASK_ROLE_ID"] = f.task_role["RoleId"] if "dynamodb" in s.parts else ""
        values |= {f"{key.upper()}_ARN": secret["ARN"] for key, secret in f.secrets.items()}
        values |= {"LOAD_BALANCER_DNS": f.load_balancer["DNSName"], "ENVOY_IMAGE": self.reference, "PAR_IMAGE": s.par_image or par["image"]}
        values["PAR_CPU"] = s.task_cpu - s.envoy_cpu - sum(each.get("cpu", 0) for each in others)
        values["PAR_MEMORY_RESERVATION"] = s.task_memory - s.envoy_memory - sum(memory(each) for each in others)
        values |= {"PAR_STOP_TIMEOUT": STOP_TIMEOUT_LIMIT, "PAR_DRAIN_SECONDS": STOP_TIMEOUT_LIMIT - PAR_END_SECONDS}
        values["ENVOY_STOP_TIMEOUT"] = s.envoy_drain_seconds + STOP_MARGIN
        values |= {"FLEET": self.slot.service, "FLEET_CIDRS": ",".join(sorted({f.subnets[each]["CidrBlock"] for each in f.network["subnets"]}))}
        filled = task_definition.read(DEPLOY / "task-definition.json", s.parts, values)
        log = filled.pop("logConfiguration")
        for each in filled["containerDefinitions"]:
            each["logConfiguration"] = log | {"options": log["options"] | {"awslogs-stream-prefix": each["name"]}}
        return filled

    @cached_property
    def definition(self) -> Doc:
        laid = task_definition.overlay(self.facts.revision, self.template)
        return {key: value for key, value in laid.items() if key not in self.drop}

    @property
    def revision(self) -> str:
        """ARN of the revision to run: the family's newest if that is as wanted; empty if none is registered yet."""
        latest = None if self.registered else self.facts.definition(self.facts.revision["family"])
        return str(latest["taskDefinitionArn"]) if latest and not task_definition.changes(latest, self.definition) else self.registered

    def steps(self) -> list[Step]:
        """The listeners come before the service: ECS rejects a target group that no load balancer uses."""
        names = ["repository", "image", "target_groups", "task_definition", "listeners", "service"]
        return [(name.replace("_", " "), getattr(self, name)) for name in names]

    def repository(self) -> Changes:
        found, api, scan = self.facts.repository or {}, self.facts.api("ecr"), {"scanOnPush": True}
        name: Doc = {"repositoryName": self.settings.repository}
        immutable: Doc = {"imageTagMutability": "IMMUTABLE"}
        if not found:
            create = partial(api.create_repository, **name, **immutable, imageScanningConfiguration=scan)
            yield [f"create {self.settings.repository} with scan on push and immutable tags"], create
        elif lines := difference(self.settings.repository, found, immutable):
            yield lines, partial(api.put_image_tag_mutability, **name, **immutable)

    def image(self) -> Changes:
        def push() -> None:
            image.push(self.facts.api("ecr"), self.reference, self.tag, self.architecture)
            self.facts.forget()
            if not self.pushed():
                raise Stop(f"{self.reference} was pushed, and the repository does not list it", "run apply again")

        if not self.pushed():
            yield [f"build and push {self.reference} for linux/{self.architecture}"], push

    def target_groups(self) -> Changes:
        f, slot, api = self.facts, self.slot, self.facts.api("elbv2")
        model: Doc = f.target_group(f.live.rest) or {}
        if f.target_group(slot.rest) is None:
            same = {key: model[key] for key in ("Protocol", "Port", "VpcId", "TargetType", "ProtocolVersion", "Matcher") if key in model}
            same |= {key: value for key, value in model.items() if key.startswith("Health") and key != "HealthCheckEnabled"}
            yield [f"create {slot.rest} like {f.live.rest}"], partial(api.create_target_group, Name=slot.rest, **same)
        group = f.target_group(slot.a2a)
        if group is None:
            fixed = {"Name": slot.a2a, "Protocol": "TCP", "Port": A2A_PORT, "VpcId": model["VpcId"], "TargetType": "ip"}
            yield [f"create {slot.a2a}"], partial(api.create_target_group, **fixed, **health_check(self.definition))
        else:
            yield from check_health(f, slot.a2a, self.definition)
        # One task serves all zones of the load balancer. The end of the delay closes no connection: PAR and Envoy drain open ones.
        wanted = {"deregistration_delay.timeout_seconds": str(self.settings.deregistration_seconds)}
        wanted |= {"deregistration_delay.connection_termination.enabled": "false", "load_balancing.cross_zone.enabled": "true"}
        pairs = [{"Key": key, "Value": value} for key, value in wanted.items()]
        if lines := difference(slot.a2a, f.attributes(group["TargetGroupArn"]) if group else {}, wanted):
            yield lines, lambda: api.modify_target_group_attributes(TargetGroupArn=f.group_arn(slot.a2a), Attributes=pairs)

    def task_definition(self) -> Changes:
        def register() -> None:
            self.registered = self.facts.api("ecs").register_task_definition(**self.definition)["taskDefinition"]["taskDefinitionArn"]
            say(f"  registered {short(self.registered)}")

        if not self.revision:
            lines = [f"  {line}" for line in task_definition.changes(self.facts.revision, self.definition)]
            yield [f"register a revision; against {short(self.facts.present['taskDefinition'])}, which runs:", *lines], register

    def listeners(self) -> Changes:
        """The listener on 50051, or test listeners for the second service."""
        f, slot = self.facts, self.slot
        yield from lead(f, f.balancer, A2A_PORT, [slot.a2a], wanted=form.wanted(f)) if self.in_place else test_listeners(f, slot, f.live.rest)

    def service(self) -> Changes:
        f, slot, found = self.facts, self.slot, self.facts.service(self.slot.service)

        def create() -> None:
            arguments: Doc = {key: f.present[key] for key in COPIED if f.present.get(key)}
            # ECS returns bakeTimeInMinutes for every service, but accepts it only for other strategies.
            arguments["deploymentConfiguration"] = {k: v for k, v in arguments["deploymentConfiguration"].items() if k != "bakeTimeInMinutes"}
            arguments |= {"cluster": f.settings.cluster, "serviceName": slot.service, "taskDefinition": self.revision, "desiredCount": self.tasks}
            follow(f, slot.service, f.api("ecs").create_service(**arguments, loadBalancers=targets(f, slot, None))["service"])

        if found is None:
            yield [f"create {slot.service} with {count(self.tasks, 'task')} of {short(self.revision) or 'the new revision'}"], create
        else:
            yield from update(f, slot.service, self.revision, targets(f, slot, found), self.tasks)


def lead(f: Facts, balancer: str, port: int, to: list[str], like: Doc | None = None, wanted: Doc | None = None) -> Changes:
    """Leads a port of a load balancer to the target groups `to`; if there are none, it has no listener. A new listener has the form `like`.
    With `wanted` it has that form, be it new or not."""
    present, api = f.listener(port, balancer), f.api("elbv2")

    def act() -> None:
        actions = [{"Type": "forward", "TargetGroupArn": f.group_arn(name)} for name in to]
        if present and to:
            api.modify_listener(ListenerArn=present["ListenerArn"], DefaultActions=actions, **(wanted or {}))
        elif present:
            api.delete_listener(ListenerArn=present["ListenerArn"])
        else:
            api.create_listener(LoadBalancerArn=balancer, Port=port, DefaultActions=actions, **(wanted or like or {"Protocol": "TCP"}))

    def shown(there: bool, names: list[str], spoken: Doc | None) -> str:
        return f"{f'{form.shown(spoken)} to ' if spoken and wanted else ''}{', '.join(names)}" if there else "(no listener)"

    before, after = shown(bool(present), leads(present), form.spoken(present)), shown(bool(to), to, wanted)
    if before != after:
        yield [f"{short(balancer)}, port {port}: {before} -> {after}"], act


def test_listeners(f: Facts, slot: Slot, like: str, envoy: bool = True) -> Changes:
    """Leads the test listeners to the task that clients do not reach, and to its PAR on each load balancer that leads to `like`."""
    yield from lead(f, f.balancer, f.settings.test_port, [slot.a2a], wanted=form.wanted(f)) if envoy else []
    for balancer, route in {each["LoadBalancerArn"]: each for each in f.routes(like)}.items():
        yield from lead(f, balancer, f.settings.rest_test_port, [slot.rest], form.spoken(route))


def targets(f: Facts, slot: Slot, service: Doc | None) -> list[Doc]:
    """The service's target groups: ours, and others that it has already."""
    ours = []
    for name, part, port in ((slot.rest, "par", REST_PORT), (slot.a2a, "envoy", A2A_PORT)):
        arn = (f.target_group(name) or {}).get("TargetGroupArn", f":targetgroup/{name}/")
        ours.append({"targetGroupArn": arn, "containerName": part, "containerPort": port})
    arns = [each["targetGroupArn"] for each in ours]
    return [each for each in (service or {}).get("loadBalancers", []) if each["targetGroupArn"] not in arns] + ours


def update(f: Facts, name: str, revision: str, wanted: list[Doc], tasks: int) -> Changes:
    """Brings a service to a revision and its target groups. If ECS has given up its deployment, it is restarted."""
    found = f.service(name) or {}
    present = found["loadBalancers"]
    old, new = ({f"{x['containerName']}:{x['containerPort']} in {short(x['targetGroupArn'])}" for x in some} for some in (present, wanted))
    goal = {"taskDefinition": short(revision) or "the new revision", "desiredCount": tasks}
    lines = difference(name, found | {"taskDefinition": short(found["taskDefinition"])}, goal)
    lines += [f"{name}.loadBalancers: (none) -> {each}" for each in sorted(new - old)]
    lines += [f"{name}.loadBalancers: {each} -> (none)" for each in sorted(old - new)]
    failed = any(each["status"] == "PRIMARY" and each.get("rolloutState") == "FAILED" for each in found["deployments"])

    def act() -> None:
        arguments: Doc = {"cluster": f.settings.cluster, "service": name, "taskDefinition": revision, "desiredCount": tasks}
        follow(f, name, f.api("ecs").update_service(**arguments, loadBalancers=wanted, forceNewDeployment=True)["service"])

    if lines or failed:
        yield lines or [f"{name}: restart the deployment that failed"], act


def sets(definition: Doc, variable: str) -> bool:
    """Whether Envoy's container has the variable. An empty one counts as not set."""
    return any(each["name"] == variable and each.get("value") for each in container(definition, "envoy").get("environment", []))


def health_check(definition: Doc) -> Doc:
    """How the load balancer checks tasks of this definition."""
    return FLEET_HEALTH_CHECK if sets(definition, "PIXELL_FLEET_CIDRS") else HEALTH_CHECK


def check_health(f: Facts, group: str, definition: Doc) -> Changes:
    wanted = health_check(definition)
    if lines := difference(group, f.target_group(group) or {}, wanted):
        yield lines, lambda: f.api("elbv2").modify_target_group(TargetGroupArn=f.group_arn(group), **wanted)


def memory(definition: Doc) -> int:
    """A container's share of the task's memory, in MiB."""
    return int(definition.get("memoryReservation") or definition.get("memory") or 0)
