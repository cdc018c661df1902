"""The script that measures large fleets works, and the client's work grows no faster than the records it reads."""

from __future__ import annotations

from fleet_size import Cost, measure


async def test_a_small_fleet_is_measured() -> None:
    cost = await measure(tasks=5, agents=4, changes=60.0, seconds=2.0)
    assert cost.routes == 16 and cost.records > 4 * 60 and cost.pushes > 1


def share(cost: Cost) -> float:
    """Seconds of one core for each record that was read."""
    return cost.cpu / cost.records


async def test_a_record_costs_as_much_in_a_fleet_of_four_times_the_size() -> None:
    # The processor's time, so that other programs on the machine matter little. Each task changes an agent in 6 s.
    small, large = [await measure(tasks=tasks, agents=50, changes=10.0, seconds=4.0) for tasks in (40, 160)]
    print(f"per 1,000 records: {share(small) * 1e6:.1f} and {share(large) * 1e6:.1f} ms")
    # It costs less in a large fleet, where a push carries more changes. Quadratic work would cost four times as much.
    assert large.records > 2 * small.records
    assert share(large) < 2 * share(small)
