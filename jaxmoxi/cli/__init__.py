"""The command `jaxmoxi`."""

from jaxmoxi.cli.main import main

__all__ = ["main"]
