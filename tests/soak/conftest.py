"""Federations of drivers on real Ray, as in `tests.federation`."""

from tests.federation.conftest import credentials, federation, logs

__all__ = ["credentials", "federation", "logs"]
