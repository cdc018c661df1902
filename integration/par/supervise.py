"""Process 1 of the `par` container: restarts PAR when it ends, while its agents keep running."""

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
        # Also reaps agents of a PAR that has ended.
        pid, status = os.wait()
        if pid != par.pid:
            continue
        if stopping:
            return os.waitstatus_to_exitcode(status)
        print(f"supervise: PAR ended with {os.waitstatus_to_exitcode(status)}: restarting it", flush=True)
        # A PAR that cannot start must not keep a processor busy.
        time.sleep(0.5)
        par = start()


if __name__ == "__main__":
    sys.exit(main())
