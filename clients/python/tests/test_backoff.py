from __future__ import annotations

from itertools import islice

import pytest

from pixell_envoy import Backoff, InvalidArgument


def delays(draw: float) -> list[float]:
    return list(islice(Backoff(first=0.1, longest=1.0, random=lambda: draw).delays(), 7))


def test_doubles_up_to_the_longest() -> None:
    assert delays(draw=1.0) == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])


def test_jitter_takes_at_most_half() -> None:
    assert delays(draw=0.0) == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5, 0.5, 0.5])


def test_differs_from_one_client_to_the_next() -> None:
    backoff = Backoff(first=1, longest=1)
    assert len({next(backoff.delays()) for _ in range(20)}) > 1


@pytest.mark.parametrize(("first", "longest"), [(0, 1), (-1, 1), (2, 1), (float("nan"), 1)])
def test_delays_that_cannot_grow_are_an_error(first: float, longest: float) -> None:
    with pytest.raises(InvalidArgument):
        Backoff(first, longest)
