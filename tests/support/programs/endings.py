"""Ends in the way that TEST_ENDING names; the other parties end regularly. Says what a test waits for."""

import os
import signal
import sys
import time
from typing import Any

import fed

ENDING = os.environ.get("TEST_ENDING", "")
AGAIN = os.environ.get("TEST_AGAIN", "")
PARTY = os.environ["FED_PARTY"]


@fed.remote
def identity(value: Any) -> Any:
    return value


@fed.remote
def forever() -> None:
    time.sleep(10**6)


def end() -> None:
    print("ending", flush=True)
    if ENDING == "exception":
        raise ValueError("on purpose")
    if ENDING == "exit":
        sys.exit(3)
    if ENDING == "os_exit":
        os._exit(4)
    if ENDING == "get":
        print("at the end", flush=True)
        fed.get(forever.party("alice").remote())
    if ENDING == "outside":
        print("at the end", flush=True)
        signal.pause()


def main() -> None:
    fed.init()
    print("joined", flush=True)
    fed.get([identity.party(party).remote(1) for party in fed.parties()])
    end()
    if ENDING != "unleft":
        fed.shutdown()
        print("left", flush=True)
    if AGAIN:
        # Another federation, at the same port.
        for _ in range(3):
            with fed.job(job="again", addresses={PARTY: AGAIN}):
                fed.get(identity.party(fed.party()).remote(1))
        print("again", flush=True)


if __name__ == "__main__":
    main()
