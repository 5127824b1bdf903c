"""W2, small objects through a border: each made by an actor in alice and taken by one in bob, one get at the end.

Limit: the same two actors in one Ray cluster. Unit: seconds for an object. Target: 1,400 objects a second.
"""

from __future__ import annotations

import functools
import time
from typing import Any, Final

import fed
from benchmarks.alignment import align
from benchmarks.harness import Lab
from benchmarks.outcome import Case, Measurement, Outcome, Reading
from benchmarks.statistics import spread

__all__ = ["federated", "full", "quick", "raw"]

TARGET_S: Final = 1 / 1400


class Source:
    """Makes objects."""

    def make(self, number: int) -> int:
        """An object that tells which one it is."""
        return number * number


class Sink:
    """Takes objects."""

    def __init__(self) -> None:
        self.total = 0

    def take(self, value: int) -> None:
        """Take one."""
        self.total += value

    def taken(self) -> int:
        """The sum of all since the last time."""
        total, self.total = self.total, 0
        return total


FedSource: Any = fed.remote(Source)
FedSink: Any = fed.remote(Sink)


@functools.cache
def _federated_actors() -> tuple[Any, Any]:
    first, second = fed.parties()[:2]
    return FedSource.party(first).remote(), FedSink.party(second).remote()


@functools.cache
def _raw_actors() -> tuple[Any, Any]:
    import ray

    return tuple(ray.remote(kind).options(num_cpus=0).remote() for kind in (Source, Sink))


def federated(objects: int) -> float:
    """In every party: seconds for an object."""
    source, sink = _federated_actors()
    align()
    began = time.perf_counter()
    for number in range(objects):
        sink.take.remote(source.make.remote(number))
    got = fed.get(sink.taken.remote())
    took = time.perf_counter() - began
    _check(got, objects)
    return took / objects


def raw(objects: int) -> float:
    """At the limit: seconds for an object."""
    import ray

    source, sink = _raw_actors()
    began = time.perf_counter()
    for number in range(objects):
        sink.take.remote(source.make.remote(number))
    got = ray.get(sink.taken.remote())
    took = time.perf_counter() - began
    _check(got, objects)
    return took / objects


def _check(got: int, objects: int) -> None:
    expected = sum(number * number for number in range(objects))
    if got != expected:
        raise RuntimeError(f"{objects} objects came to {got}, not {expected}")


def quick(lab: Lab) -> list[Case]:
    """A few hundred objects at a time."""
    return [_case(lab, objects=200, pairs=12)]


def full(lab: Lab) -> Outcome:
    """1,000 objects for each of ten pairs."""
    pairs = _case(lab, objects=1000, pairs=10).measure()
    rate = spread([1 / pair.ours for pair in pairs])
    note = f"{rate.low:.0f} to {rate.high:.0f}, {rate.count} blocks; at least {1 / TARGET_S:.0f} is the aim"
    return Outcome(
        "W2",
        "1,000 small objects from alice's actor to bob's, one get at the end; time for an object",
        "the same actors in one Ray cluster",
        (Measurement("W2", pairs),),
        (
            Reading("W2 rate", rate.median, "objects/s", note=note),
            Reading("W2 time for an object", spread([pair.ours for pair in pairs]).median * 1e3, "ms", TARGET_S * 1e3),
        ),
    )


def _case(lab: Lab, objects: int, pairs: int) -> Case:
    return Case(
        "W2",
        ours=lambda: lab.pair.slowest(federated, objects=objects),
        limit=lambda: float(lab.raw.call(raw, objects=3 * objects)),
        pairs=pairs,
    )
