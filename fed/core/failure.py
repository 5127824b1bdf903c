"""Failures: what went wrong, as data, and which of several is the root.

Laws (rules of `rep/0002-error-model.md` in brackets):

1. A failure is a frozen value of plain types. Making one from an exception calls no user code, not even
   ``str`` of the exception unless its message is exposed, and cannot itself fail [E25].
2. A failure that exists because of another one keeps that one's identity: it *is* the other, seen from further
   away (`Failure.relayed`). So there is one ``error_id`` for one thing that went wrong, everywhere [E16].
3. Text leaves the party only where its exposure allows it (`Failure.redacted`) [E02].
4. Of several roots the same one wins in every party, whatever order they arrive in: `Failure.rank` is a total
   order over failures [E29].
5. A record is believed only from the party that made it. Of another party's it says who reported it, and it never
   replaces what that party itself has said (`Failure.told_by`, `FailureBook.record`).
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import re
from collections.abc import Collection, Iterable
from typing import Final

from fed.text import cut, cut_head, in_one_line, indented, plain

__all__ = ["Exposure", "Failure", "FailureBook", "Fault", "ForgedFailure", "Kind", "first_root"]

MAX_KNOWN: Final = 10_000
"""Failures that are kept at once; with `on_error="isolate"` there is no end to them."""

MAX_CAUSES: Final = 8
MAX_HOPS: Final = 16
MAX_NAME_BYTES: Final = 128
MAX_DETAIL_BYTES: Final = 448
MAX_MESSAGE_BYTES: Final = 512
MAX_TRACEBACK_BYTES: Final = 1024
"""Together these keep an encoded failure below 4 KiB."""


class Kind(enum.Enum):
    """What a caller would branch on, and nothing finer."""

    TASK = "TASK"
    CANCELLED = "CANCELLED"
    WORKER_CRASHED = "WORKER_CRASHED"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    ACTOR_DIED = "ACTOR_DIED"
    OBJECT_LOST = "OBJECT_LOST"
    UNSERIALIZABLE = "UNSERIALIZABLE"
    DELIVERY = "DELIVERY"
    EGRESS_DENIED = "EGRESS_DENIED"
    PARTY_LOST = "PARTY_LOST"
    PARTY_LEFT = "PARTY_LEFT"
    DRIVER = "DRIVER"
    DIVERGED = "DIVERGED"
    DEADLOCK = "DEADLOCK"
    TIMEOUT = "TIMEOUT"
    INIT = "INIT"
    INTERNAL = "INTERNAL"

    @property
    def symmetric(self) -> bool:
        """Whether every party sees the same outcome, so that catching the error and going on is sound."""
        return self in _SYMMETRIC


_SYMMETRIC: Final = frozenset(
    {
        Kind.TASK,
        Kind.CANCELLED,
        Kind.WORKER_CRASHED,
        Kind.OUT_OF_MEMORY,
        Kind.ACTOR_DIED,
        Kind.OBJECT_LOST,
        # The owner finds out before anything crosses.
        Kind.UNSERIALIZABLE,
    }
)


OBSERVED: Final = frozenset({Kind.PARTY_LOST, Kind.PARTY_LEFT})
"""What a party finds out about another one, and says of it. Of anything else only the party itself can know."""


class ForgedFailure(ValueError):
    """A record that no honest party passes on: it speaks for a party that it does not come from."""


class Exposure(enum.IntEnum):
    """How much of an error a party lets a peer see. Each level includes the ones before it."""

    TYPE = 0
    MESSAGE = 1
    TRACE = 2


@dataclasses.dataclass(frozen=True)
class Fault:
    """What the runtime found when a task failed, before anybody decides who may know what.

    Attributes:
        kind: The category.
        type_name: Name of the exception's class, without its module.
        cause_types: Names of the classes it was raised from, nearest first.
        detail: What this library itself says about it, for everybody; see `Failure.detail`.
        message: The exception's text; stays in this party unless exposed.
        traceback: The formatted traceback; stays in this party unless exposed.
        inherited: The failure that this one exists because of, if the runtime can tell.
    """

    kind: Kind
    type_name: str
    cause_types: tuple[str, ...] = ()
    detail: str = ""
    message: str = ""
    traceback: str = ""
    inherited: Failure | None = None

    @property
    def reason(self) -> str:
        """In one line what happened, for this party alone."""
        text = self.message or self.traceback
        if "Traceback (most recent call last)" in text:
            # Below the last of its frames, which are indented, stands what was raised.
            text = re.split(r"(?m)^[ \t].*$", text)[-1].strip() or text
        return in_one_line(text) or self.type_name


@dataclasses.dataclass(frozen=True)
class Failure:
    """One thing that went wrong: the record that crosses the wire.

    Attributes:
        error_id: Unique name: the party that made the record, its incarnation and a counter.
        kind: The category.
        src_party: The party where it happened. Another one than made the record only where that observed a peer's end.
        type_name: Name of the exception's class, without its module.
        task: Sequence number and function name, for example ``#12 train``; empty where no task is at fault.
        sequence: The task's sequence number; -1 where no task is at fault. Orders simultaneous roots.
        cause_types: Names of the classes it was raised from, nearest first; at most 8.
        hops: Parties that passed it on, in order; at most 16. Empty if the party that made the record told it itself.
        detail: What this library itself says about it. Holds names of parties and calls, numbers and options, never
            a value or a text of the user's, and so goes to everybody.
        message: The exception's text, only where exposed.
        traceback: The formatted traceback, only where exposed.
        truncated: Whether any field was cut to its limit.
    """

    error_id: str
    kind: Kind
    src_party: str
    type_name: str
    task: str = ""
    sequence: int = -1
    cause_types: tuple[str, ...] = ()
    hops: tuple[str, ...] = ()
    detail: str = ""
    message: str = ""
    traceback: str = ""
    truncated: bool = False

    @classmethod
    def of_fault(cls, fault: Fault, *, error_id: str, party: str, task: str, sequence: int) -> Failure:
        """The record of a fault that began in this party, each field cut to its limit. Total.

        The text is kept: `redacted` removes it from whatever is sent to somebody who may not see it.
        """
        type_name, cut_type = cut(plain(fault.type_name), MAX_NAME_BYTES)
        task_name, cut_task = cut(plain(task), MAX_NAME_BYTES)
        detail, cut_detail = cut(plain(fault.detail), MAX_DETAIL_BYTES)
        message, cut_message = cut(plain(fault.message, lines=True), MAX_MESSAGE_BYTES)
        trace, cut_trace = cut_head(plain(fault.traceback, lines=True), MAX_TRACEBACK_BYTES)
        causes = [cut(plain(name), MAX_NAME_BYTES) for name in fault.cause_types[:MAX_CAUSES]]
        return cls(
            error_id=error_id,
            kind=fault.kind,
            src_party=party,
            type_name=type_name,
            task=task_name,
            sequence=sequence,
            cause_types=tuple(name for name, _ in causes),
            detail=detail,
            message=message,
            traceback=trace,
            truncated=cut_type
            or cut_task
            or cut_detail
            or cut_message
            or cut_trace
            or len(fault.cause_types) > MAX_CAUSES
            or any(cut_cause for _, cut_cause in causes),
        )

    @property
    def rank(self) -> tuple[int, str, str]:
        """Total order among roots: lowest sequence first, then party name, then error id.

        A failure without a task (a lost party, say) comes after those of tasks, which explain more.
        """
        return (self.sequence if self.sequence >= 0 else 1 << 62, self.src_party, self.error_id)

    @property
    def origin(self) -> str:
        """The party that made the record."""
        return self.error_id.partition("/")[0]

    @property
    def teller(self) -> str:
        """The party that this one has it from."""
        return self.hops[-1] if self.hops else self.origin

    @property
    def reporter(self) -> str:
        """Who says so, where that is not the party itself that it happened in; else empty."""
        if self.hops:
            return self.hops[-1]
        return self.origin if self.origin != self.src_party else ""

    def told_by(self, peer: str, parties: Collection[str]) -> Failure:
        """The record as it is to be believed when a peer tells it.

        Args:
            peer: Who tells it, as the transport has proven.
            parties: All parties of the job.

        Raises:
            ForgedFailure: It names a party that is not of the job, or the peer made it in the name of another one.
        """
        for party in (self.origin, self.src_party, *self.hops):
            if party not in parties:
                raise ForgedFailure(f"failure {self.error_id!r} names {party!r}, which is not a party of the job")
        if self.src_party != self.origin and self.kind not in OBSERVED:
            raise ForgedFailure(f"failure {self.error_id!r} speaks for party {self.src_party!r}")
        if self.origin != peer:
            # Whoever passes it on may not pass its text on: what there is, is the peer's own.
            return self.redacted(Exposure.TYPE).relayed(peer)
        return dataclasses.replace(self, hops=()) if self.hops else self

    def relayed(self, party: str) -> Failure:
        """The same failure as seen through `party`, which passes it on."""
        if party == self.origin or self.hops[-1:] == (party,):
            return self
        # Who reports it must be told, whatever else has to go.
        kept = self.hops[: MAX_HOPS - 1]
        return dataclasses.replace(self, hops=(*kept, party), truncated=self.truncated or kept != self.hops)

    def redacted(self, exposure: Exposure) -> Failure:
        """The part of the record that somebody with this exposure may see."""
        if exposure >= Exposure.TRACE:
            return self
        if exposure == Exposure.MESSAGE:
            return dataclasses.replace(self, traceback="") if self.traceback else self
        return dataclasses.replace(self, message="", traceback="") if self.message or self.traceback else self

    def __str__(self) -> str:
        where = f" in task {self.task}" if self.task else ""
        text = "".join(f": {indented(part)}" for part in (self.detail, self.message) if part)
        return f"{self.type_name}{where} at party {self.src_party!r}{self.hearsay}{text}"

    @property
    def hearsay(self) -> str:
        """Who says so, in brackets after a space, where that is not the party itself that it happened in."""
        chain = self.hops or ((self.reporter,) if self.reporter else ())
        return f" (reported by {' via '.join(reversed(chain))})" if chain else ""


def first_root(failures: Iterable[Failure]) -> Failure:
    """The failure that every party will call the root, whatever order it saw them in.

    Raises:
        ValueError: There is none.
    """
    return min(failures, key=lambda failure: failure.rank)


class FailureBook:
    """All failures of one epoch that one party knows of, each once, and the parties' votes for the root.

    ::

        no vote ── vote ──► voting ── settle ──► settled

    Each party votes once: for the failure that latched it. As every vote reaches every party, and of all votes the
    one of lowest rank wins, all parties settle on the same root [E29]. The rest is kept, up to a limit beyond which
    the oldest are forgotten of the party that has told most, so that nobody's records are crowded out by another
    party; those that were voted for stay.

    Attributes:
        forgotten: How many records there were of each party that are known no more.
    """

    __slots__ = ("_known", "_root", "_told", "_votes", "forgotten")

    def __init__(self) -> None:
        self._known: dict[str, Failure] = {}
        self._told: collections.Counter[str] = collections.Counter()
        self._votes: dict[str, str] = {}
        self._root: Failure | None = None
        self.forgotten: collections.Counter[str] = collections.Counter()

    @property
    def root(self) -> Failure | None:
        """The root once settled; before, the one that leads; None while nobody has voted."""
        return self._leading() if self._root is None and self._votes else self._root

    @property
    def settled(self) -> bool:
        """Whether the root is final."""
        return self._root is not None

    @property
    def voted(self) -> frozenset[str]:
        """The parties whose vote is known."""
        return frozenset(self._votes)

    @property
    def ended(self) -> frozenset[str]:
        """The parties that have ended by their own last word, whoever has passed it on."""
        lost = (failure for failure in self.all if failure.kind is Kind.PARTY_LOST)
        return frozenset(failure.src_party for failure in lost if failure.origin == failure.src_party)

    @property
    def all(self) -> tuple[Failure, ...]:
        """The failures known, in the order in which they were learned."""
        return tuple(self._known.values())

    def record(self, failure: Failure) -> bool:
        """Learn of a failure. Returns whether it was news."""
        known = self._known.get(failure.error_id)
        if known is not None:
            # The party that made it says what is true of it, and may tell more of it than those who pass it on.
            if known.hops and not failure.hops:
                self._told[known.teller] -= 1
                self._keep(failure)
            return False
        self._keep(failure)
        if len(self._known) > MAX_KNOWN:
            self._forget_one()
        return True

    def _keep(self, failure: Failure) -> None:
        self._known[failure.error_id] = failure
        self._told[failure.teller] += 1

    def _forget_one(self) -> None:
        voted = frozenset(self._votes.values())
        teller, oldest = next(
            (teller, failure.error_id)
            for teller, _ in self._told.most_common()
            for failure in self._known.values()
            if failure.teller == teller and failure.error_id not in voted
        )
        del self._known[oldest]
        self._told[teller] -= 1
        self.forgotten[teller] += 1

    def vote(self, party: str, failure: Failure) -> None:
        """A party's vote; only its first one counts."""
        self.record(failure)
        self._votes.setdefault(party, failure.error_id)

    def find(self, error_id: str) -> Failure | None:
        """What is known of a failure."""
        return self._known.get(error_id)

    def settle(self) -> Failure:
        """Make the root final, and return it. Idempotent.

        Raises:
            ValueError: Nobody has voted.
        """
        if self._root is None:
            if not self._votes:
                raise ValueError("nobody has voted for a root")
            self._root = self._leading()
        return self._root

    def validate(self) -> None:
        """Check the laws of this class; run at the teardown of tests.

        Raises:
            RuntimeError: A law is broken.
        """
        if len(self._known) > MAX_KNOWN:
            raise RuntimeError(f"{len(self._known)} failures are kept")
        if +self._told != collections.Counter(failure.teller for failure in self._known.values()):
            raise RuntimeError("who has told how many failures is miscounted")
        for error_id in self._votes.values():
            if error_id not in self._known:
                raise RuntimeError(f"{error_id} was voted for and is not known")
        if self._root is not None and self._root.error_id not in self._votes.values():
            raise RuntimeError("nobody voted for the root")

    def _leading(self) -> Failure:
        return first_root(self._known[error_id] for error_id in self._votes.values())
