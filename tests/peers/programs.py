"""Programs that are run to their end, such as curl and grpcurl."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(*command: str) -> str:
    """What the program prints; it must succeed."""
    # grpcurl is a package of this environment.
    path = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}\n{done}"
    return done.stdout
