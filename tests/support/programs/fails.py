"""One task fails; the other parties depend on it directly and indirectly."""

import sys
import time
from typing import Any

import fed


@fed.remote
def fail() -> Any:
    secret_local = "canary-4711"
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
        a = fail.party("alice").remote()
        b = identity.party("bob").remote(a)
        c = identity.party("carol").remote(b)
        try:
            fed.get(c)
        finally:
            say(f"told at {time.monotonic():.3f}")


if __name__ == "__main__":
    main()
