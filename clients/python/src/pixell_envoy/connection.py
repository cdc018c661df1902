"""One HTTP connection pool to Envoy: sends requests, repeats them where that is safe, tells lost from refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

import httpx

from .answers import error_for
from .errors import ClientClosed, InvalidArgument, OutcomeUnknown, RouteApiError, Unreachable
from .retry import Retry, asked_to_wait, may_repeat

TOKEN_VARIABLE = "PIXELL_ADMIN_TOKEN"

# Failures before a single byte of the request has left.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True)
class Call:
    """One request. `accept` holds the statuses of a success; `idempotent` says whether it may be executed twice."""

    method: str
    path: str
    accept: tuple[int, ...] = (200,)
    idempotent: bool = True
    query: Optional[Mapping[str, str]] = None
    headers: Optional[Mapping[str, str]] = None
    body: Optional[bytes] = None


@dataclass(frozen=True)
class Answer:
    """A successful response; `repeated` is True where an earlier answer to the same call got lost."""

    response: httpx.Response
    repeated: bool = False


class Connection:
    """Sends calls to one base URL.

    It drives httpx's transport itself, without httpx.AsyncClient. That one writes a log line for each request, which
    with a poll a second would fill PAR's log, and it takes proxies and credentials (~/.netrc) from the environment,
    which must never see the token.
    """

    def __init__(
        self,
        base_url: str,
        token: Optional[str],
        timeout: float,
        retry: Retry,
        transport: Optional[httpx.AsyncBaseTransport],
    ) -> None:
        self._base_url = _parse_base_url(base_url)
        self._authorization = _authorization(os.environ.get(TOKEN_VARIABLE) if token is None else token)
        if not timeout > 0:
            raise InvalidArgument(f"a timeout is a number of seconds above 0, not {timeout!r}")
        self._timeout = timeout
        self._retry = retry
        self._transport = transport or httpx.AsyncHTTPTransport(trust_env=False)
        self._closed = False

    async def send(self, call: Call) -> Answer:
        """The answer to `call`, repeated as often as `Retry` allows and the timeout lasts.

        Raises what answers.error_for finds, Unreachable, OutcomeUnknown or ClientClosed.
        """
        deadline = self._retry.clock() + self._timeout
        delays = self._retry.backoff.delays()
        repeated = False
        for attempt in range(1, self._retry.attempts + 1):
            try:
                response = await self._attempt(call, max(deadline - self._retry.clock(), 0.001))
                return Answer(response, repeated)
            except RouteApiError as error:
                delay = max(next(delays), asked_to_wait(error) or 0.0)
                is_last = attempt == self._retry.attempts or self._retry.clock() + delay >= deadline
                if is_last or not may_repeat(error, call.idempotent):
                    raise
                repeated = repeated or isinstance(error, OutcomeUnknown)
            await self._retry.sleep(delay)
        raise AssertionError("the last attempt returns or raises")

    async def close(self) -> None:
        """Closes the pool. Calls under way fail; later ones raise ClientClosed. Can be repeated."""
        if not self._closed:
            self._closed = True
            await self._transport.aclose()

    async def _attempt(self, call: Call, timeout: float) -> httpx.Response:
        if self._closed:
            raise ClientClosed("this client has been closed")
        request = self._request(call, timeout)
        try:
            response = await self._transport.handle_async_request(request)
            try:
                await response.aread()
            finally:
                await response.aclose()
        except _NOT_SENT as error:
            raise Unreachable(f"no connection to Envoy at {self._base_url}: {error!r}") from error
        except httpx.TransportError as error:
            # The size is told because Envoy closes the connection on a body that is far too large.
            what = f"{call.method} {request.url} with a body of {len(call.body or b'')} bytes"
            raise OutcomeUnknown(f"lost the answer to {what}: {error!r}") from error
        if response.status_code not in call.accept:
            raise error_for(response)
        return response

    def _request(self, call: Call, timeout: float) -> httpx.Request:
        headers: dict[str, str] = {"Accept": "application/json", **(call.headers or {})}
        # Readiness and stats need no token; what is not sent cannot leak.
        if self._authorization is not None and call.path.startswith("/v1/"):
            headers["Authorization"] = self._authorization
        url = self._base_url.copy_with(raw_path=self._base_url.raw_path.rstrip(b"/") + call.path.encode("ascii"))
        return httpx.Request(
            call.method,
            url.copy_merge_params(call.query) if call.query else url,
            headers=headers,
            content=call.body,
            extensions={"timeout": httpx.Timeout(timeout).as_dict()},
        )


def _parse_base_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError) as error:
        raise InvalidArgument(f"the admin URL is not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        # Userinfo may be a password, so the URL itself is not shown.
        raise InvalidArgument("the admin URL has the form http://host:port, without user, query or fragment")
    return url


def _authorization(token: Optional[str]) -> Optional[str]:
    """The Authorization header. Without a token, or with an empty one, there is none."""
    token = (token or "").strip()
    if not token:
        return None
    if not all("!" <= character <= "~" for character in token):
        # httpx would refuse it as well, with the token in its message.
        raise InvalidArgument(
            f"the token (by default {TOKEN_VARIABLE}) holds a blank or a character that is not printable ASCII"
        )
    return f"Bearer {token}"
