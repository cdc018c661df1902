"""The API's error document (RFC 9457, `application/problem+json`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Fault:
    """One fault of a request body: where it is (a JSON pointer, RFC 6901) and what is wrong there."""

    pointer: str
    detail: str

    @property
    def deployment_id(self) -> Optional[str]:
        """The id whose route is at fault; None where the pointer leads elsewhere."""
        tokens = self.pointer.split("/")
        if len(tokens) < 3 or tokens[:2] != ["", "routes"]:
            return None
        return tokens[2].replace("~1", "/").replace("~0", "~")

    def __str__(self) -> str:
        return f"{self.pointer or '(whole body)'}: {self.detail}"


@dataclass(frozen=True)
class Problem:
    """Why a request was refused. `code` is stable; `title` and `detail` are for people."""

    status: int
    code: str
    title: str
    detail: str
    faults: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        text = f"{self.status} {self.code}: {self.detail or self.title}"
        return "; ".join([text, *map(str, self.faults)])
