"""W1, the small loop: two actors, an aggregate and a `fed.get` in each iteration, beside raw Ray in the same run.

``fed run benchmarks/small_loop.py --simulate alice,bob``. The raw loop runs in alice between the federated ones, while
bob waits, so both see the same machine. The sums are checked.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import ray

import fed


class Adder:
    """The actor of both loops."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, step: int) -> int:
        self.total += step
        return self.total

    def sum(self, first: int, second: int) -> int:
        return first + second


FedAdder: Any = fed.remote(Adder)


@fed.remote
def pause() -> None:
    """Ends bob's wait."""


def timed(iteration: Callable[[], int], count: int, before: int) -> float:
    """Milliseconds for one iteration. Checks every result: both counters have grown by one each time."""
    began = time.perf_counter()
    for step in range(count):
        got, expected = iteration(), 2 * (before + step + 1)
        if got != expected:
            raise RuntimeError(f"iteration {step} gave {got}, not {expected}")
    return (time.perf_counter() - began) / count * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    count = options.iterations
    with fed.job():
        a, b, g = (FedAdder.party(party).remote() for party in ("alice", "bob", "alice"))

        def federated() -> int:
            total: int = fed.get(g.sum.remote(a.add.remote(1), b.add.remote(1)))
            return total

        measured: list[tuple[float, float]] = []
        if fed.party() == "alice":
            x, y, z = (ray.remote(Adder).remote() for _ in range(3))

            def raw() -> int:
                total: int = ray.get(z.sum.remote(x.add.remote(1), y.add.remote(1)))
                return total

            timed(raw, 50, 0)
        timed(federated, 50, 0)
        for turn in range(options.rounds):
            before = 50 + turn * count
            ours = timed(federated, count, before)
            if fed.party() == "alice":
                limit = timed(raw, count, before)
                measured.append((ours, limit))
                print(f"federated {ours:.2f} ms, raw Ray {limit:.2f} ms, ratio {ours / limit:.2f}", flush=True)
            fed.get(pause.party("alice").remote())
        if measured:
            ratio = statistics.median(ours / limit for ours, limit in measured)
            print(f"W1 median ratio to raw Ray: {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
