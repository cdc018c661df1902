"""What moto leaves out of AWS and the rollout depends on, added to moto's own state. docs/deploy.md names these fakes.

- A service update starts a deployment, and tasks are replaced while `describe-services` is asked again and again.
- A service's tasks, their containers' health and their addresses; the targets these tasks are in the target groups.
- ECS refuses a target group that no load balancer uses, and a revision that is deregistered.
- `iam simulate-principal-policy`, for inline policies of Allow statements.
"""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

from moto.core.responses import ActionResult
from moto.ecs.exceptions import EcsClientException, InvalidParameterException
from moto.ecs.models import EC2ContainerServiceBackend, Service
from moto.elbv2.models import ELBv2Backend, FakeHealthStatus, elbv2_backends
from moto.iam.responses import IamResponse

update_service = EC2ContainerServiceBackend.update_service
describe_services = EC2ContainerServiceBackend.describe_services


@dataclass
class Behaviour:
    """How the fakes act; a test changes it."""

    # works, fails (ECS gives the deployment up), sticks (it never ends),
    # goes back (ECS returns to the old revision by itself)
    deployment: str = "works"
    # What the health of container envoy and of every target is said to be.
    envoy_health: str = "HEALTHY"
    target_state: str = "healthy"
    # Revisions of running tasks, where they are to differ from the service's.
    task_revisions: list[str] = field(default_factory=list)
    # May the caller ask what a role may do?
    may_simulate: bool = True
    tasks: int = 2
    stopped_tasks: int = 0


behaviour = Behaviour()


def reset() -> None:
    behaviour.__dict__.update(Behaviour().__dict__)


def new_deployment(service: Service, status: str, running: int, state: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "id": f"ecs-svc/{status.lower()}",
        "status": status,
        "taskDefinition": service.task_definition,
        "desiredCount": service.desired_count,
        "runningCount": running,
        "pendingCount": 0,
        "failedTasks": 0,
        "createdAt": now,
        "updatedAt": now,
        "launchType": "FARGATE",
        "rolloutState": state,
        "rolloutStateReason": "",
    }


def settle(service: Service) -> None:
    """Makes the service what it is when nothing is under way."""
    service.running_count, service.pending_count = service.desired_count, 0
    service.deployments = [new_deployment(service, "PRIMARY", service.desired_count, "COMPLETED")]


def scheduled_update_service(backend: EC2ContainerServiceBackend, properties: dict[str, Any]) -> Service:
    for item in properties.get("load_balancers") or []:
        arn = item["targetGroupArn"]
        if not has_load_balancer(elbv2_backends[backend.account_id][backend.region_name], arn):
            raise InvalidParameterException(
                f"The target group with targetGroupArn {arn} does not have an associated load balancer."
            )
    revision = properties.get("task_definition")
    if revision and backend.describe_task_definition(revision).status != "ACTIVE":
        raise EcsClientException("TaskDefinition is inactive")
    service: Service = backend.services[f"{properties['cluster']}:{properties['service']}"]
    before = (service.task_definition, list(service.load_balancers))
    forced = properties.get("force_new_deployment")
    update_service(backend, properties)
    if forced or before != (service.task_definition, service.load_balancers):
        old = dict(service.deployments[0], status="ACTIVE")
        service.deployments = [new_deployment(service, "PRIMARY", 0, "IN_PROGRESS"), old]
        service.running_count, service.pending_count = service.desired_count, service.desired_count
    return service


def has_load_balancer(backend: ELBv2Backend, target_group_arn: str) -> bool:
    """Asked of the listeners: moto's own note of it is not kept when a listener is changed."""
    actions = [
        action.data
        for load_balancer in backend.load_balancers.values()
        for listener in load_balancer.listeners.values()
        for action in listener.default_actions
    ]
    return any(target_group_arn in backend._get_target_group_arns_from(action) for action in actions)


def scheduled_describe_services(
    backend: EC2ContainerServiceBackend, cluster: str, names: list[str]
) -> tuple[list[Service], list[dict[str, str]]]:
    services, failures = describe_services(backend, cluster, names)
    for service in services:
        advance(service)
    return services, failures


def advance(service: Service) -> None:
    """One step of a deployment under way."""
    if len(service.deployments) < 2:
        return
    new, old = service.deployments
    if behaviour.deployment == "fails":
        new.update(rolloutState="FAILED", rolloutStateReason="tasks failed to start", failedTasks=3)
        behaviour.stopped_tasks = 1
    elif behaviour.deployment == "goes back":
        service.task_definition = str(old["taskDefinition"])
        settle(service)
    elif behaviour.deployment == "sticks":
        new.update(pendingCount=service.desired_count, failedTasks=1)
        behaviour.stopped_tasks = 1
    elif new["runningCount"] == 0 and new["pendingCount"] == 0:
        new["pendingCount"] = service.desired_count
        service.events.insert(0, event(f"(service {service.name}) has started {service.desired_count} tasks."))
    elif new["runningCount"] == 0:
        new.update(runningCount=service.desired_count, pendingCount=0)
        service.events.insert(0, event(f"(service {service.name}) registered {service.desired_count} targets."))
    else:
        settle(service)
        service.events.insert(0, event(f"(service {service.name}) has reached a steady state."))


def event(message: str) -> dict[str, Any]:
    return {"id": str(len(message)), "createdAt": datetime.now(UTC), "message": message}


def running_revisions(service: Service) -> list[str]:
    if behaviour.task_revisions:
        return behaviour.task_revisions
    return [str(service.task_definition)] * min(behaviour.tasks, service.desired_count)


def the_service(backend: EC2ContainerServiceBackend) -> Service:
    return next(iter(backend.services.values()))


def list_tasks(backend: EC2ContainerServiceBackend, *arguments: Any, **_: Any) -> list[Any]:
    """In moto's order of arguments the last is the desired status."""
    if "STOPPED" in arguments:
        arns = [f"{the_service(backend).arn}/stopped{number}" for number in range(behaviour.stopped_tasks)]
    else:
        arns = [
            f"{the_service(backend).arn}/task{number}"
            for number, _ in enumerate(running_revisions(the_service(backend)))
        ]
    return [SimpleNamespace(task_arn=arn) for arn in arns]


def describe_tasks(backend: EC2ContainerServiceBackend, _: str, arns: list[str]) -> list[dict[str, Any]]:
    return [describe_task(backend, arn) for arn in arns]


def describe_task(backend: EC2ContainerServiceBackend, arn: str) -> dict[str, Any]:
    service = the_service(backend)
    if "stopped" in arn:
        return {
            "taskArn": arn,
            "taskDefinitionArn": service.task_definition,
            "lastStatus": "STOPPED",
            "stoppedReason": "Essential container in task exited",
            "containers": [
                {"name": "envoy", "lastStatus": "STOPPED", "healthStatus": "UNHEALTHY", "exitCode": 78},
                {"name": "par", "lastStatus": "STOPPED", "healthStatus": "UNKNOWN"},
            ],
        }
    number = int(arn.rsplit("task", 1)[1])
    revision = running_revisions(service)[number]
    names = [container["name"] for container in backend.describe_task_definition(revision).container_definitions]
    return {
        "taskArn": arn,
        "taskDefinitionArn": revision,
        "lastStatus": "RUNNING",
        "attachments": [
            {
                "type": "ElasticNetworkInterface",
                "details": [{"name": "privateIPv4Address", "value": f"127.0.0.{number + 2}"}],
            }
        ],
        "containers": [
            {
                "name": name,
                "lastStatus": "RUNNING",
                "healthStatus": behaviour.envoy_health if name == "envoy" else "UNKNOWN",
            }
            for name in names
        ],
    }


def describe_target_health(
    backend: ELBv2Backend, target_group_arn: str, targets: list[dict[str, Any]]
) -> list[FakeHealthStatus]:
    from moto.ecs.models import ecs_backends

    service = the_service(ecs_backends[backend.account_id][backend.region_name])
    ports = [item["containerPort"] for item in service.load_balancers if item["targetGroupArn"] == target_group_arn]
    reason = None if behaviour.target_state == "healthy" else "Health checks failed"
    return [
        FakeHealthStatus(f"127.0.0.{number + 2}", str(port), str(port), behaviour.target_state, None, reason)
        for port in ports
        for number, _ in enumerate(running_revisions(service))
    ]


def simulate_principal_policy(response: IamResponse) -> ActionResult:
    if not behaviour.may_simulate:
        raise EcsClientException("not authorized to perform: iam:SimulatePrincipalPolicy")
    arn = response._get_param("PolicySourceArn")
    role = next(role for role in response.backend.roles.values() if role.arn == arn)
    documents = [json.loads(unquote(text) if text.startswith("%") else text) for text in role.policies.values()]
    statements = [statement for document in documents for statement in document["Statement"]]
    return ActionResult(
        {
            "EvaluationResults": [
                {
                    "EvalActionName": action,
                    "EvalResourceName": resource,
                    "EvalDecision": "allowed"
                    if any(allows(each, action, resource) for each in statements)
                    else "implicitDeny",
                }
                for action in response._get_param("ActionNames")
                for resource in response._get_param("ResourceArns")
            ]
        }
    )


def allows(statement: dict[str, Any], action: str, resource: str) -> bool:
    def matches(patterns: str | list[str], value: str) -> bool:
        return any(
            fnmatch.fnmatch(value, pattern) for pattern in ([patterns] if isinstance(patterns, str) else patterns)
        )

    return (
        statement["Effect"] == "Allow"
        and matches(statement["Action"], action)
        and matches(statement["Resource"], resource)
    )


FAKES = {
    EC2ContainerServiceBackend: (scheduled_update_service, scheduled_describe_services, list_tasks, describe_tasks),
    ELBv2Backend: (describe_target_health,),
    IamResponse: (simulate_principal_policy,),
}


def install() -> None:
    """Puts the fakes into moto, for good: the tests' process runs nothing else."""
    for owner, functions in FAKES.items():
        for function in functions:
            setattr(owner, function.__name__.removeprefix("scheduled_"), function)
