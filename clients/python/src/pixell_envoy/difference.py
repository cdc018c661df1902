"""What must change for one map to become another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

from .models import Route, RoutePatch, patch_between


def difference(
    current: Mapping[str, Route], wanted: Mapping[str, Optional[Route]], keep_unknown: bool
) -> dict[str, Optional[RoutePatch]]:
    """The merge patch from `current` to `wanted`; empty if they agree.

    None in `wanted` stands for an id without a route. Ids that `wanted` does not name are removed, or kept if
    `keep_unknown` is set.
    """
    patch = {
        key: None if route is None else patch_between(current.get(key), route)
        for key, route in wanted.items()
        if current.get(key) != route
    }
    if not keep_unknown:
        patch.update({key: None for key in current if key not in wanted})
    return patch
