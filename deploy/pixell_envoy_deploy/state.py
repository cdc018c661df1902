"""State in Systems Manager: the record of what was there before, so that anybody can go back, and the lock of the running command. Both are
parameters below /pixell-envoy/<cluster>/<service>/, because each cluster of an account may have a service of that name."""

import getpass
import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from botocore.exceptions import ClientError

from .aws import Doc, Region, code
from .facts import Facts
from .say import Stop

# Renewed before each step. A run that died blocks others for this time and the longest wait for a deployment.
LOCK_SECONDS = 3600


def path(f: Facts, name: str) -> str:
    return f"/pixell-envoy/{f.settings.cluster}/{f.settings.service}/{name}"


def read(f: Facts, name: str) -> tuple[Doc, int]:
    """The document and its version; an empty document if there is none."""
    found = Region(f.name).one("ssm", "get_parameter", "Parameter", "ParameterNotFound", Name=path(f, name))
    try:
        document: Doc = json.loads(found["Value"]) if found else {}
        return document, (document["status"] and found["Version"]) if found else 0
    except (ValueError, KeyError, TypeError):
        raise Stop(f"{path(f, name)} was not written by this tool", f"aws ssm delete-parameter --name {path(f, name)}") from None


def put(f: Facts, name: str, document: Doc, overwrite: bool = True) -> int:
    """Writes the document and returns its version. Above 4 KiB the parameter becomes an advanced one."""
    arguments = {"Type": "String", "Tier": "Intelligent-Tiering", "Overwrite": overwrite, "Value": json.dumps(document, sort_keys=True)}
    return int(f.api("ssm").put_parameter(Name=path(f, name), **arguments)["Version"])


def record(f: Facts) -> Doc | None:
    """The record of the last rollout. Systems Manager keeps earlier ones: aws ssm get-parameter-history."""
    return read(f, "record")[0] or None


def write(f: Facts, document: Doc) -> None:
    put(f, "record", dict(document, at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), by=f.identity["Arn"]))


@contextmanager
def lock(f: Facts) -> Iterator[Callable[[], None]]:
    """Allows one run at a time. Yields a function that checks that this run still has the lock, and renews it; call it before each step.

    Creating the parameter is atomic. If two runs take over an expired lock at the same time, the second sees it by the version and gives
    up, and the first sees it before its next step."""
    name, owner = path(f, "lock"), f"{getpass.getuser()}@{socket.gethostname()} as {f.identity['Arn']}"
    ours, seconds = {"status": "held", "owner": owner, "token": secrets.token_hex(8)}, LOCK_SECONDS + f.settings.stable_timeout_seconds

    def take(overwrite: bool) -> int:
        return put(f, "lock", ours | {"expires": int(time.time()) + seconds}, overwrite)

    def hold() -> None:
        present, _ = read(f, "lock")
        if present.get("token") != ours["token"]:
            raise Stop(f"this run lost the lock {name} to {present.get('owner', 'nobody')}", "look at what the other run did, then run again")
        take(overwrite=True)

    try:
        try:
            take(overwrite=False)
        except ClientError as error:
            if code(error) != "ParameterAlreadyExists":
                raise
            present, version = read(f, "lock")
            left = present.get("expires", 0) - time.time()
            if left > 0 or take(overwrite=True) != version + 1:
                fix = f"wait for it; if that run is dead: aws ssm delete-parameter --name {name}"
                raise Stop(f"{present.get('owner')} runs a command now (lock {name}, {left / 60:.0f} minutes left)", fix) from None
        yield hold
    finally:
        if read(f, "lock")[0].get("token") == ours["token"]:
            f.api("ssm").delete_parameter(Name=name)
