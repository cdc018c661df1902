"""The order of an id's peers, the same in every task, by rendezvous hashing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def in_order(deployment_id: str, tasks: Iterable[str]) -> tuple[str, ...]:
    """`tasks`, the largest SHA-256 of id, NUL and task first.

    So all tasks send an id's requests to one peer, and if it goes, only its ids move.
    """
    tasks = tuple(tasks)
    # Most ids have one task, which needs no hash.
    return (
        tasks if len(tasks) < 2 else tuple(sorted(tasks, key=lambda task: _weight(deployment_id, task), reverse=True))
    )


def _weight(deployment_id: str, task: str) -> bytes:
    return hashlib.sha256(f"{deployment_id}\0{task}".encode("ascii")).digest()
