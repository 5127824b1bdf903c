"""Growth with the parties: the small loop over 2 to 8 parties, an actor in each, a result for all.

Limit: as many actors in one Ray cluster. Unit: seconds for an iteration. An iteration moves a result from each party
and one to each, so linear growth is that of the work itself.
"""

from __future__ import annotations

from typing import Final

from benchmarks.harness import Lab
from benchmarks.outcome import Case, Measurement, Outcome, Reading
from benchmarks.statistics import growth_exponent
from benchmarks.workloads.fan_out import PARTIES
from benchmarks.workloads.small_loop import federated, raw

__all__ = ["full"]

COUNTS: Final = (2, 3, 4, 6, 8)
TARGET: Final = 1.1


def full(lab: Lab) -> Outcome:
    """All parties of a federation on one cluster, one federation after another."""
    measurements = []
    for count in COUNTS:
        with (
            lab.shared_cluster() as cluster,
            lab.federation(PARTIES[:count], cluster=cluster.variables) as federation,
        ):
            case = Case(
                f"{count} parties",
                lambda federation=federation: federation.slowest(federated, iterations=60),  # type: ignore[misc]
                lambda count=count: float(lab.raw.call(raw, iterations=120, parties=count)),  # type: ignore[misc]
                pairs=8,
            )
            measurements.append(Measurement(case.key, case.measure(), x=count))
    growths = {
        name: growth_exponent([(one.x or 0, getattr(one.comparison, name).median) for one in measurements])
        for name in ("ours", "limit")
    }
    return Outcome(
        "growth with the parties",
        "the small loop over several parties; time for an iteration",
        "as many actors in one Ray cluster",
        tuple(measurements),
        (
            Reading("power of the number of parties with which time grows", growths["ours"], "", TARGET),
            Reading("the same, raw Ray", growths["limit"], ""),
        ),
        "parties",
    )
