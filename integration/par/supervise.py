"""Process 1 of the `par` container: keeps PAR running, so that PAR can die and come back while its agents run on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Optional


def start() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "par"])


def main() -> int:
    par = start()
    stopping = False

    def stop(_signal: int, _frame: Optional[FrameType]) -> None:
        nonlocal stopping
        stopping = True
        par.terminate()

    signal.signal(signal.SIGTERM, stop)
    while True:
        # Takes in agents, too, that PAR has left behind.
        pid, status = os.wait()
        if pid != par.pid:
            continue
        if stopping:
            return os.waitstatus_to_exitcode(status)
        print(f"supervise: PAR ended with {os.waitstatus_to_exitcode(status)}: starting it again", flush=True)
        # PAR that cannot start at all must not keep a processor busy.
        time.sleep(0.5)
        par = start()


if __name__ == "__main__":
    sys.exit(main())
