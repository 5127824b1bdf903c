"""Many small objects in one loop, and what that costs the driver and the proxies in memory.

Prints, before and after, the resident memory in bytes of the driver and of the process ids that it reads from its
standard input.
"""

import ctypes
import gc
import json
import sys
from typing import Any

import psutil

import fed

BATCH = 100


@fed.remote
def produce(first: int) -> Any:
    return tuple(range(first, first + BATCH))


@fed.remote
def total(before: int, *values: int) -> int:
    return before + sum(values)


def resident(pids: list[int]) -> list[int]:
    # What this process has freed, and its allocator keeps for the next time, is not what it holds. How much that is
    # depends on how far a driver runs ahead of its tasks, which is Ray's to bound.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return [psutil.Process(pid).memory_info().rss for pid in (psutil.Process().pid, *pids)]


def loop(batches: int) -> int:
    """A sum at bob of objects made at alice, without a look at any of them in between."""
    so_far: Any = 0
    for number in range(batches):
        values = produce.options(num_returns=BATCH).party("alice").remote(number * BATCH)
        so_far = total.party("bob").remote(so_far, *values)
    return int(fed.get(so_far))


def main() -> None:
    batches = int(sys.argv[1])
    with fed.job():
        # The allocators keep what the first loops had needed, and use it again. How much that is depends on how far
        # this driver ran ahead, and one loop may need less than the next.
        loop(batches)
        print("joined", flush=True)
        pids = json.loads(sys.stdin.readline())
        first = resident(pids)
        loop(batches)
        before = [max(sizes) for sizes in zip(first, resident(pids), strict=True)]
        count = BATCH * batches
        if loop(batches) != count * (count - 1) // 2:
            raise SystemExit("the sum is wrong")
        print(json.dumps([before, resident(pids)]), flush=True)


if __name__ == "__main__":
    main()
