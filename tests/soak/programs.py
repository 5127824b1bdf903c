"""Random federated programs with random trouble in them.

A seed makes a program, the same in every party. It consists of *stretches*, each played in an epoch of its own: the
first one as the job begins, each later one after a `fed.reset`. A stretch is a sequence of operations, and what goes
wrong is part of it: tasks that fail, values that may not cross, and *slips*, which one party's driver makes alone.
How a party plays it is in `tests.soak.player`.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from typing import Any, Final

__all__ = [
    "PARTIES",
    "Create",
    "Get",
    "Job",
    "Kill",
    "Method",
    "Operation",
    "Ref",
    "Slip",
    "Stretch",
    "Task",
    "job_of",
]

PARTIES: Final = ("alice", "bob", "carol", "dave", "erin")
MAX_STRETCHES: Final = 3
FLAVOURS: Final = ("plain", "unpicklable", "two arguments", "nested", "exits", "returns a lock")


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
            places_of_tasks = [number for number, step in enumerate(self._operations) if isinstance(step, Task)]
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
