"""Failures: what went wrong, as data, and which of several is the root.

Laws (rules of `rep/0002-error-model.md` in brackets):

1. A failure is a frozen value of plain types. Making one from an exception calls no user code, not even
   ``str`` of the exception unless its message is exposed, and cannot itself fail [E25].
2. A failure that exists because of another one keeps that one's identity: it *is* the other, seen from further
   away (`Failure.relayed`). So there is one ``error_id`` for one thing that went wrong, everywhere [E16].
3. Text leaves the party only where its exposure allows it (`Failure.redacted`) [E02].
4. Of several roots the same one wins in every party, whatever order they arrive in: `Failure.rank` is a total
   order over failures [E29].
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from typing import Final

__all__ = ["Exposure", "Failure", "FailureBook", "Fault", "Kind", "Poison", "first_root"]

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
    }
)


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


@dataclasses.dataclass(frozen=True)
class Failure:
    """One thing that went wrong: the record that crosses the wire.

    Attributes:
        error_id: Unique name: origin party, incarnation and a counter.
        kind: The category.
        src_party: The party where it happened.
        type_name: Name of the exception's class, without its module.
        task: Sequence number and function name, for example ``#12 train``; empty where no task is at fault.
        sequence: The task's sequence number; -1 where no task is at fault. Orders simultaneous roots.
        cause_types: Names of the classes it was raised from, nearest first; at most 8.
        hops: Parties that passed it on, in order; at most 16.
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
        type_name, cut_type = _cut(fault.type_name, MAX_NAME_BYTES)
        task_name, cut_task = _cut(task, MAX_NAME_BYTES)
        detail, cut_detail = _cut(fault.detail, MAX_DETAIL_BYTES)
        message, cut_message = _cut(fault.message, MAX_MESSAGE_BYTES)
        trace, cut_trace = _cut_head(fault.traceback, MAX_TRACEBACK_BYTES)
        causes = [_cut(name, MAX_NAME_BYTES) for name in fault.cause_types[:MAX_CAUSES]]
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
            or any(cut for _, cut in causes),
        )

    @property
    def rank(self) -> tuple[int, str, str]:
        """Total order among roots: lowest sequence first, then party name, then error id.

        A failure without a task (a lost party, say) comes after those of tasks, which explain more.
        """
        return (self.sequence if self.sequence >= 0 else 1 << 62, self.src_party, self.error_id)

    def relayed(self, party: str) -> Failure:
        """The same failure as seen through `party`, which passes it on."""
        if party == self.src_party or party in self.hops:
            return self
        if len(self.hops) >= MAX_HOPS:
            return dataclasses.replace(self, truncated=True)
        return dataclasses.replace(self, hops=(*self.hops, party))

    def redacted(self, exposure: Exposure) -> Failure:
        """The part of the record that somebody with this exposure may see."""
        if exposure >= Exposure.TRACE:
            return self
        if exposure == Exposure.MESSAGE:
            return dataclasses.replace(self, traceback="") if self.traceback else self
        return dataclasses.replace(self, message="", traceback="") if self.message or self.traceback else self

    def __str__(self) -> str:
        where = f" in task {self.task}" if self.task else ""
        via = f" (via {', '.join(self.hops)})" if self.hops else ""
        text = "".join(f": {one}" for one in (self.detail, self.message) if one)
        return f"{self.type_name}{where} at party {self.src_party!r}{via}{text}"


@dataclasses.dataclass(frozen=True)
class Poison:
    """Stands where the value of a failed object would be. Whoever meets one raises instead of going on.

    A receive therefore always succeeds, and one object that fails does not fail the others it travelled with.

    Attributes:
        failure: Why there is no value.
    """

    failure: Failure


def _cut(text: str, max_bytes: int) -> tuple[str, bool]:
    """Cut to at most `max_bytes` of valid UTF-8; lone surrogates are replaced, since UTF-8 cannot hold them."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= max_bytes:
        return raw.decode("utf-8"), False
    return raw[:max_bytes].decode("utf-8", "ignore"), True


def _cut_head(text: str, max_bytes: int) -> tuple[str, bool]:
    """As `_cut`, but keeps the end: the last lines of a traceback say the most."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= max_bytes:
        return raw.decode("utf-8"), False
    return raw[-max_bytes:].decode("utf-8", "ignore"), True


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
    the oldest are forgotten; those that were voted for stay.
    """

    __slots__ = ("_known", "_root", "_votes", "forgotten")

    def __init__(self) -> None:
        self._known: dict[str, Failure] = {}
        self._votes: dict[str, Failure] = {}
        self._root: Failure | None = None
        self.forgotten = 0

    @property
    def root(self) -> Failure | None:
        """The root once settled; before, the one that leads; None while nobody has voted."""
        if self._root is None and self._votes:
            return self._richest(first_root(self._votes.values()))
        return self._root

    @property
    def settled(self) -> bool:
        """Whether the root is final."""
        return self._root is not None

    @property
    def voted(self) -> frozenset[str]:
        """The parties whose vote is known."""
        return frozenset(self._votes)

    @property
    def all(self) -> tuple[Failure, ...]:
        """The failures known, in the order in which they were learned."""
        return tuple(self._known.values())

    def record(self, failure: Failure) -> bool:
        """Learn of a failure. Returns whether it was news."""
        known = self._known.get(failure.error_id)
        if known is not None:
            # Whoever passes a failure on may not pass its text on: the source's own record says more.
            if (failure.message, failure.traceback) > (known.message, known.traceback):
                self._known[failure.error_id] = failure
            return False
        self._known[failure.error_id] = failure
        if len(self._known) > MAX_KNOWN:
            voted = {vote.error_id for vote in self._votes.values()}
            oldest = next(error_id for error_id in self._known if error_id not in voted)
            del self._known[oldest]
            self.forgotten += 1
        return True

    def vote(self, party: str, failure: Failure) -> None:
        """A party's vote; only its first one counts."""
        self.record(failure)
        self._votes.setdefault(party, failure)

    def settle(self) -> Failure:
        """Make the root final, and return it. Idempotent.

        Raises:
            ValueError: Nobody has voted.
        """
        if self._root is None:
            if not self._votes:
                raise ValueError("nobody has voted for a root")
            self._root = self._richest(first_root(self._votes.values()))
        return self._root

    def validate(self) -> None:
        """Check the laws of this class; run at the teardown of tests.

        Raises:
            RuntimeError: A law is broken.
        """
        if len(self._known) > MAX_KNOWN:
            raise RuntimeError(f"{len(self._known)} failures are kept")
        for vote in self._votes.values():
            if vote.error_id not in self._known:
                raise RuntimeError(f"{vote.error_id} was voted for and is not known")
        if self._root is not None and self._root.error_id not in {vote.error_id for vote in self._votes.values()}:
            raise RuntimeError("nobody voted for the root")

    def _richest(self, failure: Failure) -> Failure:
        return self._known.get(failure.error_id, failure)
