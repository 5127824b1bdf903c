"""Joins and leaves; with TEST_PROTOCOL as a release would that speaks that version of the protocol."""

import os
import sys

import fed


def main() -> None:
    if "TEST_PROTOCOL" in os.environ:
        # What another release differs in; patched before the greeting is made.
        vars(sys.modules["fed.proxy.greeting"])["PROTOCOL_VERSION"] = int(os.environ["TEST_PROTOCOL"])
    with fed.job():
        print("joined", flush=True)


if __name__ == "__main__":
    main()
