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
    """All failures that one party knows of, each once, and the root among those that end the job.

    Until `settle` a failure of lower rank may take the root's place [E29]. Failures that only poison what depends on
    them are kept, and never become root.
    """

    __slots__ = ("_ending", "_known", "_root", "_settled")

    def __init__(self) -> None:
        self._known: dict[str, Failure] = {}
        self._ending: dict[str, Failure] = {}
        self._root: Failure | None = None
        self._settled = False

    @property
    def root(self) -> Failure | None:
        """The root as known now; None while the job goes on."""
        return self._root

    @property
    def all(self) -> tuple[Failure, ...]:
        """Every failure known, in the order it was learned."""
        return tuple(self._known.values())

    def record(self, failure: Failure, *, ends_job: bool = True) -> bool:
        """Learn of a failure. Returns whether it was news."""
        if failure.error_id in self._known:
            return False
        self._known[failure.error_id] = failure
        if not ends_job:
            return True
        self._ending[failure.error_id] = failure
        if self._root is None or (not self._settled and failure.rank < self._root.rank):
            self._root = failure
        return True

    def settle(self) -> Failure:
        """Freeze the root and return it.

        Raises:
            ValueError: There is no failure.
        """
        if self._root is None:
            raise ValueError("no failure to settle on")
        self._settled = True
        return self._root

    def validate(self) -> None:
        """Check the laws of this class; run at the teardown of tests.

        Raises:
            RuntimeError: A law is broken.
        """
        if (self._root is None) != (not self._ending):
            raise RuntimeError("there is a root if and only if a failure ends the job")
        if self._root is not None and self._root.error_id not in self._ending:
            raise RuntimeError("the root is not among the failures that end the job")
        if self._root is not None and not self._settled and self._root != first_root(self._ending.values()):
            raise RuntimeError("an unsettled root is not the one of lowest rank")
