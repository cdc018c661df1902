"""The API's error document (RFC 9457, `application/problem+json`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Fault:
    """One error in a request body: where it is (a JSON pointer, RFC 6901) and what is wrong there."""

    pointer: str
    detail: str

    @property
    def deployment_id(self) -> Optional[str]:
        """The id whose route is wrong; None if the pointer does not lead to a route."""
        return self._member_of("routes")

    @property
    def peer(self) -> Optional[str]:
        """The name of the peer of the fleet map that is wrong; None if the pointer does not lead to a peer."""
        return self._member_of("peers")

    def _member_of(self, what: str) -> Optional[str]:
        tokens = self.pointer.split("/")
        if len(tokens) < 3 or tokens[:2] != ["", what]:
            return None
        return tokens[2].replace("~1", "/").replace("~0", "~")

    def __str__(self) -> str:
        return f"{self.pointer or '(whole body)'}: {self.detail}"


@dataclass(frozen=True)
class Problem:
    """Why the API rejected a request. `code` is stable; `title` and `detail` are for people."""

    status: int
    code: str
    title: str
    detail: str
    faults: tuple[Fault, ...] = ()
    """The first 100 errors of the body."""
    errors_total: int = 0
    """How many errors the body has."""

    def __str__(self) -> str:
        text = f"{self.status} {self.code}: {self.detail or self.title}"
        return "; ".join([text, *map(str, self.faults)])
