"""W6, death: from the SIGKILL of a party, with its cluster, to the failure handler's start in each other one.

There is no limit but the lease that was chosen. Target: the lease and a second.
"""

from __future__ import annotations

import time
from typing import Any, Final

import fed
from benchmarks import worker
from benchmarks.alignment import align
from benchmarks.harness import Lab
from benchmarks.outcome import Measurement, Outcome, Reading
from benchmarks.statistics import Pair, spread

__all__ = ["full", "meet", "outlive"]

PARTIES: Final = ("alice", "bob", "carol")
VICTIM: Final = "carol"
LEASE_S: Final = 4.0
KILLS: Final = 5
WITHIN_S: Final = 60.0
CALM_S: Final = 30.0
"""How much longer than the wait itself an answer may take."""


def never() -> None:
    """A task that does not end by itself."""
    time.sleep(10 * WITHIN_S)


fed_never: Any = fed.remote(never)


def meet() -> None:
    """In every party: see that all are there."""
    align()


def outlive(victim: str) -> list[int]:
    """In every party: wait for the victim, and return when the handler began, in nanoseconds, once it has."""
    try:
        fed.get(fed_never.options(max_retries=0).party(victim).remote())
    except fed.FedError as error:
        if not any(failure.kind is fed.Kind.PARTY_LOST for failure in fed.errors()):
            raise RuntimeError("another failure than the loss of a party") from error
    deadline = time.monotonic() + WITHIN_S
    while not worker.handled and time.monotonic() < deadline:
        time.sleep(0.001)
    return list(worker.handled)


def full(lab: Lab) -> Outcome:
    """A new federation for each kill."""
    delays: dict[str, list[float]] = {}
    for _ in range(KILLS):
        with lab.federation(PARTIES, lease_s=LEASE_S) as federation:
            federation.call(meet)
            for one in federation.workers.values():
                one.begin(outlive, victim=VICTIM)
            # Until the task runs and they wait for it.
            time.sleep(1.0)
            killed = time.monotonic_ns()
            federation.workers[VICTIM].kill()
            for party, one in federation.workers.items():
                if party != VICTIM:
                    [handled] = one.answer(WITHIN_S + CALM_S)
                    delays.setdefault(party, []).append((handled - killed) / 1e9)
    readings = []
    for party, values in delays.items():
        note = f"{len(values)} kills, lease {LEASE_S:g} s"
        readings += [
            Reading(f"W6 {party}, median", spread(values).median, "s", LEASE_S + 1, note),
            Reading(f"W6 {party}, most", max(values), "s", LEASE_S + 1, note),
        ]
    pairs = tuple(Pair(max(both), LEASE_S) for both in zip(*delays.values(), strict=True))
    return Outcome(
        "W6",
        "from the SIGKILL of carol, with her cluster, to the failure handler in alice and bob, the later one",
        f"the lease, {LEASE_S:g} s",
        (Measurement("W6", pairs, (LEASE_S + 1) / LEASE_S),),
        tuple(readings),
    )
