"""W9, growth with what is outstanding: 1 to 100,000 small objects, all submitted before the first is asked for.

Limit: the same in one Ray cluster. Unit: seconds for an object. Targets: from 100 objects on the time for an object
stays within 1.3 times, memory is bounded meanwhile and flat afterwards.
"""

from __future__ import annotations

from typing import Final

from benchmarks.harness import Lab, interleave
from benchmarks.memory import MemoryWatch
from benchmarks.outcome import Measurement, Outcome, Reading
from benchmarks.statistics import growth_exponent, spread
from benchmarks.workloads.pipelined import federated, raw

__all__ = ["full"]

COUNTS: Final = {1: 20, 10: 15, 100: 10, 1_000: 5, 10_000: 1, 100_000: 1}
"""Objects, and how many pairs."""
FROM: Final = 100
TARGET: Final = 1.3
OBJECT_BYTES: Final = 4096.0
"""What an outstanding object may take, in all processes together."""


def full(lab: Lab) -> Outcome:
    """One pair of the largest takes minutes."""
    measurements, readings = [], []
    roots = [one.process.pid for one in lab.pair.workers.values()]
    lab.pair.slowest(federated, objects=FROM)
    lab.raw.call(raw, objects=FROM)
    for count, pairs in COUNTS.items():
        with MemoryWatch(roots if count >= 10_000 else []) as watch:
            found = interleave(
                pairs,
                lambda count=count: lab.pair.slowest(federated, objects=count),  # type: ignore[misc]
                lambda count=count: float(lab.raw.call(raw, objects=count)),  # type: ignore[misc]
            )
        measurements.append(Measurement(f"W9 {count}", tuple(found), x=count))
        if watch.most:
            note = "per object, each process at its worst moment"
            readings += [
                Reading(f"W9 {count}, growth of all processes", watch.total_growth / 1e6, "MB"),
                Reading(
                    f"W9 {count}, growth of all processes", watch.total_growth / count, "bytes", OBJECT_BYTES, note
                ),
            ]
    times = {one.x or 0: spread([pair.ours for pair in one.pairs]).median for one in measurements}
    raws = {one.x or 0: spread([pair.limit for pair in one.pairs]).median for one in measurements}
    most = max(COUNTS)
    late = [(x, seconds * x) for x, seconds in times.items() if x >= FROM]
    readings += [
        Reading(f"W9 time for an object, {most} over {FROM}", times[most] / times[FROM], "times", TARGET),
        Reading(f"W9 time for an object, {most} over {FROM}, raw Ray", raws[most] / raws[FROM], "times"),
        Reading(f"W9 power of the count with which all the time grows, from {FROM}", growth_exponent(late), ""),
    ]
    return Outcome(
        "W9",
        "small objects submitted at once; time for an object",
        "the same in one Ray cluster",
        tuple(measurements),
        tuple(readings),
        "objects",
    )
