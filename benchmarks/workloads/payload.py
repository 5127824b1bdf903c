"""W3, the payload: an array made by a task in alice, consumed by one in bob, and a small get.

Limit: the same two tasks in one Ray cluster, where the array is passed on in shared memory. Unit: seconds for all
of it. Targets: 3, 3 and 2 times the limit at 16, 100 and 400 MB.
"""

from __future__ import annotations

import functools
import statistics
import time
import zlib
from typing import Any, Final

import numpy as np

import fed
from benchmarks.alignment import align
from benchmarks.harness import Lab
from benchmarks.outcome import Case, Measurement, Outcome

__all__ = ["case", "federated", "full", "quick", "raw"]

TARGETS: Final = {1: None, 16: 3.0, 100: 3.0, 400: 2.0, 1000: 2.0}
"""MB, and the ratio."""


def make_array(nbytes: int, seed: int) -> Any:
    """An array that is different in each place and for each seed."""
    return np.arange(seed, seed + nbytes // 8, dtype=np.uint64)


def consume(array: Any) -> list[int]:
    """Length and a checksum over one item in each page."""
    return [array.nbytes, zlib.crc32(array[::512].tobytes())]


fed_make: Any = fed.remote(make_array)
fed_consume: Any = fed.remote(consume)


@functools.cache
def _expected(nbytes: int, seed: int) -> list[int]:
    items = np.arange(seed, seed + nbytes // 8, 512, dtype=np.uint64)
    return [nbytes // 8 * 8, zlib.crc32(items.tobytes())]


def federated(nbytes: int, seeds: list[int]) -> float:
    """In every party: the median of the seconds for an array, one for each seed."""
    first, second = fed.parties()[:2]
    took = []
    for seed in seeds:
        align()
        began = time.perf_counter()
        got = fed.get(fed_consume.party(second).remote(fed_make.party(first).remote(nbytes, seed)))
        took.append(time.perf_counter() - began)
        _check(got, nbytes, seed)
    return statistics.median(took)


def raw(nbytes: int, seeds: list[int]) -> float:
    """At the limit: the same."""
    import ray

    make, consume_ = _raw_functions()
    took = []
    for seed in seeds:
        began = time.perf_counter()
        got = ray.get(consume_.remote(make.remote(nbytes, seed)))
        took.append(time.perf_counter() - began)
        _check(got, nbytes, seed)
    return statistics.median(took)


@functools.cache
def _raw_functions() -> tuple[Any, Any]:
    import ray

    return ray.remote(make_array), ray.remote(consume)


def _check(got: Any, nbytes: int, seed: int) -> None:
    if list(got) != _expected(nbytes, seed):
        raise RuntimeError(f"{nbytes} bytes arrived as {got}, not {_expected(nbytes, seed)}")


def quick(lab: Lab) -> list[Case]:
    """16 MB."""
    return [case(lab, "W3 16 MB", 16_000_000, arrays=5, pairs=25)]


def full(lab: Lab) -> Outcome:
    """From 1 to 1000 MB."""
    measurements = []
    for size, target in TARGETS.items():
        arrays, pairs = (5, 10) if size <= 16 else (3, 7)
        measured = case(lab, f"W3 {size} MB", size * 1_000_000, arrays, pairs).measure()
        measurements.append(Measurement(f"W3 {size} MB", measured, target, x=size))
    return Outcome(
        "W3",
        "an array made in alice and consumed in bob",
        "the same two tasks in one Ray cluster, through shared memory",
        tuple(measurements),
        x_label="MB",
    )


def case(lab: Lab, key: str, nbytes: int, arrays: int, pairs: int) -> Case:
    """An array of this size, so many in each block."""
    seeds = list(range(arrays))
    return Case(
        key,
        ours=lambda: lab.pair.slowest(federated, nbytes=nbytes, seeds=seeds),
        limit=lambda: float(lab.raw.call(raw, nbytes=nbytes, seeds=seeds)),
        pairs=pairs,
    )
