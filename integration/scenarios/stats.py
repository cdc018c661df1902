"""Envoy's statistics, as everybody outside of the task sees them."""

from __future__ import annotations

import httpx

from .wait import wait_until


def active(address: str, what: str) -> int:
    """How many connections (`cx`) or requests (`rq`) of clients the data path has now.

    From outside of the task Envoy lets only some of these questions through each second.
    """
    url = f"http://{address}:9901/stats?filter=%5Ehttp%5C.agents%5C.downstream_{what}_active%24"

    def ask() -> list[int]:
        response = httpx.get(url)
        return [] if response.status_code == 429 else [int(response.text.rsplit(": ", 1)[1])]

    return wait_until(f"{address} tells its statistics", ask)[0]
