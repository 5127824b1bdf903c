"""Joins and leaves many times, and prints what that costs: after ten times and at the end."""

import ctypes
import gc
import json
import sys
import threading
from typing import Any

import psutil

import fed


@fed.remote
def identity(value: Any) -> Any:
    return value


def held() -> list[int]:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    process = psutil.Process()
    return [process.memory_info().rss, process.num_fds(), threading.active_count()]


def main() -> None:
    before: list[int] = []
    for number in range(int(sys.argv[1])):
        with fed.job():
            value = identity.party("bob").remote(identity.party("alice").remote(number))
            if fed.get(value) != number:
                raise SystemExit("a wrong value")
        if number == 9:
            before = held()
    print(json.dumps([before, held()]), flush=True)


if __name__ == "__main__":
    main()
