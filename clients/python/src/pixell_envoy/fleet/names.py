"""Names of fleets, tasks and deployments: they all have the same form."""

from __future__ import annotations

import re

from ..errors import InvalidArgument

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


def is_name(text: object) -> bool:
    """Whether `text` is 1 to 128 of `A-Z a-z 0-9 . _ -`."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def checked_name(text: object, what: str) -> str:
    """`text`, which must be a name. `what` says whose it is, for the error (InvalidArgument)."""
    if not isinstance(text, str) or not is_name(text):
        raise InvalidArgument(f"{what} is 1 to 128 of A-Z a-z 0-9 . _ -, not {text!r}")
    return text
