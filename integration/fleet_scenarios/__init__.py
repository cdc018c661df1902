"""Scenarios of a fleet: three tasks, their directory, and a load balancer before them."""
