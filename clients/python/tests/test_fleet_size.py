"""The script that measures large fleets works, and the client's work grows no faster than the records it reads."""

from __future__ import annotations

from fleet_size import Cost, measure, work


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


async def test_the_work_of_a_task_grows_linearly_with_the_fleet_at_the_same_number_of_changes() -> None:
    changes = 40
    small, large = [await work(tasks=tasks, agents=50, changes=changes) for tasks in (40, 160)]
    print(f"{changes} changes: {small} and {large}")
    for tasks, cost in ((40, small), (160, large)):
        # Each change takes a snapshot and a push. A slow machine takes more snapshots, one a second at most.
        assert changes * tasks <= cost.records and changes <= cost.pushes
    assert large.records < 5 * small.records and large.pushes < 1.25 * small.pushes
    # Quadratic work would cost sixteen times as much.
    assert large.cpu < 6 * small.cpu
