"""Whether a value fits a schema of docs/openapi.yaml."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012


def misfits(document: dict[str, Any], place: str, value: Any) -> list[str]:
    """What is wrong with `value` by the schema at a JSON pointer, resolved as a part of the document, so that references in it work."""
    registry = Registry().with_resource("urn:document", Resource(document, DRAFT202012))
    validator = Draft202012Validator({"$ref": f"urn:document#{place}"}, registry=registry)
    return [error.message for error in validator.iter_errors(value)]


def escaped(key: str) -> str:
    """A key as a segment of a JSON pointer in a URI fragment."""
    return key.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")
