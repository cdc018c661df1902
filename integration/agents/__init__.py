"""Agents to deploy: real servers that respond with their deployment id."""
