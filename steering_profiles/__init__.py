"""Steering profiles: what they are, how they are applied, how they are made."""

from importlib.metadata import version

__version__ = version("steering-server")
