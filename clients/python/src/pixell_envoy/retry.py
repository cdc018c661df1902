"""Which requests are retried, and after how long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Callable, Optional

from .backoff import Backoff
from .errors import InvalidArgument, OutcomeUnknown, RetriesExhausted, RouteApiError, Unreachable

_BACKOFF = Backoff(first=0.1, longest=1.0)


@dataclass(frozen=True)
class Retry:
    """How many attempts one request gets at most (`attempts`, 1 or more), and how long it waits between them.

    `clock` (seconds, monotonic) and `sleep` can be replaced to test without waiting.
    """

    attempts: int = 3
    backoff: Backoff = _BACKOFF
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InvalidArgument(f"a request needs at least one attempt, not {self.attempts}")


def may_retry(error: RouteApiError, idempotent: bool) -> bool:
    """Whether a retry of the request that failed with `error` does no more than was asked for.

    A request that was never sent can always be retried, and so can one that Envoy gave up without a change. A request
    whose response was lost can be retried only if a second execution does no harm. A conditional write cannot: the
    retry would get 412 and hide that the first attempt succeeded.
    """
    if isinstance(error, OutcomeUnknown):
        return idempotent
    return isinstance(error, (Unreachable, RetriesExhausted))


def asked_to_wait(error: RouteApiError) -> Optional[float]:
    """The waiting time that Envoy named, in seconds."""
    return error.retry_after if isinstance(error, RetriesExhausted) else None
