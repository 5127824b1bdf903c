"""Waiting that lasts: who waits for what, what the others are at, and the proof of a deadlock [E36, E37].

A driver that waits while nothing moves asks the others, in rounds, what they are at; each answers with its status
(`PartyStatus`).

::

    waiting ── half the time ──► round 1 ── the whole time ──► a line is due, round 2 ── ever longer ──► ...
       ▲                                                                │
       └───────────────── something moved: all anew ────────────────────┘

Before each later line there is a round too, so that no line says what was true ten minutes ago.

Laws:

1. Waiting alone is never a failure, however long it lasts: it makes lines for people.
2. A deadlock takes two rounds one after the other, the second asked when all had answered the first, in which all gave
   the same answer: its driver waits in a fed call, no task of its runs, nothing of its is on the way, and nothing has
   moved. Then at the moment between the rounds this was the state of all of them at once, and nothing was left that
   could have changed it. (The double counting of F. Mattern, *Algorithms for distributed termination detection*, 1987.)
3. One task that runs, one result on its way or one driver outside fed keeps it from being called a deadlock.
4. A party calls a deadlock only what it waits in itself: that somebody else waits, it would have from that one alone.
5. Whatever the others answer, a `PartyStatus` is bounded.

All times are seconds on one monotonic clock, which the caller reads.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from fed.text import counted

__all__ = ["MAX_SHOWN", "Due", "PartyStatus", "StallDetector", "Wait", "describe_wait", "graph", "listed", "mermaid"]

MAX_SHOWN: Final = 8
"""Tasks and waits that a `PartyStatus` names; of more it has the number."""

MAX_INTERVAL_S: Final = 600.0
"""Lines about one wait come at ever longer intervals, up to this."""


class Wait(NamedTuple):
    """Something waits for an object.

    Attributes:
        who: The waiting task or call, as text.
        what: The task that makes the object, as text.
        party: Whose task that is.
    """

    who: str
    what: str
    party: str


@dataclasses.dataclass(frozen=True)
class PartyStatus:
    """What one party is at.

    Attributes:
        moves: A number that grows with everything that moves: calls, ends of tasks, arrivals, deliveries.
        idle: Whether its driver waits in a fed call.
        running: Tasks that have all their arguments and have not ended.
        in_flight: Results and failures on their way to other parties.
        waiting: Tasks and calls that wait for an object.
        tasks: Some of those that run.
        waits: Some of those that wait.
    """

    moves: int = 0
    idle: bool = False
    running: int = 0
    in_flight: int = 0
    waiting: int = 0
    tasks: tuple[str, ...] = ()
    waits: tuple[Wait, ...] = ()

    @property
    def still(self) -> bool:
        """Whether nothing in this party can move by itself."""
        return self.idle and not self.running and not self.in_flight


class Due(enum.Enum):
    """What a driver that waits is to do."""

    ASK = "ASK"
    """Begin a round."""
    REPORT = "REPORT"
    """Tell people what the wait is about, and begin another round."""


class StallDetector:
    """One party's view of a wait. Not thread-safe.

    Args:
        party: This party.
        stall_s: How long nothing moves before people are told.
    """

    def __init__(self, party: str, stall_s: float) -> None:
        self._party = party
        self._stall_s = stall_s
        self._moves = -1
        self._since = 0.0
        self._ask_at = math.inf
        self._report_at = math.inf
        self._interval = stall_s
        self._round = 0
        self._asked: frozenset[str] = frozenset()
        self._answers: dict[str, PartyStatus] = {}
        self._before: Mapping[str, PartyStatus] | None = None

    @property
    def round(self) -> int:
        """The number of the round that runs."""
        return self._round

    @property
    def answers(self) -> Mapping[str, PartyStatus]:
        """What the others have answered in this round."""
        return self._answers

    def waited_s(self, now: float) -> float:
        """For how long nothing has moved."""
        return now - self._since

    def look(self, now: float, moves: int) -> Due | None:
        """The driver waits, and looks up.

        Args:
            now: The time.
            moves: As in `PartyStatus.moves`, of this party.
        """
        if moves != self._moves:
            self._moves, self._since, self._interval = moves, now, self._stall_s
            self._ask_at, self._report_at = now + self._stall_s / 2, now + self._stall_s
            self._asked, self._before = frozenset(), None
            self._answers = {}
            return None
        if now >= self._ask_at:
            self._ask_at = math.inf
            return Due.ASK
        if now < self._report_at:
            return None
        self._report_at = now + self._interval
        self._ask_at = self._report_at - self._stall_s / 2
        self._interval = min(2 * self._interval, MAX_INTERVAL_S)
        return Due.REPORT

    def ask(self, peers: Collection[str], own: PartyStatus) -> int:
        """A round begins, of which all that came before is the one before, if all had answered that.

        Args:
            peers: Who is asked.
            own: This party, now.

        Returns:
            The number of the round.
        """
        complete = self._round > 0 and bool(self._asked) and self._asked <= self._answers.keys()
        self._before = {**self._answers, self._party: own} if complete else None
        self._round += 1
        self._asked, self._answers = frozenset(peers), {}
        return self._round

    def answered(self, peer: str, round_: int, standing: PartyStatus) -> None:
        """A peer tells what it is at; an answer of another round is of no use any more."""
        if round_ == self._round and peer in self._asked:
            self._answers[peer] = standing

    def deadlock(self, own: PartyStatus) -> Mapping[str, PartyStatus] | None:
        """What everybody is at, if it is proven that nothing will ever move again.

        Args:
            own: This party, now.
        """
        now = {**self._answers, self._party: own}
        if not self._asked or not self._asked <= self._answers.keys() or self._before != now:
            return None
        if not all(standing.still for standing in now.values()) or not own.waiting:
            return None
        return now


def graph(standings: Mapping[str, PartyStatus]) -> str:
    """Who waits for whom, in a line."""
    parts = []
    for party, standing in sorted(standings.items()):
        waits = [f"{wait.who} waits for {wait.what} of {wait.party}" for wait in standing.waits]
        parts.append(f"{party}: {listed(waits, standing.waiting)}" if waits else f"{party} has nothing to do")
    return "; ".join(parts)


def mermaid(standings: Mapping[str, PartyStatus]) -> str:
    """The same as a mermaid diagram."""
    names: dict[tuple[str, str], str] = {}

    def node(party: str, what: str) -> str:
        known = names.get((party, what))
        if known is not None:
            return known
        name = names[party, what] = f"n{len(names)}"
        text = f"{party}: {what}".replace('"', "#quot;")
        return f'{name}["{text}"]'

    edges = [
        f"    {node(party, wait.who)} --> {node(wait.party, wait.what)}"
        for party, standing in sorted(standings.items())
        for wait in standing.waits
    ]
    return "\n".join(["graph LR", *edges])


def describe_wait(
    own: PartyStatus, asked: Collection[str], answers: Mapping[str, PartyStatus], also: Sequence[str] = ()
) -> str:
    """What this party waits for and runs itself, and what the others last said they were at.

    Args:
        own: This party, which waits in a fed call.
        asked: The others.
        answers: What they said, as far as they did.
        also: What this party waits for that is no object, each a clause.
    """
    waits = [f"{wait.who} waits for {wait.what} of party {wait.party!r}" for wait in own.waits]
    work = _work(own)
    mine = [listed(waits, own.waiting)] if waits else []
    mine += [f"this party {' and '.join(work)}"] if work else []
    mine += also
    # Of many, those that have something to do.
    shown = sorted(sorted(asked, key=lambda peer: (_is_free(answers.get(peer)), peer))[:MAX_SHOWN])
    theirs = [f"{peer} {_doing(answers[peer]) if peer in answers else 'has not answered'}" for peer in shown]
    more = [f"and {counted(len(asked) - len(shown), 'other')}"] if len(asked) > len(shown) else []
    return "; ".join([*(mine or ["this party has nothing to do"]), *theirs, *more])


def _is_free(standing: PartyStatus | None) -> bool:
    return standing is not None and _doing(standing) == "has nothing to do"


def _doing(standing: PartyStatus) -> str:
    parts = _work(standing)
    if not standing.idle:
        parts.append("does not wait in a fed call")
    if not parts and standing.waits:
        parts += [f"waits for {wait.what} of {wait.party}" for wait in standing.waits[:1]]
    return " and ".join(parts) if parts else "has nothing to do"


def _work(standing: PartyStatus) -> list[str]:
    """What goes on in a party whatever its driver does."""
    parts = []
    if standing.running:
        parts.append(f"runs {listed(standing.tasks, standing.running)}")
    if standing.in_flight:
        # Failures and what else is told are counted with the results.
        parts.append(f"has {counted(standing.in_flight, 'message')} on the way")
    return parts


def listed(texts: Sequence[str], count: int | None = None) -> str:
    """Some of several things, in a sentence: the first `MAX_SHOWN`, and how many more there are.

    Args:
        texts: The things, or the first of them.
        count: How many there are. Default: these.
    """
    texts, count = texts[:MAX_SHOWN], len(texts) if count is None else count
    more = count - len(texts)
    return ", ".join(texts) + (f" and {more} more" if more > 0 else "")
