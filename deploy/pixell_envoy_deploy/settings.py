"""The settings file: names and numbers, each checked, so that no value can act as an option or a program."""

import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .say import Stop

DEPLOY = Path(__file__).resolve().parent.parent
ROOT = DEPLOY.parent
# Ports that the contract fixes: Envoy's data path, admin and fleet, PAR's REST API.
A2A_PORT, ADMIN_PORT, PEER_PORT, REST_PORT = 50051, 9901, 50050, 8080
# Seconds: the longest that Fargate lets a container run after SIGTERM, and the part of it that Envoy has after its drain.
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html#container_definition_timeout
STOP_TIMEOUT_LIMIT, STOP_MARGIN = 120, 30
# Seconds that PAR needs besides its wait for open requests: 5 each for its REST API, to withdraw from a directory that hangs, to close it, and to
# end its agents.
PAR_END_SECONDS = 20
NAME, SECRET = r"[A-Za-z0-9][A-Za-z0-9_-]*", r"[A-Za-z0-9/_+=.@][A-Za-z0-9/_+=.@-]*"
# The load balancer's names have at most 32 characters; `-green` is added to those of target groups.
GROUP = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,24}[A-Za-z0-9])?"


def rule(*bounds: Any) -> Any:
    """A pattern for a text; the minimum and maximum of a number."""
    return field(metadata={"bounds": bounds})


@dataclass(frozen=True)
class Settings:
    """One field for each key of settings.example.toml, which explains them."""

    region: str = rule(r"[a-z]{2}(?:-[a-z]+)+-[0-9]")
    cluster: str = rule(NAME)
    service: str = rule(NAME)
    load_balancer: str = rule(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?")
    a2a_target_group: str = rule(GROUP)
    rest_target_group: str = rule(GROUP)
    log_group: str = rule(r"[A-Za-z0-9_./#][A-Za-z0-9_./#-]*")
    admin_token_secret: str = rule(SECRET)
    discovery_namespace: str = rule(r"[A-Za-z0-9][A-Za-z0-9.-]*")
    discovery_service: str = rule(NAME)
    fleet_directory: str = rule("(?:dynamodb|redis)?")
    fleet_table: str = rule(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{2,254}")
    fleet_redis_url: str = rule(r"rediss?://(?:[A-Za-z0-9][A-Za-z0-9_.-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?(?:/[0-9]{1,3})?")
    fleet_redis_password_secret: str = rule(SECRET)
    peer_certificate_secret: str = rule(f"(?:{SECRET})?")
    certificate_domain: str = rule(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+)?")
    repository: str = rule(r"[a-z0-9][a-z0-9._/-]*")
    image_tag: str = rule(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?")
    par_image: str = rule(r"(?:[a-z0-9][A-Za-z0-9._:/@-]*)?")
    par_user: str = rule(r"[1-9][0-9]*:[1-9][0-9]*")
    test_port: int = rule(1024, 65535)
    rest_test_port: int = rule(1024, 65535)
    task_cpu: int = rule(256, 16384)
    task_memory: int = rule(512, 122880)
    envoy_cpu: int = rule(128, 16384)
    envoy_memory: int = rule(256, 122880)
    envoy_concurrency: int = rule(1, 256)
    envoy_log_level: str = rule("trace|debug|info|warning|error|critical|off")
    envoy_drain_seconds: int = rule(0, STOP_TIMEOUT_LIMIT - STOP_MARGIN)
    max_connection_seconds: int = rule(1, 86400)
    deregistration_seconds: int = rule(0, 3600)
    stable_timeout_seconds: int = rule(1, 7200)
    alarm_topic: str = rule(r"(?:[A-Za-z0-9_][A-Za-z0-9_-]*)?")
    alarm_rejected_per_5_minutes: int = rule(1, 10**9)

    @property
    def parts(self) -> list[str]:
        """The parts of task-definition.json that apply, as their `if` names them."""
        fleet = ["fleet_directory", "peer_certificate_secret"] if self.fleet_directory else []
        return [self.fleet_directory, *(key for key in ["certificate_domain", *fleet] if getattr(self, key))]


def read(path: Path) -> Settings:
    """Reads the file, and reports all its errors at once."""
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Stop(f"{path}: {error}", f"cp {DEPLOY}/settings.example.toml {path}, which explains each key", status=2) from None
    known = {key.name: key for key in fields(Settings)}
    errors = [f"{name}: unknown" for name in values.keys() - known.keys()]
    for name, key in known.items():
        value, bounds = values.get(name, "(missing)"), key.metadata["bounds"]
        if key.type is str and not (isinstance(value, str) and re.fullmatch(bounds[0], value)):
            errors.append(f"{name}: {value!r} does not match {bounds[0]}")
        elif key.type is int and (type(value) is not int or not bounds[0] <= value <= bounds[1]):
            errors.append(f"{name}: {value!r} is not a number from {bounds[0]} to {bounds[1]}")
    if errors:
        raise Stop(f"{path}: " + "; ".join(sorted(errors)), "settings.example.toml explains each key", status=2)
    return Settings(**values)
