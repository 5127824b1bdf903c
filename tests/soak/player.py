"""How a party plays a program of `tests.soak.programs`, and its account of what it saw.

`tests.soak.laws` holds the accounts of all parties against the program.

Run as a script, by a driver of `tests.soak.integration.test_random_jobs`, it plays one job after another on real Ray.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import os
import sys
import threading
import types
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import fed
from tests.soak.programs import Create, Get, Job, Kill, Method, Operation, Ref, Stretch, Task, job_of

__all__ = [
    "MEETINGS",
    "Account",
    "Counter",
    "End",
    "Handled",
    "Hidden",
    "Leg",
    "Seen",
    "account_of",
    "bag",
    "digest",
    "plain",
    "play",
]

MEET_S: Final = 0.2
"""How long a task waits for the one that it is to fail together with, which may never come to run."""


# What runs in tasks.


class Unpicklable(Exception):
    """Cannot leave its worker."""

    def __init__(self) -> None:
        super().__init__("it holds a lock")
        self.lock = threading.Lock()


class TwoArguments(Exception):
    """Comes out of pickle with an error of its own."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class SlipError(Exception):
    """What a driver raises between two calls."""


class Hidden:
    """A value that no codec lets out of its party."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"hidden {self.value}"


MEETINGS: Final[dict[str, threading.Barrier]] = {}
"""Where tasks of two parties wait for one another, by name; empty on Ray, where they share no memory."""


def pause(seconds: float) -> None:
    """Hold this thread up. Nothing relies on it: it only makes orders differ."""
    if seconds:
        threading.Event().wait(seconds)


def plain(value: Any) -> Any:
    """A value as it can be told in JSON, and compared."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value if isinstance(value, (int, str)) else f"{type(value).__name__} {digest(value)}"


def digest(*things: Any) -> int:
    """A number that depends on everything in the things."""
    return zlib.crc32(repr(things).encode()) % 1_000_000


def bag(detail: str, *things: Any) -> Any:
    """What ``mix`` makes of things."""
    number = digest(*things)
    if detail == "bag":
        return {"sum": number, "parts": [number, number + 1]}
    if detail == "text":
        return f"text {number}"
    # More than travels in a batch.
    return bytes([number % 256]) * 100_000 if detail == "bulk" else number


def _mix(detail: str, pause_s: float, *things: Any) -> Any:
    pause(pause_s)
    return bag(detail, *things)


def _spread(count: int, thing: Any) -> Any:
    return [digest(thing) + number for number in range(count)]


def _fail(flavour: str, meeting: str, pause_s: float, *things: Any) -> Any:
    pause(pause_s)
    if meeting in MEETINGS:
        try:
            MEETINGS[meeting].wait(MEET_S)
        except threading.BrokenBarrierError:
            pass
    if flavour == "unpicklable":
        raise Unpicklable
    if flavour == "two arguments":
        raise TwoArguments(1, 2)
    if flavour == "nested":
        try:
            dict[str, int]()["missing"]
        except KeyError as error:
            raise ValueError("nested") from error
    if flavour == "exits":
        sys.exit(3)
    if flavour == "returns a lock":
        return threading.Lock()
    raise ValueError("plain")


def _hide(thing: Any) -> Any:
    return Hidden(digest(thing))


def _crash(thing: Any) -> None:
    os._exit(9)


class Counter:
    """An actor's class."""

    def __init__(self, start: Any, *, fails: bool) -> None:
        if fails:
            raise ValueError("constructor")
        self.total = digest(start)

    def add(self, pause_s: float, thing: Any) -> int:
        """Add what a thing counts."""
        pause(pause_s)
        self.total += digest(thing)
        return self.total


class Tools(NamedTuple):
    """The federated functions and the class of one stretch."""

    mix: Any
    spread: Any
    fail: Any
    hide: Any
    crash: Any
    counter: Any


@functools.lru_cache
def tools(number: int) -> Tools:
    """Those of a stretch. Their names hold its number, and so does every failure of a task."""

    def of_stretch(function: Callable[..., Any]) -> Any:
        copy = types.FunctionType(
            function.__code__, function.__globals__, f"{function.__name__[1:]}_{number}", function.__defaults__
        )
        copy.__qualname__ = copy.__name__
        return fed.remote(copy)

    counter = fed.remote(type(f"Counter_{number}", (Counter,), {}))
    crash = of_stretch(_crash).options(max_retries=0)
    return Tools(of_stretch(_mix), of_stretch(_spread), of_stretch(_fail), of_stretch(_hide), crash, counter)


# A party's account.


class Handled(NamedTuple):
    """One run of a failure handler."""

    error_id: str
    kind: str
    task: str
    in_failures: bool


class Seen(NamedTuple):
    """An error that a fed call raised and that the program took note of.

    Attributes:
        where: ``call`` or ``reset``.
        error_id: Of its failure.
        type: The error's class.
    """

    where: str
    error_id: str
    type: str


class End(NamedTuple):
    """How a party left the job.

    Attributes:
        type: Class of the error; empty for none.
        error_id: Of its failure.
        src_party: Of its failure.
        code: Of a SystemExit.
        text: Of the error, for people.
    """

    type: str = ""
    error_id: str = ""
    src_party: str = ""
    code: int = 0
    text: str = ""


@dataclasses.dataclass
class Leg:
    """One epoch in one party.

    Attributes:
        begun_with: Failures known as it began.
        got: What each `fed.get` returned, by the number of the operation.
        refused: The failure that each `fed.get` raised and the program survived.
        seen: Errors that ended the stretch, or came out of `fed.reset`.
        known: Failures known before the reset: id, kind, task.
        slipped: The slip that this party has made, if any.
    """

    begun_with: list[str] = dataclasses.field(default_factory=list)
    got: dict[str, Any] = dataclasses.field(default_factory=dict)
    refused: dict[str, str] = dataclasses.field(default_factory=dict)
    seen: list[Seen] = dataclasses.field(default_factory=list)
    known: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    slipped: str = ""


@dataclasses.dataclass
class Account:
    """What one party saw of a job."""

    party: str
    legs: list[Leg] = dataclasses.field(default_factory=list)
    handled: list[Handled] = dataclasses.field(default_factory=list)
    end: End = dataclasses.field(default_factory=End)


def account_of(told: Mapping[str, Any]) -> Account:
    """An account out of JSON."""
    legs = [
        Leg(**{**leg, "seen": [Seen(*error) for error in leg["seen"]], "known": list(map(tuple, leg["known"]))})
        for leg in told["legs"]
    ]
    return Account(told["party"], legs, [Handled(*run) for run in told["handled"]], End(*told["end"]))


# The program at work.


def play(job: Job, /, **options: Any) -> Account:
    """Run a job in the party whose turn it is.

    Args:
        job: It.
        **options: More for `fed.init`.
    """
    player = _Player(job)
    try:
        with fed.job(**job.options, failure_handler=player.handle, **options):
            player.play()
    except BaseException as error:
        player.account.end = _end_of(error)
    return player.account


class _Player:
    def __init__(self, job: Job) -> None:
        self.account = Account("")
        self._job = job
        self._number = 0
        self._made: dict[Ref, Any] = {}
        self._actors: dict[int, Any] = {}

    def handle(self, report: fed.FailureReport) -> None:
        """The failure handler."""
        root = report.root
        self.account.handled.append(Handled(root.error_id, root.kind.value, root.task, root in report.failures))
        kind = self._job.handlers.get(report.party)
        if kind == "raises":
            raise RuntimeError("handler")
        if kind == "exits":
            sys.exit(7)
        if kind == "waits":
            pause(0.03)

    def play(self) -> None:
        """The program."""
        self.account.party = fed.party()
        last = len(self._job.stretches) - 1
        for number, stretch in enumerate(self._job.stretches):
            self._number = number
            leg = Leg(begun_with=[failure.error_id for failure in fed.errors()])
            self.account.legs.append(leg)
            self._made.clear()
            self._actors.clear()
            try:
                if not self._stretch(stretch, leg):
                    return
            except fed.TaskError as error:
                leg.seen.append(Seen("call", error.error_id, type(error).__name__))
                if number == last and not self._job.swallows:
                    raise
            if number < last:
                self._reset(leg)

    def _reset(self, leg: Leg) -> None:
        leg.known = [(failure.error_id, failure.kind.value, failure.task) for failure in fed.errors()]
        # A failure that nobody has been told of yet is told by the first call; the second one is to begin anew.
        for _ in range(2):
            try:
                fed.reset()
                return
            except fed.TaskError as error:
                leg.seen.append(Seen("reset", error.error_id, type(error).__name__))
        raise RuntimeError("fed.reset raised twice")

    def _stretch(self, stretch: Stretch, leg: Leg) -> bool:
        """Returns whether the program goes on after it."""
        party = self.account.party
        slip = next((slip for slip in stretch.slips if slip.party == party), None)
        for number in range(len(stretch.operations) + 1):
            pause(stretch.pauses.get((party, number), 0.0))
            operation = stretch.operations[number] if number < len(stretch.operations) else None
            if slip is not None and slip.before == number:
                if slip.kind == "raises":
                    leg.slipped = slip.kind
                    raise SlipError
                if slip.kind == "exits":
                    leg.slipped = slip.kind
                    sys.exit(0)
                if slip.kind == "leaves":
                    leg.slipped = slip.kind
                    return False
                if isinstance(operation, Task) and slip.kind == "differs":
                    parties = self._job.parties
                    other = parties[(parties.index(operation.party) + 1) % len(parties)]
                    operation = dataclasses.replace(operation, party=other)
                else:
                    # By keywords, as no other call is made: what comes after it of two equal calls would be the object
                    # of a program that is still the same.
                    tools(self._number).mix.party(party).remote(detail="number", pause_s=0.0)
                    leg.slipped = slip.kind
            if operation is not None:
                self._operate(number, operation, leg)
                if slip is not None and slip.before == number:
                    leg.slipped = slip.kind
        return True

    def _operate(self, number: int, operation: Operation, leg: Leg) -> None:
        if isinstance(operation, Get):
            try:
                leg.got[str(number)] = plain(fed.get(self._filled(operation.what)))
            except (fed.TaskError, fed.DeliveryError) as error:
                if not self._job.patient:
                    raise
                leg.refused[str(number)] = error.failure.error_id
            return
        made = self._call(number, operation)
        if operation.__class__ is Method or (isinstance(operation, Task) and operation.returns == 1):
            self._made[Ref(number)] = made
        elif isinstance(operation, Task):
            for slot, result in enumerate(made or ()):
                self._made[Ref(number, slot)] = result

    def _call(self, number: int, operation: Task | Create | Method | Kill) -> Any:
        own = tools(self._number)
        if isinstance(operation, Kill):
            fed.kill(self._actors[operation.actor])
            return None
        if isinstance(operation, Create):
            actor = own.counter.party(operation.party)
            self._actors[number] = actor.remote(self._filled(operation.start), fails=operation.fails)
            return None
        if isinstance(operation, Method):
            actor = self._actors[operation.actor]
            return actor.add.remote(operation.pause_s, self._filled(operation.argument))
        arguments = [self._filled(argument) for argument in operation.arguments]
        if operation.tool == "mix":
            arguments = [operation.detail, operation.pause_s, *arguments]
        elif operation.tool == "fail":
            arguments = [operation.detail, operation.meeting, operation.pause_s, *arguments]
        function = getattr(own, operation.tool)
        if operation.returns != 1:
            function = function.options(num_returns=operation.returns)
        return function.party(operation.party).remote(*arguments)

    def _filled(self, what: Any) -> Any:
        if isinstance(what, Ref):
            return self._made[what]
        if isinstance(what, list):
            return [self._filled(part) for part in what]
        if isinstance(what, dict):
            return {name: self._filled(part) for name, part in what.items()}
        return what


def _end_of(error: BaseException) -> End:
    failure = getattr(error, "failure", None)
    return End(
        type(error).__name__,
        failure.error_id if failure is not None else "",
        failure.src_party if failure is not None else "",
        error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 0,
        str(error),
    )


def main() -> None:
    """Play the jobs of some seeds on Ray, one after the other, and print an account of each."""
    first, count = int(sys.argv[1]), int(sys.argv[2])
    for seed in range(first, first + count):
        job = job_of(seed, real=True)
        # A program that goes on after a failure must not be interrupted just where it does so.
        account = play(job, job=f"soak-{seed}", interrupt_driver=len(job.stretches) == 1)
        # In one call, as the library's own threads speak too.
        sys.stdout.write("account " + json.dumps({"seed": seed, **dataclasses.asdict(account)}) + "\n")
        sys.stdout.flush()
    gc.collect()
    print("played", flush=True)
    # Until somebody has looked at what is left.
    sys.stdin.read()


if __name__ == "__main__":
    main()
