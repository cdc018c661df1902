"""The commands of `python -m pixell_envoy`."""
