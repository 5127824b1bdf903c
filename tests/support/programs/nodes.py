"""Objects to and fro between bob and one node of alice's cluster. ``nodes.py RESOURCE``: what that node alone has.

Prints, per round, the processes of alice's tasks and whether all was well; waits for a line of input after each.
"""

import os
import sys
import zlib
from typing import Any

import numpy as np
import ray

import fed

SIZES = (80, 50_000_000)
ROUNDS = 2


@fed.remote
def make(nbytes: int) -> Any:
    return np.arange(nbytes // 8, dtype=np.uint64)


@fed.remote
def consume(array: Any) -> int:
    return zlib.crc32(memoryview(array).cast("B"))


@fed.remote
def process() -> int:
    return os.getpid()


@fed.remote
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self, array: Any) -> tuple[int, int]:
        self.count += array.nbytes
        return self.count, os.getpid()


def main() -> None:
    if "TEST_CLUSTER" in os.environ:
        ray.init(address=os.environ["TEST_CLUSTER"], runtime_env={"py_modules": [fed]}, log_to_driver=False)
    there: dict[str, Any] = {"resources": {sys.argv[1]: 0.001}}
    with fed.job():
        counter = Counter.options(**there).party("alice").remote()
        for turn in range(1, ROUNDS + 1):
            sums = []
            for nbytes in SIZES:
                pushed = make.options(**there).party("alice").remote(nbytes)
                pulled = make.party("bob").remote(nbytes)
                sums.append(consume.party("bob").remote(pushed))
                sums.append(consume.options(**there).party("alice").remote(pulled))
                added = counter.add.remote(pulled)
            small, small_too, big, big_too = fed.get(sums)
            count, actor = fed.get(added)
            right = small == small_too and big == big_too and count == turn * sum(SIZES)
            task = fed.get(process.options(**there).party("alice").remote())
            print("round", turn, right, task, actor, flush=True)
            sys.stdin.readline()


if __name__ == "__main__":
    main()
