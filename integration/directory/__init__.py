"""The fleet's directory: Redis with a user for each task."""
