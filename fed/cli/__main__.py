"""The command line as ``python -m fed.cli``."""

from fed.cli.command import main

main(prog_name="fed")
