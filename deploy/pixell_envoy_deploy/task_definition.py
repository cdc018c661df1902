"""Task definitions: fills in the template, lays it over the revision that runs, and compares two definitions."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from .aws import Doc

# Fields that ECS adds to a definition and does not accept in a new one.
ADDED = ["taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities"]
ADDED += ["registeredAt", "registeredBy", "deregisteredAt", "deleteRequestedAt"]
# Variables whose value may be a secret.
SECRET = re.compile(r"\.environment\.\w*(TOKEN|SECRET|PASS|PASSWORD|KEY|CREDENTIALS?|DSN)=|=.*://[^/]*@", re.IGNORECASE)
# Lists whose items have a name. The rollout changes single items and leaves the others alone.
KEYS = dict.fromkeys(("containerDefinitions", "environment", "secrets", "ulimits", "volumes"), "name")
KEYS |= {"portMappings": "containerPort", "mountPoints": "containerPath", "dependsOn": "containerName", "tags": "key"}
# The containers that belong to this project.
OURS = ("envoy", "par-token", "envoy-peer")
# Defaults that ECS adds.
DEFAULTS = [("essential", True), ("cpu", 0), ("protocol", "tcp"), ("readOnly", False)]


def read(template: Path, parts: Collection[str], values: Mapping[str, object]) -> Doc:
    """The template with its values, without its comments, and without the items whose `if` is none of `parts`. Their variables become null.

    Raises KeyError for a name without a value."""

    def item(pairs: list[tuple[str, Any]]) -> Doc:
        found = {key: [each for each in value if each] if isinstance(value, list) else value for key, value in pairs if not key.startswith("//")}
        if found.pop("if", None) in (None, *parts):
            return {key: value for key, value in found.items() if value != []}
        return {"name": found["name"], "value": None} if "value" in found else {}

    text = json.dumps(json.loads(template.read_text(), object_pairs_hook=item))
    text = re.sub(r'"\$\{([A-Z0-9_]+)\|number\}"', lambda name: str(values[name[1]]), text)
    return dict(json.loads(re.sub(r"\$\{([A-Z0-9_]+)\}", lambda name: json.dumps(str(values[name[1]]))[1:-1], text)))


def container(definition: Doc, name: str) -> Doc:
    """The container of that name; empty if there is none."""
    return next((each for each in definition["containerDefinitions"] if each["name"] == name), {})


def overlay(base: Doc, template: Doc) -> Doc:
    """`template` laid over `base`. The containers that belong to this project are replaced completely. In PAR, in other containers and in
    the task, everything stays that the template does not name. ECS rejects a port that two containers map, and a name that is both a
    variable and a secret, so the old entry goes if the template has it elsewhere."""
    mapped = {port["containerPort"]: port for each in base["containerDefinitions"] for port in each.get("portMappings", [])}
    ports = [port["containerPort"] for port in container(template, "envoy")["portMappings"]]
    containers = []
    for each in base["containerDefinitions"]:
        over, lists = container(template, each["name"]), {"portMappings": ("containerPort", ports)}
        lists["environment"] = ("name", [item["name"] for item in over.get("secrets", [])])
        lists["secrets"] = ("name", [item["name"] for item in over.get("environment", [])])
        left = {name: [item for item in each.get(name, []) if item[key] not in gone] for name, (key, gone) in lists.items()}
        kept = {key: value for key, value in {**each, **left}.items() if value != []}
        containers += [kept] if each["name"] not in OURS else []
    registrable = {key: value for key, value in base.items() if key not in ADDED and value != []}
    result: Doc = lay(registrable | {"containerDefinitions": containers}, template)
    # Service Connect knows a port by the name of its mapping, so the name goes with the port.
    for port in container(result, "envoy")["portMappings"]:
        port |= {key: value for key, value in mapped.get(port["containerPort"], {}).items() if key in ("name", "appProtocol")}
    return result


def lay(base: Any, over: Any, key: str = "") -> Any:
    """`over` laid over `base`: members one by one, items of lists by their name, and null removes."""
    if isinstance(over, dict):
        base = base if isinstance(base, dict) else {}
        laid = {name: lay(base.get(name), value, name) for name, value in over.items() if value is not None}
        return {name: value for name, value in base.items() if name not in over} | laid
    if isinstance(over, list) and key in KEYS:
        named = {item[KEYS[key]]: item for item in over}
        removed = [item[KEYS[key]] for item in over if None in (item.get("value", ""), item.get("valueFrom", ""))]
        merged = [lay(item, named.pop(item[KEYS[key]], {})) for item in base or [] if item[KEYS[key]] not in removed]
        return merged + [lay({}, item) for name, item in named.items() if name not in removed]
    return over


def leaves(definition: Doc) -> dict[str, Any]:
    """Every field by its path, such as `par.environment.PORT` -> `8080`. Equal definitions have equal leaves, however ECS writes them."""

    def walk(path: str, node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
        if isinstance(node, list) and key in KEYS:
            for item in node:
                rest = {name: value for name, value in item.items() if name not in (KEYS[key], "hostPort") and (name, value) not in DEFAULTS}
                name = str(item[KEYS[key]]) if key == "containerDefinitions" else f"{path}.{item[KEYS[key]]}"
                yield from walk(name, rest or {"present": True})
        elif isinstance(node, dict) and node:
            for name, value in node.items():
                yield from walk(path if name in ("value", "valueFrom") else f"{path}.{name}".lstrip("."), value, name)
        elif node not in (None, [], {}):
            yield path, node

    return dict(walk("", {key: value for key, value in definition.items() if key not in ADDED}))


def shown(value: Any, path: str = "") -> str:
    """A value as text, or `(hidden)` if it may be a secret."""
    if value is not None and SECRET.search(f"{path}={value}"):
        return "(hidden)"
    return "(none)" if value is None else value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def changes(before: Doc, after: Doc) -> list[str]:
    """A line `path: before -> after` for every field that differs."""
    old, new = leaves(before), leaves(after)
    differ = [path for path in sorted(old.keys() | new.keys()) if old.get(path) != new.get(path)]
    return [f"{path}: {shown(old.get(path), path)} -> {shown(new.get(path), path)}" for path in differ]


def kept(before: Doc, after: Doc, template: Doc) -> list[str]:
    """A line for every field that stays and that the template does not name."""

    ours, new = leaves(template), leaves(after)
    stay = [(path, value) for path, value in sorted(leaves(before).items()) if path not in ours and new.get(path) == value]
    return [f"{path}: {shown(value, path)}" for path, value in stay]
