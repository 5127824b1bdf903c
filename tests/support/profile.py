"""How often a test that repeats itself does so, and which random things it does.

The variable FED_TEST_PROFILE is ``quick``, ``full`` or ``deep``: ``make test``, ``make test-full`` and
``make test-deep`` set it, and without it a test is quick. FED_TEST_SEED is the first seed; both are shown at the head
of a run.
"""

from __future__ import annotations

import os
from typing import Final

PROFILES: Final = ("quick", "full", "deep")

# Read here, because no test sees variables of the caller's.
PROFILE: Final = os.environ.get("FED_TEST_PROFILE", "quick")
if PROFILE not in PROFILES:
    raise ValueError(f"FED_TEST_PROFILE is one of {', '.join(PROFILES)}, not {PROFILE!r}")


SEED: Final = int(os.environ.get("FED_TEST_SEED", "4711"))


def times(quick: int, full: int, deep: int) -> int:
    """The number that belongs to this run's profile."""
    return (quick, full, deep)[PROFILES.index(PROFILE)]
