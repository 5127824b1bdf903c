"""Where the time of a crossing goes: each hop of one object, from the call in one party to `fed.get` in the other.

``python -m benchmarks.hops [--bytes 16000000] [--iterations 200]``. All processes share the machine's monotonic clock,
and each notes when it passes a point. Ray runs a hook in every worker of a party that has the proxies note too: nothing
of this is in the library. A note costs some microseconds.

In each iteration an actor of alice makes a value, an actor of bob takes it and returns a number, and both parties get
that. The numbers are checked.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray

import fed
from fed.core.dataflow import Dataflow
from fed.engine.arrivals import Arrivals
from fed.engine.dataflow import Submitter
from fed.engine.results import Results
from fed.testing.simulation import free_addresses

HOPS: Final = (
    ("alice calls", "alice called", "the call: numbered, planned, submitted to Ray"),
    ("alice called", "alice task begins", "Ray brings the call to alice's actor"),
    ("alice task begins", "alice task ends", "the user's method in alice"),
    ("alice task ends", "alice knows", "Ray brings its end, and what is small of it, to alice's driver"),
    ("alice knows", "alice pushes", "alice's data-sending thread takes it up"),
    ("alice pushes", "alice sender pushes", "the sender has it: over the direct channel, or as an argument of Ray's"),
    ("alice sender pushes", "alice sender has encoded", "serialize what is large"),
    ("alice sender has encoded", "bob receiver has it", "the wire"),
    ("bob receiver has it", "bob driver has it", "the direct channel to bob's driver"),
    ("bob driver has it", "bob receiver has decoded", "what is large is taken and decoded"),
    ("bob driver has it", "bob submits", "bob's driver finds that his task is ready"),
    ("bob submits", "bob submitted", "submit it to Ray"),
    ("bob submits", "bob task begins", "Ray brings the call to bob's actor, which decodes what is small"),
    ("bob task begins", "bob task ends", "the user's method in bob"),
    ("bob task ends", "bob knows", "Ray brings its end to bob's driver"),
    ("bob knows", "bob has got", "fed.get returns in bob"),
    ("alice calls", "bob has got", "all of it"),
)
"""From which point to which, and what happens between them."""

FIRST: Final = "alice calls"
WARM_UP: Final = 20


class Notes:
    """Where this process writes when it passed which point."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._descriptor = -1

    def __reduce__(self) -> Any:
        return Notes, (self._directory,)

    def __call__(self, point: str) -> None:
        now = time.monotonic_ns()
        if self._descriptor < 0:
            path = Path(self._directory, str(os.getpid()))
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(self._descriptor, f"{now} {point}\n".encode())

    def before(self, owner: Any, method: str, point: str) -> None:
        """Note when a method is entered."""
        original: Callable[..., Any] = getattr(owner, method)

        @functools.wraps(original)
        def noted(*arguments: Any, **options: Any) -> Any:
            self(point)
            return original(*arguments, **options)

        setattr(owner, method, noted)

    def after(self, owner: Any, method: str, point: str) -> None:
        """Note when a coroutine method returns."""
        original: Callable[..., Any] = getattr(owner, method)

        @functools.wraps(original)
        async def noted(*arguments: Any, **options: Any) -> Any:
            value = await original(*arguments, **options)
            self(point)
            return value

        setattr(owner, method, noted)


def hook(notes: Notes, party: str) -> Callable[[], None]:
    """What Ray runs in each worker of a party when it starts."""

    def observe() -> None:
        from fed.proxy.receiver import Receiver
        from fed.proxy.sender import Sender

        notes.before(Sender, "push", f"{party} sender pushes")
        notes.after(Sender, "_encode", f"{party} sender has encoded")
        notes.before(Receiver, "on_parcels", f"{party} receiver has it")
        notes.after(Receiver, "take", f"{party} receiver has decoded")

    return observe


class Maker:
    """The actor of alice."""

    def __init__(self, notes: Notes, nbytes: int) -> None:
        self._notes = notes
        self._value = np.full(nbytes, 7, np.uint8) if nbytes else 7

    def make(self) -> Any:
        self._notes("alice task begins")
        value = self._value
        self._notes("alice task ends")
        return value


class Taker:
    """The actor of bob."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def take(self, value: Any) -> int:
        self._notes("bob task begins")
        found = int(value if isinstance(value, int) else value[-1])
        self._notes("bob task ends")
        return found


def play(party: str, directory: str, nbytes: int, iterations: int) -> None:
    """The program of one party."""
    notes = Notes(directory)
    ray.init(address="local", include_dashboard=False, runtime_env={"worker_process_setup_hook": hook(notes, party)})
    notes.before(Submitter, "_ended", f"{party} knows")
    notes.before(Results, "push", f"{party} pushes")
    notes.before(Arrivals, "arrived", f"{party} driver has it")
    if party == "bob":
        notes.before(Submitter, "_submit", "bob submits")
        notes.before(Dataflow, "submitted", "bob submitted")
    make_actor: Any = fed.remote(Maker)
    take_actor: Any = fed.remote(Taker)
    with fed.job(party=party):
        maker = make_actor.party("alice").remote(notes, nbytes)
        taker = take_actor.party("bob").remote(notes)
        for _ in range(WARM_UP + iterations):
            notes(f"{party} calls")
            made = maker.make.remote()
            notes(f"{party} called")
            found = fed.get(taker.take.remote(made))
            notes(f"{party} has got")
            if found != 7:
                raise RuntimeError(f"{found} came back, not 7")


def read(directory: Path) -> list[tuple[int, str]]:
    """All notes, in the order of time."""
    lines = [line for path in directory.iterdir() for line in path.read_text().splitlines()]
    return sorted((int(when), point) for when, _, point in (line.partition(" ") for line in lines))


def durations(notes: Sequence[tuple[int, str]]) -> dict[str, list[float]]:
    """Milliseconds of each hop in each iteration but the first ones.

    Of a point that is passed more than once in an iteration, as where bob's answer goes the other way, the first
    time counts.
    """
    found: dict[str, list[float]] = {what: [] for _, _, what in HOPS}
    starts = [place for place, (_, point) in enumerate(notes) if point == FIRST][WARM_UP:]
    for start, end in zip(starts, [*starts[1:], len(notes)], strict=True):
        times: dict[str, int] = {}
        for when, point in notes[start:end]:
            times.setdefault(point, when)
        for begins, ends, what in HOPS:
            if begins in times and ends in times:
                found[what].append((times[ends] - times[begins]) / 1e6)
    return found


def table(found: Mapping[str, Sequence[float]]) -> str:
    """A row for each hop: median and quartiles."""
    rows = ["| hop | median ms | quartiles |", "|---|---|---|"]
    for what, values in found.items():
        if len(values) >= 2:
            low, middle, high = statistics.quantiles(values, n=4)
            rows.append(f"| {what} | {middle:.2f} | {low:.2f} to {high:.2f} |")
    return "\n".join(rows)


def main() -> None:
    """Start both parties, wait for their ends, and print where the time went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=0, help="size of the object; 0 is a small number")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--party", help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.party:
        play(options.party, options.directory, options.bytes, options.iterations)
        return
    addresses = ",".join(
        f"{party}={address}" for party, address in zip(("alice", "bob"), free_addresses(2), strict=True)
    )
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "FED_ADDRESSES": addresses, "FED_JOB": "hops"}
        command = [sys.executable, "-m", "benchmarks.hops", *sys.argv[1:], "--directory", directory, "--party"]
        drivers = [subprocess.Popen([*command, party], env=environment) for party in ("alice", "bob")]
        codes = [driver.wait() for driver in drivers]
        if any(codes):
            raise SystemExit(f"the parties ended with {codes}")
        print(table(durations(read(Path(directory)))))


if __name__ == "__main__":
    main()
