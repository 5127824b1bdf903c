"""An array made in alice and consumed in bob. ``payload.py BYTES``: prints its length and checksum in every party."""

import sys
import zlib
from typing import Any

import numpy as np

import fed


@fed.remote
def make(nbytes: int) -> Any:
    return np.arange(nbytes // 8, dtype=np.uint64)


@fed.remote
def consume(array: Any) -> tuple[int, int]:
    return array.nbytes, zlib.crc32(memoryview(array).cast("B"))


def main() -> None:
    with fed.job():
        print("joined", flush=True)
        array = make.party("alice").remote(int(sys.argv[1]))
        there = fed.get(consume.party("bob").remote(array))
        here = fed.get(consume.party("alice").remote(array))
        print("consumed", there == here, there[0], flush=True)
        # The proxies are looked at once more before they go.
        fed.get(make.party("alice").remote(8))
        sys.stdin.readline()


if __name__ == "__main__":
    main()
