"""The command line: ``fed run`` starts a script for one party, or for all of them on one machine."""

from fed.cli.command import main

__all__ = ["main"]
