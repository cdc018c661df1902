"""Every call of the route API, and every error, against a real Envoy."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Any, Callable

import pytest
from conftest import TOKEN
from envoy_process import EnvoyProcess

from pixell_envoy import (
    BadRequest,
    ClientClosed,
    InvalidArgument,
    InvalidRoutes,
    MapVersion,
    PayloadTooLarge,
    PortInUse,
    PreconditionFailed,
    Refused,
    Retry,
    Route,
    RouteApiClient,
    RouteNotFound,
    Unauthorized,
    UnexpectedAnswer,
    Unreachable,
    WriteResult,
)


async def routes_of(client: RouteApiClient) -> Mapping[str, Route]:
    return (await client.get_routes()).routes


async def test_replaces_the_whole_map(client: RouteApiClient) -> None:
    first = await client.replace_routes({"a": 50054, "b": Route(50055, "draining")})
    assert (first.added, first.changed, first.removed, first.displaced, first.repeated) == (2, 0, 0, (), False)
    second = await client.replace_routes({"b": 50055, "c": 50056})
    assert (second.added, second.changed, second.removed) == (1, 1, 1)
    assert second.version == replace(first.version, generation=first.version.generation + 1)
    now = await client.get_routes()
    assert (now.version, now.routes) == (second.version, {"b": Route(50055), "c": Route(50056)})


async def test_patches_the_map(client: RouteApiClient) -> None:
    await client.replace_routes({"a": 50054, "b": 50055, "c": 50056})
    result = await client.patch_routes({"a": None, "b": Route(50055, "draining"), "d": 50057, "absent": None})
    assert (result.added, result.changed, result.removed) == (1, 1, 1)
    assert await routes_of(client) == {"b": Route(50055, "draining"), "c": Route(50056), "d": Route(50057)}


async def test_two_routes_swap_their_ports(client: RouteApiClient) -> None:
    await client.replace_routes({"a": 50054, "b": 50055})
    result = await client.patch_routes({"a": 50055, "b": 50054})
    assert (result.changed, result.displaced) == (2, ())
    assert await routes_of(client) == {"a": Route(50055), "b": Route(50054)}


@pytest.mark.parametrize(
    "deployment_id", ["a", "0f8fad5b-d9cb-469f-a165-70867728950e", "A.b_C-9", "...", ".", "..", "x" * 128]
)
async def test_puts_gets_and_deletes_one(client: RouteApiClient, deployment_id: str) -> None:
    added = await client.put_route(deployment_id, 50054)
    assert (added.added, added.changed) == (1, 0)
    changed = await client.put_route(deployment_id, Route(50055, "draining"))
    assert (changed.added, changed.changed) == (0, 1)
    assert await client.get_route(deployment_id) == Route(50055, "draining")
    assert await routes_of(client) == {deployment_id: Route(50055, "draining")}
    gone = await client.delete_route(deployment_id)
    assert gone.generation == changed.version.generation + 1
    assert await client.delete_route(deployment_id) == gone
    with pytest.raises(RouteNotFound):
        await client.get_route(deployment_id)


async def test_a_reused_port_displaces_its_old_owner(client: RouteApiClient) -> None:
    await client.put_route("old", 50054)
    result = await client.put_route("new", 50054)
    assert result.displaced == ("old",)
    assert result.warning is not None
    assert result.warning.startswith("new takes port 50054 from old, which loses its route. ")
    assert (await client.put_route("new", 50055)).warning is None
    assert await routes_of(client) == {"new": Route(50055)}


async def test_a_write_without_effect_leaves_the_version_alone(client: RouteApiClient) -> None:
    first = await client.put_route("a", 50054)
    second = await client.put_route("a", 50054)
    assert second == WriteResult(first.version, added=0, changed=0, removed=0)


async def test_gets_the_map_only_if_changed(client: RouteApiClient) -> None:
    before = await client.get_routes()
    assert await client.get_routes_if_changed(before.version) is None
    await client.put_route("a", 50054)
    now = await client.get_routes_if_changed(before.version)
    assert now is not None and now.routes == {"a": Route(50054)}


async def test_status(client: RouteApiClient) -> None:
    result = await client.put_route("a", 50054)
    status = await client.status()
    assert (status.version, status.routes, status.loaded) == (result.version, 1, True)
    assert status.filter_version.count(".") == 2


async def test_readiness_and_stats(client: RouteApiClient) -> None:
    assert await client.is_ready()
    names = {stat.get("name") for stat in (await client.stats())["stats"]}
    assert "server.live" in names


async def test_localhost_reaches_envoy_wherever_the_name_leads(
    shared_envoy: EnvoyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process listens on Envoy's port at an address that the name resolves to first, as it can on ::1."""
    port = int(shared_envoy.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.2", port)) as other:
        other.setblocking(False)
        resolve = socket.getaddrinfo

        def lead_astray(host: Any, *more: Any, **options: Any) -> Any:
            return resolve("127.0.0.2" if host in ("localhost", b"localhost") else host, *more, **options)

        monkeypatch.setattr(socket, "getaddrinfo", lead_astray)
        async with RouteApiClient(f"http://localhost:{port}/") as client:
            assert await client.is_ready()
            await client.put_route("a", 50054)
        with pytest.raises(BlockingIOError):
            other.accept()


Write = Callable[..., Awaitable[Any]]


@pytest.mark.parametrize(
    "write",
    [
        lambda client, **how: client.replace_routes({"b": 50055}, **how),
        lambda client, **how: client.patch_routes({"b": 50055}, **how),
        lambda client, **how: client.put_route("b", 50055, **how),
        lambda client, **how: client.put_route("..", 50055, **how),
        lambda client, **how: client.delete_route("a", **how),
        lambda client, **how: client.delete_route("..", **how),
    ],
    ids=["replace", "patch", "put", "put dots", "delete", "delete dots"],
)
async def test_every_write_can_be_conditional_and_dry(client: RouteApiClient, write: Write) -> None:
    await client.replace_routes({"a": 50054, "..": 50060})
    before = await client.get_routes()
    await write(client, dry_run=True)
    assert await client.get_routes() == before
    with pytest.raises(PreconditionFailed):
        await write(client, if_match=replace(before.version, generation=before.version.generation + 1))
    with pytest.raises(PreconditionFailed):
        await write(client, if_match=MapVersion("0123456789abcdef", before.version.generation))
    assert await client.get_routes() == before
    await write(client, if_match=before.version)
    assert (await client.get_routes()).version.generation == before.version.generation + 1


async def test_a_dry_run_counts_what_would_happen(client: RouteApiClient) -> None:
    await client.put_route("old", 50054)
    result = await client.put_route("new", 50054, dry_run=True)
    assert (result.added, result.removed, result.displaced) == (1, 1, ("old",))
    assert await routes_of(client) == {"old": Route(50054)}


async def check_error(client: RouteApiClient, call: Awaitable[Any], error: type, code: str, *pointers: str) -> None:
    """The call fails with exactly these errors, and leaves the map and its version as they were."""
    before = await client.get_routes()
    with pytest.raises(error) as caught:
        await call
    assert isinstance(caught.value, Refused)
    assert caught.value.problem.code == code
    assert sorted(fault.pointer for fault in caught.value.faults) == sorted(pointers)
    for pointer in pointers:
        assert pointer in str(caught.value)
    assert await client.get_routes() == before


async def test_every_error_of_a_body_is_named(client: RouteApiClient) -> None:
    await client.put_route("kept", 50054)
    faulty = {"a": 80, "b": 9901, "c": 70000, "bad/id": 50055, "": 50056, "\u00e4": 50057, "good": 50058}
    pointers = ["/routes/a/port", "/routes/b/port", "/routes/c/port", "/routes/bad~1id", "/routes/", "/routes/\u00e4"]
    await check_error(client, client.replace_routes(faulty), InvalidRoutes, "invalid_routes", *pointers)
    await check_error(client, client.patch_routes(faulty), InvalidRoutes, "invalid_routes", *pointers)
    await check_error(client, client.put_route("a", 80), InvalidRoutes, "invalid_routes", "/port")
    await check_error(client, client.put_route("bad/id", 50055), InvalidRoutes, "invalid_routes", "/routes/bad~1id")
    await check_error(client, client.put_route("", 50055), InvalidRoutes, "invalid_routes", "/routes/")
    await check_error(client, client.put_route("a", Route(50055, "gone")), InvalidRoutes, "invalid_routes", "/state")  # type: ignore[arg-type]
    await check_error(client, client.delete_route("bad id"), InvalidRoutes, "invalid_routes", "/routes/bad id")
    await check_error(client, client.get_route("bad id"), RouteNotFound, "not_found")
    too_long = "x" * 129
    await check_error(client, client.put_route(too_long, 50055), InvalidRoutes, "invalid_routes", f"/routes/{too_long}")


async def test_the_first_errors_are_listed_and_all_are_counted(client: RouteApiClient) -> None:
    for count in (1, 100, 250):
        with pytest.raises(InvalidRoutes) as caught:
            await client.replace_routes({f"agent-{number}": 80 for number in range(count)})
        assert (len(caught.value.faults), caught.value.errors_total) == (min(count, 100), count)


async def test_one_port_given_twice_is_an_error(client: RouteApiClient) -> None:
    await client.put_route("kept", 50054)
    for write in (client.replace_routes, client.patch_routes):
        with pytest.raises(PortInUse) as caught:
            await write({"a": 50055, "b": 50055})
        assert caught.value.faults
        assert {fault.deployment_id for fault in caught.value.faults} <= {"a", "b"}
    assert await routes_of(client) == {"kept": Route(50054)}


async def test_a_body_above_the_limit_is_an_error(client: RouteApiClient) -> None:
    with pytest.raises(PayloadTooLarge):
        await client.replace_routes({f"{number:0128}": 50054 for number in range(20_000)})
    assert await routes_of(client) == {}


async def test_the_largest_map_that_is_allowed(client: RouteApiClient) -> None:
    routes = {f"{number:0128}": Route(50070 + number, "draining") for number in range(10_000)}
    assert (await client.replace_routes(routes)).added == 10_000
    assert await routes_of(client) == routes


@pytest.mark.parametrize("token", [None, "wrong", TOKEN + "x", TOKEN[:-1]])
async def test_a_wrong_token_is_unauthorized(guarded_envoy: EnvoyProcess, token: str) -> None:
    async with RouteApiClient(guarded_envoy.url, token=token) as client:
        for call in (client.get_routes(), client.put_route("a", 50054), client.status()):
            with pytest.raises(Unauthorized):
                await call
        assert await client.is_ready()


async def test_the_right_token_is_accepted(guarded_envoy: EnvoyProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    async with RouteApiClient(guarded_envoy.url, token=TOKEN) as client:
        await client.replace_routes({"a": 50054})
    monkeypatch.setenv("PIXELL_ADMIN_TOKEN", TOKEN)
    async with RouteApiClient(guarded_envoy.url) as client:
        assert await routes_of(client) == {"a": Route(50054)}


async def test_bad_arguments_are_not_sent(client: RouteApiClient) -> None:
    wrong: Any
    for wrong in (None, 5, b"a"):
        with pytest.raises(InvalidArgument):
            await client.put_route(wrong, 50054)
        with pytest.raises(InvalidArgument):
            await client.replace_routes({wrong: 50054})
    for wrong in (None, "50054", True, 1.5):
        with pytest.raises(InvalidArgument):
            await client.put_route("a", wrong)
    assert await routes_of(client) == {}


async def test_the_api_judges_numbers_that_are_no_port(client: RouteApiClient) -> None:
    for port in (-1, 0, 65536, 10**30):
        with pytest.raises((InvalidRoutes, BadRequest)):
            await client.put_route("a", port)


async def test_nothing_listens(own_envoy: EnvoyProcess) -> None:
    own_envoy.kill()
    async with RouteApiClient(own_envoy.url, retry=Retry(attempts=1)) as client:
        with pytest.raises(Unreachable):
            await client.get_routes()


async def test_something_else_listens() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, RouteApiClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        with pytest.raises(UnexpectedAnswer, match="hello"):
            await client.get_routes()


async def test_a_server_that_never_responds_is_left_after_the_timeout() -> None:
    hanging = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hanging.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, RouteApiClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=0.2) as client:
        loop = asyncio.get_running_loop()
        start = loop.time()
        with pytest.raises(Unreachable):
            await client.get_routes()
        assert loop.time() - start < 2
        hanging.set()


async def test_a_closed_client_says_so(shared_envoy: EnvoyProcess) -> None:
    client = RouteApiClient(shared_envoy.url)
    await client.get_routes()
    await client.close()
    await client.close()
    with pytest.raises(ClientClosed):
        await client.get_routes()


async def test_many_calls_at_once(client: RouteApiClient) -> None:
    await asyncio.gather(*(client.put_route(f"agent-{number}", 50070 + number) for number in range(300)))
    assert len(await routes_of(client)) == 300
