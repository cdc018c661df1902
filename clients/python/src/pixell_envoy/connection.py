"""One HTTP connection pool to Envoy: sends requests, and retries them if that is safe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

import httpx

from .admin_token import FILE_VARIABLE, TOKEN_VARIABLE
from .errors import ClientClosed, InvalidArgument, OutcomeUnknown, RouteApiError, UnexpectedAnswer, Unreachable
from .responses import error_for
from .retry import Retry, asked_to_wait, may_retry

_USE_ROUTE_API = "the route API is on port 9901, by default http://127.0.0.1:9901"

# Errors before a single byte of the request was sent.
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
class Success:
    """A successful response. `repeated` is True if the response to an earlier attempt of the same call was lost."""

    response: httpx.Response
    repeated: bool = False


class Connection:
    """Sends calls to one base URL.

    It uses httpx's transport directly, without httpx.AsyncClient. AsyncClient writes a log line for each request, which
    with a poll each second would fill PAR's log. It also takes proxies and credentials (~/.netrc) from the environment,
    and a proxy must never see the token.
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
        self._authorization = _authorization(token)
        if not timeout > 0:
            raise InvalidArgument(f"a timeout is a number of seconds above 0, not {timeout!r}")
        self._timeout = timeout
        self._retry = retry
        self._transport = transport or httpx.AsyncHTTPTransport(trust_env=False)
        self._closed = False

    async def send(self, call: Call) -> Success:
        """Sends `call`, and retries it as often as `Retry` and the timeout allow.

        Raises what responses.error_for returns, Unreachable, OutcomeUnknown or ClientClosed.
        """
        deadline = self._retry.clock() + self._timeout
        delays = self._retry.backoff.delays()
        repeated = False
        for attempt in range(1, self._retry.attempts + 1):
            try:
                response = await self._attempt(call, max(deadline - self._retry.clock(), 0.001))
                return Success(response, repeated)
            except RouteApiError as error:
                delay = max(next(delays), asked_to_wait(error) or 0.0)
                is_last = attempt == self._retry.attempts or self._retry.clock() + delay >= deadline
                if is_last or not may_retry(error, call.idempotent):
                    raise
                repeated = repeated or isinstance(error, OutcomeUnknown)
            await self._retry.sleep(delay)
        raise AssertionError("the last attempt returns or raises")

    async def close(self) -> None:
        """Closes the pool. Calls in flight fail; later ones raise ClientClosed. Can be called several times."""
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
            # The message has the size, because Envoy closes the connection if a body is far too large.
            what = f"{call.method} {request.url} with a body of {len(call.body or b'')} bytes"
            raise OutcomeUnknown(f"lost the response to {what}: {error!r}") from error
        if "x-pixell-error" in response.headers:
            # The data path took the call for a request to an agent. Nothing but the proxy sends this header.
            raise UnexpectedAnswer(f"{self._base_url} is the data path, which leads to agents: {_USE_ROUTE_API}")
        if response.status_code not in call.accept:
            raise error_for(response)
        return response

    def _request(self, call: Call, timeout: float) -> httpx.Request:
        headers: dict[str, str] = {"Accept": "application/json", **(call.headers or {})}
        # Readiness and statistics need no token, and a token that is not sent cannot leak.
        if self._authorization is not None and call.path.startswith(("/v1/", "/clusters")):
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
    if url.scheme == "http" and url.host.rstrip(".") == "localhost":
        # Envoy listens on IPv4. The name may resolve to ::1 first, where any process could listen and get the token.
        return url.copy_with(host="127.0.0.1")
    return url


def _authorization(token: Optional[str]) -> Optional[str]:
    """The Authorization header; None if there is no token or an empty one."""
    token = (token or "").strip()
    if not token:
        return None
    if not all("!" <= character <= "~" for character in token):
        # httpx would raise an error that shows the token.
        raise InvalidArgument(
            f"the token (by default from {TOKEN_VARIABLE} or {FILE_VARIABLE}) holds a blank or a character that is not "
            "printable ASCII"
        )
    return f"Bearer {token}"
