"""Checks of the service, of its revision, and of what its tasks need."""

import re
from datetime import UTC, datetime, timedelta
from math import ceil

from . import image
from .checks import Checks, Found, bad, note, ok
from .facts import short
from .rollout import memory
from .say import count
from .settings import A2A_PORT, ADMIN_PORT, PEER_PORT, ROOT
from .task_definition import container

# MiB for CPU units. https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html#fargate-tasks-size
SIZES = {256: [512, 1024, 2048], 512: range(1024, 4097, 1024), 1024: range(2048, 8193, 1024), 2048: range(4096, 16385, 1024)}
SIZES |= {4096: range(8192, 30721, 1024), 8192: range(16384, 61441, 4096), 16384: range(32768, 122881, 8192)}
# An image of PAR that pushes routes has this label (clients/python/README.md).
LABEL = "ai.pixell.envoy.routes"
# And this one if it runs pixell_envoy.fleet (docs/deploy.md).
FLEET_LABEL = "ai.pixell.envoy.fleet"
STOPS = "which replaces tasks, whose agents stop"


class Ecs(Checks):
    def service(self) -> Found:
        s, name = self.f.present, self.f.live.service
        platform, controller = s.get("platformVersion", "LATEST"), s.get("deploymentController", {}).get("type", "ECS")
        capacity = {each["capacityProvider"] for each in s.get("capacityProviderStrategy", [])} or {s.get("launchType", "EC2")}
        strategy = s["deploymentConfiguration"].get("strategy", "ROLLING")
        yield bad(s["status"] != "ACTIVE", f"{name} is {s['status']}", "check service in the settings")
        yield bad(capacity - {"FARGATE", "FARGATE_SPOT"}, f"{name} runs on {', '.join(capacity)}", f"move it to Fargate, {STOPS}")
        yield bad(controller != "ECS", f"{name} is deployed by {controller}", "make a service that ECS deploys; PAC deploys all agents to it")
        yield bad(strategy != "ROLLING", f"ECS moves the listeners of {name} itself (strategy {strategy})", "set the strategy ROLLING")
        old = platform in ("1.0.0", "1.1.0", "1.2.0", "1.3.0")
        yield bad(old, f"platform version {platform} knows no restart policy", f"aws ecs update-service --platform-version LATEST, {STOPS}")
        if self.r.unfinished():
            yield note("a rollout is unfinished: apply continues it, rollback undoes it")
        else:
            # A rollback returns to what runs now, so that must work.
            states = [each.get("rolloutState", "COMPLETED") for each in s["deployments"]]
            yield bad("FAILED" in states[:1], f"the present deployment of {name} has failed", f"bring it to a revision that works, {STOPS}")
            yield bad(len(states) > 1 or "IN_PROGRESS" in states, f"a deployment of {name} is in progress", "wait until it ends")
            counts = f"{s['runningCount']} of {s['desiredCount']} tasks of {name} run"
            yield bad(not s["desiredCount"] <= s["runningCount"] > 0, counts, "see its events")
        yield ok(f"{name} is ACTIVE on Fargate ({platform}), {s['runningCount']} of {s['desiredCount']} running, ECS rolling update")

    def tasks(self) -> Found:
        if self.s.fleet_directory:
            yield ok(f"{count(self.r.tasks, 'task')} in a fleet: each of them serves every agent")
            return
        most = max([self.f.present["desiredCount"], *(each["MaxCapacity"] for each in self.f.scaling)])
        text = f"{most} tasks without a fleet: the load balancer picks one for each connection, and a task without the agent responds NOT_FOUND"
        fix = "set desired count and autoscaling's maximum to 1 (the other tasks' agents stop), or set fleet_directory"
        yield bad(most > 1, text, fix)
        yield ok("1 task: it has every agent")

    def replacement(self) -> Found:
        """Percentages of the desired count: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html"""
        c, tasks = self.f.present["deploymentConfiguration"], self.f.present["desiredCount"]
        fix = "minimumHealthyPercent=100,maximumPercent=200; no agent stops"
        low, high = c.get("minimumHealthyPercent", 100), c.get("maximumPercent", 200)
        least, most = ceil(tasks * low / 100), tasks * high // 100
        if self.r.in_place:
            yield bad(least >= most, f"{low}/{high} % of {tasks} tasks: ECS may neither stop an old task nor start a new one", fix)
            text = f"{low}/{high} %: ECS may stop every old task first, and then nothing responds until a new task is healthy"
            yield bad(least < 1 <= most, text, fix)
            if not c.get("deploymentCircuitBreaker", {}).get("enable"):
                yield note("no circuit breaker: ECS retries a revision that does not start for hours; apply stops waiting and says so")
            yield ok(f"{low}/{high} %: ECS starts a new task before it stops an old one")
        else:
            yield ok("the new task runs beside the present ones; the live service is not touched")

    def present_revision(self) -> Found:
        d, name = self.f.revision, short(self.f.revision["taskDefinitionArn"])
        yield bad(not container(d, "par"), f"{name} has no container par", f"deploy PAR as container par, {STOPS}")
        yield bad(not d.get("executionRoleArn"), f"{name} has no execution role: a task gets no secret", f"deploy PAR with one, {STOPS}")
        if d["status"] == "INACTIVE":
            text = f"{name} is INACTIVE: ECS cannot return to it"
            yield bad(self.r.in_place, text, f"deploy a copy of it as a new revision first, {STOPS}") or note(f"{text}; its running tasks stay")
        mesh = "proxyConfiguration" in d and "proxyConfiguration" not in self.r.drop
        text = f"{name} has an App Mesh proxyConfiguration, which would send the task's traffic into our Envoy"
        yield bad(mesh, text, "pass --drop proxyConfiguration once no client reaches PAR through the mesh")
        yield ok(f"{name} with {', '.join(each['name'] for each in d['containerDefinitions'])}")

    def task_definition(self) -> Found:
        d, s, parts = self.r.definition, self.s, self.r.definition["containerDefinitions"]
        cpu, size, par, envoy = int(d["cpu"]), int(d["memory"]), container(d, "par"), container(d, "envoy")
        cpus, sizes, fitting = sum(each.get("cpu", 0) for each in parts), sum(memory(each) for each in parts), SIZES.get(cpu, [])
        yield bad(size not in fitting, f"Fargate has no task of {cpu} CPU units and {size} MiB", f"one of {list(fitting) or list(SIZES)}")
        text = f"containers need {cpus} of {cpu} CPU units and {sizes} of {size} MiB, of which PAR gets {par['cpu']} and {memory(par)}"
        over = cpus > cpu or sizes > size or par["cpu"] < 256 or memory(par) < 512
        yield bad(over, text, "raise task_cpu and task_memory, or lower envoy_cpu and envoy_memory")
        router = next(each["value"] for each in par["environment"] if each["name"] == "A2A_PORT")
        ports = {str(port) for port in (A2A_PORT, ADMIN_PORT, PEER_PORT, *(each["containerPort"] for each in envoy["portMappings"]))}
        yield bad(router in ports, f"A2A_PORT is {router}, Envoy's port: PAR's router cannot bind it", "set A2A_PORT to 50052")
        for port in set(re.findall(r'"fallback_port":\s*(\d+)', (ROOT / "envoy/envoy.yaml").read_text())) - {router}:
            text = f"fallback_port is {port}, but PAR's router listens on {router}: ids without a route would reach another agent"
            yield bad(True, text, f"set fallback_port to {router} in envoy/envoy.yaml, or remove it")
        least, delay = s.max_connection_seconds * 6 // 5 + 30, f"deregistration_seconds is {s.deregistration_seconds}"
        fix = f"set at least {least}: max_connection_seconds, a fifth more, and 30 s for requests"
        yield bad(s.deregistration_seconds < least, f"{delay}: PAR rejects requests before clients have left its task", fix)
        yield ok(f"{cpu} CPU units, {size} MiB, of which PAR gets {par['cpu']} and {memory(par)}; A2A_PORT {router}")

    def images(self) -> Found:
        runs = self.r.architecture
        for name, reference in [(each["name"], each["image"]) for each in self.r.definition["containerDefinitions"]]:
            if name == "envoy" and not self.r.pushed():
                yield ok(f"envoy: {reference} is not pushed yet")
                continue
            kinds, labels = image.inspect(self.f, reference)
            text = f"{name}: {reference} is for {', '.join(kinds)}, the tasks run on {runs}"
            yield bad(kinds and runs not in kinds, text, f"build it for linux/{runs}, which runtimePlatform names")
            yield ok(f"{name}: {reference}") if kinds else note(f"{name}: whether {reference} runs on {runs} cannot be read")
            if name == "par" and LABEL not in labels:
                text = f"{reference} does not say that it pushes routes (label {LABEL}): if it does not, every request is rejected"
                fix = "add the lines of clients/python/README.md and the label; or --accept images"
                yield bad(self.r.in_place, text, fix) or note(f"{text}. verify --test shows it before a client reaches the task")
            if name == "par" and self.s.fleet_directory and FLEET_LABEL not in labels:
                text = f"{reference} does not say that it joins a fleet (label {FLEET_LABEL}): if it does not, no task passes the health check"
                yield bad(True, text, "add the lines of docs/deploy/fleet.md and the label; or --accept images")

    def needs(self) -> Found:
        f, s = self.f, self.s
        for name in [each["Name"] for each in f.secrets.values() if each.get("DeletedDate")]:
            yield bad(True, f"secret {name} is marked for deletion", "aws secretsmanager restore-secret")
        groups = [each["logGroupName"] for each in f.all("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=s.log_group)]
        make = f"aws logs create-log-group --log-group-name {s.log_group}"
        yield bad(s.log_group not in groups, f"log group {s.log_group} does not exist", make)
        yield ok(f"{', '.join(f.secrets)} and log group exist")

    def permissions(self) -> Found:
        """What ECS does with the execution role for every container of the new definition, also for those that are not ours. IAM's simulator does
        not evaluate policies of resources and VPC endpoints, nor conditions whose value it is not given.
        https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_testing-policies.html"""
        f, role, wanted = self.f, self.f.revision.get("executionRoleArn"), {("ecr:GetAuthorizationToken", "*")}
        if not role:
            yield note("without an execution role there is nothing to ask: see present revision")
            return
        partition, here = role.split(":")[1], f"{f.name}:{f.identity['Account']}"
        for each in self.r.definition["containerDefinitions"]:
            for arn in [secret["valueFrom"] for secret in each.get("secrets", [])]:
                # A name alone is one of Systems Manager. What follows a secret's ARN names a key or a version in it.
                full = arn if arn.startswith("arn:") else f"arn:{partition}:ssm:{here}:parameter/{arn.lstrip('/')}"
                action = "secretsmanager:GetSecretValue" if ":secretsmanager:" in full else "ssm:GetParameters"
                wanted.add((action, ":".join(full.split(":")[:7])))
            if place := image.ECR.fullmatch(each["image"]):
                arn = f"arn:{partition}:ecr:{place['region']}:{place['account']}:repository/{place['name']}"
                wanted |= {(f"ecr:{action}", arn) for action in ("BatchCheckLayerAvailability", "GetDownloadUrlForLayer", "BatchGetImage")}
            if group := each.get("logConfiguration", {}).get("options", {}).get("awslogs-group"):
                arn = f"arn:{partition}:logs:{here}:log-group:{group}:log-stream:any"
                wanted |= {("logs:CreateLogStream", arn), ("logs:PutLogEvents", arn)}
        for action, arn in sorted(wanted):
            call = {"PolicySourceArn": role, "ActionNames": [action], "ResourceArns": [arn]}
            for result in f.all("iam", "simulate_principal_policy", "EvaluationResults", **call):
                text, missing = f"{short(role)} may not {action} on {arn} ({result['EvalDecision']})", result.get("MissingContextValues")
                if result["EvalDecision"] != "allowed" and missing:
                    yield note(f"{text}, if {', '.join(missing)} does not allow it")
                elif result["EvalDecision"] != "allowed":
                    yield bad(True, text, "aws iam put-role-policy; or --accept permissions if the resource's own policy allows it")
        for key, secret in [(each["KmsKeyId"], each["Name"]) for each in f.secrets.values() if each.get("KmsKeyId")]:
            yield note(f"{secret} is encrypted with {key}: the execution role also needs kms:Decrypt on it")
        yield ok(f"{short(role)} may {', '.join(sorted({action for action, _ in wanted}))}")

    def quotas(self) -> Found:
        """vCPU of all the account's tasks on Fargate: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html"""
        code, now = {"ServiceCode": "fargate", "QuotaCode": "L-3032A538"}, datetime.now(UTC)
        quota = self.f.all("service-quotas", "get_service_quota", "Quota", **code)[0]
        metric = quota["UsageMetric"]
        name = {"Namespace": metric["MetricNamespace"], "MetricName": metric["MetricName"]}
        name["Dimensions"] = [{"Name": key, "Value": value} for key, value in metric["MetricDimensions"].items()]
        span = {"StartTime": now - timedelta(minutes=30), "EndTime": now, "Period": 300, "Statistics": ["Maximum"]}
        used = max([0.0, *(each["Maximum"] for each in self.f.all("cloudwatch", "get_metric_statistics", "Datapoints", **name, **span))])
        more = self.s.task_cpu / 1024 * max(1, self.r.tasks)
        text = f"Fargate: {used:g} of {quota['Value']:g} vCPU used, {more:g} more are needed"
        fix = f"aws service-quotas request-service-quota-increase --service-code fargate --quota-code {code['QuotaCode']}"
        yield bad(used + more > quota["Value"], text, fix) or ok(text)
