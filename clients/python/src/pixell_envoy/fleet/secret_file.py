"""A file with a secret, which only its owner may read: agents are processes of other users."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import InvalidArgument


def read_secret(path: str, what: str) -> str:
    """The text of the file, without one newline at its end. `what` names it in errors.

    Raises InvalidArgument if it cannot be read, if users other than its owner may read or write it, or if its owner is
    neither this process's user nor root.
    """
    try:
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                mode = stat.S_IMODE(status.st_mode)
                raise InvalidArgument(f"{what} {path} has the mode {mode:04o}, so that agents can read it: chmod 600")
            if status.st_uid not in (0, os.geteuid()):
                raise InvalidArgument(
                    f"{what} {path} belongs to user {status.st_uid}, not to this process's user or root"
                )
            return file.read().decode("utf-8").removesuffix("\n")
    except OSError as error:
        raise InvalidArgument(f"cannot read {what}: {error}") from error
    except UnicodeDecodeError:
        # The original error would show the secret.
        raise InvalidArgument(f"{what} {path} is not text in UTF-8") from None
