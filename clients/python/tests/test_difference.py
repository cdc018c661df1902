from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

import pytest

from pixell_envoy import Route
from pixell_envoy.difference import difference

A, B = Route(50054), Route(50055)


@pytest.mark.parametrize(
    ("current", "wanted", "exact", "keeping"),
    [
        ({}, {}, {}, {}),
        ({"a": A}, {"a": A}, {}, {}),
        ({}, {"a": A}, {"a": A}, {"a": A}),
        ({"a": A}, {"a": B}, {"a": B}, {"a": B}),
        (
            {"a": A},
            {"a": Route(A.port, "draining")},
            {"a": Route(A.port, "draining")},
            {"a": Route(A.port, "draining")},
        ),
        ({"a": A}, {}, {"a": None}, {}),
        ({"a": A}, {"a": None}, {"a": None}, {"a": None}),
        ({}, {"a": None}, {}, {}),
        ({"a": A, "b": B}, {"a": B, "c": A}, {"a": B, "b": None, "c": A}, {"a": B, "c": A}),
    ],
)
def test_is_the_patch_from_one_to_the_other(
    current: Mapping[str, Route],
    wanted: Mapping[str, Optional[Route]],
    exact: dict[str, Optional[Route]],
    keeping: dict[str, Optional[Route]],
) -> None:
    assert difference(current, wanted, keep_unknown=False) == exact
    assert difference(current, wanted, keep_unknown=True) == keeping
