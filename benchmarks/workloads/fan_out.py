"""W8, the fan-out: one object of 100 MB that 1, 2, 4 and 7 parties consume.

Limit: as many times what one of them takes. Unit: seconds for a consumer. Targets: 7.5 times the time of one for
seven, and no more memory in any process.
"""

from __future__ import annotations

import functools
import time
import zlib
from typing import Any, Final

import numpy as np

import fed
from benchmarks.alignment import align
from benchmarks.harness import Lab
from benchmarks.memory import MemoryWatch
from benchmarks.outcome import Case, Measurement, Outcome, Reading

__all__ = ["federated", "full"]

PARTIES: Final = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")
CONSUMERS: Final = (2, 4, 7)
NBYTES: Final = 100_000_000
TARGET: Final = 7.5 / 7
PAIRS: Final = 6


def make(nbytes: int, seed: int) -> Any:
    """An array that is different in each place and for each seed."""
    return np.arange(seed, seed + nbytes // 8, dtype=np.uint64)


def consume(array: Any) -> list[int]:
    """Length and a checksum over one item in each page."""
    return [array.nbytes, zlib.crc32(array[::512].tobytes())]


fed_make: Any = fed.remote(make)
fed_consume: Any = fed.remote(consume)
_seeds: Final = [0]


def federated(consumers: int) -> float:
    """In every party: seconds until all consumers have had it, from when it is there."""
    producer, *others = fed.parties()
    _seeds[0] += 1
    array = fed_make.party(producer).remote(NBYTES, _seeds[0])
    expected = fed.get(fed_consume.party(producer).remote(array))
    align()
    began = time.perf_counter()
    got = fed.get([fed_consume.party(party).remote(array) for party in others[:consumers]])
    took = time.perf_counter() - began
    if got != [expected] * consumers or expected[0] != NBYTES:
        raise RuntimeError(f"{expected} arrived as {got}")
    return took


def full(lab: Lab) -> Outcome:
    """Eight parties on one cluster: on this many of their own, a small machine would measure its own start."""
    measurements, readings = [], []
    with lab.shared_cluster() as cluster, lab.federation(PARTIES, cluster=cluster.variables) as federation:

        def spent(consumers: int) -> float:
            return federation.slowest(federated, consumers=consumers) / consumers

        for consumers in CONSUMERS:
            case = Case(
                f"W8 {consumers} consumers", functools.partial(spent, consumers), functools.partial(spent, 1), PAIRS
            )
            measurements.append(Measurement(case.key, case.measure(), TARGET, x=consumers))
        for consumers in (1, 7):
            with MemoryWatch([cluster.pid]) as watch:
                spent(consumers)
            readings.append(
                Reading(
                    f"W8 {consumers} consumers, most memory of a process beyond the store",
                    max(watch.most.values()) / 1e6,
                    "MB",
                    note="one object of 100 MB, sampled every 20 ms",
                )
            )
    return Outcome(
        "W8",
        "an object of 100 MB to several parties; time for a consumer",
        "the time for one consumer, measured in turns",
        tuple(measurements),
        tuple(readings),
        "consumers",
    )
