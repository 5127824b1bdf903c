"""Plays jobs one after another, while a test does something to the network between the parties.

Each line of the input is a JSON list: a number, a scenario's name, the options of its job, its arguments. A line is
printed for what came of it when the job is over. The drivers and their Ray clusters go on, so every job after a lost
party shows that there is a way back.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import fed
from fed.runtime.cluster import LocalCluster

SMALL = 3
"""How many small objects go with a large one."""

REPORTS: list[fed.FailureReport] = []
"""What the failure handler was given in this job."""

RAISED: list[float] = []
"""When the program was told that its job had failed."""


@fed.remote
def make(value: Any) -> Any:
    return value


@fed.remote
def fill(step: int, nbytes: int) -> Any:
    return np.full(nbytes, step % 251, dtype=np.uint8)


@fed.remote
def pattern(nbytes: int) -> Any:
    return np.arange(nbytes // 8, dtype=np.uint64)


@fed.remote
def digest(array: Any) -> list[int]:
    return [int(array.nbytes), int(array.sum()), int(array[len(array) // 3])]


@fed.remote
def wait_for_file(path: str) -> bool:
    while not Path(path).exists():
        time.sleep(0.01)
    return True


@fed.remote
def exists(path: str) -> bool:
    return Path(path).exists()


@fed.remote
class Ledger:
    """What has come to a party, in order."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, int, bool]] = []

    def note(self, source: str, step: int, array: Any, *values: int) -> int:
        whole = bool((array == step % 251).all()) and list(values) == list(range(step, step + SMALL))
        self.entries.append((source, step, whole))
        return len(self.entries)

    def read(self) -> list[tuple[str, int, bool]]:
        return self.entries


def say(line: str) -> None:
    # In one call, since others may speak as well.
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def traffic(stop: str, nbytes: int) -> dict[str, Any]:
    """Small and large objects from everyone to everyone, until there is a file where alice looks for it."""
    parties = fed.parties()
    ledgers = {party: Ledger.party(party).remote() for party in parties}
    rounds = 0
    ends = []
    while not fed.get(exists.party("alice").remote(stop)):
        notes = []
        for source in parties:
            small = [make.party(source).remote(rounds + place) for place in range(SMALL)]
            large = fill.party(source).remote(rounds, nbytes)
            notes += [ledgers[party].note.remote(source, rounds, large, *small) for party in parties]
        fed.get(notes)
        rounds += 1
        ends.append(time.monotonic())
        say(f"round {rounds}")
    expected = [(source, step, True) for step in range(rounds) for source in parties]
    found = fed.get({party: ledger.read.remote() for party, ledger in ledgers.items()})
    wrong = {party: entries for party, entries in found.items() if [tuple(entry) for entry in entries] != expected}
    return {"rounds": rounds, "ends": ends, "wrong": wrong}


def one_large(nbytes: int, source: str, target: str) -> list[list[int]]:
    """A large object crosses, with a small one before and after it."""
    fed.get(make.party(source).remote(1))
    array = pattern.party(source).remote(nbytes)
    say("large")
    there, here = digest.party(target).remote(array), digest.party(source).remote(array)
    after = make.party(target).remote(make.party(source).remote(2))
    return [*fed.get([there, here]), [fed.get(after)]]


def awaited(gate: str) -> Any:
    """Everyone waits for a task of bob's, which ends when there is a file."""
    one = wait_for_file.party("bob").remote(gate)
    fed.get(make.party("alice").remote(1))
    say("waiting")
    return fed.get(make.party("alice").remote(one))


def unread(gate: str) -> Any:
    """As `awaited`, and who has lost somebody stays until it is told to go on."""
    try:
        return awaited(gate)
    except fed.FedError:
        RAISED.append(time.monotonic())
        say("failed")
        sys.stdin.readline()
        raise


def told(error: fed.FedError) -> dict[str, Any]:
    """What an error tells the program."""
    failure = getattr(error, "failure", None)
    return {
        "error": type(error).__name__,
        "text": str(error),
        "kind": failure.kind.name if failure else None,
        "party": getattr(failure, "src_party", None),
    }


def played(name: str, options: dict[str, Any], *arguments: Any) -> dict[str, Any]:
    """Play a scenario in a job of its own."""
    RAISED.clear()
    REPORTS.clear()
    answer: dict[str, Any] = {}
    try:
        with fed.job(failure_handler=REPORTS.append, **options):
            say("begun")
            try:
                answer["value"] = globals()[name](*arguments)
            except fed.FedError:
                RAISED.append(time.monotonic())
                raise
    except fed.FedError as error:
        answer |= told(error)
    answer["left_at"] = time.monotonic()
    answer["raised_at"] = RAISED[0] if RAISED else None
    answer["reports"] = [{"failures": len(report.failures), **told(report.error)} for report in REPORTS]
    return answer


def to_the_end(options: dict[str, Any], gate: str) -> None:
    """A program that catches nothing."""
    with fed.job(**options):
        awaited(gate)


def main() -> None:
    # Parties in namespaces cannot reach the cluster of the tests.
    cluster = contextlib.nullcontext() if "FED_RAY_ADDRESS" in os.environ else LocalCluster(num_cpus=2)
    with cluster:
        say("joined")
        for line in iter(sys.stdin.readline, ""):
            number, name, options, *arguments = json.loads(line)
            if name == "to_the_end":
                to_the_end(options, *arguments)
                return
            if fed_party() not in options.get("addresses", [fed_party()]):
                answer = {}
            else:
                answer = played(name, options, *arguments)
            say(f"answer {number} " + json.dumps(answer))


def fed_party() -> str:
    return os.environ["FED_PARTY"]


if __name__ == "__main__":
    main()
