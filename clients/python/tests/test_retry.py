"""Retries, with a transport that responds from a script: a real server cannot lose a response at the chosen moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Callable, Optional, Union

import httpx
import pytest

from pixell_envoy import (
    Backoff,
    MapVersion,
    OutcomeUnknown,
    PreconditionFailed,
    RetriesExhausted,
    Retry,
    RouteApiClient,
    Unauthorized,
    UnexpectedAnswer,
    Unreachable,
    WriteResult,
)

VERSION = MapVersion("00c0ffee00c0ffee", 7)
WRITTEN = httpx.Response(
    200, json={"epoch": VERSION.epoch, "generation": 7, "added": 1, "changed": 0, "removed": 0, "displaced": []}
)
OVERLOADED = httpx.Response(503, text="overload")
CHANGED = httpx.Response(
    412,
    json={"code": "precondition_failed", "title": "Precondition Failed", "status": 412, "detail": "changed"},
    headers={"Content-Type": "application/problem+json"},
)
NOT_CONNECTED = httpx.ConnectError("refused")
RESPONSE_LOST = httpx.ReadError("reset")

Step = Union[httpx.Response, Exception]


def busy(retry_after: str) -> httpx.Response:
    return httpx.Response(
        503,
        json={"code": "conflict_retries_exhausted", "title": "Service Unavailable", "status": 503, "detail": "busy"},
        headers={"Content-Type": "application/problem+json", "Retry-After": retry_after},
    )


class Script:
    """Responds to one request after the other, on a clock that moves only when something sleeps."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self._now = 0.0
        self.sleeps: list[float] = []
        retry = Retry(
            attempts=3, backoff=Backoff(0.1, 1, random=lambda: 1.0), clock=lambda: self._now, sleep=self._sleep
        )
        self.client = RouteApiClient(timeout=5, retry=retry, transport=httpx.MockTransport(self._respond))

    @property
    def steps_left(self) -> int:
        return len(self._steps)

    def _respond(self, request: httpx.Request) -> httpx.Response:
        step = self._steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    async def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self._now += seconds


async def write(client: RouteApiClient, if_match: Optional[MapVersion] = None) -> WriteResult:
    return await client.put_route("a", 50054, if_match=if_match)


async def conditional_write(client: RouteApiClient) -> WriteResult:
    return await write(client, VERSION)


@pytest.mark.parametrize("call", [write, conditional_write])
async def test_a_request_that_was_not_sent_is_retried(call: Callable[[RouteApiClient], Awaitable[WriteResult]]) -> None:
    script = Script(NOT_CONNECTED, NOT_CONNECTED, WRITTEN)
    result = await call(script.client)
    assert (result.added, result.repeated) == (1, False)
    assert script.sleeps == pytest.approx([0.1, 0.2])


@pytest.mark.parametrize("call", [write, conditional_write])
async def test_a_busy_envoy_is_given_the_time_it_asks_for(
    call: Callable[[RouteApiClient], Awaitable[WriteResult]],
) -> None:
    script = Script(busy("2"), WRITTEN)
    assert (await call(script.client)).repeated is False
    assert script.sleeps == [2.0]


@pytest.mark.parametrize("lost", [RESPONSE_LOST, OVERLOADED])
async def test_a_write_whose_response_was_lost_is_retried_and_says_so(lost: Step) -> None:
    script = Script(lost, WRITTEN)
    assert (await write(script.client)).repeated is True


@pytest.mark.parametrize("lost", [RESPONSE_LOST, OVERLOADED])
async def test_a_conditional_write_whose_response_was_lost_is_not_retried(lost: Step) -> None:
    script = Script(lost, CHANGED)
    with pytest.raises(OutcomeUnknown):
        await conditional_write(script.client)
    assert script.steps_left == 1


async def test_a_write_that_is_not_accepted_is_not_retried() -> None:
    script = Script(CHANGED, WRITTEN)
    with pytest.raises(PreconditionFailed):
        await conditional_write(script.client)
    assert script.steps_left == 1


async def test_gives_up_after_the_last_attempt() -> None:
    script = Script(NOT_CONNECTED, NOT_CONNECTED, NOT_CONNECTED, WRITTEN)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9901"):
        await write(script.client)
    assert script.steps_left == 1


async def test_gives_up_if_the_timeout_would_pass() -> None:
    script = Script(busy("2"), busy("2"), busy("2"))
    # Two waits of 2 s fit into 5 s, and there are three attempts.
    with pytest.raises(RetriesExhausted) as caught:
        await write(script.client)
    assert caught.value.retry_after == 2.0
    script = Script(busy("60"), WRITTEN)
    with pytest.raises(RetriesExhausted):
        await write(script.client)
    assert script.sleeps == []


async def test_the_timeout_of_a_phase_shrinks_with_what_is_left() -> None:
    seen: list[float] = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"]["read"])
        return busy("2") if len(seen) == 1 else WRITTEN

    script = Script()
    retry = Retry(clock=lambda: script._now, sleep=script._sleep)
    await write(RouteApiClient(timeout=5, retry=retry, transport=httpx.MockTransport(respond)))
    assert seen == [5.0, 3.0]


async def test_a_cancellation_goes_through() -> None:
    async def hang(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError("never set")

    client = RouteApiClient(transport=httpx.MockTransport(hang))
    task = asyncio.ensure_future(write(client))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(
            200, json={"epoch": "a", "generation": True, "added": 0, "changed": 0, "removed": 0, "displaced": []}
        ),
        httpx.Response(204),
        httpx.Response(302, headers={"Location": "http://elsewhere/"}),
        httpx.Response(404, text="nothing here"),
        httpx.Response(400, json={"code": "x"}, headers={"Content-Type": "application/json"}),
        httpx.Response(418, json={"code": "teapot"}, headers={"Content-Type": "application/problem+json"}),
    ],
)
async def test_a_response_of_another_program_is_unexpected(response: httpx.Response) -> None:
    with pytest.raises(UnexpectedAnswer):
        await write(Script(response).client)


async def test_the_token_is_sent_to_the_route_api_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELL_ADMIN_TOKEN", " from-environment\n")
    seen: list[Optional[str]] = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Authorization"))
        return WRITTEN

    for token in (None, "given", ""):
        client = RouteApiClient(token=token, transport=httpx.MockTransport(respond))
        await write(client)
        await client.is_ready()
    assert seen == ["Bearer from-environment", None, "Bearer given", None, None, None]


async def test_no_error_shows_the_token() -> None:
    token = "correct-horse"
    problem = httpx.Response(
        401,
        json={"code": "unauthorized", "title": "Unauthorized", "status": 401, "detail": "no"},
        headers={"Content-Type": "application/problem+json"},
    )
    for step in (problem, NOT_CONNECTED):
        client = RouteApiClient(
            token=token, retry=Retry(attempts=1), transport=httpx.MockTransport(Script(step)._respond)
        )
        with pytest.raises((Unauthorized, Unreachable)) as caught:
            await write(client)
        assert token not in f"{caught.value!r} {caught.value} {client!r}"
    for bad in ("two words", "ümlaut", "line\nbreak"):
        with pytest.raises(ValueError) as raised:
            RouteApiClient(token=bad)
        assert bad not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:9901",
        "ftp://localhost",
        "http://",
        "http://user:password@localhost",
        "http://localhost/?a=b",
        "http://a:b",
    ],
)
def test_a_text_that_is_no_base_url_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match="admin URL") as raised:
        RouteApiClient(url)
    assert "password" not in str(raised.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9901", "http://127.0.0.1:9901/", "http://127.0.0.1:9901/prefix/"])
async def test_paths_are_appended_to_the_base_url(url: str) -> None:
    seen: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return WRITTEN

    await RouteApiClient(url, transport=httpx.MockTransport(respond)).put_route("a", 50054, dry_run=True)
    assert seen == [f"{url.rstrip('/')}/v1/routes/a?dry_run=true"]


@pytest.mark.parametrize(
    ("url", "called"),
    [
        ("http://localhost:9901", "http://127.0.0.1:9901"),
        ("http://LocalHost:9901", "http://127.0.0.1:9901"),
        ("http://localhost.:9901", "http://127.0.0.1:9901"),
        ("http://localhost/prefix", "http://127.0.0.1/prefix"),
        # A certificate proves who responds, and it names this host.
        ("https://localhost:9901", "https://localhost:9901"),
        ("http://localhost.example.com:9901", "http://localhost.example.com:9901"),
    ],
)
async def test_localhost_means_127_0_0_1(url: str, called: str) -> None:
    seen: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return WRITTEN

    await RouteApiClient(url, transport=httpx.MockTransport(respond)).put_route("a", 50054)
    assert seen == [f"{called}/v1/routes/a"]
