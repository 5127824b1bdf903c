"""W10, what TLS costs: the small loop and the payload, with mutual TLS and without, in turns.

Limit: the same without TLS. Targets: 1.1 times for the small loop, 1.35 times for the payload.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from benchmarks.harness import Federation, Lab
from benchmarks.outcome import Case, Measurement, Outcome
from benchmarks.workloads import payload, small_loop

__all__ = ["full"]

LOOP_TARGET: Final = 1.1
PAYLOAD_TARGET: Final = 1.35
SIZES: Final = {16: (5, 10), 100: (3, 8), 400: (1, 6)}
"""MB: arrays in a block, pairs."""


def full(lab: Lab) -> Outcome:
    """Two federations on one cluster."""
    with (
        lab.shared_cluster() as cluster,
        lab.federation(cluster=cluster.variables, tls=True) as secure,
        lab.federation(cluster=cluster.variables, tls=False) as plain,
    ):

        def case(key: str, pairs: int, function: Callable[..., float], **arguments: Any) -> Case:
            ours, limit = (functools.partial(one.slowest, function, **arguments) for one in _both(secure, plain))
            return Case(key, ours, limit, pairs)

        loop = case("W10 small loop", 15, small_loop.federated, iterations=100)
        measurements = [Measurement(loop.key, loop.measure(), LOOP_TARGET)]
        for size, (arrays, pairs) in SIZES.items():
            found = case(f"W10 {size} MB", pairs, payload.federated, nbytes=size * 1_000_000, seeds=list(range(arrays)))
            measurements.append(Measurement(found.key, found.measure(), PAYLOAD_TARGET))
    return Outcome(
        "W10",
        "the small loop and the payload with mutual TLS",
        "the same without TLS, on the same cluster",
        tuple(measurements),
    )


def _both(secure: Federation, plain: Federation) -> tuple[Federation, Federation]:
    return secure, plain
