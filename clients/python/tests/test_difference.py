from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

import pytest

from pixell_envoy import Route, RoutePatch
from pixell_envoy.difference import difference

A, B = Route(50054), Route(50055)
TO_A, TO_B = RoutePatch(50054, "active"), RoutePatch(50055, "active")
UI = Route(50054, endpoints={"rest": 63001, "ui": 65001})


@pytest.mark.parametrize(
    ("current", "wanted", "exact", "keeping"),
    [
        ({}, {}, {}, {}),
        ({"a": A}, {"a": A}, {}, {}),
        ({}, {"a": A}, {"a": TO_A}, {"a": TO_A}),
        ({"a": A}, {"a": B}, {"a": TO_B}, {"a": TO_B}),
        (
            {"a": A},
            {"a": Route(A.port, "draining")},
            {"a": RoutePatch(A.port, "draining")},
            {"a": RoutePatch(A.port, "draining")},
        ),
        ({"a": A}, {}, {"a": None}, {}),
        ({"a": A}, {"a": None}, {"a": None}, {"a": None}),
        ({}, {"a": None}, {}, {}),
        ({"a": A, "b": B}, {"a": B, "c": A}, {"a": TO_B, "b": None, "c": TO_A}, {"a": TO_B, "c": TO_A}),
    ],
)
def test_is_the_patch_from_one_to_the_other(
    current: Mapping[str, Route],
    wanted: Mapping[str, Optional[Route]],
    exact: dict[str, Optional[RoutePatch]],
    keeping: dict[str, Optional[RoutePatch]],
) -> None:
    assert difference(current, wanted, keep_unknown=False) == exact
    assert difference(current, wanted, keep_unknown=True) == keeping


@pytest.mark.parametrize(
    ("current", "wanted", "endpoints"),
    [
        (None, UI, {"rest": 63001, "ui": 65001}),
        (A, UI, {"rest": 63001, "ui": 65001}),
        (UI, A, {"rest": None, "ui": None}),
        (UI, Route(50054, endpoints={"rest": 63002}), {"rest": 63002, "ui": None}),
    ],
)
def test_endpoints_that_are_not_wanted_are_removed(
    current: Optional[Route], wanted: Route, endpoints: dict[str, Optional[int]]
) -> None:
    before = {} if current is None else {"a": current}
    patch = RoutePatch(50054, "active", endpoints)
    assert difference(before, {"a": wanted}, keep_unknown=False) == {"a": patch}
    assert difference({"a": wanted}, {"a": wanted}, keep_unknown=False) == {}
