"""This task's id and address, as ECS tells them to the containers of the task."""

from __future__ import annotations

import json
import os
from typing import Any, Optional

import httpx

from ..errors import InvalidArgument
from .errors import MetadataError
from .waiting import Wake

VARIABLE = "ECS_CONTAINER_METADATA_URI_V4"

_TIMEOUT = 2.0
# The endpoint may not know the task's address in its first second.
_ATTEMPTS, _PAUSE = 5, 0.5


async def find_task() -> tuple[str, str]:
    """Task id and address, from the task metadata endpoint, version 4.

    Raises InvalidArgument outside ECS, and MetadataError if the endpoint does not tell them.
    """
    base = os.environ.get(VARIABLE)
    if not base:
        raise InvalidArgument(
            f"this task's id and address are not known: {VARIABLE} is not set, as it is on ECS. "
            "Pass task_id= and host= to Fleet"
        )
    problem: Optional[MetadataError] = None
    for attempt in range(_ATTEMPTS):
        if attempt:
            await Wake().wait(_PAUSE)
        try:
            return _task_in(await _get(f"{base}/task"))
        except MetadataError as error:
            problem = error
    raise problem or AssertionError("there is at least one attempt")


async def _get(url: str) -> Any:
    # Not through a proxy from the environment: the endpoint is a link-local address.
    async with httpx.AsyncHTTPTransport(trust_env=False) as transport:
        try:
            timeout = httpx.Timeout(_TIMEOUT).as_dict()
            request = httpx.Request("GET", url, extensions={"timeout": timeout})
            response = await transport.handle_async_request(request)
            body = await response.aread()
            await response.aclose()
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise MetadataError(f"cannot read the ECS task metadata at {url}: {error!r}") from error
    if response.status_code != 200:
        raise MetadataError(f"the ECS task metadata at {url} responds {response.status_code}")
    try:
        return json.loads(body)
    except ValueError as error:
        raise MetadataError(f"the ECS task metadata at {url} is not JSON") from error


def _task_in(metadata: Any) -> tuple[str, str]:
    """Task id and address. All containers of a task in the network mode awsvpc have one address."""
    try:
        task = str(metadata["TaskARN"]).rpartition("/")[2]
        networks = [network for container in metadata["Containers"] for network in container.get("Networks", ())]
        own = [network for network in networks if network.get("NetworkMode") == "awsvpc"]
        addresses = [
            address for kind in ("IPv4Addresses", "IPv6Addresses") for each in own for address in each.get(kind, ())
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise MetadataError(f"the ECS task metadata is not in the form that is known: {error!r}") from error
    if not task or not addresses:
        raise MetadataError("the ECS task metadata has no address of a container in the network mode awsvpc")
    return task, str(addresses[0])
