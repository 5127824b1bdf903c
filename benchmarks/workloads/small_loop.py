"""W1, the small loop: actors in alice and bob, an aggregate in alice, a `fed.get` in each iteration.

Limit: the same three actors and a get in one Ray cluster. Unit: seconds for an iteration. Target: twice the limit.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Final

import fed
from benchmarks.alignment import align
from benchmarks.harness import Lab
from benchmarks.outcome import Case, Measurement, Outcome

__all__ = ["federated", "full", "quick", "raw"]

TARGET: Final = 2.0


class Adder:
    """The actor of both loops."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, step: int) -> int:
        """Count."""
        self.total += step
        return self.total

    def sum(self, *terms: int) -> int:
        """Put the counts together."""
        return sum(terms)


FedAdder: Any = fed.remote(Adder)


class Loop:
    """One loop over many blocks.

    Args:
        iteration: Does one step. Returns the sum of all counters, which have grown by one each.
        counters: How many there are.
    """

    def __init__(self, iteration: Callable[[], int], counters: int) -> None:
        self._iteration = iteration
        self._counters = counters
        self._done = 0

    def run(self, iterations: int) -> float:
        """Seconds for an iteration. Every result is checked."""
        began = time.perf_counter()
        for _ in range(iterations):
            self._done += 1
            got, expected = self._iteration(), self._counters * self._done
            if got != expected:
                raise RuntimeError(f"iteration {self._done} gave {got}, not {expected}")
        return (time.perf_counter() - began) / iterations


@functools.cache
def _federated_loop() -> Loop:
    parties = fed.parties()
    counters = [FedAdder.party(party).remote() for party in parties]
    aggregate = FedAdder.party(parties[0]).remote()

    def iteration() -> int:
        total: int = fed.get(aggregate.sum.remote(*[counter.add.remote(1) for counter in counters]))
        return total

    return Loop(iteration, len(parties))


@functools.cache
def _raw_loop(parties: int) -> Loop:
    # The module is loaded where Ray must not be, too: it reads its variables when it is first imported.
    import ray

    counters = [ray.remote(Adder).options(num_cpus=0).remote() for _ in range(parties)]
    aggregate = ray.remote(Adder).options(num_cpus=0).remote()

    def iteration() -> int:
        total: int = ray.get(aggregate.sum.remote(*[counter.add.remote(1) for counter in counters]))
        return total

    return Loop(iteration, parties)


def federated(iterations: int) -> float:
    """In every party: seconds for an iteration."""
    loop = _federated_loop()
    align()
    return loop.run(iterations)


def raw(iterations: int, parties: int) -> float:
    """At the limit: seconds for an iteration."""
    return _raw_loop(parties).run(iterations)


def quick(lab: Lab) -> list[Case]:
    """A loop long enough for a bound of 30 %."""
    return [_case(lab, iterations=50, pairs=20)]


def full(lab: Lab) -> Outcome:
    """500 iterations in all for each of ten pairs."""
    case = _case(lab, iterations=500, pairs=10)
    return Outcome(
        "W1",
        "small loop: two actors, an aggregate and a get; time for an iteration",
        "the same actors in one Ray cluster",
        (Measurement(case.key, case.measure(), TARGET),),
    )


def _case(lab: Lab, iterations: int, pairs: int) -> Case:
    return Case(
        "W1",
        ours=lambda: lab.pair.slowest(federated, iterations=iterations),
        # Shorter iterations: more of them, so that a block of the limit is as long as its noise.
        limit=lambda: float(lab.raw.call(raw, iterations=2 * iterations, parties=2)),
        pairs=pairs,
    )
