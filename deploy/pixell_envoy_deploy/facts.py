"""Facts: what AWS has now. Each is looked up by its name at its first use, and raises there if AWS does not tell it."""

from dataclasses import dataclass

from .aws import Doc, Region
from .say import need
from .settings import A2A_PORT, Settings

# Fields of a service that change by themselves.
PASSING = {"currentServiceDeployment", "currentServiceRevisions", "deployments", "events", "pendingCount", "runningCount"}


@dataclass(frozen=True)
class Slot:
    """A service with its two target groups. There are two slots: the one that clients reach, and the one of the next rollout."""

    service: str
    a2a: str
    rest: str


class Facts(Region):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.region)
        self.settings, s = settings, settings
        self.blue = Slot(s.service, s.a2a_target_group, s.rest_target_group)
        self.green = Slot(f"{s.service}-green", f"{s.a2a_target_group}-green", f"{s.rest_target_group}-green")

    @property
    def identity(self) -> Doc:
        return self.one("sts", "get_caller_identity", "") or {}

    @property
    def live(self) -> Slot:
        """The slot that the listener on 50051 leads to; the first service's if there is no listener."""
        return self.green if leads(self.listener(A2A_PORT)) == [self.green.a2a] else self.blue

    @property
    def idle(self) -> Slot:
        return self.green if self.live == self.blue else self.blue

    def service(self, name: str) -> Doc | None:
        """None also for a service that was deleted. Fields that ECS has only in the present deployment are added."""
        absent, where = ("ServiceNotFoundException", "ClusterNotFoundException"), {"cluster": self.settings.cluster, "services": [name]}
        found = self.one("ecs", "describe_services", "services", *absent, **where, include=["TAGS"])
        primary: Doc = next((each for each in (found or {}).get("deployments", []) if each["status"] == "PRIMARY"), {})
        inside = {key: primary[key] for key in ("serviceConnectConfiguration", "volumeConfigurations", "vpcLatticeConfigurations") if key in primary}
        return found | inside if found and found["status"] != "INACTIVE" else None

    @property
    def present(self) -> Doc:
        """The live service."""
        text = f"service {self.live.service} does not exist in {self.settings.cluster}"
        return need(self.service(self.live.service), text, "check service, cluster and region in the settings")

    def definition(self, name: str) -> Doc | None:
        """A revision with its tags. ClientException is ECS's code for one that does not exist."""
        found = self.one("ecs", "describe_task_definition", "taskDefinition", "ClientException", taskDefinition=name)
        return found and dict(found, tags=self.all("ecs", "list_tags_for_resource", "tags", resourceArn=found["taskDefinitionArn"]))

    @property
    def revision(self) -> Doc:
        name = self.present["taskDefinition"]
        return need(self.definition(name), f"{name} does not exist", "update the service to a revision that exists")

    def tasks(self, service: str, status: str = "RUNNING") -> list[Doc]:
        place: Doc = {"cluster": self.settings.cluster}
        arns = self.all("ecs", "list_tasks", "taskArns", **place, serviceName=service, desiredStatus=status)
        hundreds = [arns[start : start + 100] for start in range(0, len(arns), 100)]
        return [task for some in hundreds for task in self.all("ecs", "describe_tasks", "tasks", **place, tasks=some)]

    @property
    def scaling(self) -> list[Doc]:
        ids = [f"service/{self.settings.cluster}/{self.live.service}"]
        return self.all("application-autoscaling", "describe_scalable_targets", "ScalableTargets", ServiceNamespace="ecs", ResourceIds=ids)

    @property
    def agents(self) -> list[str] | None:
        """Deployment ids on the live tasks, as PAR registers them in Cloud Map; None if Cloud Map has no such service."""
        s, kind = self.settings, "servicediscovery"
        spaces = [each["Id"] for each in self.all(kind, "list_namespaces", "Namespaces") if each["Name"] == s.discovery_namespace]
        filters = [{"Name": "NAMESPACE_ID", "Values": [space], "Condition": "EQ"} for space in spaces[:1]]
        found = self.all(kind, "list_services", "Services", Filters=filters) if filters else []
        services = [each for each in found if each["Name"] == s.discovery_service]
        instances = [each for service in services for each in self.all(kind, "list_instances", "Instances", ServiceId=service["Id"])]
        ours = {address(task) for task in self.tasks(self.live.service)} if services else set()
        return sorted(each["Id"] for each in instances if each["Attributes"].get("AWS_INSTANCE_IPV4") in ours) if services else None

    @property
    def load_balancer(self) -> Doc:
        name = self.settings.load_balancer
        found = self.one("elbv2", "describe_load_balancers", "LoadBalancers", "LoadBalancerNotFound", Names=[name])
        return need(found, f"load balancer {name} does not exist", "check load_balancer and region in the settings")

    @property
    def balancer(self) -> str:
        return str(self.load_balancer["LoadBalancerArn"])

    def target_group(self, name: str) -> Doc | None:
        return self.one("elbv2", "describe_target_groups", "TargetGroups", "TargetGroupNotFound", Names=[name])

    def group_arn(self, name: str) -> str:
        return str(need(self.target_group(name), f"target group {name} does not exist", "check the settings")["TargetGroupArn"])

    def attributes(self, arn: str) -> dict[str, str]:
        """The attributes of a target group or of a load balancer."""
        kind, name = ("load_balancer", "LoadBalancerArn") if ":loadbalancer/" in arn else ("target_group", "TargetGroupArn")
        return {each["Key"]: each["Value"] for each in self.all("elbv2", f"describe_{kind}_attributes", "Attributes", **{name: arn})}

    def targets(self, name: str) -> list[Doc]:
        """Targets of a group that are not draining; none if there is no such group."""
        groups = [self.group_arn(name)] if self.target_group(name) else []
        found = [each for arn in groups for each in self.all("elbv2", "describe_target_health", "TargetHealthDescriptions", TargetGroupArn=arn)]
        return [each for each in found if "draining" not in each["TargetHealth"]["State"]]

    def listeners(self, balancer: str) -> list[Doc]:
        return self.all("elbv2", "describe_listeners", "Listeners", LoadBalancerArn=balancer)

    def listener(self, port: int, balancer: str = "") -> Doc | None:
        return next((each for each in self.listeners(balancer or self.balancer) if each["Port"] == port), None)

    def routes(self, name: str) -> list[Doc]:
        """Every listener and rule, of any load balancer, that forwards to this target group. All have `Actions`."""
        found, group = [], self.target_group(name) or {"LoadBalancerArns": []}
        for listener in [each for balancer in sorted(set(group["LoadBalancerArns"])) for each in self.listeners(balancer)]:
            arn = listener["ListenerArn"]
            rules = self.all("elbv2", "describe_rules", "Rules", ListenerArn=arn) if "/app/" in arn else []
            found += [listener | {"Actions": listener["DefaultActions"]}, *(listener | rule for rule in rules if not rule["IsDefault"])]
        return [each for each in found if name in leads(each)]

    @property
    def network(self) -> Doc:
        return dict(self.present["networkConfiguration"]["awsvpcConfiguration"])

    @property
    def subnets(self) -> dict[str, Doc]:
        """Subnets of the live service and of the load balancer, by their id."""
        ids = {*self.network["subnets"], *(zone["SubnetId"] for zone in self.load_balancer["AvailabilityZones"])}
        return {each["SubnetId"]: each for each in self.all("ec2", "describe_subnets", "Subnets", SubnetIds=sorted(ids))}

    @property
    def task_role(self) -> Doc:
        arn = self.revision.get("taskRoleArn")
        found = self.one("iam", "get_role", "Role", RoleName=short(arn)) if arn else None
        return need(found, "the present revision has no task role", "deploy one with it, which replaces tasks, whose agents stop")

    def secret(self, name: str) -> Doc:
        """A secret's description. The secret value is never read."""
        found = self.one("secretsmanager", "describe_secret", "", "ResourceNotFoundException", SecretId=name)
        made = "openssl rand -hex 32 | " * (name == self.settings.admin_token_secret)
        make = f"{made}aws secretsmanager create-secret --region {self.name} --name {name} --secret-string file:///dev/stdin"
        return need(found, f"secret {name} does not exist", make)

    @property
    def secrets(self) -> dict[str, Doc]:
        """Every secret that the tasks get, by its key in the settings."""
        s = self.settings
        wanted = {"admin_token_secret": True, "fleet_redis_password_secret": s.fleet_directory == "redis"}
        wanted["peer_certificate_secret"] = "peer_certificate_secret" in s.parts
        return {key: self.secret(getattr(s, key)) for key, used in wanted.items() if used}

    @property
    def repository(self) -> Doc | None:
        names, absent = [self.settings.repository], "RepositoryNotFoundException"
        return self.one("ecr", "describe_repositories", "repositories", absent, repositoryNames=names)

    def state(self) -> list[object]:
        """What a plan depends on, without what changes by itself (counts, events, times)."""
        state = [self.identity["Account"], self.load_balancer, self.repository, self.scaling, self.agents]
        for slot in (self.blue, self.green):
            service = self.service(slot.service) or {}
            state += [value for key, value in sorted(service.items()) if key not in PASSING]
            state += [each["id"] for each in service.get("deployments", []) if each["status"] == "PRIMARY"]
            groups = [group for name in (slot.a2a, slot.rest) if (group := self.target_group(name))]
            state += [(each, self.attributes(each["TargetGroupArn"]), self.routes(each["TargetGroupName"])) for each in groups]
        return [*state, self.listener(A2A_PORT), self.revision, self.definition(self.revision["family"])]


def leads(route: Doc | None) -> list[str]:
    """Names of the target groups that a listener or a rule forwards to, with any weight."""
    actions = (route or {}).get("Actions") or (route or {}).get("DefaultActions") or []
    groups = [each for action in actions for each in action.get("ForwardConfig", {}).get("TargetGroups") or [action]]
    return [short(each["TargetGroupArn"]) for each in groups if "TargetGroupArn" in each]


def address(task: Doc) -> str:
    """The task's private IPv4 address; empty if it has none yet."""
    details = [detail for attachment in task.get("attachments", []) for detail in attachment.get("details", [])]
    return next((detail["value"] for detail in details if detail["name"] == "privateIPv4Address"), "")


def short(arn: str) -> str:
    """The readable part of an ARN: `family:revision`, a task's id, the name of a target group or a load balancer."""
    return arn.split("/")[-2] if ":targetgroup/" in arn or ":loadbalancer/" in arn else arn.rsplit("/", 1)[-1]
