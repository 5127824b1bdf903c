"""W5, how fast everyone knows: from the raise in a task of alice to the start of the failure handler in each party.

``fed run benchmarks/propagation.py --simulate alice,bob,carol``. Each run is a failure, told to everybody, and a
`fed.reset`. With ``--payload 1073741824`` an object of so many bytes is on its way to bob when the task raises. The
clock is the machine's monotonic one, which all processes of one machine share.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import fed


@fed.remote
def fail(path: str, *_: Any) -> None:
    """Raise, and note when."""
    Path(path).write_text(str(time.monotonic_ns()))
    raise ValueError("on purpose")


@fed.remote
def make(size: int) -> Any:
    """A large object."""
    return np.zeros(size, dtype=np.uint8)


@fed.remote
def size_of(array: Any) -> int:
    """Needs the large object in another party."""
    return int(array.nbytes)


@fed.remote
def identity(value: Any) -> Any:
    """Hand over what a driver has measured."""
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--payload", type=int, default=0)
    options = parser.parse_args()
    handled: list[int] = []
    raised: list[int] = []

    def note(report: fed.FailureReport) -> None:
        if report.root.type_name != "ValueError":
            raise RuntimeError(f"another failure than the one on purpose: {report.root}")
        handled.append(time.monotonic_ns())

    with tempfile.TemporaryDirectory() as directory, fed.job(failure_handler=note):
        stamp = Path(directory, "raised")
        for _ in range(options.runs):
            needed = []
            if options.payload:
                array = make.party("alice").remote(options.payload)
                size_of.party("bob").remote(array)
                needed = [array]
            try:
                fed.get(fail.options(max_retries=0).party("alice").remote(str(stamp), *needed))
            except fed.TaskError:
                fed.reset()
            else:
                raise RuntimeError("the task did not fail")
            if fed.party() == "alice":
                raised.append(int(stamp.read_text()))
        # A plain argument is that of the driver whose party runs the task: each hands over its own.
        ends = fed.get({party: identity.party(party).remote(handled) for party in fed.parties()})
        began = fed.get(identity.party("alice").remote(raised))
        if fed.party() == "alice":
            for party, stamps in ends.items():
                took = [(end - start) / 1e6 for start, end in zip(began, stamps, strict=True)]
                print(
                    f"W5 {party}: median {statistics.median(took):.1f} ms, 99th percentile "
                    f"{statistics.quantiles(took, n=100, method='inclusive')[98]:.1f} ms, most {max(took):.1f} ms, "
                    f"over {len(took)} runs",
                    flush=True,
                )


if __name__ == "__main__":
    main()
