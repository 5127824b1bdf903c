"""Many small objects in one loop, and what that costs the driver and the proxies in memory.

Prints, before and after, the resident memory in bytes of the driver and of the process ids that it reads from its
standard input.
"""

import ctypes
import gc
import json
import os
import pathlib
import sys
import tempfile
from typing import Any

import psutil

import fed

BATCH = 100


@fed.remote
def produce(first: int, held: str) -> Any:
    if held:
        pathlib.Path(held).read_bytes()
    return tuple(range(first, first + BATCH))


@fed.remote
def total(before: int, held: str, *values: int) -> int:
    if held:
        pathlib.Path(held).read_bytes()
    return before + sum(values)


def resident(pids: list[int]) -> list[int]:
    # What this process has freed, and its allocator keeps for the next time, is not what it holds.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return [psutil.Process(pid).memory_info().rss for pid in (psutil.Process().pid, *pids)]


def loop(batches: int) -> int:
    """A sum at bob of objects made at alice, with all of them, and all calls, outstanding at once.

    Allocators keep the most that was ever needed at once. Were that left to how far a driver is ahead of its tasks, and
    one party ahead of the other, it would be another in every loop, and hide what grows.
    """
    with tempfile.TemporaryDirectory() as directory:
        # The first task of each party reads from a named pipe, and so waits until this driver has made all calls.
        pipe = pathlib.Path(directory, "called")
        os.mkfifo(pipe)
        batch = produce.options(num_returns=BATCH).party("alice")
        made = [batch.remote(number * BATCH, "" if number else str(pipe)) for number in range(batches)]
        so_far: Any = 0
        for number, values in enumerate(reversed(made)):
            so_far = total.party("bob").remote(so_far, "" if number else str(pipe), *values)
        pipe.write_bytes(b"")
        return int(fed.get(so_far))


def main() -> None:
    batches = int(sys.argv[1])
    with fed.job():
        loop(batches)
        print("joined", flush=True)
        pids = json.loads(sys.stdin.readline())
        loop(batches)
        before = resident(pids)
        count = BATCH * batches
        if loop(batches) != count * (count - 1) // 2:
            raise SystemExit("the sum is wrong")
        print(json.dumps([before, resident(pids)]), flush=True)


if __name__ == "__main__":
    main()
