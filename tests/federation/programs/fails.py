"""One task fails; the other parties depend on it directly and indirectly. ``fails.py KIND``."""

import os
import sys
import time
from typing import Any

import fed


class Unpicklable(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__("canary-4711")


@fed.remote
def fail(kind: str) -> Any:
    secret_local = "canary-4711"
    if kind == "unpicklable":
        raise Unpicklable(1, 2)
    if kind == "crash":
        os._exit(3)
    raise ValueError(secret_local)


@fed.remote
def identity(value: Any) -> Any:
    return value


def say(line: str) -> None:
    # In one call, since the handler speaks on a thread of its own.
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def report(failure: fed.FailureReport) -> None:
    root = failure.root
    say(f"handler {root.kind.name} {root.type_name} {root.src_party}")


def main() -> None:
    with fed.job(failure_handler=report):
        say("joined")
        a = fail.options(max_retries=0).party("alice").remote(sys.argv[1])
        b = identity.party("bob").remote(a)
        c = identity.party("carol").remote(b)
        began = time.monotonic()
        try:
            fed.get(c)
        finally:
            say(f"waited {time.monotonic() - began:.3f}")


if __name__ == "__main__":
    main()
