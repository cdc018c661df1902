"""The errors that this package raises. Each is a RouteApiError."""

from __future__ import annotations

from typing import Optional

from .problem import Fault, Problem


class RouteApiError(Exception):
    """Base of all errors of this package."""


class InvalidArgument(RouteApiError, ValueError):
    """An argument cannot be sent at all; nothing was sent."""


class ClientClosed(RouteApiError):
    """The client has been closed."""


class Unreachable(RouteApiError):
    """Envoy could not be reached; the request was not sent, so nothing was changed."""


class OutcomeUnknown(Unreachable):
    """The request was sent, but its response was lost: a write may or may not have been made."""


class UnexpectedAnswer(RouteApiError):
    """The response is not one of the route API: most likely another program listens at this URL."""


class Refused(RouteApiError):
    """The API rejected the request and left the map as it was; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The first 100 errors of the body, each with a JSON pointer. Only 409 and 422 have them."""
        return self.problem.faults

    @property
    def errors_total(self) -> int:
        """How many errors the body has; `faults` lists the first of them."""
        return self.problem.errors_total


class FaultyRequest(Refused):
    """The request itself is wrong: a retry would fail as well."""


class BadRequest(FaultyRequest):
    """400: the request cannot be read (`malformed_json`, `invalid_deployment_id`, `invalid_query`)."""


class Unauthorized(Refused):
    """401: Envoy requires a token and got none or a wrong one."""


class Forbidden(Refused):
    """403: only loopback clients may use the route API, under a name of the loopback interface (`foreign_origin`)."""


class RouteNotFound(Refused):
    """404: there is no route of that id."""


class PortInUse(FaultyRequest):
    """409: the body gives one port to several ids."""


class FleetDisabled(Refused):
    """409 `fleet_disabled`: Envoy was started without PIXELL_FLEET_CIDRS, so it has no fleet map."""


class PreconditionFailed(Refused):
    """412: the map has changed since the version that If-Match names."""


class PayloadTooLarge(FaultyRequest):
    """413: the body is larger than the configured number of routes can need."""


class InvalidRoutes(FaultyRequest):
    """422: the body is JSON but not a valid map; `faults` lists the first 100 errors, `errors_total` counts them."""


class RetriesExhausted(Refused):
    """503 `conflict_retries_exhausted`: too many writers at once; nothing was changed.

    `retry_after` is how long Envoy asks to wait, in seconds.
    """

    def __init__(self, problem: Problem, retry_after: Optional[float]) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


REFUSED_BY_STATUS: dict[int, type[Refused]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: RouteNotFound,
    409: PortInUse,
    412: PreconditionFailed,
    413: PayloadTooLarge,
    422: InvalidRoutes,
}
"""The error for each status. 503 is not here: its error needs the Retry-After header."""

REFUSED_BY_CODE: dict[str, type[Refused]] = {"fleet_disabled": FleetDisabled}
"""The errors that share their status with another one."""
