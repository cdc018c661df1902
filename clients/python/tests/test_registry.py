from __future__ import annotations

import asyncio
from typing import Optional

import pytest

from pixell_envoy import InvalidRoutes, Problem, Unauthorized
from pixell_envoy.registry import Registry

FAULTY = InvalidRoutes(Problem(422, "invalid_routes", "", ""))
NOT_ALLOWED = Unauthorized(Problem(401, "unauthorized", "", ""))


async def ask(
    registry: Registry, deployment_id: str, port: Optional[int], error: Optional[BaseException] = None
) -> None:
    async with registry.asking(deployment_id, port):
        if error is not None:
            raise error


async def test_one_port_serves_one_id() -> None:
    registry = Registry()
    await ask(registry, "a", 1)
    await ask(registry, "b", 2)
    await ask(registry, "c", 1)
    assert registry.settled() == {"b": 2, "c": 1}


async def test_what_a_call_may_be_changing_is_left_out() -> None:
    registry = Registry()
    await ask(registry, "a", 1)
    await ask(registry, "b", 2)
    await ask(registry, "gone", None)
    async with registry.asking("c", 1):
        assert registry.settled() == {"b": 2, "gone": None}
    async with registry.asking("b", None):
        assert registry.settled() == {"c": 1, "gone": None}
    assert registry.settled() == {"b": None, "c": 1, "gone": None}


async def test_a_faulty_request_changes_nothing() -> None:
    registry = Registry()
    await ask(registry, "a", 1)
    with pytest.raises(InvalidRoutes):
        await ask(registry, "a", 2, FAULTY)
    with pytest.raises(InvalidRoutes):
        await ask(registry, "b", 1, FAULTY)
    assert registry.settled() == {"a": 1}


@pytest.mark.parametrize("error", [NOT_ALLOWED, asyncio.CancelledError(), RuntimeError()])
async def test_after_any_other_failure_the_request_stands(error: BaseException) -> None:
    registry = Registry()
    with pytest.raises(type(error)):
        await ask(registry, "a", 1, error)
    assert registry.settled() == {"a": 1}


async def test_calls_for_one_id_run_in_the_order_they_were_made() -> None:
    registry = Registry()
    order: list[int] = []

    async def register(port: int) -> None:
        async with registry.asking("a", port):
            await asyncio.sleep(0.01 / port)
            order.append(port)

    await asyncio.gather(*(register(port) for port in range(1, 6)))
    assert order == [1, 2, 3, 4, 5]
    assert registry.settled() == {"a": 5}


async def test_a_removal_is_kept_until_it_is_proven() -> None:
    registry = Registry()
    await ask(registry, "a", 1)
    await ask(registry, "b", None)
    async with registry.asking("c", None):
        registry.drop_proven_removals()
    assert registry.settled() == {"a": 1, "c": None}


async def test_a_replacement_removes_what_was_known() -> None:
    registry = Registry()
    await ask(registry, "a", 1)
    await ask(registry, "b", 2)
    async with registry.replacing({"b": 3, "c": 1}):
        assert registry.settled() == {}
    assert registry.settled() == {"a": None, "b": 3, "c": 1}


async def test_what_was_asked_for_during_a_replacement_stands() -> None:
    registry = Registry()
    await ask(registry, "a", 1)
    await ask(registry, "b", 2)
    async with registry.replacing({"a": 1, "b": 3, "c": 4, "d": 5}):
        await ask(registry, "b", 6)
        await ask(registry, "c", None)
        await ask(registry, "e", 5)
    assert registry.settled() == {"a": 1, "b": 6, "c": None, "e": 5}


async def test_a_faulty_replacement_changes_nothing() -> None:
    registry = Registry()
    await ask(registry, "a", 1)
    with pytest.raises(InvalidRoutes):
        async with registry.replacing({"a": 2}):
            raise FAULTY
    assert registry.settled() == {"a": 1}


async def test_calls_wait_for_the_end_of_a_push() -> None:
    registry = Registry()
    await ask(registry, "a", 1)
    with registry.pushing():
        calls = [asyncio.ensure_future(ask(registry, key, None)) for key in ("a", "b")]
        await asyncio.sleep(0.01)
        assert registry.settled() == {"a": 1}
    await asyncio.gather(*calls)
    assert registry.settled() == {"a": None, "b": None}
