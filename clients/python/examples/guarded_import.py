"""A module of PAR that agents import as well, in environments without pixell_envoy, which they do not need."""

import os

try:
    from pixell_envoy import EnvoyManager
except ModuleNotFoundError:
    EnvoyManager = None  # type: ignore[assignment, misc]


def start_manager() -> "EnvoyManager":
    """Only PAR calls this. Without the package no agent could be reached, so PAR does not start."""
    if EnvoyManager is None:
        raise RuntimeError("PAR needs the package pixell-envoy in its own environment")
    return EnvoyManager(os.environ["ENVOY_ADMIN_URL"])
