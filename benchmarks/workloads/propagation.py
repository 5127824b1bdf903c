"""W5, how fast everyone knows: from the raise in a task of alice to the failure handler's start in each other party.

Limit: from a raise in a task to the exception in the driver, in one Ray cluster. Unit: seconds, the median of a block.
Targets: median 12 ms, 99th percentile 40 ms; below 1 s with 1 GiB on its way from alice to bob.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

import fed
from benchmarks import worker
from benchmarks.alignment import align
from benchmarks.harness import Lab, interleave
from benchmarks.outcome import Case, Measurement, Outcome, Reading
from benchmarks.statistics import percentile, spread

__all__ = ["federated", "full", "quick", "raw"]

MEDIAN_MS: Final = 12.0
P99_MS: Final = 40.0
UNDER_LOAD_MS: Final = 1000.0
PARTIES: Final = ("alice", "bob", "carol")
HANDLERS_S: Final = 30.0


def fail(path: str, *_: Any) -> None:
    """Raise, and note when."""
    Path(path).write_text(str(time.monotonic_ns()))
    raise ValueError("on purpose")


def make(nbytes: int) -> Any:
    """A large object."""
    return np.zeros(nbytes, dtype=np.uint8)


def size_of(array: Any) -> int:
    """Needs the large object."""
    return int(array.nbytes)


fed_fail: Any = fed.remote(fail)
fed_make: Any = fed.remote(make)
fed_size_of: Any = fed.remote(size_of)


def federated(failures: int, payload: int) -> dict[str, list[int]]:
    """In every party: when it raised (in the first party only) and when this party's handler began, in nanoseconds."""
    first, second = fed.parties()[:2]
    raised: list[int] = []
    before = len(worker.handled)
    with tempfile.TemporaryDirectory() as directory:
        stamp = Path(directory, "raised")
        for _ in range(failures):
            try:
                # In here too: a failure overtakes results, so the first party may fail while another one meets it.
                align()
                needed = []
                if payload:
                    needed = [fed_make.party(first).remote(payload)]
                    fed_size_of.party(second).remote(*needed)
                fed.get(fed_fail.options(max_retries=0).party(first).remote(str(stamp), *needed))
            except fed.TaskError as error:
                if error.failure.type_name != "ValueError":
                    raise RuntimeError("another failure than the one on purpose") from error
                fed.reset()
            else:
                raise RuntimeError("the task did not fail")
            if fed.party() == first:
                raised.append(int(stamp.read_text()))
    deadline = time.monotonic() + HANDLERS_S
    while len(worker.handled) < before + failures and time.monotonic() < deadline:
        time.sleep(0.001)
    handled = worker.handled[before:]
    if len(handled) != failures:
        raise RuntimeError(f"{failures} failures, and {len(handled)} calls of the handler")
    return {"raised": raised, "handled": handled}


@functools.cache
def _raw_fail() -> Any:
    import ray

    return ray.remote(fail).options(max_retries=0)


def raw(failures: int) -> float:
    """At the limit: median of the seconds from the raise to the exception."""
    import ray

    took = []
    with tempfile.TemporaryDirectory() as directory:
        stamp = Path(directory, "raised")
        for _ in range(failures):
            try:
                ray.get(_raw_fail().remote(str(stamp)))
            except ValueError:
                took.append(time.monotonic_ns() - int(stamp.read_text()))
    if len(took) != failures:
        raise RuntimeError(f"{failures} failures, and {len(took)} exceptions")
    return statistics.median(took) / 1e9


def _delays(told: dict[str, dict[str, list[int]]]) -> dict[str, list[float]]:
    """For every party but the first, the seconds from each raise to its handler."""
    first, *others = sorted(told)
    raised = told[first]["raised"]
    return {
        party: [(end - begin) / 1e9 for begin, end in zip(raised, told[party]["handled"], strict=True)]
        for party in others
    }


def quick(lab: Lab) -> list[Case]:
    """Two parties, nothing else under way."""

    def ours() -> float:
        return statistics.median(_delays(lab.pair.call(federated, failures=8, payload=0))["bob"])

    return [Case("W5 two parties", ours, lambda: float(lab.raw.call(raw, failures=8)), pairs=25)]


def full(lab: Lab) -> Outcome:
    """Three parties: 200 failures idle, 10 with 1 GiB on its way."""
    lab.release()
    delays: dict[str, list[float]] = {}
    loaded: dict[str, list[float]] = {}
    with lab.federation(PARTIES) as federation:
        federation.call(federated, failures=5, payload=0)
        lab.raw.call(raw, failures=5)

        def ours() -> float:
            found = _delays(federation.call(federated, failures=20, payload=0))
            for party, values in found.items():
                delays.setdefault(party, []).extend(values)
            return max(statistics.median(values) for values in found.values())

        pairs = interleave(10, ours, lambda: float(lab.raw.call(raw, failures=20)))
        for _ in range(10):
            for party, values in _delays(federation.call(federated, failures=1, payload=1 << 30)).items():
                loaded.setdefault(party, []).extend(values)
    readings = []
    for party, values in delays.items():
        note = f"{len(values)} failures"
        readings += [
            Reading(f"W5 {party}, median", spread(values).median * 1e3, "ms", MEDIAN_MS, note),
            Reading(f"W5 {party}, 99th percentile", percentile(values, 99) * 1e3, "ms", P99_MS, note),
        ]
    for party, values in loaded.items():
        note = f"{len(values)} failures"
        readings += [
            Reading(f"W5 {party}, 1 GiB on its way, median", spread(values).median * 1e3, "ms", None, note),
            Reading(f"W5 {party}, 1 GiB on its way, most", max(values) * 1e3, "ms", UNDER_LOAD_MS, note),
        ]
    return Outcome(
        "W5",
        "from the raise in alice to the failure handler in bob and carol, the later one; median of 20",
        "from a raise to the exception in the driver, in one Ray cluster",
        (Measurement("W5", tuple(pairs)),),
        tuple(readings),
    )
