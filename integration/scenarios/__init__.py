"""Scenarios: what must hold of the composed system, seen by a caller outside of the task."""
