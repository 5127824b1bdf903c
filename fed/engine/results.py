"""What becomes of objects: they are ready or failed, once, and whoever needs them is sent the value or told.

All but `Results.push` is called with the job's lock.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fed.core.failure import Failure, Fault, Kind
from fed.core.notice import Notice, NoticeKind
from fed.engine.exceptions import RemoteTraceback
from fed.engine.records import FAILED, PENDING, READY, Entry, Push, Task
from fed.engine.services import EpochState
from fed.proxy.deliveries import Delivery, Pushed, Undelivered
from fed.runtime.contract import Outcome, UnreadableError
from fed.runtime.worker import text_of

__all__ = ["Results"]


class Results:
    """The states of the objects of one epoch, and the way of this party's own ones to the others.

    Attributes:
        tasks: Those of this party that have not ended, by the number of the call.
        pushing: How many results are on their way to other parties.

    Args:
        state: Of the epoch.
    """

    def __init__(self, state: EpochState) -> None:
        self._state = state
        self.tasks: dict[int, Task] = {}
        self.pushing = 0

    def clear(self) -> None:
        """The epoch is over."""
        self.tasks.clear()
        self.pushing = 0

    # States

    def finish(self, tasks: Iterable[Task]) -> None:
        """Tasks have ended, and it is known why."""
        # A queue instead of recursion: a chain of failed tasks may be long.
        finishing = collections.deque(tasks)
        while finishing:
            task = finishing.popleft()
            self.tasks.pop(task.sequence, None)
            if task.failed is None or task.is_killed_construction:
                for entry in task.results:
                    finishing += self.ready(entry)
                continue
            failure, cause = self._failure_of(task, task.failed)
            for entry in task.results:
                finishing += self.fail(entry, failure, cause)

    def ready(self, entry: Entry) -> list[Task]:
        """An object is there. Returns the failed tasks that are thereby decided."""
        if entry.state != PENDING:
            # The construction of an actor that was killed meanwhile.
            return []
        entry.state, entry.task = READY, None
        consumers, entry.consumers = entry.consumers, ()
        if consumers:
            self._post_pushes(entry, consumers)
        return self._decided(entry)

    def fail(self, entry: Entry, failure: Failure, cause: BaseException | None) -> list[Task]:
        """An object will never be. Returns the failed tasks that are thereby decided."""
        entry.state, entry.failure, entry.cause, entry.task = FAILED, failure, cause, None
        consumers, entry.consumers = entry.consumers, ()
        for consumer in consumers:
            self._tell_failed(consumer, failure, entry)
        return self._decided(entry)

    def _decided(self, entry: Entry) -> list[Task]:
        if entry.wait is not None:
            entry.wait.left -= 1
            entry.wait = None
        dependents, entry.dependents = entry.dependents, []
        decided = []
        for task in dependents:
            task.undecided -= 1
            if not task.undecided:
                decided.append(task)
        return decided

    def _failure_of(self, task: Task, outcome: Outcome) -> tuple[Failure, BaseException | None]:
        """The failure of a task: that of an argument where that is why, else a new one, which everybody is told."""
        job = self._state.job
        fault = outcome.fault or Fault(Kind.INTERNAL, "Unknown")
        failed = next((entry for entry in task.uses if entry.failure is not None), None)
        inherited = None if failed is None else failed.failure
        if inherited is None and fault.inherited is not None:
            inherited = job.believed(fault.inherited)
        if inherited is not None:
            # This may be the first that is heard of it, and whoever is woken by it must find it known [E13].
            self._state.learn_inherited(inherited)
            return inherited, None if failed is None else failed.cause
        # What cannot be decoded is no failure of the task's.
        label = "" if fault.kind is Kind.DELIVERY else task.label
        failure = job.new_failure(fault, label, task.sequence)
        cause = outcome.error
        if cause is not None and fault.traceback and cause.__cause__ is None and cause.__traceback__ is None:
            cause.__cause__ = RemoteTraceback(fault.traceback)
        job.learn(failure, cause=cause)
        return failure, cause

    # The way to the other parties

    def need(self, entry: Entry, consumers: tuple[str, ...]) -> None:
        """Parties need an object of this one."""
        failure = entry.failure or entry.refusal
        if failure is not None:
            for consumer in consumers:
                self._tell_failed(consumer, failure, entry)
        elif entry.state == READY:
            self._post_pushes(entry, consumers)
        else:
            entry.consumers += consumers

    def refuse(self, entry: Entry, fault: Fault, cause: BaseException | None = None) -> Failure:
        """An object of this party is not serializable. Returns its failure, which is one for all who need it."""
        if entry.refusal is None:
            entry.refusal = self._state.job.new_failure(fault, entry.label, entry.id.sequence)
            self._state.job.learn(entry.refusal, cause=cause)
        return entry.refusal

    def _post_pushes(self, entry: Entry, consumers: Sequence[str]) -> None:
        self.pushing += len(consumers)
        self._state.job.push([Push(self._state.number, entry, tuple(consumers))])

    def _tell_failed(self, consumer: str, failure: Failure, entry: Entry) -> None:
        self._state.job.send_control(consumer, Notice(NoticeKind.FAILURE, self._state.number, failure, (entry.id,)))

    def push(self, ready: Sequence[tuple[Entry, Sequence[str]]]) -> None:
        """Send results that are ready, each to its consumers. On the data-sending thread, without the lock."""
        small = [(entry, consumers, entry.small) for entry, consumers in ready if entry.small is not None]
        large = [(entry, consumers) for entry, consumers in ready if entry.small is None]
        proxies = self._state.proxies
        if small:
            group = [(entry, consumers) for entry, consumers, _ in small]
            answer = proxies.direct.pushes.push(_deliveries(group), [value for _, _, value in small])
            small_pushed = self._when_pushed(group)
            answer.add_done_callback(lambda answer: small_pushed(_outcome(answer)))
        if large:
            self._push_stored(large)

    def _push_stored(self, group: Sequence[tuple[Entry, Sequence[str]]]) -> None:
        """Send results of which there is no receipt. On the data-sending thread, without the lock."""
        done = self._state.proxies.push(_deliveries(group), [entry.ref for entry, _ in group])
        self._state.runtime.watch(done, self._when_pushed(group))

    def _when_pushed(self, group: Sequence[tuple[Entry, Sequence[str]]]) -> Callable[[Outcome], None]:
        """What to call with what became of a push."""
        return self._state.guarded(functools.partial(self._pushed, group))

    def _pushed(self, group: Sequence[tuple[Entry, Sequence[str]]], outcome: Outcome) -> None:
        entries = {entry.id: entry for entry, _ in group}
        count = sum(len(consumers) for _, consumers in group)
        state = self._state
        with state.lock:
            if state.over:
                return
            state.moves += 1
            missing = _fault_of_result(outcome)
            if missing is not None and len(group) > 1:
                # It is not known which of them cannot be had, and none has gone out.
                for member in group:
                    state.job.soon(functools.partial(self._push_stored, [member]))
                return
            if missing is not None:
                [(entry, consumers)] = group
                undelivered_to = [Undelivered(entry.id, consumer, missing) for consumer in consumers]
                outcome = Outcome(Pushed(undelivered_to, []), None, None)
            pending: Sequence[Delivery] = ()
            if outcome.fault is not None:
                state.proxy_failed(outcome.fault)
            else:
                pending = outcome.value.pending
                for undelivered in outcome.value.undelivered:
                    entry = entries[undelivered.id]
                    self._tell_failed(undelivered.consumer, self._undeliverable(entry, undelivered.fault), entry)
            self.pushing -= count
            # Asked again, the sender goes on waiting for the receipts of the rest.
            for delivery in pending:
                self._post_pushes(entries[delivery.id], delivery.consumers)
            state.changed.notify_all()

    def _undeliverable(self, entry: Entry, fault: Fault) -> Failure:
        if fault.kind is Kind.UNSERIALIZABLE:
            return self.refuse(entry, fault)
        failure = fault.inherited or self._state.job.new_failure(fault, entry.label, entry.id.sequence)
        self._state.job.learn(failure)
        return failure


def _deliveries(group: Iterable[tuple[Entry, Iterable[str]]]) -> list[Delivery]:
    return [Delivery(entry.id, tuple(consumers)) for entry, consumers in group]


def _fault_of_result(outcome: Outcome) -> Fault | None:
    """Why a push failed, where that is a result that cannot be had, and not the proxy."""
    if isinstance(outcome.error, UnreadableError):
        return outcome.error.as_result
    return outcome.fault if outcome.fault is not None and outcome.fault.kind is Kind.OBJECT_LOST else None


def _outcome(answer: concurrent.futures.Future[Any]) -> Outcome:
    """How what the sender was asked for over the direct channel ended."""
    error = answer.exception()
    if error is None:
        return Outcome(answer.result(), None, None)
    return Outcome(None, Fault(Kind.INTERNAL, type(error).__name__, message=text_of(error)), error)
