"""An AWS account as the rollout finds it, in moto. This file imitates what moto lacks, checked against botocore's model of each call."""

import copy
import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator
from moto.backends import get_backend
from moto.elbv2.models import elbv2_backends

from pixell_envoy_deploy.aws import Doc, client
from pixell_envoy_deploy.settings import Settings

REGION, ACCOUNT = "us-east-2", "123456789012"
PAR_IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/par:7"
FAMILY, TASK_ROLE = "pixell-runtime-multi-agent", "pixell-runtime-task-role"
ROLES = {f"{kind}RoleArn": f"arn:aws:iam::{ACCOUNT}:role/pixell-runtime-{kind}-role" for kind in ("execution", "task")}
PORTS = [{"containerPort": 8080, "name": "rest"}, {"containerPort": 50051, "name": "a2a", "appProtocol": "grpc"}]
VARIABLES = [{"name": "OWN", "value": "stays"}, {"name": "PIXELL_ADMIN_TOKEN", "value": "leaks"}, {"name": "A2A_PORT", "value": "50051"}]
PAR: Doc = {"name": "par", "image": PAR_IMAGE, "essential": True, "memory": 4096, "portMappings": PORTS, "environment": VARIABLES}
QUOTA = {"Value": 100.0, "UsageMetric": {"MetricNamespace": "AWS/Usage", "MetricName": "ResourceCount", "MetricDimensions": {"Service": "Fargate"}}}
# Moto's backends that hold what is there before the rollout, and those that are empty before it.
BACKENDS, FRESH = ["ec2", "elbv2", "iam", "logs", "secretsmanager", "ecs", "servicediscovery"], ["ecr", "ssm", "cloudformation", "sns", "dynamodb"]
SCALED: Doc = {"ServiceNamespace": "ecs", "ResourceId": "x", "ScalableDimension": "ecs:service:DesiredCount", "RoleARN": "x", "CreationTime": 0}
SCALED |= {"MinCapacity": 1, "MaxCapacity": 3}
READS = ("Describe", "List", "Simulate", "GetP", "GetR", "GetC", "GetS", "GetM", "GetD", "BatchGet")
# Fields that ECS returns for a deployment and not for its service.
INSIDE = ("serviceConnectConfiguration", "volumeConfigurations")
BUILT, SEEN = Doc(), Doc()


def error(code: str, text: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": text}}, "Operation")


class Account:
    """Every call goes through `call`, which counts it, can make it fail (`fail`), and can respond to it (`responses`)."""

    def __init__(self, settings: Settings, patch: pytest.MonkeyPatch) -> None:
        self.s, self.seen, self.services, self.number, real = settings, SEEN, dict[str, Doc](), 0, BaseClient._make_api_call
        patch.setattr(BaseClient, "_make_api_call", lambda of, name, given: self.call(of, name, given, partial(real, of, name, given)))
        self.reset()

    def reset(self) -> None:
        """The account before the rollout. It is built once, then each test gets a copy of moto's state, which keeps moto's backend objects."""
        # Changes of what moto returns: by a call's name, a text that occurs in the item, and the changes.
        self.edits = dict[str, tuple[str, Doc]]()
        self.calls, self.fail = Counter[str](), dict[str, Callable[[Doc], Exception | None]]()
        ecs = ["CreateService", "UpdateService", "DescribeServices", "ListTasks", "DescribeTasks"]
        self.responses: dict[str, Callable[[Doc], Any]] = {f"ecs.{name}": getattr(self, f"do_{name}") for name in ecs}
        self.responses |= {f"elbv2.{name}": getattr(self, f"do_{name}") for name in ("DescribeTargetHealth", "ModifyListener")}
        self.responses["iam.SimulatePrincipalPolicy"], self.forbidden = self.do_SimulatePrincipalPolicy, ("no service", Doc())
        self.responses["service-quotas.GetServiceQuota"] = lambda p: {"Quota": QUOTA}
        self.responses["ecr.BatchGetImage"] = lambda p: {"images": [{"imageManifest": json.dumps({"config": {"digest": "sha256:0"}})}]}
        self.responses["ecr.GetDownloadUrlForLayer"] = lambda p: {"downloadUrl": f"data:,{quote(json.dumps(self.config))}"}
        self.config: Doc = {"architecture": "amd64", "config": {"Labels": {"ai.pixell.envoy.routes": "1"}}}
        # What ECS does: the states of a deployment, one for each read; Envoy's and the targets' health; stopped tasks.
        self.progress: list[Any] = ["IN_PROGRESS", "COMPLETED"]
        self.envoy, self.target, self.stopped = "HEALTHY", "healthy", list[Doc]()
        backends = [get_backend(name)[ACCOUNT]["aws" if name == "iam" else REGION] for name in BACKENDS]
        itself = {id(each): each for each in backends}
        for name in FRESH:
            get_backend(name)[ACCOUNT][REGION].reset()
        if not BUILT:
            self.build()
            kept = {name: getattr(self, name) for name in ("services", "vpc", "group", "nlb", "alb", "rest", "a2a", "directory", "number")}
            BUILT.update(account=copy.deepcopy(kept), moto=copy.deepcopy([vars(each) for each in backends], itself.copy()))
        vars(self).update(copy.deepcopy(BUILT["account"]))
        for each, state in zip(backends, copy.deepcopy(BUILT["moto"], itself.copy()), strict=True):
            vars(each).clear()
            vars(each).update(state)
        self.seen, self.ahead = SEEN, list[Any]()
        self.calls.clear()

    def api(self, name: str) -> Any:
        return client(name, REGION)

    def call(self, caller: BaseClient, operation: str, arguments: Doc, real: Callable[[], Doc]) -> Any:
        name, model = f"{caller.meta.service_model.service_name}.{operation}", caller.meta.service_model.operation_model(operation)
        self.calls[name] += 1
        if name in self.fail and (raised := self.fail[name](arguments)):
            raise raised
        if not operation.startswith(READS):
            self.seen = {key: value for key, value in self.seen.items() if not key.startswith(name.partition(".")[0])}
        if name not in self.responses:
            response, (where, changes) = self.read(f"{name} {arguments}", real), self.edits.get(name, ("", {}))
            for each in [each for found in response.values() if changes and isinstance(found, list) for each in found]:
                each.update(changes if where in str(each) else {})
            return response
        result, validator = self.responses[name](arguments), ParamValidator()
        for document, shape in ((arguments, model.input_shape), (result, model.output_shape)):
            report = validator.validate(document, shape)
            assert not report.has_errors(), f"{name}: {report.generate_report()}"
        return result

    def read(self, call: str, real: Callable[[], Doc]) -> Doc:
        """Moto's response. A read is remembered until its service is changed, which saves most of the suite's time."""
        if not call.partition(".")[2].startswith(READS):
            return real()
        if call not in self.seen:
            self.seen[call] = real()
        return dict(copy.deepcopy(self.seen[call]))

    def changes(self) -> set[str]:
        """Calls that were made and change something, without docker's push."""
        return {name for name in self.calls if not name.split(".")[1].startswith(READS)} - {"ecr.PutImage"}

    # ------------------------------------------------------------ what is there before the rollout
    def build(self) -> None:
        s, ec2, elb, discovery = self.s, self.api("ec2"), self.api("elbv2"), self.api("servicediscovery")
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        nets = [{"VpcId": self.vpc, "CidrBlock": f"10.0.{n}.0/24", "AvailabilityZone": f"{REGION}{zone}"} for n, zone in ((1, "a"), (2, "b"))]
        subnets = [ec2.create_subnet(**net)["Subnet"]["SubnetId"] for net in nets]
        self.group = ec2.create_security_group(GroupName="tasks", Description="tasks", VpcId=self.vpc)["GroupId"]
        rule = {"IpProtocol": "tcp", "FromPort": 50051, "ToPort": 50051, "IpRanges": [{"CidrIp": "10.0.0.0/16"}]}
        ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[rule])
        kinds: list[Doc] = [{"Name": s.load_balancer, "Type": "network", "Scheme": "internal"}, {"Name": "par-alb"}]
        self.nlb, self.alb = (elb.create_load_balancer(**kind, Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"] for kind in kinds)
        self.rest, self.a2a = self.target_group(s.rest_target_group, "HTTP", 8080), self.target_group(s.a2a_target_group, "TCP", 50051)
        action = [{"Type": "forward", "TargetGroupArn": self.rest}]
        listener, condition = self.listen(self.alb, 80, self.rest, "HTTP"), [{"Field": "path-pattern", "Values": ["/deployments/*"]}]
        elb.create_rule(ListenerArn=listener, Priority=1, Conditions=condition, Actions=action)
        for role in ROLES.values():
            self.api("iam").create_role(RoleName=role.rpartition("/")[2], AssumeRolePolicyDocument="{}")
        self.api("logs").create_log_group(logGroupName=s.log_group)
        self.api("secretsmanager").create_secret(Name=s.admin_token_secret, SecretString="not-a-real-token")
        self.api("ecs").create_cluster(clusterName=s.cluster)
        self.register()
        network = {"awsvpcConfiguration": {"subnets": subnets, "securityGroups": [self.group]}}
        made: Doc = {"cluster": s.cluster, "serviceName": s.service, "taskDefinition": FAMILY, "desiredCount": 1, "launchType": "FARGATE"}
        made |= {"deploymentConfiguration": {"minimumHealthyPercent": 100, "maximumPercent": 200}, "networkConfiguration": network}
        targets = [{"targetGroupArn": self.rest, "containerName": "par", "containerPort": 8080}]
        self.api("ecs").create_service(**made, loadBalancers=targets)
        self.settle(s.service)
        self.services[s.service]["deploymentConfiguration"] |= {"strategy": "ROLLING", "bakeTimeInMinutes": 0}  # as ECS returns it
        discovery.create_http_namespace(Name=s.discovery_namespace)
        space = discovery.list_namespaces()["Namespaces"][0]["Id"]
        self.directory = discovery.create_service(Name=s.discovery_service, NamespaceId=space)["Service"]["Id"]
        self.agents({"agent-a": "10.0.1.1", "agent-b": "10.0.1.1", "elsewhere": "10.9.9.9"})

    def agents(self, at: dict[str, str]) -> None:
        for name, address in at.items():
            where = {"AWS_INSTANCE_IPV4": address}
            self.api("servicediscovery").register_instance(ServiceId=self.directory, InstanceId=name, Attributes=where)

    def register(self, par: Doc | None = None, *others: Doc, **fields: Any) -> None:
        """Registers a revision of the task family, which the service runs from then on. As in ECS, a field that is empty is not there."""
        base: Doc = {"family": FAMILY, "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "2048", "memory": "4096"}
        given = base | ROLES | {"containerDefinitions": [PAR | (par or {}), *others]} | fields
        arguments = {key: value for key, value in given.items() if value}
        found = self.api("ecs").register_task_definition(**arguments)["taskDefinition"]["taskDefinitionArn"]
        if self.services:
            self.services[self.s.service]["taskDefinition"] = found

    def target_group(self, name: str, protocol: str, port: int) -> str:
        fixed = {"Name": name, "Protocol": protocol, "Port": port, "VpcId": self.vpc, "TargetType": "ip"}
        check = {"HealthCheckProtocol": "HTTP", "HealthCheckPort": "8080", "HealthCheckPath": "/gone"}
        return str(self.api("elbv2").create_target_group(**fixed, **check)["TargetGroups"][0]["TargetGroupArn"])

    def listen(self, balancer: str, port: int, group: str, protocol: str = "TCP") -> str:
        actions = [{"Type": "forward", "TargetGroupArn": group}]
        made = self.api("elbv2").create_listener(LoadBalancerArn=balancer, Port=port, Protocol=protocol, DefaultActions=actions)
        return str(made["Listeners"][0]["ListenerArn"])

    def listener(self, port: int, balancer: str = "") -> Doc:
        """The listener on a port; empty if there is none."""
        found = self.api("elbv2").describe_listeners(LoadBalancerArn=balancer or self.nlb)["Listeners"]
        return next((each for each in found if each["Port"] == port), {})

    def green_group(self) -> Doc:
        """The A2A target group of the second service."""
        return dict(self.api("elbv2").describe_target_groups(Names=[f"{self.s.a2a_target_group}-green"])["TargetGroups"][0])

    def revision(self, service: str) -> Doc:
        """The task definition that a service runs."""
        name = self.services[service]["taskDefinition"]
        return dict(self.api("ecs").describe_task_definition(taskDefinition=name)["taskDefinition"])

    def leads(self, port: int, balancer: str = "") -> list[str]:
        """Names of the target groups that a port leads to."""
        action = self.listener(port, balancer).get("DefaultActions", [{}])[0]
        groups = action.get("ForwardConfig", {}).get("TargetGroups") or [action]
        return [each["TargetGroupArn"].split("/")[1] for each in groups if "TargetGroupArn" in each]

    # ------------------------------------------------------------ what moto lacks
    def do_CreateService(self, p: Doc) -> Doc:
        if "bakeTimeInMinutes" in p["deploymentConfiguration"]:
            raise error("InvalidParameterException", "bakeTimeInMinutes is for BLUE_GREEN")
        found = {key: value for key, value in p.items() if key not in ("cluster", *INSIDE)} | {"status": "ACTIVE", "deployments": []}
        self.services[p["serviceName"]] = found | {"events": [{"id": "1", "message": "has started 1 tasks."}]}
        return self.do_UpdateService(p | {"service": p["serviceName"]})

    def do_UpdateService(self, p: Doc) -> Doc:
        found, ecs, self.number = self.services[p["service"]], self.api("ecs"), self.number + 1
        for target in p.get("loadBalancers", []):
            group = self.api("elbv2").describe_target_groups(TargetGroupArns=[target["targetGroupArn"]])["TargetGroups"][0]
            if not group["LoadBalancerArns"]:
                raise error("InvalidParameterException", f"{group['TargetGroupName']} does not have an associated load balancer")
        revision = ecs.describe_task_definition(taskDefinition=p.get("taskDefinition", found["taskDefinition"]))["taskDefinition"]
        if revision["status"] != "ACTIVE":
            raise error("ClientException", "TaskDefinition is inactive")
        found |= {key: p[key] for key in ("loadBalancers", "desiredCount") if key in p} | {"taskDefinition": revision["taskDefinitionArn"]}
        for each in found["deployments"]:
            each["status"] = "ACTIVE"
        new: Doc = {"id": f"ecs-svc/{self.number}", "status": "PRIMARY", "taskDefinition": found["taskDefinition"], "rolloutState": "IN_PROGRESS"}
        new |= {"desiredCount": found["desiredCount"], "runningCount": 0, "pendingCount": found["desiredCount"], "failedTasks": 0}
        before = {**(found["deployments"] or [{}])[0], **p}
        found["deployments"].insert(0, new | {key: before[key] for key in INSIDE if key in before})
        found["runningCount"], self.ahead = found["desiredCount"], list(self.progress)
        return {"service": json.loads(json.dumps(found))}

    def do_DescribeServices(self, p: Doc) -> Doc:
        found = self.services.get(p["services"][0])
        if found and found["deployments"][0]["rolloutState"] == "IN_PROGRESS" and self.ahead:
            step = self.ahead.pop(0)
            if callable(step):
                step()
            elif step == "COMPLETED":
                self.settle(p["services"][0])
            else:
                found["deployments"][0] |= {"rolloutState": step, "rolloutStateReason": "tasks failed to start"}
        return {"services": [json.loads(json.dumps(found))] if found else []}

    def settle(self, name: str) -> None:
        found = self.services[name]
        del found["deployments"][1:]
        found["deployments"][0] |= {"rolloutState": "COMPLETED", "runningCount": found["desiredCount"], "pendingCount": 0}

    def do_ListTasks(self, p: Doc) -> Doc:
        count = len(self.stopped) if p["desiredStatus"] == "STOPPED" else self.services[p["serviceName"]]["runningCount"]
        return {"taskArns": [f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/{p['serviceName']}/{p['desiredStatus']}{n}" for n in range(count)]}

    def do_DescribeTasks(self, p: Doc) -> Doc:
        name = p["tasks"][0].split("/")[1]
        details = [{"name": "privateIPv4Address", "value": "10.0.2.1" if name.endswith("-green") else "10.0.1.1"}]
        task: Doc = {"attachments": [{"details": details}], "containers": [{"name": "envoy", "healthStatus": self.envoy}]}
        task["taskDefinitionArn"] = self.services[name]["taskDefinition"]
        return {"tasks": self.stopped if "STOPPED" in p["tasks"][0] else [task | {"taskArn": arn} for arn in p["tasks"]]}

    def do_DescribeTargetHealth(self, p: Doc) -> Doc:
        registered = [each for each in self.services.values() if p["TargetGroupArn"] in str(each["loadBalancers"]) and each["runningCount"]]
        at = [("10.0.2.1", f"{REGION}b") if each["serviceName"].endswith("-green") else ("10.0.1.1", f"{REGION}a") for each in registered]
        return {"TargetHealthDescriptions": [{"Target": {"Id": i, "AvailabilityZone": z}, "TargetHealth": {"State": self.target}} for i, z in at]}

    def do_ModifyListener(self, p: Doc) -> Doc:
        """Moto knows no TLS here, and leaves the target groups without the load balancer."""
        backend = elbv2_backends[ACCOUNT][REGION]
        found = backend.modify_listener(p["ListenerArn"], actions=p["DefaultActions"])
        if "Protocol" in p:
            found.protocol, found.ssl_policy, found.alpn_policy = p["Protocol"], p.get("SslPolicy"), p.get("AlpnPolicy", [])
            found.certificates = [each["CertificateArn"] for each in p.get("Certificates", [])]
        for action in p["DefaultActions"]:
            backend.target_groups[action["TargetGroupArn"]].load_balancer_arns.append(found.load_balancer_arn)
        return {}

    def do_SimulatePrincipalPolicy(self, p: Doc) -> Doc:
        """The policies that the role really has decide about the table. All else is allowed, but for the service of `forbidden`."""
        action, role = p["ActionNames"][0], get_backend("iam")[ACCOUNT]["aws"].get_role(p["PolicySourceArn"].rpartition("/")[2])
        decision = "implicitDeny" if action.startswith(("dynamodb:", self.forbidden[0])) else "allowed"
        given = {each["ContextKeyName"]: each["ContextKeyValues"] for each in p.get("ContextEntries", [])}
        statements = [statement for policy in role.policies.values() for statement in json.loads(policy)["Statement"]]
        for each in [statement for statement in statements if action in statement["Action"]]:
            keys = each.get("Condition", {}).get("ForAllValues:StringEquals", {}).get("dynamodb:LeadingKeys")
            own = [key.replace("${aws:userid}", given["aws:userid"][0]) for key in keys or given["dynamodb:LeadingKeys"]]
            if each["Resource"] in p["ResourceArns"] and set(given["dynamodb:LeadingKeys"]) <= set(own):
                decision = {"Allow": "allowed", "Deny": "explicitDeny"}[each["Effect"]]
        return {"EvaluationResults": [{"EvalActionName": action, "EvalDecision": decision, **self.forbidden[1]}]}

    def forbid(self, service: str, **more: Any) -> None:
        self.forbidden = service, more
