"""The names of time zones.

Packages look a name up among files and modules, and in some a prefix of it chooses a class: only names of the IANA
database that are known to exist here get there, so that no bytes name a file or a module.
"""

from __future__ import annotations

import functools
import re
import zoneinfo
from typing import Final

__all__ = ["is_fixed", "is_known"]

_FIXED: Final = re.compile(r"[+-][0-9]{2}:[0-9]{2}")


def is_known(name: object) -> bool:
    """Whether this is the name of a zone of the IANA database that is installed here."""
    return type(name) is str and (name == "UTC" or name in _names())


def is_fixed(name: str) -> bool:
    """Whether this is an offset from UTC, as Arrow writes one: ``+01:00``."""
    return _FIXED.fullmatch(name) is not None


@functools.lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())
