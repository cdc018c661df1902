"""Repetitions, with a transport that answers from a script: a real server cannot be made to lose an answer on cue."""

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
MOVED_ON = httpx.Response(
    412,
    json={"code": "precondition_failed", "title": "Precondition Failed", "status": 412, "detail": "moved on"},
    headers={"Content-Type": "application/problem+json"},
)
NOT_CONNECTED = httpx.ConnectError("refused")
ANSWER_LOST = httpx.ReadError("reset")

Step = Union[httpx.Response, Exception]


def busy(retry_after: str) -> httpx.Response:
    return httpx.Response(
        503,
        json={"code": "conflict_retries_exhausted", "title": "Service Unavailable", "status": 503, "detail": "busy"},
        headers={"Content-Type": "application/problem+json", "Retry-After": retry_after},
    )


class Script:
    """Answers one request after the other, on a clock that moves only where something sleeps."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self._now = 0.0
        self.sleeps: list[float] = []
        retry = Retry(
            attempts=3, backoff=Backoff(0.1, 1, random=lambda: 1.0), clock=lambda: self._now, sleep=self._sleep
        )
        self.client = RouteApiClient(timeout=5, retry=retry, transport=httpx.MockTransport(self._answer))

    @property
    def steps_left(self) -> int:
        return len(self._steps)

    def _answer(self, request: httpx.Request) -> httpx.Response:
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
async def test_what_was_not_sent_is_sent_again(call: Callable[[RouteApiClient], Awaitable[WriteResult]]) -> None:
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


@pytest.mark.parametrize("lost", [ANSWER_LOST, OVERLOADED])
async def test_a_write_whose_answer_got_lost_is_repeated_and_says_so(lost: Step) -> None:
    script = Script(lost, WRITTEN)
    assert (await write(script.client)).repeated is True


@pytest.mark.parametrize("lost", [ANSWER_LOST, OVERLOADED])
async def test_a_conditional_write_whose_answer_got_lost_is_not_repeated(lost: Step) -> None:
    script = Script(lost, MOVED_ON)
    with pytest.raises(OutcomeUnknown):
        await conditional_write(script.client)
    assert script.steps_left == 1


async def test_a_refusal_is_not_repeated() -> None:
    script = Script(MOVED_ON, WRITTEN)
    with pytest.raises(PreconditionFailed):
        await conditional_write(script.client)
    assert script.steps_left == 1


async def test_gives_up_after_the_last_attempt() -> None:
    script = Script(NOT_CONNECTED, NOT_CONNECTED, NOT_CONNECTED, WRITTEN)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9901"):
        await write(script.client)
    assert script.steps_left == 1


async def test_gives_up_where_the_timeout_would_pass() -> None:
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

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"]["read"])
        return busy("2") if len(seen) == 1 else WRITTEN

    script = Script()
    retry = Retry(clock=lambda: script._now, sleep=script._sleep)
    await write(RouteApiClient(timeout=5, retry=retry, transport=httpx.MockTransport(answer)))
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
    "answer",
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
async def test_an_answer_of_something_else_is_unexpected(answer: httpx.Response) -> None:
    with pytest.raises(UnexpectedAnswer):
        await write(Script(answer).client)


async def test_the_token_is_sent_to_the_route_api_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELL_ADMIN_TOKEN", " from-environment\n")
    seen: list[Optional[str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Authorization"))
        return WRITTEN

    for token in (None, "given", ""):
        client = RouteApiClient(token=token, transport=httpx.MockTransport(answer))
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
            token=token, retry=Retry(attempts=1), transport=httpx.MockTransport(Script(step)._answer)
        )
        with pytest.raises((Unauthorized, Unreachable)) as caught:
            await write(client)
        assert token not in f"{caught.value!r} {caught.value} {client!r}"
    for bad in ("two words", "ümlaut", "line\nbreak"):
        with pytest.raises(ValueError) as refused:
            RouteApiClient(token=bad)
        assert bad not in str(refused.value)


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
def test_refuses_a_base_url_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="admin URL") as refused:
        RouteApiClient(url)
    assert "password" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://localhost:9901", "http://localhost:9901/", "http://localhost:9901/prefix/"])
async def test_paths_are_appended_to_the_base_url(url: str) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return WRITTEN

    await RouteApiClient(url, transport=httpx.MockTransport(answer)).put_route("a", 50054, dry_run=True)
    assert seen == [f"{url.rstrip('/')}/v1/routes/a?dry_run=true"]
