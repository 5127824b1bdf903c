"""Growth with the size: an array of 1 KiB to 2.5 GiB made in alice and consumed in bob; time, and memory.

Limit: the same two tasks in one Ray cluster. Unit: seconds.
"""

from __future__ import annotations

from typing import Final

from benchmarks.harness import Lab
from benchmarks.memory import MemoryWatch
from benchmarks.outcome import Measurement, Outcome, Reading
from benchmarks.statistics import growth_exponent
from benchmarks.workloads import payload

__all__ = ["full"]

SIZES: Final = {
    "1 KiB": (1 << 10, 20, 8),
    "64 KiB": (1 << 16, 20, 8),
    "1 MiB": (1 << 20, 10, 8),
    "16 MiB": (1 << 24, 5, 6),
    "128 MiB": (1 << 27, 1, 6),
    "1 GiB": (1 << 30, 1, 4),
    "2.5 GiB": (5 << 29, 1, 3),
}
"""Bytes, arrays in a block, pairs."""
LARGE: Final = 1 << 24
TARGET: Final = 1.1
MOST_OBJECTS: Final = 2.0


def full(lab: Lab) -> Outcome:
    """One size after another."""
    measurements, readings = [], []
    for size, (nbytes, arrays, pairs) in SIZES.items():
        found = payload.case(lab, size, nbytes, arrays, pairs)
        measurements.append(Measurement(size, found.measure(), x=nbytes))
        if nbytes >= LARGE:
            for party, one in lab.pair.workers.items():
                with MemoryWatch([one.process.pid]) as watch:
                    found.ours()
                grown = watch.largest_growth / nbytes
                readings.append(
                    Reading(
                        f"{size}, {party}, largest growth of a process beyond the store",
                        grown,
                        "objects",
                        MOST_OBJECTS,
                    )
                )
    large = [(one.x or 0, one.comparison.ours.median) for one in measurements if (one.x or 0) >= LARGE]
    readings.append(Reading("power of the size with which time grows, from 16 MiB", growth_exponent(large), "", TARGET))
    return Outcome(
        "growth with the size",
        "an array made in alice and consumed in bob",
        "the same two tasks in one Ray cluster, through shared memory",
        tuple(measurements),
        tuple(readings),
        "bytes",
    )
