"""The errors of fleets and directories. Each is a RouteApiError."""

from __future__ import annotations

from ..errors import RouteApiError


class DirectoryUnavailable(RouteApiError):
    """The directory cannot be reached, or rejected the call; it may work later."""


class Superseded(RouteApiError):
    """Another process has published a record for the same task since this one did."""


class BadRecord(RouteApiError):
    """A document in the directory is not a record. The message is a fixed text: the document is not to be trusted."""


class MetadataError(RouteApiError):
    """The ECS task metadata endpoint does not tell this task's id and address."""


class MissingExtra(RouteApiError, ImportError):
    """An optional dependency of this package is not installed; the message says how to install it."""

    @classmethod
    def named(cls, extra: str, what: str) -> MissingExtra:
        return cls(f"{what} needs the extra {extra!r}: pip install 'pixell-envoy[{extra}]'")
