"""How much of the machine was taken while something was measured: by others, and by what is measured."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final, NamedTuple

import psutil

__all__ = ["Meter"]

TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
IDLE: Final = (3, 4)
"""Places in the first line of /proc/stat: idle, and waiting for a disk."""
FIELDS: Final = 8
"""Up to the time that the host gave to other machines; what follows is counted in the first ones already."""


class Meter:
    """Processor time since it was made. Own is what this process and those below it take.

    It is read between two measurements, since to look at all processes takes some milliseconds itself.
    """

    def __init__(self) -> None:
        self._before = _read()

    def share(self) -> float:
        """The part that went neither to own processes nor to nobody, from 0 to 1."""
        return _share(self._before, _read())

    def own_s(self) -> float:
        """Seconds of own processes, those that have ended among them."""
        return _read().own - self._before.own


class _Times(NamedTuple):
    """Seconds of all processors since the start of the machine.

    Attributes:
        passed: All of them.
        idle: Those that nobody used.
        own: Those of this process and of all below it.
    """

    passed: float
    idle: float
    own: float


def _share(before: _Times, after: _Times) -> float:
    passed, idle, own = (late - early for early, late in zip(before, after, strict=True))
    # The clocks of processes and of the machine differ by some ticks.
    return min(1.0, max(0.0, 1 - (idle + own) / passed)) if passed > 0 else 0.0


def _read() -> _Times:
    fields = [int(field) * TICK_S for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    this = psutil.Process()
    own = 0.0
    for process in (this, *this.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            # Those of children that have ended are their parent's.
            own += times.user + times.system + times.children_user + times.children_system
    return _Times(sum(fields[:FIELDS]), sum(fields[place] for place in IDLE), own)
