"""Federations that play one scenario after another (`programs/scenarios.py`), and gates to hold their tasks at.

To start a federation takes seconds, to begin a new epoch a moment. So what can be shown within a job is shown in one
that goes on, and every scenario after a failure shows that there is a way back.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.drivers import PROGRAMS, Driver
from tests.support.eventually import eventually

ANSWER_S = 120.0
"""How long anything may take that is to happen, on a machine that is very busy with other things too."""

DISMISSAL_S = 20.0
"""How long a party with nothing left to do may take to end."""

FOUR = ("alice", "bob", "carol", "dave")
"""The parties of the fixture ``four``."""

Answers = Mapping[str, Any]

Environments = Callable[[], Mapping[str, Mapping[str, str]]]
"""Makes, for each party, the variables that its driver is started with."""


class Gate:
    """A named pipe at which a task waits until it is opened for writing, and closed again."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._descriptor: int | None = None

    def reach(self) -> None:
        """Wait until somebody waits here. He goes on waiting."""
        assert eventually(self._opened, ANSWER_S), f"nobody came to {self.path}"

    def open(self) -> None:
        """Wait until somebody waits here, and let him go on."""
        self.reach()
        self.close()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _opened(self) -> bool:
        if self._descriptor is None:
            # Fails as long as nobody has it open for reading.
            with contextlib.suppress(OSError):
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        return self._descriptor is not None


class Playing:
    """A scenario that is being played."""

    def __init__(self, drivers: Mapping[str, Driver], number: int) -> None:
        self._drivers = drivers
        self._number = number
        self._seen = {party: len(driver.lines) for party, driver in drivers.items()}

    def printed(self, party: str) -> list[str]:
        """What a party has printed since the scenario began."""
        return self._drivers[party].lines[self._seen[party] :]

    def wait_for(self, line: str, parties: Sequence[str] = ()) -> None:
        """Wait until parties (all, if none is named) have printed a line since the scenario began."""
        for party in parties or tuple(self._drivers):
            found = eventually(lambda party=party: line in self.printed(party), ANSWER_S)  # type: ignore[misc]
            assert found, f"{party} did not print {line!r}:\n{self._drivers[party].output}"

    def tell(self, party: str) -> None:
        """Let a party go on that waits for a line of input."""
        _write(self._drivers[party], "\n")

    def tell_all(self) -> None:
        """Let every party go on."""
        for party in self._drivers:
            self.tell(party)

    def answers(self) -> dict[str, Any]:
        """What came of it in each party, once the next epoch has begun in all of them."""
        start = f"answer {self._number} "
        found = {}
        for party, driver in self._drivers.items():
            driver.wait_for(start, ANSWER_S)
            line = next(line for line in driver.lines if line.startswith(start))
            found[party] = json.loads(line.removeprefix(start))
        return found


class Host:
    """A federation that plays scenarios. It is started when the first one is asked for, and anew after its end.

    Args:
        environments: Where its parties are.
        program: What plays them.
        command: What to put before the command that starts a party's driver.
    """

    def __init__(
        self,
        environments: Environments,
        program: Path = PROGRAMS / "scenarios.py",
        command: Callable[[str], Sequence[str]] = lambda _: (),
    ) -> None:
        self._environments = environments
        self._program = program
        self._command = command
        self._numbers = itertools.count()
        self.drivers: dict[str, Driver] = {}

    def begin(self, scenario: str, *arguments: Any) -> Playing:
        """Begin a scenario in every party."""
        return self._begin(lambda _: [scenario, *arguments])

    def begin_each(self, scenario: str, given: Mapping[str, Any], *arguments: Any) -> Playing:
        """Begin a scenario in every party, whose first argument is not the same everywhere."""
        return self._begin(lambda party: [scenario, given[party], *arguments])

    def _begin(self, what: Callable[[str], Sequence[Any]]) -> Playing:
        if any(driver.process.poll() is not None for driver in self.drivers.values()):
            self.close()
        if not self.drivers:
            self.drivers = {
                party: _start(self._command(party), self._program, party, environment)
                for party, environment in self._environments().items()
            }
            for driver in self.drivers.values():
                driver.wait_for("joined", ANSWER_S)
        number = next(self._numbers)
        playing = Playing(self.drivers, number)
        for party, driver in self.drivers.items():
            _write(driver, json.dumps([number, *what(party)]) + "\n")
        return playing

    def play(self, scenario: str, *arguments: Any) -> dict[str, Any]:
        """Play a scenario to its end."""
        return self.begin(scenario, *arguments).answers()

    def ends(self) -> dict[str, int]:
        """Wait until every party's program has ended. Returns the exit codes."""
        return {party: driver.end(ANSWER_S) for party, driver in self.drivers.items()}

    def dismiss(self) -> None:
        """Let every party come to the end of its program. Whoever takes too long is left to `close`."""
        for driver in self.drivers.values():
            driver.proceed()
        for driver in self.drivers.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.end(DISMISSAL_S)

    def close(self) -> None:
        for driver in self.drivers.values():
            driver.kill()
        self.drivers = {}


@contextlib.contextmanager
def hosted(environments: Environments, **arguments: Any) -> Iterator[Host]:
    """A host that is closed at the end. The arguments are its own."""
    host = Host(environments, **arguments)
    try:
        yield host
    finally:
        host.close()


def _start(command: Sequence[str], program: Path, party: str, environment: Mapping[str, str]) -> Driver:
    process = subprocess.Popen(
        [*command, sys.executable, "-m", "fed.cli.driver", str(program)],
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    return Driver(party, process)


def _write(driver: Driver, line: str) -> None:
    if driver.process.stdin is None:
        raise RuntimeError("the driver has no standard input")
    driver.process.stdin.write(line)
    driver.process.stdin.flush()


def results(answers: Answers) -> dict[str, Any]:
    """What the scenario itself came to, by party."""
    return {party: answer["result"] for party, answer in answers.items()}


def agree_on(errors: Mapping[str, Any], type_name: str, source: str) -> None:
    """Every party was told of the same failure, as its own or as another's."""
    assert len({error["error_id"] for error in errors.values()}) == 1, errors
    for party, error in errors.items():
        assert (error["type"], error["party"]) == (type_name, source)
        assert error["error"] == ("TaskError" if party == source else "RemoteError")


def handled_once(answers: Answers) -> None:
    """Every party's handler was called once, with the same root."""
    for party, answer in answers.items():
        assert [report["here"] for report in answer["handled"]] == [party], answer
    assert len({answer["handled"][0]["error_id"] for answer in answers.values()}) == 1
