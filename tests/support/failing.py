"""What the tests of the error model run: tasks that fail, programs that use them, and a federation to run them in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import fed
from fed.context import current_job
from fed.engine.job import Job
from fed.testing import Simulation, simulate

PARTIES: Final = ["alice", "bob", "carol", "dave"]
FIVE: Final = [*PARTIES, "erin"]
CANARY: Final = "canary-4711"

WAIT_S: Final = 30.0
"""How long a gate is waited for. One that is opened late fails the test, one that is never opened must not hang it."""


class GateTimeoutError(BaseException):
    """A gate was not opened. No test expects one."""


def pass_through(gate: threading.Event) -> None:
    """Wait for a gate."""
    if not gate.wait(WAIT_S):
        raise GateTimeoutError


class Unpicklable(Exception):
    def __init__(self, first: object, second: object) -> None:
        super().__init__(CANARY)
        self.lock = threading.Lock()


@fed.remote
def fail(*_: Any) -> None:
    raise ValueError(CANARY)


@fed.remote
def fail_unpicklable() -> None:
    raise Unpicklable(1, 2)


@fed.remote
def fail_from_cause() -> None:
    try:
        dict[str, int]()["missing"]
    except KeyError as error:
        raise ValueError(CANARY) from error


@fed.remote
def identity(value: Any) -> Any:
    return value


@fed.remote
class Cell:
    """An actor that keeps a value."""

    def __init__(self, value: Any = 0) -> None:
        self.value = value

    def add(self, value: Any) -> Any:
        self.value += value
        return self.value


class FailsLate:
    """A task that fails when every party has called `release`, and not while one is still making calls.

    Args:
        parties: How many there are.
    """

    def __init__(self, parties: int) -> None:
        gate = threading.Event()
        self._everyone = threading.Barrier(parties, action=gate.set)

        @fed.remote
        def fail_late(*_: Any) -> None:
            pass_through(gate)
            raise ValueError(CANARY)

        self.task = fail_late

    def release(self) -> None:
        """Say that this party has made its calls, and wait until the others have."""
        self._everyone.wait(WAIT_S)


def chain() -> Any:
    """A fails, B consumes A, C consumes B."""
    a = fail.party("alice").remote(1)
    b = identity.party("bob").remote(a)
    return fed.get(identity.party("carol").remote(b))


class Played(NamedTuple):
    """A program that has ended in all parties.

    Attributes:
        outcome: What it returned and raised.
        jobs: Its jobs, by party; where it had several, the last one.
    """

    outcome: Simulation
    jobs: Mapping[str, Job]

    @property
    def errors(self) -> Mapping[str, BaseException]:
        """What it raised, by party."""
        return self.outcome.errors


def here() -> str:
    """The party whose thread this is, also before it has joined."""
    return threading.current_thread().name.removeprefix("fed-")


def play(
    program: Callable[[], Any],
    *,
    parties: Sequence[str] = PARTIES,
    timeout_s: float = 20,
    own: Mapping[str, Mapping[str, Any]] | None = None,
    **arguments: Any,
) -> Played:
    """Run a program, inside a job, in all parties. The laws of every job are checked when all have ended.

    Args:
        program: It.
        parties: Their names.
        timeout_s: Seconds for the whole program.
        own: Arguments of `fed.init` that only one party gives, by party.
        **arguments: Arguments of `fed.testing.simulate`, and of `fed.init` for all parties.
    """
    jobs: dict[str, Job] = {}

    def main() -> Any:
        with fed.job(**(own or {}).get(here(), {})):
            job = current_job()
            jobs[job.party] = job
            return program()

    outcome = simulate(main, parties=parties, check=False, timeout_s=timeout_s, **arguments)
    for job in jobs.values():
        job.validate()
    return Played(outcome, jobs)


def run(program: Callable[[], Any], **arguments: Any) -> Simulation:
    """As `play`, for those who need no job."""
    return play(program, **arguments).outcome


def wait_until_known(error_id: str) -> None:
    """Wait until the job of this thread knows of a failure."""
    job = current_job()
    with job.shell.lock:
        if not job.shell.changed.wait_for(
            lambda: any(failure.error_id == error_id for failure in job.shell.coordinator.book.all), WAIT_S
        ):
            raise GateTimeoutError


def returned(outcome: Simulation) -> dict[str, Any]:
    """What a program returned in each party. Raises what it raised instead."""
    for error in outcome.errors.values():
        raise error
    return dict(outcome.results)


def roots(errors: Mapping[str, BaseException]) -> set[str]:
    """The failures that errors stand for, by their ids."""
    found = set()
    for party, error in errors.items():
        assert isinstance(error, fed.FailureError), f"{party} raised {error!r}"
        found.add(error.failure.error_id)
    return found
