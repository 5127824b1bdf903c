"""One task fails; three parties depend on it directly, indirectly and not at all. ``fails.py KIND``."""

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


def report(failure: fed.FailureReport) -> None:
    print("handler", failure.root.kind.name, failure.root.type_name, failure.root.src_party, flush=True)


def main() -> None:
    with fed.job(failure_handler=report):
        print("joined", flush=True)
        a = fail.options(max_retries=0).party("alice").remote(sys.argv[1])
        b = identity.party("bob").remote(a)
        c = identity.party("carol").remote(b)
        began = time.monotonic()
        try:
            if fed.party() != "dave":
                fed.get(c)
        finally:
            print("waited", time.monotonic() - began, flush=True)


if __name__ == "__main__":
    main()
