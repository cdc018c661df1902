"""A lasting failure is logged once, and once more when it is over."""

from __future__ import annotations

import logging
from typing import Optional

from ..errors import Refused, RouteApiError, Unreachable
from .errors import DirectoryUnavailable


class Trouble:
    """Whether something that is repeated works. `what` completes "cannot ..."."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        self._logger = logger
        self._what = what
        self._kind: Optional[object] = None

    @property
    def lasts(self) -> bool:
        """Whether the last attempt failed."""
        return self._kind is not None

    def failed(self, error: Exception) -> None:
        """Logs the error unless the last attempt failed for the same reason."""
        # The text may differ at each attempt.
        kind = (type(error), error.problem.code if isinstance(error, Refused) else None)
        level = logging.WARNING if isinstance(error, (Unreachable, DirectoryUnavailable)) else logging.ERROR
        self._logger.log(
            logging.DEBUG if kind == self._kind else level,
            "cannot %s, will retry: %s",
            self._what,
            error if isinstance(error, RouteApiError) else repr(error),
            # The trace of an error of this package says no more than the message.
            exc_info=None if isinstance(error, RouteApiError) else error,
        )
        self._kind = kind

    def over(self) -> None:
        """Says that an attempt worked."""
        if self._kind is not None:
            self._kind = None
            self._logger.info("can %s again", self._what)
