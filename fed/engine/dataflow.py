"""The shell of `fed.core.dataflow`: tasks wait in the driver for what they need from other parties, and are submitted.

By whatever thread finds that a task is ready: the driver's, that of the direct channel or the data-sending one. Not by
the runtime's callback thread, which must not be held up.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Sequence
from typing import Any, Final

from fed.core.dataflow import Dataflow, Instruction, Submit
from fed.core.failure import Fault, Kind
from fed.engine.records import PENDING, Actor, Task, actor_died, inherited
from fed.engine.results import Results
from fed.engine.services import EpochState
from fed.object import FedObject, ObjectId
from fed.runtime.contract import Body, Outcome
from fed.runtime.worker import text_of
from fed.serde.receipt import read_receipt

__all__ = ["Submitter"]

IMMUTABLE: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
"""Types of arguments that nobody can change."""


class Submitter:
    """The tasks of one epoch in this party, until they have ended.

    Attributes:
        table: Those that are not submitted.
        being_submitted: How many are being handed to the runtime. Guarded by the lock.

    Args:
        state: Of the epoch.
        results: What the tasks make.
    """

    def __init__(self, state: EpochState, results: Results) -> None:
        self._state = state
        self._results = results
        self.table = self._new_table()
        self.being_submitted = 0
        # Those that some thread is about to submit.
        self._ready: collections.deque[Task] = collections.deque()

    def clear(self) -> None:
        """The epoch is over. With the lock."""
        self.table = self._new_table()
        self._ready.clear()

    def _new_table(self) -> Dataflow[int, Outcome]:
        return Dataflow(self._state.job.trace, f"Dataflow {self._state.number}")

    def start(self, task: Task, values: list[Any], body: Body | None) -> None:
        """A task is called. Without the lock, on the driver's thread."""
        task.body = body
        with self._state.lock:
            # Only this thread adds tasks, so what need not wait now need not wait in a moment.
            waits = bool(self._needs(task)) or (task.actor is not None and self.table.has_queue(task.actor.name))
        try:
            if waits:
                self._hold(values, body)
        except BaseException as error:  # noqa: BLE001 - as in `_submit`
            with self._state.lock:
                task.failed = _refused(error)
                self._results.finish([task])
            return
        with self._state.lock:
            self._results.tasks[task.sequence] = task
            for entry in task.results:
                entry.task = task
            queue, ordered = (None, True) if task.actor is None else (task.actor.name, task.actor.ordered)
            self.apply(self.table.add(task.sequence, self._needs(task), queue=queue, in_turn=ordered))
            # One whose arguments are not held this thread submits itself, before the user may change them.
            ready = bool(self._ready) and self._ready[-1] is task
            if ready:
                self._ready.pop()
                self.being_submitted += 1
        if ready:
            self._submit(task)

    def kill(self, actor: Actor) -> None:
        """An actor was ended. With the lock."""
        if actor.construction is not None and actor.construction.epoch is self._state:
            # Who calls it fails because of the kill, and does not wait for what becomes of the construction.
            self._results.finish(self._results.ready(actor.construction))
        self.apply(self.table.discard(actor.name, _killed(actor)))

    def _hold(self, values: list[Any], body: Body | None) -> None:
        """Keep what a call was given as it is now: the user may change it before the call is submitted."""
        for position, value in enumerate(values):
            if type(value) is not FedObject and type(value) not in IMMUTABLE:
                values[position] = self._state.runtime.hold(value)
        if body is not None:
            self._state.runtime.hold_code(body)

    def _needs(self, task: Task) -> list[ObjectId | int]:
        """What of a task's arguments is not here and not the runtime's to wait for. With the lock."""
        needs: list[ObjectId | int] = []
        for used in task.uses:
            if used.state == PENDING:
                if used.party != self._state.party:
                    needs.append(used.id)
                elif used.task is not None and used.task.sequence in self.table:
                    needs.append(used.task.sequence)
        return needs

    def apply(self, instructions: Sequence[Instruction[int, Outcome]]) -> None:
        """Do what the table says; what is to be submitted, `submit_ready` does. With the lock."""
        pending = collections.deque(instructions)
        failed: list[Task] = []
        while pending:
            instruction = pending.popleft()
            task = self._results.tasks[instruction.task]
            if isinstance(instruction, Submit):
                outcome = self._why_not(task)
                if outcome is None:
                    self._ready.append(task)
                    continue
                pending.extend(self.table.failed(task.sequence, outcome))
            else:
                outcome = instruction.reason
            task.failed = outcome
            failed.append(task)
        self._results.finish(failed)

    def _why_not(self, task: Task) -> Outcome | None:
        """Why a task is not to be submitted, if it is not. With the lock."""
        if self._state.aborted is not None:
            return inherited(self._state.aborted, None)
        failed = next((used for used in task.uses if used.failure is not None), None)
        if failed is not None and failed.failure is not None:
            return inherited(failed.failure, failed.cause)
        actor = task.actor
        if actor is None or actor.construction is None:
            return None
        if actor.handle is None and actor.construction.epoch is not self._state:
            return actor_died(f"actor {actor.label} was never made: the epoch ended while its construction waited")
        return _killed(actor) if actor.killed else None

    def submit_ready(self) -> None:
        """Submit what is ready. Without the lock."""
        while True:
            with self._state.lock:
                if not self._ready:
                    return
                task = self._ready.popleft()
                outcome = self._why_not(task)
                if outcome is not None:
                    self._fail(task, outcome)
                    continue
                self.being_submitted += 1
            self._submit(task)

    def _submit(self, task: Task) -> None:
        submit, task.submit = task.submit, None
        if submit is None:
            raise RuntimeError(f"{task.label} was submitted before")
        try:
            refs, done = submit()
        # An argument that cannot be pickled, an option that Ray refuses; whatever it raises, in whatever thread.
        except BaseException as error:  # noqa: BLE001
            # The call has its number and the others count on it: it must end like any other that fails.
            with self._state.lock:
                self.being_submitted -= 1
                self._fail(task, _refused(error))
                self._state.changed.notify_all()
            return
        with self._state.lock:
            self.being_submitted -= 1
            if self._state.over:
                self._state.changed.notify_all()
                return
            task.done = done
            for entry, ref in zip(task.results, refs, strict=True):
                entry.ref = ref
            self.apply(self.table.submitted(task.sequence))
        self._state.watch(done, functools.partial(self._ended, task))

    def _fail(self, task: Task, outcome: Outcome) -> None:
        """A task that was to be submitted fails instead. With the lock."""
        if not self._state.over:
            self._state.moves += 1
            further = self.table.failed(task.sequence, outcome)
            task.failed = outcome
            self._results.finish([task])
            self.apply(further)
            self._state.changed.notify_all()

    def _ended(self, task: Task, outcome: Outcome) -> None:
        """On the runtime's callback thread."""
        with self._state.lock:
            if self._state.over:
                return
            self._state.moves += 1
            if outcome.fault is None:
                receipt = read_receipt(outcome.value) or [None] * len(task.results)
                for entry, small in zip(task.results, receipt, strict=True):
                    entry.small = small
            else:
                task.failed = outcome
                undecided = [entry for entry in set(task.uses) if entry.state == PENDING]
                if undecided and outcome.fault.inherited is None:
                    # Whether it failed by itself or because of an argument is known when the argument is.
                    task.undecided = len(undecided)
                    for entry in undecided:
                        entry.dependents.append(task)
                    return
            self._results.finish([task])
            self._state.changed.notify_all()


def _refused(error: BaseException) -> Outcome:
    """The end of a task that could not be submitted."""
    return Outcome(None, Fault(Kind.TASK, type(error).__name__, message=text_of(error)), error)


def _killed(actor: Actor) -> Outcome:
    """The end of a call of an actor that was killed before that."""
    return actor_died(f"actor {actor.label} was killed")
