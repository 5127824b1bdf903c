"""Random federated programs with random trouble in them, and how a party plays one.

A seed makes a program, the same in every party. It consists of *stretches*, each played in an epoch of its own: the
first one as the job begins, each later one after a `fed.reset`. A stretch is a sequence of operations, and what goes
wrong is part of it: tasks that fail, values that may not cross, and *slips*, which one party's driver makes alone.

A party keeps an account of what it saw. `tests.soak.laws` holds the accounts of all parties against the program.

Run as a script, by a driver of `tests.soak.integration.test_random_jobs`, it plays one job after another on real Ray.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import os
import random
import sys
import threading
import types
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import fed

__all__ = [
    "MEETINGS",
    "PARTIES",
    "Account",
    "Create",
    "End",
    "Get",
    "Handled",
    "Hidden",
    "Job",
    "Kill",
    "Leg",
    "Method",
    "Operation",
    "Ref",
    "Seen",
    "Slip",
    "Stretch",
    "Task",
    "account_of",
    "bag",
    "digest",
    "job_of",
    "plain",
    "play",
]

PARTIES: Final = ("alice", "bob", "carol", "dave", "erin")
MAX_STRETCHES: Final = 3
FLAVOURS: Final = ("plain", "unpicklable", "two arguments", "nested", "exits", "returns a lock")
MEET_S: Final = 0.2
"""How long a task waits for the one that it is to fail together with, which may never come to run."""


# The program, as data.


@dataclasses.dataclass(frozen=True)
class Ref:
    """A result of an earlier operation."""

    operation: int
    slot: int = 0


@dataclasses.dataclass(frozen=True)
class Task:
    """A call of a function. Arguments are refs and numbers, also in lists and dicts.

    Attributes:
        party: Where.
        tool: Which: mix, spread, fail, hide or crash.
        arguments: What it is given beside its detail.
        returns: Its ``num_returns``.
        detail: What kind of value or failure.
        meeting: With whom it fails at the same time; empty: alone.
        pause_s: How long it takes. Nothing relies on it: it only makes orders differ.
    """

    party: str
    tool: str
    arguments: tuple[Any, ...]
    returns: int = 1
    detail: str = ""
    meeting: str = ""
    pause_s: float = 0.0


@dataclasses.dataclass(frozen=True)
class Create:
    """An actor that keeps a sum."""

    party: str
    start: Any
    fails: bool = False


@dataclasses.dataclass(frozen=True)
class Method:
    """A call of an actor, by the number of the operation that made it."""

    actor: int
    argument: Any
    pause_s: float = 0.0


@dataclasses.dataclass(frozen=True)
class Kill:
    """The end of an actor."""

    actor: int


@dataclasses.dataclass(frozen=True)
class Get:
    """A `fed.get`."""

    what: Any


Operation = Task | Create | Method | Kill | Get


@dataclasses.dataclass(frozen=True)
class Slip:
    """What one party's driver does and the others do not.

    Attributes:
        party: Which.
        before: The operation that it does it before; the number of operations stands for the end.
        kind: ``raises``, ``exits`` by ``sys.exit(0)``, ``leaves`` the block, ``adds`` a call, ``differs`` in a call.
    """

    party: str
    before: int
    kind: str


@dataclasses.dataclass(frozen=True)
class Stretch:
    """What is played in one epoch.

    Attributes:
        operations: In order.
        slips: At most one for each party.
        pauses: Where a driver is held up, by party and operation, in seconds.
    """

    operations: tuple[Operation, ...]
    slips: tuple[Slip, ...]
    pauses: Mapping[tuple[str, int], float]


@dataclasses.dataclass(frozen=True)
class Job:
    """A program and the options that it is run with.

    Attributes:
        seed: Makes all the rest.
        parties: Who takes part.
        transport: For the in-process runtime.
        options: Of `fed.init`.
        stretches: At least one.
        handlers: What a party's failure handler does beside noting: ``raises``, ``waits`` or ``exits``.
        swallows: Whether the program ends as if nothing had happened when a task fails in the last stretch.
        patient: Whether a failed `fed.get` does not end the stretch. With ``isolate`` only.
    """

    seed: int
    parties: tuple[str, ...]
    transport: str
    options: Mapping[str, Any]
    stretches: tuple[Stretch, ...]
    handlers: Mapping[str, str]
    swallows: bool
    patient: bool


def job_of(seed: int, *, real: bool = False) -> Job:
    """The job that a seed makes.

    Args:
        seed: Any number.
        real: Whether it is for Ray: then workers may die, and there are three parties.
    """
    chance = random.Random(seed)
    parties = PARTIES[: 3 if real else chance.choice((3, 5))]
    stretches = [_Author(chance, parties, real=real) for _ in range(chance.choice((1, 1, 2, MAX_STRETCHES)))]
    for author in stretches:
        author.write()
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3))):
        author = chance.choice(stretches)
        if chance.random() < 0.6:
            author.spoil()
        else:
            author.slip()
    isolate = chance.random() < 0.35
    exposure: Any = chance.choice(("type", "message", "trace"))
    if chance.random() < 0.3:
        exposure = {party: chance.choice(("type", "message", "trace")) for party in parties if chance.random() < 0.5}
    options = {"on_error": "isolate" if isolate else "abort", "expose_errors": exposure}
    handlers = {party: chance.choice(("raises", "waits", "exits")) for party in parties if chance.random() < 0.15}
    return Job(
        seed,
        parties,
        "grpc" if chance.random() < 0.08 else "memory",
        options,
        tuple(author.stretch() for author in stretches),
        handlers,
        swallows=chance.random() < 0.3,
        patient=isolate and chance.random() < 0.7,
    )


class _Author:
    """Writes one stretch."""

    def __init__(self, chance: random.Random, parties: tuple[str, ...], *, real: bool) -> None:
        self._chance = chance
        self._parties = parties
        self._real = real
        self._operations: list[Operation] = []
        self._refs: list[Ref] = []
        self._actors: dict[int, list[Ref]] = {}
        self._dead: list[int] = []
        self._slips: dict[str, Slip] = {}

    def write(self) -> None:
        """Write a program that nothing is wrong with."""
        length = self._chance.randint(5, 30)
        while len(self._operations) < length - 1:
            self._some_operation()
        self._get()

    def stretch(self) -> Stretch:
        """What was written."""
        pauses = {
            (party, number): self._chance.random() * 0.02
            for party in self._parties
            for number in range(len(self._operations) + 1)
            if self._chance.random() < 0.04
        }
        return Stretch(tuple(self._operations), tuple(self._slips.values()), pauses)

    def spoil(self) -> None:
        """Let something in it fail, and go on for a while from there, also on what will not be."""
        self._trouble()
        for _ in range(self._chance.randint(0, 8)):
            self._some_operation()
        if self._chance.random() < 0.8:
            self._get()

    def slip(self) -> None:
        """Let one party do something else."""
        kind = self._chance.choice(("raises", "exits", "leaves", "adds", "differs"))
        places = range(len(self._operations) + 1)
        if kind == "differs":
            places_of_tasks = [number for number, one in enumerate(self._operations) if isinstance(one, Task)]
            kind = kind if places_of_tasks else "adds"
            before = self._chance.choice(places_of_tasks or places)
        elif kind == "adds":
            before = self._chance.choice(places)
        else:
            # To leave where all leave is no slip.
            before = self._chance.choice(places[:-1])
        party = self._chance.choice(self._parties)
        self._slips[party] = Slip(party, before, kind)

    def _some_operation(self) -> None:
        kinds = {"task": 50, "spread": 6, "quiet": 2, "get": 10, "create": 7}
        if self._actors:
            kinds |= {"method": 22, "kill": 3}
        kind = self._chance.choices(list(kinds), list(kinds.values()))[0]
        if kind == "get":
            self._get()
        elif kind == "create":
            self._actors[self._add(Create(self._party(), self._argument()), 0)] = []
        elif kind == "method":
            actor = self._chance.choice(list(self._actors))
            self._add(Method(actor, self._argument(), self._pause()), 1)
            self._actors[actor].append(self._refs[-1])
        elif kind == "kill":
            self._kill()
        elif kind == "spread":
            returns = self._chance.randint(2, 4)
            self._add(Task(self._party(), "spread", (returns, self._argument()), returns), returns)
        elif kind == "quiet":
            self._add(Task(self._party(), "mix", (self._argument(),), 0, "number"), 0)
        else:
            detail = self._chance.choices(("number", "bag", "text", "bulk"), (60, 20, 15, 5))[0]
            arguments = tuple(self._argument() for _ in range(self._chance.randint(0, 3)))
            self._add(Task(self._party(), "mix", arguments, 1, detail, pause_s=self._pause()), 1)

    def _trouble(self) -> None:
        kind = self._chance.choice(
            ("fail", "fail", "fail", "pair", "hide", "late", "constructor", *(("crash",) * 2 * self._real))
        )
        if kind == "late" and not self._dead:
            kind = "fail"
        if kind == "fail":
            self._fail("")
        elif kind == "pair":
            meeting = f"meeting {self._chance.random()}"
            for party in self._chance.sample(self._parties, 2):
                self._fail(meeting, party)
        elif kind == "hide":
            self._add(Task(self._party(), "hide", (self._argument(),)), 1)
            # Used where it is not, or it would trouble nobody.
            self._add(Task(self._party(), "mix", (self._refs[-1],), 1, "number"), 1)
            self._add(Get(self._refs[-2] if self._chance.random() < 0.3 else [self._refs[-1]]), 0)
        elif kind == "late":
            self._add(Method(self._chance.choice(self._dead), self._argument()), 1)
        elif kind == "constructor":
            self._actors[self._add(Create(self._party(), self._argument(), fails=True), 0)] = []
        else:
            self._add(Task(self._party(), "crash", (self._argument(),)), 1)

    def _fail(self, meeting: str, party: str = "") -> None:
        arguments = (self._argument(),) if self._chance.random() < 0.4 and not meeting else ()
        flavour = self._chance.choice(FLAVOURS)
        self._add(Task(party or self._party(), "fail", arguments, 1, flavour, meeting, self._pause()), 1)

    def _get(self) -> None:
        if not self._refs:
            self._add(Task(self._party(), "mix", (), 1, "number"), 1)
        if self._chance.random() < 0.5:
            self._add(Get(self._ref()), 0)
            return
        several: Any = [self._argument() for _ in range(self._chance.randint(1, 4))]
        self._add(Get(several if self._chance.random() < 0.7 else {"those": several, "this": self._ref()}), 0)

    def _kill(self) -> None:
        actor = self._chance.choice(list(self._actors))
        results = self._actors.pop(actor)
        # A call that has not ended would end either way.
        if results:
            self._add(Get(list(results)), 0)
        self._add(Kill(actor), 0)
        self._dead.append(actor)

    def _add(self, operation: Operation, results: int) -> int:
        self._operations.append(operation)
        number = len(self._operations) - 1
        self._refs += [Ref(number, slot) for slot in range(results)]
        return number

    def _party(self) -> str:
        return self._chance.choice(self._parties)

    def _pause(self) -> float:
        return self._chance.random() * 0.01 if self._chance.random() < 0.15 else 0.0

    def _ref(self) -> Ref:
        # Rather a late one, so that chains form.
        return self._refs[max(self._chance.randrange(len(self._refs)) for _ in range(2))]

    def _argument(self, depth: int = 0) -> Any:
        kind = self._chance.random()
        if not self._refs or kind < 0.15:
            return self._chance.randrange(1000)
        if depth < 2 and kind < 0.3:
            return [self._argument(depth + 1) for _ in range(self._chance.randint(1, 3))]
        if depth < 2 and kind < 0.4:
            return {"a": self._argument(depth + 1), "b": 7}
        return self._ref()


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
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
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
        Leg(**{**leg, "seen": [Seen(*one) for one in leg["seen"]], "known": [tuple(one) for one in leg["known"]]})
        for leg in told["legs"]
    ]
    return Account(told["party"], legs, [Handled(*one) for one in told["handled"]], End(*told["end"]))


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
        slip = next((one for one in stretch.slips if one.party == party), None)
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
                    tools(self._number).mix.party(party).remote("number", 0.0)
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
            except fed.TaskError as error:
                if not self._job.patient:
                    raise
                leg.refused[str(number)] = error.error_id
            return
        made = self._call(number, operation)
        if operation.__class__ is Method or (isinstance(operation, Task) and operation.returns == 1):
            self._made[Ref(number)] = made
        elif isinstance(operation, Task):
            for slot, one in enumerate(made or ()):
                self._made[Ref(number, slot)] = one

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
        arguments = [self._filled(one) for one in operation.arguments]
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
            return [self._filled(one) for one in what]
        if isinstance(what, dict):
            return {name: self._filled(one) for name, one in what.items()}
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
