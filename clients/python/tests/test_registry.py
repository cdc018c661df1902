from __future__ import annotations

import asyncio
from typing import Optional

import pytest

from pixell_envoy import Displacement, InvalidRoutes, Problem, Route, Unauthorized
from pixell_envoy.registry import Registry

FAULTY = InvalidRoutes(Problem(422, "invalid_routes", "", ""))
NOT_ALLOWED = Unauthorized(Problem(401, "unauthorized", "", ""))


async def ask(
    registry: Registry, deployment_id: str, port: Optional[int], error: Optional[BaseException] = None
) -> None:
    async with registry.asking(deployment_id, at(port)):
        if error is not None:
            raise error


def at(port: Optional[int]) -> Optional[Route]:
    return None if port is None else Route(port)


def settled(registry: Registry) -> dict[str, Optional[int]]:
    return {key: None if route is None else route.port for key, route in registry.settled().items()}


async def test_one_port_serves_one_id() -> None:
    registry = Registry()
    await ask(registry, "a", 1)
    await ask(registry, "b", 2)
    await ask(registry, "c", 1)
    assert settled(registry) == {"b": 2, "c": 1}


async def test_routes_that_a_call_in_flight_may_change_are_left_out() -> None:
    registry = Registry()
    await ask(registry, "a", 1)
    await ask(registry, "b", 2)
    await ask(registry, "gone", None)
    async with registry.asking("c", Route(1)):
        assert settled(registry) == {"b": 2, "gone": None}
    async with registry.asking("b", None):
        assert settled(registry) == {"c": 1, "gone": None}
    assert settled(registry) == {"b": None, "c": 1, "gone": None}


async def test_an_invalid_request_changes_nothing() -> None:
    registry = Registry()
    await ask(registry, "a", 1)
    with pytest.raises(InvalidRoutes):
        await ask(registry, "a", 2, FAULTY)
    with pytest.raises(InvalidRoutes):
        await ask(registry, "b", 1, FAULTY)
    assert settled(registry) == {"a": 1}


@pytest.mark.parametrize("error", [NOT_ALLOWED, asyncio.CancelledError(), RuntimeError()])
async def test_after_any_other_error_the_request_stands(error: BaseException) -> None:
    registry = Registry()
    with pytest.raises(type(error)):
        await ask(registry, "a", 1, error)
    assert settled(registry) == {"a": 1}


async def test_calls_for_one_id_run_in_the_order_they_were_made() -> None:
    registry = Registry()
    order: list[int] = []

    async def register(port: int) -> None:
        async with registry.asking("a", Route(port)):
            await asyncio.sleep(0.01 / port)
            order.append(port)

    await asyncio.gather(*(register(port) for port in range(1, 6)))
    assert order == [1, 2, 3, 4, 5]
    assert settled(registry) == {"a": 5}


async def test_a_removal_is_kept_until_it_is_confirmed() -> None:
    registry = Registry()
    await ask(registry, "a", 1)
    await ask(registry, "b", None)
    async with registry.asking("c", None):
        registry.drop_confirmed_removals()
    assert settled(registry) == {"a": 1, "c": None}


async def test_a_replacement_removes_what_was_known() -> None:
    registry = Registry()
    await ask(registry, "a", 1)
    await ask(registry, "b", 2)
    async with registry.replacing({"b": Route(3), "c": Route(1)}):
        assert settled(registry) == {}
    assert settled(registry) == {"a": None, "b": 3, "c": 1}


async def test_what_was_asked_for_during_a_replacement_stands() -> None:
    registry = Registry()
    await ask(registry, "a", 1)
    await ask(registry, "b", 2)
    async with registry.replacing({"a": Route(1), "b": Route(3), "c": Route(4), "d": Route(5)}):
        await ask(registry, "b", 6)
        await ask(registry, "c", None)
        await ask(registry, "e", 5)
    assert settled(registry) == {"a": 1, "b": 6, "c": None, "e": 5}


async def test_an_invalid_replacement_changes_nothing() -> None:
    registry = Registry()
    await ask(registry, "a", 1)
    with pytest.raises(InvalidRoutes):
        async with registry.replacing({"a": Route(2)}):
            raise FAULTY
    assert settled(registry) == {"a": 1}


async def test_calls_wait_for_the_end_of_a_push() -> None:
    registry = Registry()
    await ask(registry, "a", 1)
    with registry.pushing():
        calls = [asyncio.ensure_future(ask(registry, key, None)) for key in ("a", "b")]
        await asyncio.sleep(0.01)
        assert settled(registry) == {"a": 1}
    await asyncio.gather(*calls)
    assert settled(registry) == {"a": None, "b": None}


async def test_one_port_serves_one_id_across_endpoints() -> None:
    registry = Registry()
    async with registry.asking("a", Route(1, endpoints={"rest": 2})):
        pass
    await ask(registry, "b", 3)
    async with registry.asking("c", Route(4, endpoints={"ui": 2})):
        assert settled(registry) == {"b": 3}
    assert settled(registry) == {"b": 3, "c": 4}


class Reporting:
    """A registry, and the displacements that it reported."""

    def __init__(self) -> None:
        self.displacements: list[Displacement] = []
        self.registry = Registry(self.displacements.append)


async def test_a_displaced_route_is_reported_once() -> None:
    reporting = Reporting()
    await ask(reporting.registry, "a", 1)
    await ask(reporting.registry, "b", 1)
    # Envoy names it as well.
    reporting.registry.displaced("a", "b", (1,))
    assert reporting.displacements == [Displacement("a", "b", (1,))]
    # It is registered once more, and gets its port back.
    await ask(reporting.registry, "a", 1)
    reporting.registry.displaced("b", "a", (1,))
    assert reporting.displacements[1:] == [Displacement("b", "a", (1,))]


async def test_only_the_shared_ports_are_reported() -> None:
    reporting = Reporting()
    async with reporting.registry.asking("a", Route(1, endpoints={"rest": 2, "ui": 3})):
        pass
    async with reporting.registry.asking("b", Route(4, endpoints={"rest": 3, "ui": 2})):
        pass
    assert reporting.displacements == [Displacement("a", "b", (2, 3))]


async def test_a_displaced_route_of_another_writer_is_reported() -> None:
    reporting = Reporting()
    await ask(reporting.registry, "b", 1)
    reporting.registry.displaced("left-over", "b", (1,))
    assert reporting.displacements == [Displacement("left-over", "b", (1,))]


async def test_a_deregistered_route_is_not_reported() -> None:
    reporting = Reporting()
    await ask(reporting.registry, "a", 1)
    # The removal did not reach Envoy, so Envoy names the route.
    with pytest.raises(RuntimeError):
        await ask(reporting.registry, "a", None, RuntimeError())
    await ask(reporting.registry, "b", 1)
    reporting.registry.displaced("a", "b", (1,))
    assert reporting.displacements == []


@pytest.mark.parametrize("port", [None, 2])
async def test_a_route_that_a_call_in_flight_changes_is_not_reported(port: Optional[int]) -> None:
    reporting = Reporting()
    await ask(reporting.registry, "a", 1)
    async with reporting.registry.asking("a", at(port)):
        await ask(reporting.registry, "b", 1)
        reporting.registry.displaced("a", "b", (1,))
    assert reporting.displacements == []
    assert settled(reporting.registry) == {"a": port, "b": 1}


async def test_an_invalid_request_displaces_nothing() -> None:
    reporting = Reporting()
    await ask(reporting.registry, "a", 1)
    with pytest.raises(InvalidRoutes):
        await ask(reporting.registry, "b", 1, FAULTY)
    assert reporting.displacements == []


async def test_a_replacement_displaces_nothing() -> None:
    reporting = Reporting()
    await ask(reporting.registry, "a", 1)
    async with reporting.registry.replacing({"b": Route(1)}):
        pass
    reporting.registry.displaced("a", "b", (1,))
    assert reporting.displacements == []
