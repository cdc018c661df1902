"""AWS's clients: they retry throttled calls, read every page, and tell errors apart by their code."""

from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

# A document of AWS, as boto3 gives it.
Doc = dict[str, Any]
FAILURES = (ClientError, BotoCoreError)
CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 8}, connect_timeout=10, read_timeout=60)


@cache
def client(name: str, region: str) -> Any:
    return boto3.client(name, region_name=region, config=CONFIG)


def code(error: BaseException) -> str:
    """AWS's code of an error, or the name of its class if the call never reached AWS."""
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else type(error).__name__


class Region:
    """Reads a region, and remembers what it has read until something is changed (`forget`)."""

    def __init__(self, name: str) -> None:
        self.name, self.seen = name, dict[str, Any]()
        self.forget = self.seen.clear

    def api(self, service: str) -> Any:
        return client(service, self.name)

    def all(self, service: str, operation: str, key: str, *absent: str, **arguments: Any) -> list[Any]:
        """All items of all pages, or the pages if `key` is empty. None if AWS returns a code of `absent`: there is no such thing."""
        api, place = self.api(service), f"{service} {operation} {key} {arguments}"
        if place not in self.seen:
            try:
                pages = api.get_paginator(operation).paginate(**arguments) if api.can_paginate(operation) else [getattr(api, operation)(**arguments)]
                found = [page[key] if key else page for page in pages]
            except ClientError as error:
                if code(error) not in absent:
                    raise
                found = []
            self.seen[place] = [item for items in found for item in (items if isinstance(items, list) else [items])]
        return list(self.seen[place])

    def one(self, service: str, operation: str, key: str, *absent: str, **arguments: Any) -> Doc | None:
        """The first item of `all`; None if there is none."""
        return next(iter(self.all(service, operation, key, *absent, **arguments)), None)
