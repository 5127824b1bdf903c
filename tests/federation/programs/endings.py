"""Ends in the way that TEST_ENDING names; the other parties end regularly. Says what a test waits for."""

import os
import signal
import sys
import time
from typing import Any

import fed

ENDING = os.environ.get("TEST_ENDING", "")
AGAIN = os.environ.get("TEST_AGAIN", "")


@fed.remote
def identity(value: Any) -> Any:
    return value


@fed.remote
def forever() -> None:
    time.sleep(10**6)


def end() -> None:
    if ENDING == "exception":
        raise ValueError("on purpose")
    if ENDING == "exit":
        sys.exit(3)
    if ENDING == "os_exit":
        os._exit(4)
    if ENDING == "get":
        print("waiting", flush=True)
        fed.get(forever.party(fed.party()).remote())
    if ENDING == "outside":
        print("waiting", flush=True)
        signal.pause()


def main() -> None:
    fed.init()
    print("joined", flush=True)
    fed.get([identity.party(party).remote(1) for party in fed.parties()])
    end()
    print("leaving", flush=True)
    if ENDING != "unleft":
        fed.shutdown()
        print("left", flush=True)
    if AGAIN:
        # Another federation, at the same port.
        party, address = AGAIN.split("=")
        for _ in range(3):
            with fed.job(job="again", party=party, addresses={party: address}):
                fed.get(identity.party(party).remote(1))
        print("again", flush=True)


if __name__ == "__main__":
    main()
