"""Rounds of small and large objects both ways, checked, until alice finds the file that she is given.

Prints ``round N`` at the end of each. A counter at bob is called once in each round, and knows how often it was.
"""

import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import fed

LARGE = 20_000_000


@fed.remote
def over(path: str, number: int) -> bool:
    return Path(path).exists() or number >= 100_000


@fed.remote
def small(number: int) -> Any:
    return tuple({"round": number, "place": place} for place in range(10))


@fed.remote
def large(number: int) -> Any:
    return np.full(LARGE, number % 251, dtype=np.uint8)


@fed.remote
class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def add(self, number: int, *values: Any) -> Any:
        self.calls += 1
        wrong = [value for place, value in enumerate(values[:-1]) if value != {"round": number, "place": place}]
        array = values[-1]
        if wrong or array.shape != (LARGE,) or zlib.crc32(array) != zlib.crc32(bytes([number % 251]) * LARGE):
            raise ValueError(f"round {number} is not what was sent")
        return self.calls


def main() -> None:
    with fed.job():
        counter = Counter.party("bob").remote()
        back = Counter.party("alice").remote()
        number = 0
        print("joined", flush=True)
        while not fed.get(over.party("alice").remote(sys.argv[1], number)):
            there = counter.add.remote(
                number,
                *small.options(num_returns=10).party("alice").remote(number),
                large.party("alice").remote(number),
            )
            here = back.add.remote(
                number, *small.options(num_returns=10).party("bob").remote(number), large.party("bob").remote(number)
            )
            number += 1
            if fed.get([there, here]) != [number, number]:
                raise SystemExit(f"round {number}: a call was lost, or made twice")
            print(f"round {number}", flush=True)
        print("done", number, flush=True)


if __name__ == "__main__":
    main()
