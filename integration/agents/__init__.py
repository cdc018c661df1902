"""Agents to deploy: real servers that say which deployment they are."""
