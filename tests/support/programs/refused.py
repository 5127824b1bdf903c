"""Arguments that Ray cannot pickle, and options that it refuses: the call fails in every party like any other.

And actors that are killed before they were made, which is no failure.
"""

import threading
from collections.abc import Callable
from typing import Any

import fed


@fed.remote
def take(value: object) -> int:
    return 1


@fed.remote
class Idle:
    pass


def main() -> None:
    with fed.job(on_error="isolate"):
        calls: list[Callable[[], Any]] = [
            lambda: take.party("alice").remote(threading.Lock()),
            lambda: take.party("alice").options(num_gpus=1000).remote(1),
        ]
        for call in calls:
            try:
                fed.get(call(), timeout=30)
            except fed.TaskError as error:
                print("refused", error.type_name, error.party, flush=True)
        # Many, because their ids are used again as soon as their handles are gone.
        for _ in range(20):
            fed.kill(Idle.party("alice").remote())
        print("goes on", fed.get(take.party("alice").remote(1)), flush=True)


if __name__ == "__main__":
    main()
