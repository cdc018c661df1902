"""`python -m pixell_envoy`: what Envoy has, for a shell inside the task."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
