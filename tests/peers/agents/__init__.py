"""Agents, each a program of its own made of a real library.

`python -m agents.<kind> NAME PORT` says on its first line on which port it listens; PORT 0 is any free one.
"""
