"""This task's place in a fleet, if the environment names a directory. docs/fleet.md has the lines for the real PAR."""

from __future__ import annotations

import os
import socket
from typing import Optional

from pixell_envoy import EnvoyManager
from pixell_envoy.fleet import Fleet, RedisDirectory


def of_environment(manager: EnvoyManager) -> Optional[Fleet]:
    """The fleet that publishes the agents of `manager`; None if this task is alone. Needs a running event loop."""
    url = os.environ.get("PIXELL_FLEET_REDIS_URL")
    if not url:
        return None
    # PAR may remove the file now. It stays here, because a PAR that was restarted in its container needs it again.
    directory = RedisDirectory(
        url, fleet=os.environ["PIXELL_FLEET"], password_file=os.environ.get("PIXELL_FLEET_REDIS_PASSWORD_FILE")
    )
    # On ECS, Fleet finds out both by itself.
    task, host = os.environ["PAR_TASK"], socket.gethostbyname(os.environ["PAR_HOST"])
    return Fleet(manager, directory, task_id=task, host=host, ttl=float(os.environ.get("PAR_FLEET_TTL", "10")))
