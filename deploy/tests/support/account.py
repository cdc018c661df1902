"""An AWS account as the rollout finds it: everything there but Envoy. Built through the API of moto's server."""

from __future__ import annotations

import json
from typing import Any

import boto3
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ecs.models import ecs_backends
from moto.moto_api._internal.models import moto_api_backend

from . import ecs_scheduler
from .names import REGION, SETTINGS

ACCOUNT = DEFAULT_ACCOUNT_ID

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
MAY_START = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": [
                "secretsmanager:GetSecretValue",
                "ecr:GetAuthorizationToken",
                "ecr:BatchCheckLayerAvailability",
                "ecr:GetDownloadUrlForLayer",
                "ecr:BatchGetImage",
                "logs:CreateLogStream",
                "logs:PutLogEvents",
            ],
            "Resource": "*",
        }
    ],
}
# The health check of the old plan: HTTP against PAR, at the path of a deployment that is long gone.
DEAD_PATH = "/agents/0b6f7c1e-5d0a-4b57-9a77-5f0f3cb1a001/health"


class Account:
    """The account, and the things in it that tests change."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        if service not in self.clients:
            self.clients[service] = boto3.client(
                service,
                region_name=REGION,
                endpoint_url=self.endpoint,
                aws_access_key_id="test",
                aws_secret_access_key="test",
            )
        return self.clients[service]

    def build(self) -> None:
        moto_api_backend.reset()
        self.build_network()
        self.build_load_balancing()
        self.build_roles()
        self.client("logs").create_log_group(logGroupName=SETTINGS["LOG_GROUP"])
        self.client("secretsmanager").create_secret(
            Name=SETTINGS["ADMIN_TOKEN_SECRET"], SecretString="not-a-real-token"
        )
        self.build_service()

    def build_network(self) -> None:
        ec2 = self.client("ec2")
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [
            ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=REGION + zone)[
                "Subnet"
            ]["SubnetId"]
            for number, zone in ((1, "a"), (2, "b"))
        ]
        self.task_group = self.security_group("pixell-runtime-tasks")
        self.nlb_group = self.security_group("pixell-runtime-nlb")
        self.let_in(self.task_group, 8080, "10.0.0.0/16")
        self.let_in(self.task_group, 50051, "10.0.1.0/24")
        self.let_in(self.task_group, 50051, "10.0.2.0/24")

    def security_group(self, name: str) -> str:
        group: str = self.client("ec2").create_security_group(GroupName=name, Description=name, VpcId=self.vpc)[
            "GroupId"
        ]
        return group

    def let_in(self, group: str, port: int, cidr: str) -> None:
        self.client("ec2").authorize_security_group_ingress(
            GroupId=group,
            IpPermissions=[{"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": cidr}]}],
        )

    def build_load_balancing(self) -> None:
        elb = self.client("elbv2")
        self.nlb = self.load_balancer(SETTINGS["LOAD_BALANCER"], "network")
        alb = self.load_balancer("par-multi-agent-alb", "application")
        self.rest = self.target_group(SETTINGS["REST_TARGET_GROUP"], "HTTP", 8080, HealthCheckPath="/health")
        self.a2a = self.target_group(
            SETTINGS["A2A_TARGET_GROUP"],
            "TCP",
            50051,
            HealthCheckProtocol="HTTP",
            HealthCheckPort="8080",
            HealthCheckPath=DEAD_PATH,
            HealthCheckIntervalSeconds=10,
            HealthCheckTimeoutSeconds=6,
            HealthyThresholdCount=3,
            UnhealthyThresholdCount=3,
        )
        elb.create_listener(
            LoadBalancerArn=alb,
            Protocol="HTTP",
            Port=80,
            DefaultActions=[{"Type": "forward", "TargetGroupArn": self.rest}],
        )

    def load_balancer(self, name: str, kind: str) -> str:
        arn: str = self.client("elbv2").create_load_balancer(
            Name=name, Type=kind, Scheme="internal", Subnets=self.subnets
        )["LoadBalancers"][0]["LoadBalancerArn"]
        return arn

    def target_group(self, name: str, protocol: str, port: int, **more: Any) -> str:
        arn: str = self.client("elbv2").create_target_group(
            **{"Name": name, "Protocol": protocol, "Port": port, "VpcId": self.vpc, "TargetType": "ip", **more}
        )["TargetGroups"][0]["TargetGroupArn"]
        return arn

    def build_roles(self) -> None:
        iam = self.client("iam")
        for name in (SETTINGS["EXECUTION_ROLE"], SETTINGS["TASK_ROLE"]):
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
        iam.put_role_policy(
            RoleName=SETTINGS["EXECUTION_ROLE"], PolicyName="start", PolicyDocument=json.dumps(MAY_START)
        )
        # moto's create-service-linked-role gives it another name than AWS does.
        iam.create_role(RoleName="AWSServiceRoleForECS", AssumeRolePolicyDocument=json.dumps(TRUST))

    def role_arn(self, name: str) -> str:
        arn: str = self.client("iam").get_role(RoleName=name)["Role"]["Arn"]
        return arn

    def build_service(self) -> None:
        ecs = self.client("ecs")
        ecs.create_cluster(clusterName=SETTINGS["CLUSTER"])
        # Ten revisions went before.
        self.first_revision = self.register_par("par-multi-agent:2.3.0")
        self.par_revision = self.register_par("par-multi-agent:2.4.1")
        ecs.create_service(
            cluster=SETTINGS["CLUSTER"],
            serviceName=SETTINGS["SERVICE"],
            taskDefinition=self.par_revision,
            desiredCount=2,
            launchType="FARGATE",
            loadBalancers=[{"targetGroupArn": self.rest, "containerName": "par", "containerPort": 8080}],
            networkConfiguration={
                "awsvpcConfiguration": {"subnets": self.subnets, "securityGroups": [self.task_group]}
            },
        )
        ecs_scheduler.settle(self.moto_service())

    def register_par(self, image: str, **more: Any) -> str:
        par = {
            "name": "par",
            "image": f"registry.example/{image}",
            "essential": True,
            "memory": int(SETTINGS["TASK_MEMORY"]),
            "portMappings": [{"containerPort": port, "protocol": "tcp"} for port in (8080, 50051)],
            "environment": [
                {"name": "RUNTIME_MODE", "value": "multi-agent"},
                {"name": "A2A_EXTERNAL_ENDPOINT", "value": "old.example:50051"},
                # A setting of PAR's own that this project knows nothing of.
                {"name": "PAR_BUCKET", "value": "par-packages"},
            ],
            "secrets": [{"name": "PAR_DATABASE_URL", "valueFrom": "par/database-url"}],
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {
                    "awslogs-group": SETTINGS["LOG_GROUP"],
                    "awslogs-region": REGION,
                    "awslogs-stream-prefix": "par",
                },
            },
        }
        arn: str = self.client("ecs").register_task_definition(
            family=SETTINGS["TASK_FAMILY"],
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            cpu=SETTINGS["TASK_CPU"],
            memory=SETTINGS["TASK_MEMORY"],
            executionRoleArn=self.role_arn(SETTINGS["EXECUTION_ROLE"]),
            taskRoleArn=self.role_arn(SETTINGS["TASK_ROLE"]),
            containerDefinitions=[{**par, **more}],
        )["taskDefinition"]["taskDefinitionArn"]
        return arn

    def deploy_par(self, revision: str) -> None:
        """What PAR's own deployment does: another revision, and nothing else of the service."""
        service = self.moto_service()
        service.task_definition = revision
        ecs_scheduler.settle(service)

    def moto_service(self) -> Any:
        return ecs_scheduler.the_service(ecs_backends[ACCOUNT][REGION])

    def certificate(self) -> str:
        arn: str = self.client("acm").request_certificate(DomainName="nlb.example")["CertificateArn"]
        return arn

    # What tests look at.

    def service(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client("ecs").describe_services(
            cluster=SETTINGS["CLUSTER"], services=[SETTINGS["SERVICE"]]
        )["services"][0]
        return found

    def service_targets(self) -> set[tuple[str, int, str]]:
        return {
            (item["containerName"], item["containerPort"], item["targetGroupArn"])
            for item in self.service()["loadBalancers"]
        }

    def revision(self) -> dict[str, Any]:
        """The task definition that the service runs."""
        found: dict[str, Any] = self.client("ecs").describe_task_definition(
            taskDefinition=self.service()["taskDefinition"]
        )["taskDefinition"]
        return found

    def a2a_group(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client("elbv2").describe_target_groups(TargetGroupArns=[self.a2a])["TargetGroups"][
            0
        ]
        return found

    def listeners(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client("elbv2").describe_listeners(LoadBalancerArn=self.nlb)["Listeners"]
        return found

    def record(self) -> dict[str, Any] | None:
        ssm = self.client("ssm")
        try:
            found: dict[str, Any] = json.loads(
                ssm.get_parameter(Name=SETTINGS["RECORD_PARAMETER"])["Parameter"]["Value"]
            )
        except ssm.exceptions.ParameterNotFound:
            return None
        return found

    def state(self) -> dict[str, Any]:
        """Everything that a rollback has to bring back, in a form that compares."""
        group = self.a2a_group()
        service = self.service()
        return {
            "taskDefinition": service["taskDefinition"],
            "targets": self.service_targets(),
            "healthCheck": {
                name: value
                for name, value in group.items()
                if name.startswith(("HealthCheck", "Healthy", "Unhealthy", "Matcher"))
            },
            "listeners": [(each["Port"], each["Protocol"], each["DefaultActions"]) for each in self.listeners()],
            "desiredCount": service["desiredCount"],
            "network": service["networkConfiguration"],
            "alarms": [each["AlarmName"] for each in self.client("cloudwatch").describe_alarms()["MetricAlarms"]],
            "filters": [each["filterName"] for each in self.client("logs").describe_metric_filters()["metricFilters"]],
        }
