"""Finds the route API's token in an argument, a file or the environment, and keeps it out of agents' environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

from .errors import InvalidArgument

TOKEN_VARIABLE = "PIXELL_ADMIN_TOKEN"
FILE_VARIABLE = "PIXELL_ADMIN_TOKEN_FILE"

# Tokens that this process has read, by variable or path. Later clients find them here once the source is removed.
_read: dict[str, str] = {}


def find_token(token: Optional[str], hide: bool) -> Optional[str]:
    """The token; None or an empty one means none.

    `token` comes first, then the file that FILE_VARIABLE names, then TOKEN_VARIABLE. With `hide`, TOKEN_VARIABLE is
    removed from `os.environ`, so that programs started later do not inherit it. Raises InvalidArgument if both
    variables are set or the file cannot be read.
    """
    if token is not None:
        return token
    variable, path = os.environ.get(TOKEN_VARIABLE), os.environ.get(FILE_VARIABLE)
    if variable and path:
        raise InvalidArgument(f"both {TOKEN_VARIABLE} and {FILE_VARIABLE} are set; set one of them")
    if path:
        return _from_file(path)
    if variable is not None:
        _read[TOKEN_VARIABLE] = variable
        if hide:
            del os.environ[TOKEN_VARIABLE]
    return _read.get(TOKEN_VARIABLE)


def _from_file(path: str) -> str:
    try:
        # Editors and `echo` append one newline, which is not part of the token.
        _read[path] = Path(path).read_bytes().decode("ascii").removesuffix("\n")
    except OSError as error:
        if path not in _read:
            raise InvalidArgument(f"cannot read the file that {FILE_VARIABLE} names: {error}") from error
    except UnicodeDecodeError:
        # The original error would show the token.
        raise InvalidArgument(f"the file that {FILE_VARIABLE} names holds bytes that are not ASCII") from None
    return _read[path]
