"""W3, the payload: an array made in alice and consumed in bob, beside raw Ray in the same run.

``fed run benchmarks/payload.py --simulate alice,bob -- 16 100 400``: sizes in MB (10^6 bytes). The raw task runs in
alice between the federated ones, while bob waits. The checksum of what was consumed is checked.
"""

from __future__ import annotations

import argparse
import statistics
import time
import zlib
from typing import Any

import numpy as np
import ray

import fed


def make_array(nbytes: int, seed: int) -> Any:
    """An array of the size that is not all alike."""
    return np.arange(seed, seed + nbytes // 8, dtype=np.uint64)


def consume(array: Any) -> tuple[int, int]:
    """Length and a checksum over one item in each page."""
    return array.nbytes, zlib.crc32(array[::512].tobytes())


fed_make, fed_consume = fed.remote(make_array), fed.remote(consume)


@fed.remote
def pause() -> None:
    """Ends bob's wait."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="+", help="MB")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with fed.job():
        raw_make, raw_consume = ray.remote(make_array), ray.remote(consume)
        for size in options.sizes:
            nbytes = size * 1_000_000
            measured: list[tuple[float, float]] = []
            for turn in range(options.rounds + 1):
                expected = consume(make_array(nbytes, turn))
                fed.get(pause.party("bob").remote())
                began = time.perf_counter()
                got = fed.get(fed_consume.party("bob").remote(fed_make.party("alice").remote(nbytes, turn)))
                ours = time.perf_counter() - began
                if tuple(got) != expected:
                    raise RuntimeError(f"{size} MB arrived as {got}, not {expected}")
                if fed.party() == "alice":
                    began = time.perf_counter()
                    ray.get(raw_consume.remote(raw_make.remote(nbytes, turn)))
                    limit = time.perf_counter() - began
                    # The first turn starts workers and touches fresh memory.
                    if turn:
                        measured.append((ours, limit))
                fed.get(pause.party("alice").remote())
            if measured:
                ours, limit = (statistics.median(times) for times in zip(*measured, strict=True))
                ratio = statistics.median(one / other for one, other in measured)
                print(f"{size} MB: federated {ours * 1e3:.0f} ms, raw Ray {limit * 1e3:.0f} ms, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
