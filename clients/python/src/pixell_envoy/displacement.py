"""A displacement: an id lost its route because another id got one of its ports before it was deregistered."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Displacement:
    """`displaced` has lost its route to `by`.

    `ports` are the ports that both had. If the manager does not know the displaced route, `ports` are all ports of
    `by`: at least one of them is shared.
    """

    displaced: str
    by: str
    ports: tuple[int, ...]

    def __str__(self) -> str:
        ports = ", ".join(map(str, self.ports))
        return (
            f"agent {self.by!r} took port {ports} from agent {self.displaced!r}, which was never deregistered and has "
            "no route now: either both processes claim the port, or the end of one was not reported"
        )
