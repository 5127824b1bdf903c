"""Dataflow: which tasks of this party wait, and for what.

A task is submitted to the runtime when everything that it needs from elsewhere is here. States of one task::

    waiting ── nothing pending, its turn ──► submitting ── submitted ──► (gone)
       │                                         └──────── failed ──────► (gone)
       └── something that it needs has failed, or its queue is discarded ──► (gone)

What a task needs is a *node*: an object of another party, or another task of this table, whose results can be passed on
once it is submitted.

Laws:

1. A task leaves the table once: submitted, or failed.
2. It is to be submitted when no node that it needs is pending. It fails, and is never submitted, as soon as one has
   failed, for the same reason.
3. The tasks of one queue, the calls of an actor, are submitted one at a time, in the order in which they were added,
   unless the actor runs several at once. A task that has failed holds up nobody.
4. Nothing is kept of nodes that are settled, nor of tasks that have left: whoever adds a task looks first at what it
   needs.

The idea is that of a dataflow machine (J. B. Dennis, *First version of a data flow procedure language*, 1974).
"""

from __future__ import annotations

import collections
import enum
from collections.abc import Collection, Hashable, Iterable
from typing import Generic, TypeAlias, TypeVar

# Python 3.10 has no generic NamedTuple of its own.
from typing_extensions import NamedTuple

from fed.core.trace import Trace

__all__ = ["Dataflow", "Fail", "Instruction", "Submit"]

T = TypeVar("T", bound=Hashable)
R = TypeVar("R")


class Submit(NamedTuple, Generic[T]):
    """Hand a task to the runtime, and report `Dataflow.submitted` or `Dataflow.failed`."""

    task: T


class Fail(NamedTuple, Generic[T, R]):
    """A task will never run, for this reason. It is gone already."""

    task: T
    reason: R


Instruction: TypeAlias = Submit[T] | Fail[T, R]


class _State(enum.Enum):
    WAITING = enum.auto()
    SUBMITTING = enum.auto()
    GONE = enum.auto()


class _Row(Generic[T]):
    """One task.

    Attributes:
        pending: The nodes that it needs and that are not settled.
        queue: Whose calls it is one of.
        in_turn: Whether those before it in the queue hold it up.
    """

    __slots__ = ("in_turn", "pending", "queue", "state", "task")

    def __init__(self, task: T, pending: set[Hashable], queue: Hashable | None, in_turn: bool) -> None:
        self.task = task
        self.pending = pending
        self.queue = queue
        self.in_turn = in_turn
        self.state = _State.WAITING


class Dataflow(Generic[T, R]):
    """The tasks of one epoch that are not submitted yet. Not thread-safe; its engine guards it.

    Args:
        trace: Where what goes in is noted: names of tasks, nodes and queues, and of reasons only what they are.
        name: How it is called there.
    """

    def __init__(self, trace: Trace | None = None, name: str = "Dataflow") -> None:
        self._trace = trace or Trace()
        self._name = name
        self._rows: dict[Hashable, _Row[T]] = {}
        # Sets in the order in which they were added: the tasks that need a node, and those of a queue. These leave it
        # at the front, where a plain dict would step over all that have left.
        self._needed_by: dict[Hashable, dict[_Row[T], None]] = {}
        self._queues: dict[Hashable, collections.OrderedDict[_Row[T], None]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, task: T) -> bool:
        return task in self._rows

    def has_queue(self, queue: Hashable) -> bool:
        """Whether there are tasks of a queue."""
        return queue in self._queues

    def held_up_by(self, task: T) -> T | None:
        """The task whose turn it is before this one's, if that is another one."""
        row = self._rows.get(task)
        if row is None or row.queue is None or self._has_its_turn(row):
            return None
        return next(iter(self._queues[row.queue])).task

    def add(
        self, task: T, needs: Collection[Hashable] = (), *, queue: Hashable | None = None, in_turn: bool = True
    ) -> list[Instruction[T, R]]:
        """A task is called.

        Args:
            task: It.
            needs: The nodes that it needs and that are not settled.
            queue: The actor that it is a call of, if it is one.
            in_turn: Whether the calls of that one keep their order.

        Raises:
            ValueError: It is there already.
        """
        self._trace.note(self._name, "add", task, tuple(needs), queue=queue, in_turn=in_turn)
        if task in self._rows:
            raise ValueError(f"{task!r} was added before")
        row = self._rows[task] = _Row(task, set(needs), queue, in_turn)
        for node in row.pending:
            self._needed_by.setdefault(node, {})[row] = None
        if queue is not None:
            self._queues.setdefault(queue, collections.OrderedDict())[row] = None
        return self._ready([row])

    def arrived(self, node: Hashable) -> list[Instruction[T, R]]:
        """A node is here. Does nothing if no task needs it."""
        self._trace.note(self._name, "arrived", node)
        return self._arrived(node)

    def _arrived(self, node: Hashable) -> list[Instruction[T, R]]:
        rows = self._needed_by.pop(node, {})
        for row in rows:
            row.pending.discard(node)
        return self._ready(rows)

    def submitted(self, task: T) -> list[Instruction[T, R]]:
        """The runtime has a task that was to be submitted.

        Raises:
            ValueError: It was not to be submitted.
        """
        self._trace.note(self._name, "submitted", task)
        row = self._rows.get(task)
        if row is None or row.state is not _State.SUBMITTING:
            raise ValueError(f"{task!r} was not to be submitted")
        behind = self._leave(row)
        return [*self._ready(behind), *self._arrived(task)]

    def failed(self, node: Hashable, reason: R) -> list[Instruction[T, R]]:
        """A node will never be here, or a task could not be submitted: what needs it fails, and what needs that.

        Whoever reports a task of this table knows that it failed, and is not told again.
        """
        self._trace.note(self._name, "failed", node, type(reason).__name__)
        row = self._rows.get(node)
        return self._fail([node], reason, [] if row is None else self._leave(row))

    def discard(self, queue: Hashable, reason: R) -> list[Instruction[T, R]]:
        """An actor was ended: its calls that wait fail. One that is being submitted is the runtime's to fail."""
        self._trace.note(self._name, "discard", queue, type(reason).__name__)
        discarded = [row for row in self._queues.get(queue, ()) if row.state is _State.WAITING]
        turns = [next_row for row in discarded for next_row in self._leave(row)]
        tasks = [row.task for row in discarded]
        return [*(Fail(task, reason) for task in tasks), *self._fail(tasks, reason, turns)]

    def validate(self) -> None:
        """Check the laws; run at the teardown of tests.

        Raises:
            RuntimeError: A law is broken.
        """
        for row in self._rows.values():
            if row.state is _State.GONE:
                raise RuntimeError(f"{row.task!r} has left and is still known")
            if row.state is _State.SUBMITTING and row.pending:
                raise RuntimeError(f"{row.task!r} is being submitted and needs {row.pending}")
            if row.state is _State.WAITING and not row.pending and self._has_its_turn(row):
                raise RuntimeError(f"{row.task!r} waits for nothing")
            if any(row not in self._needed_by.get(node, ()) for node in row.pending):
                raise RuntimeError(f"{row.task!r} would not hear of what it needs")
        for node, rows in self._needed_by.items():
            if not any(node in row.pending for row in rows):
                raise RuntimeError(f"nobody needs {node!r}")
        for queue, queued in self._queues.items():
            if not queued or any(row.queue != queue or row.state is _State.GONE for row in queued):
                raise RuntimeError(f"queue {queue!r} is not as it should be")

    def _fail(self, nodes: Iterable[Hashable], reason: R, turns: list[_Row[T]]) -> list[Instruction[T, R]]:
        """Fail what needs these nodes, and what needs that; then let those go whose turn it is."""
        instructions: list[Instruction[T, R]] = []
        # A queue instead of recursion: a chain may be long.
        failing = collections.deque(nodes)
        while failing:
            for row in self._needed_by.pop(failing.popleft(), ()):
                turns += self._leave(row)
                instructions.append(Fail(row.task, reason))
                failing.append(row.task)
        return [*instructions, *self._ready(turns)]

    def _ready(self, rows: Collection[_Row[T]]) -> list[Instruction[T, R]]:
        """Submit those of these whose turn it is."""
        instructions: list[Instruction[T, R]] = []
        for row in rows:
            if row.state is _State.WAITING and not row.pending and self._has_its_turn(row):
                row.state = _State.SUBMITTING
                instructions.append(Submit(row.task))
        return instructions

    def _has_its_turn(self, row: _Row[T]) -> bool:
        return row.queue is None or not row.in_turn or next(iter(self._queues[row.queue])) is row

    def _leave(self, row: _Row[T]) -> list[_Row[T]]:
        """Forget a task. Returns the one whose turn it now may be."""
        row.state = _State.GONE
        del self._rows[row.task]
        for node in row.pending:
            rows = self._needed_by.get(node)
            if rows is not None:
                del rows[row]
                if not rows:
                    del self._needed_by[node]
        row.pending.clear()
        if row.queue is None:
            return []
        queued = self._queues[row.queue]
        del queued[row]
        if not queued:
            del self._queues[row.queue]
            return []
        return [next(iter(queued))]
