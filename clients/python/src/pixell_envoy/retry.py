"""When a request is sent again, and after how long."""

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
    """How often one request is tried at most (`attempts`, 1 or more) and how long it waits in between.

    `clock` (seconds, monotonic) and `sleep` can be replaced to test without waiting.
    """

    attempts: int = 3
    backoff: Backoff = _BACKOFF
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InvalidArgument(f"a request needs at least one attempt, not {self.attempts}")


def may_repeat(error: RouteApiError, idempotent: bool) -> bool:
    """Whether the request that failed with `error` can be sent again without doing more than was asked for.

    A request that never left and one that Envoy gave up without a change can always be repeated. One whose answer got
    lost can be repeated only where a second execution does no harm; a conditional write is none of these, because the
    412 of its repetition would hide that the first one landed.
    """
    if isinstance(error, OutcomeUnknown):
        return idempotent
    return isinstance(error, (Unreachable, RetriesExhausted))


def asked_to_wait(error: RouteApiError) -> Optional[float]:
    """The waiting time that Envoy named, in seconds."""
    return error.retry_after if isinstance(error, RetriesExhausted) else None
