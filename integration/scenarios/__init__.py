"""Scenarios: what must be true of the composed system, as a client outside of the task sees it."""
