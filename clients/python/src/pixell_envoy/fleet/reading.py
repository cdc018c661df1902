"""Reads a record from a document that anybody may have written."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any, cast

from ..models import RouteState
from .errors import BadRecord
from .names import is_name
from .record import MAX_RECORD_BYTES, VERSION, Record

# The longest number that is read. Python needs seconds for one that fills a record.
_DIGITS = 18
_EPOCH = re.compile(r"[A-Za-z0-9]{1,64}")


def read_record(task: str, document: bytes) -> Record:
    """The record in `document`, which stands under the key of `task`. Raises BadRecord.

    Members that this version does not know are ignored, so that a later one may add some.
    """
    if len(document) > MAX_RECORD_BYTES:
        raise BadRecord(f"larger than {MAX_RECORD_BYTES} bytes")
    body = _parsed(document)
    if not isinstance(body, dict):
        raise BadRecord("not a JSON object")
    if body.get("version") != VERSION or isinstance(body["version"], bool):
        raise BadRecord(f"its version is not {VERSION}")
    if body.get("task") != task:
        raise BadRecord("its task is not the one under whose key it stands")
    if not is_name(task):
        raise BadRecord("its task is not 1 to 128 of A-Z a-z 0-9 . _ -")
    epoch = body.get("epoch")
    if not isinstance(epoch, str) or _EPOCH.fullmatch(epoch) is None:
        raise BadRecord("its epoch is not 1 to 64 letters and digits")
    return Record(
        task=task,
        host=_host(body.get("host")),
        epoch=epoch,
        generation=_count(body, "generation"),
        beat=_count(body, "beat"),
        ids=_ids(body.get("ids")),
    )


def checked_host(text: str) -> str:
    """The address in its usual form. Raises ValueError if no other task can have it."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise ValueError(f"{text} is an IPv4 address in another form")
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified or "%" in text:
        raise ValueError(f"{text} is not an address that a task can have")
    return str(address)


def _parsed(document: bytes) -> Any:
    try:
        return json.loads(
            document.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_int=_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except RecursionError:
        raise BadRecord("nested too deep") from None
    except ValueError:
        # The original error would show the document.
        raise BadRecord("not JSON, or not in UTF-8") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise BadRecord("one object has the same key twice")
    return members


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise BadRecord(f"a number has more than {_DIGITS} digits")
    return int(text)


def _no_number(_: str) -> Any:
    raise BadRecord("a number is not an integer")


def _host(value: object) -> str:
    if not isinstance(value, str) or len(value) > 64:
        raise BadRecord("its host is not an IP address")
    try:
        return checked_host(value)
    except ValueError:
        raise BadRecord("its host is not an IP address that a task can have") from None


def _count(body: dict[str, Any], name: str) -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadRecord(f"its {name} is not a number from 0 on")
    return value


def _ids(value: object) -> dict[str, RouteState]:
    if not isinstance(value, dict):
        raise BadRecord("its ids are not an object")
    for deployment_id, state in value.items():
        if not is_name(deployment_id):
            raise BadRecord("one of its ids is not 1 to 128 of A-Z a-z 0-9 . _ -")
        if state not in ("active", "draining"):
            raise BadRecord("the state of one of its ids is neither active nor draining")
    return cast("dict[str, RouteState]", value)
