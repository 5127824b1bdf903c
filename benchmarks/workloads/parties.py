"""Growth with the parties: the small loop over 2 to 8 parties, an actor in each, a result for all.

Limit: as many actors in one Ray cluster. Unit: seconds for an iteration. An iteration over P parties moves a result
from all but one to that one, and one from there to all others: 2 (P - 1) crossings, by which the work itself grows.
Target: time grows with at most the power 1.1 of the crossings.
"""

from __future__ import annotations

from typing import Final

from benchmarks.harness import Lab
from benchmarks.others import Meter
from benchmarks.outcome import Case, Measurement, Outcome, Reading
from benchmarks.statistics import growth_exponent
from benchmarks.workloads.fan_out import PARTIES
from benchmarks.workloads.small_loop import federated, raw

__all__ = ["full"]

COUNTS: Final = (2, 3, 4, 6, 8)
TARGET: Final = 1.1
ITERATIONS: Final = 60


def full(lab: Lab) -> Outcome:
    """All parties of a federation on one cluster, one federation after another."""
    measurements, readings = [], []
    for count in COUNTS:
        with (
            lab.shared_cluster() as cluster,
            lab.federation(PARTIES[:count], cluster=cluster.variables) as federation,
        ):
            case = Case(
                f"{count} parties",
                lambda federation=federation: federation.slowest(federated, iterations=ITERATIONS),  # type: ignore[misc]
                lambda count=count: float(lab.raw.call(raw, iterations=2 * ITERATIONS, parties=count)),  # type: ignore[misc]
                pairs=8,
            )
            measurements.append(Measurement(case.key, case.measure(), x=count))
            meter = Meter()
            federation.slowest(federated, iterations=ITERATIONS)
            spent_ms = meter.own_s() * 1e3 / ITERATIONS
            note = "of all processes, those of an idle cluster beside them included"
            readings.append(
                Reading(f"{case.key}, processor time for a crossing", spent_ms / _crossings(count), "ms", note=note)
            )
    ours, limit = (
        [(one.x or 0.0, getattr(one.comparison, name).median) for one in measurements] for name in ("ours", "limit")
    )
    crossed = [(_crossings(count), took) for count, took in ours]
    return Outcome(
        "growth with the parties",
        "the small loop over several parties; time for an iteration",
        "as many actors in one Ray cluster",
        tuple(measurements),
        (
            Reading("power of the number of crossings with which time grows", growth_exponent(crossed), "", TARGET),
            Reading("power of the number of parties with which time grows", growth_exponent(ours), ""),
            Reading("the same, the crossings", growth_exponent([(x, _crossings(x)) for x, _ in ours]), ""),
            Reading("the same, raw Ray", growth_exponent(limit), ""),
            *readings,
        ),
        "parties",
    )


def _crossings(parties: float) -> float:
    return 2 * (parties - 1)
