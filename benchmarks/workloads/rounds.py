"""W4, a federated round: a server pushes weights to two clients, they add 1 and 1.001, it averages, all get a scalar.

Limit: the same three actors in one Ray cluster. Unit: seconds for a round. Targets: 3.5, 3, 2.5, 4.2 and 4.6 times the
limit from 1 KB to 400 MB; at 400 MB no process needs more than two objects beyond the object store.
"""

from __future__ import annotations

import functools
import time
from typing import Any, Final

import numpy as np

import fed
from benchmarks.alignment import align
from benchmarks.harness import Lab
from benchmarks.memory import MemoryWatch
from benchmarks.outcome import Case, Measurement, Outcome, Reading

__all__ = ["federated", "full", "raw"]

PARTIES: Final = ("alice", "bob", "carol")
STEPS: Final = (1.0, 1.001)
SIZES: Final = {
    "1 KB": (1_000, 2.8, 50, 10),
    "1 MB": (1_000_000, 3.5, 20, 10),
    "16 MB": (16_000_000, 3.5, 5, 8),
    "100 MB": (100_000_000, 4.2, 1, 7),
    "400 MB": (400_000_000, 4.6, 1, 5),
}
"""Bytes, the target, rounds in a block, pairs."""
MOST_OBJECTS: Final = 2.0
TOLERANCE: Final = 1e-3


class Server:
    """Holds the weights."""

    def __init__(self, count: int) -> None:
        self._weights = np.random.default_rng(1).random(count, dtype=np.float32)

    def weights(self) -> Any:
        """What the clients begin with."""
        return self._weights

    def average(self, first: Any, second: Any) -> float:
        """Take the mean of both, and return the mean of all weights over a sample."""
        self._weights = np.add(first, second)
        self._weights *= np.float32(0.5)
        return float(self._weights[:: max(1, len(self._weights) // 4096)].mean(dtype=np.float64))

    def spread(self) -> float:
        """By how much the weights differ from the first ones, least and most: every one must have moved alike."""
        moved = self._weights - np.random.default_rng(1).random(len(self._weights), dtype=np.float32)
        return float(moved.max() - moved.min())


class Client:
    """Trains."""

    def __init__(self, step: float) -> None:
        self._step = np.float32(step)

    def train(self, weights: Any) -> Any:
        """Add the step to every weight."""
        return weights + self._step


FedServer: Any = fed.remote(Server)
FedClient: Any = fed.remote(Client)


class Rounds:
    """Rounds over many blocks.

    Args:
        server: The actor.
        clients: The actors.
        get: Gets a value.
    """

    def __init__(self, server: Any, clients: list[Any], get: Any) -> None:
        self._server, self._clients, self._get = server, clients, get
        self._last: float | None = None

    def run(self, count: int) -> float:
        """Seconds for a round. The mean of the weights is checked in each, and the weights themselves at the end."""
        step = sum(STEPS) / len(STEPS)
        began = time.perf_counter()
        for _ in range(count):
            weights = self._server.weights.remote()
            mean = self._get(self._server.average.remote(*[client.train.remote(weights) for client in self._clients]))
            if self._last is not None and abs(mean - self._last - step) > TOLERANCE:
                raise RuntimeError(f"the mean went from {self._last} to {mean}, not by {step}")
            self._last = mean
        took = (time.perf_counter() - began) / count
        spread = self._get(self._server.spread.remote())
        if spread > TOLERANCE * abs(self._last or 1):
            raise RuntimeError(f"the weights moved apart by {spread}")
        return took


@functools.cache
def _federated_rounds(nbytes: int) -> Rounds:
    server, *clients = fed.parties()
    actors = [FedClient.party(party).remote(step) for party, step in zip(clients, STEPS, strict=True)]
    return Rounds(FedServer.party(server).remote(nbytes // 4), actors, fed.get)


@functools.cache
def _raw_rounds(nbytes: int) -> Rounds:
    import ray

    actors = [ray.remote(Client).options(num_cpus=0).remote(step) for step in STEPS]
    return Rounds(ray.remote(Server).options(num_cpus=0).remote(nbytes // 4), actors, ray.get)


def federated(nbytes: int, count: int) -> float:
    """In every party: seconds for a round."""
    rounds = _federated_rounds(nbytes)
    align()
    return rounds.run(count)


def raw(nbytes: int, count: int) -> float:
    """At the limit: the same."""
    return _raw_rounds(nbytes).run(count)


def full(lab: Lab) -> Outcome:
    """From 1 KB to 400 MB."""
    measurements, readings = [], []
    with lab.federation(PARTIES) as federation:
        for size, (nbytes, target, count, pairs) in SIZES.items():
            case = Case(
                f"W4 {size}",
                ours=functools.partial(federation.slowest, federated, nbytes=nbytes, count=count),
                limit=functools.partial(lab.raw.call, raw, nbytes=nbytes, count=count),
                pairs=pairs,
            )
            measurements.append(Measurement(case.key, case.measure(), target, x=nbytes / 1e6))
        with MemoryWatch([federation.workers["alice"].process.pid]) as watch:
            federation.slowest(federated, nbytes=nbytes, count=2)
        readings.append(
            Reading(
                f"W4 {size}, server party, largest growth of a process beyond the store",
                watch.largest_growth / nbytes,
                "objects",
                MOST_OBJECTS,
                "2 rounds, sampled every 20 ms",
            )
        )
    return Outcome(
        "W4",
        "a round of a server and two clients, a scalar for all; time for a round",
        "the same actors in one Ray cluster",
        tuple(measurements),
        tuple(readings),
        "MB",
    )
