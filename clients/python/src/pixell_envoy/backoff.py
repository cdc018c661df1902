"""Growing, jittered delays between attempts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable

from .errors import InvalidArgument


@dataclass(frozen=True)
class Backoff:
    """Delays in seconds that double from `first` up to `longest`.

    Each delay is drawn from the upper half of its interval, so that clients that lost the same Envoy do not all return
    at the same time, and none returns immediately.
    """

    first: float
    longest: float
    # Draws from [0, 1).
    random: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.longest:
            raise InvalidArgument(f"a back-off needs 0 < first <= longest, not {self.first} and {self.longest}")

    def delays(self) -> Iterator[float]:
        """An endless series of delays, the shortest first."""
        ceiling = self.first
        while True:
            yield ceiling * (0.5 + 0.5 * self.random())
            ceiling = min(ceiling * 2, self.longest)
