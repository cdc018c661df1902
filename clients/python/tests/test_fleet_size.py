"""The script that measures large fleets works; its figures are not checked here."""

from __future__ import annotations

from fleet_size import measure


async def test_a_small_fleet_is_measured() -> None:
    cost = await measure(tasks=5, agents=4, changes=60.0, seconds=2.0)
    assert cost.routes == 16 and cost.records > 4 * 60 and cost.pushes > 1
