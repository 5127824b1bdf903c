"""The calls of one epoch in one party: its objects, its tasks, and what is on its way in and out.

A job that is reset begins a new one of these and forgets the old: whatever still comes of an old call finds an epoch
that is over, and changes nothing [E23, E30].

Everything here is guarded by the job's lock. `run`, `create`, `call`, `kill` and `get` are the driver's;
`_task_done`, `_received` and `_pushed` come from the runtime's callback thread, which they must not hold up: they
take the lock for moments, change states and post to queues.
"""

from __future__ import annotations

import collections
import functools
import heapq
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from fed.changes import Changes
from fed.core.failure import Failure, Fault, Kind
from fed.core.idset import IdSet
from fed.core.notice import Notice, NoticeKind
from fed.core.plan import Plan, PlannedObject, Step
from fed.core.rendezvous import Key
from fed.core.stall import MAX_SHOWN, Standing, Wait
from fed.errors import FedTimeoutError, UsageError
from fed.object import FedObject, ObjectId
from fed.proxy.sender import Delivery
from fed.raising import RemoteTraceback
from fed.runtime.arguments import PLAIN, Nested, Packed, Shape
from fed.runtime.body import text_of
from fed.runtime.contract import ActorBody, Call, FetchFailed, Outcome, Proxies, Ref, Runtime, TaskBody
from fed.serde.receipt import Receipt, SmallValue

__all__ = ["Desk", "Entry", "Epoch", "Push"]

logger = logging.getLogger("fed.epoch")

MAX_MISSING: Final = 100_000
"""Objects of other parties that will not come and that nobody has waited for yet, as far as they are remembered."""

PENDING: Final = 0
READY: Final = 1
FAILED: Final = 2


class Desk(Protocol):
    """What an epoch needs of its job."""

    changed: Changes
    """Guards every state; notified when one changed. Entered by its lock."""

    def wait(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait for a state, as long as the job has not latched. Without the lock. Returns whether it was reached."""
        ...

    def raise_if_latched(self) -> None:
        """Raise the job's root error, or the refusal that follows it. Without the lock."""
        ...

    def note(self, text: str) -> int:
        """A call is made; returns the digest of all calls so far. With the lock."""
        ...

    def new_failure(self, fault: Fault, label: str = "", sequence: int = -1) -> Failure:
        """Make the record of something that went wrong here. With the lock."""
        ...

    def believed(self, failure: Failure) -> Failure:
        """What this party makes of a record that a peer told. With the lock."""
        ...

    def learn(self, failure: Failure, *, cause: BaseException | None = None, ends_job: bool | None = None) -> None:
        """A failure is known. With the lock."""
        ...

    def tell(self, peer: str, notice: Notice) -> None:
        """Queue something to tell a peer. With the lock."""
        ...

    def push(self, pushes: Sequence[Push]) -> None:
        """Queue results to be sent. With the lock."""
        ...

    def confirm(self) -> None:
        """Something has arrived that is to be confirmed soon. With the lock."""
        ...

    def raise_failure(self, failure: Failure, cause: BaseException | None) -> None:
        """Raise the error of a failure to the user. Without the lock."""
        ...


class Entry(PlannedObject):
    """The record of one object, owned by the user's handle.

    Attributes:
        label: The call that makes it, for people.
        state: PENDING, READY or FAILED; leaves PENDING once [E12].
        ref: Where this party has it, or will; None where it does not need it.
        failure: Why there is no value, in FAILED.
        cause: The user's exception behind the failure, where that was raised here.
        small: Its value in bytes, where it is this party's own, READY and small.
        consumers: Parties to push it to as soon as it is READY, or to tell that it will not be.
        dependents: Failed tasks that wait for this state, to know whether they failed because of it.
        wait: The `fed.get` that waits for it.
        epoch: The epoch that it belongs to.
    """

    __slots__ = (
        "cause",
        "consumers",
        "dependents",
        "epoch",
        "failure",
        "label",
        "ref",
        "small",
        "state",
        "wait",
    )

    def __init__(self, epoch: Epoch, object_id: ObjectId, party: str, label: str) -> None:
        super().__init__(object_id, party)
        self.epoch = epoch
        self.label = label
        self.state = PENDING
        self.ref: Ref = None
        self.failure: Failure | None = None
        self.cause: BaseException | None = None
        self.small: SmallValue | None = None
        self.consumers: tuple[str, ...] = ()
        self.dependents: list[_Task] = []
        self.wait: _Wait | None = None


class Push(NamedTuple):
    """An object that is ready, and parties that need it."""

    epoch: Epoch
    entry: Entry
    consumers: tuple[str, ...]


class _Task:
    """A submitted task of this party that has not ended."""

    __slots__ = ("actor", "done", "failed", "killed", "label", "results", "sequence", "undecided", "uses")

    def __init__(self, sequence: int, label: str, results: tuple[Entry, ...], uses: Sequence[Entry]) -> None:
        self.sequence = sequence
        self.label = label
        self.results = results
        self.uses = uses
        self.done: Ref = None
        self.failed: Outcome | None = None
        self.undecided = 0
        # The construction of an actor: which, by its id here; and whether `fed.kill` ended it, which is no failure.
        self.actor: int | None = None
        self.killed = False


class _Wait:
    """A `fed.get` in progress: how many of its objects have no state yet."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = 0


class Epoch:
    """One epoch.

    Args:
        number: Which, from 0.
        party: This party.
        parties: All parties, in the order that is equal everywhere.
        max_receives: How many receives may be outstanding.
        runtime: Where tasks run.
        proxies: The way to the other parties.
        desk: The job.
    """

    def __init__(
        self,
        number: int,
        party: str,
        parties: Sequence[str],
        max_receives: int,
        runtime: Runtime,
        proxies: Proxies,
        desk: Desk,
    ) -> None:
        self.number = number
        self._party = party
        self._max_receives = max_receives
        self._runtime = runtime
        self._proxies = proxies
        self._desk = desk
        self._lock = desk.changed
        self._plan = Plan(party, parties, number)
        self._over = False
        self._tasks: set[_Task] = set()
        self._constructing: dict[int, _Task] = {}
        # Of the actors made here, by name: what stands for the construction. What failed in it fails every method.
        self._constructions: dict[str, Entry] = {}
        self._receiving: set[Entry] = set()
        self._pushing = 0
        # What a `fed.get` in progress wants.
        self._wanted: Sequence[Entry] = ()
        self._moves = 0
        self._unconfirmed: list[Key] = []
        # What the receiver would have to know again if it were killed.
        self._arrived: dict[str, IdSet] = {}
        self._missing: dict[Key, Failure] = {}

    @property
    def calls(self) -> int:
        """How many calls have been numbered."""
        return self._plan.calls

    @property
    def running(self) -> int:
        """How many tasks of this party have not ended."""
        return len(self._tasks)

    @property
    def undelivered(self) -> int:
        """How many results are on their way to other parties."""
        return self._pushing

    @property
    def receiving(self) -> int:
        """How many objects of other parties are waited for."""
        return len(self._receiving)

    @property
    def moves(self) -> int:
        """A number that grows with each call, each end of a task, each arrival and each delivery."""
        return self._moves

    def note_move(self) -> None:
        """The driver has come to wait. With the lock."""
        self._moves += 1

    def standing(self, *, idle: bool, untold: int) -> Standing:
        """What this party is at. With the lock.

        Args:
            idle: Whether the driver waits in a fed call.
            untold: Failures and the like that are on their way to other parties.
        """
        running: list[_Task] = []
        waiting: list[tuple[int, Wait]] = []
        for task in self._tasks:
            pending = next((used for used in task.uses if used.state == PENDING), None)
            if pending is None:
                running.append(task)
            else:
                waiting.append((task.sequence, Wait(task.label, pending.label, pending.party)))
        # The wanted ones after the tasks: what the driver wants, it has called for before.
        wanted = [one for one in self._wanted if one.state == PENDING]
        waiting += [(self._plan.calls, Wait("fed.get", one.label, one.party)) for one in wanted]
        shown = heapq.nsmallest(MAX_SHOWN, running, key=lambda task: task.sequence)
        return Standing(
            moves=self._moves,
            idle=idle,
            running=len(running),
            in_flight=self._pushing + untold,
            waiting=len(waiting),
            tasks=tuple(task.label for task in shown),
            waits=tuple(wait for _, wait in heapq.nsmallest(MAX_SHOWN, waiting)),
        )

    @property
    def drained(self) -> bool:
        """Whether every task here has ended, and everything that was to come or go has."""
        return not (self._tasks or self._pushing or self._receiving)

    def end(self) -> None:
        """The next epoch has begun: nothing that still comes of this one counts. With the lock."""
        self._over = True
        self._tasks.clear()
        self._constructing.clear()
        self._receiving.clear()
        self._unconfirmed.clear()
        self._pushing = 0

    # The driver's calls

    def run(self, body: TaskBody, party: str, packed: Packed, returns: int) -> tuple[FedObject[Any], ...]:
        """A call of a function."""
        return self._call(body.name, party, packed, returns, lambda call: self._runtime.submit(body, call))

    def create(self, body: ActorBody, party: str, packed: Packed) -> tuple[Any, str]:
        """The creation of an actor.

        Returns:
            The runtime's actor in its own party, None elsewhere; and the actor's name in calls.
        """
        created: list[Any] = []

        def submit(call: Call) -> Any:
            actor, done = self._runtime.create(body, call)
            created.append(actor)
            return (done,), done

        (construction,) = self._call(f"{body.name}.__init__", party, packed, 1, submit)
        sequence = self._plan.calls - 1
        name = f"{self.number}#{sequence}"
        if party == self._party:
            self._constructions[name] = construction._entry
        if not created:
            return None, name
        with self._lock:
            # None if it is made already, or has failed.
            task = next((one for one in self._tasks if one.sequence == sequence), None)
            if task is not None:
                task.actor = id(created[0])
                self._constructing[task.actor] = task
        return created[0], name

    def call(
        self,
        actor: Any,
        name: str,
        label: str,
        method: str,
        party: str,
        packed: Packed,
        returns: int,
        options: Mapping[str, Any],
    ) -> tuple[FedObject[Any], ...]:
        """A call of an actor's method."""

        def submit(call: Call) -> Any:
            return self._runtime.call(actor, method, call, options)

        return self._call(
            label, party, packed, returns, submit, of=f" of actor {name}", after=self._constructions.get(name)
        )

    def kill(self, actor: Any, name: str, party: str) -> None:
        """The end of an actor."""
        step = self._plan.task(party, ())
        with self._lock:
            self._desk.note(f"fed.kill(actor {name})")
            self._moves += 1
            if step.here:
                task = self._constructing.pop(id(actor), None)
                if task is not None:
                    task.killed = True
                    # Who calls it fails because of the kill, and does not wait for what becomes of the construction.
                    self._finish(one for entry in task.results for one in self._ready(entry))
        self._desk.raise_if_latched()
        if step.here:
            self._runtime.kill(actor)

    def get(self, objects: Sequence[FedObject[Any]], timeout_s: float | None) -> list[Any]:
        """The values of objects, in every party.

        Raises:
            TaskError: The task of one failed.
            FedTimeoutError: Not all were there in time.
        """
        entries = [self._entry(one) for one in objects]
        step = self._plan.get(entries)
        with self._lock:
            self._desk.note(f"fed.get({', '.join([str(entry.id) for entry in entries])})")
            self._moves += 1
        self._advance(step, entries)
        wait = _Wait()
        with self._lock:
            for entry in set(entries):
                if entry.state == PENDING:
                    entry.wait = wait
                    wait.left += 1
            self._wanted = entries
        try:
            self._desk.wait(lambda: wait.left == 0, timeout_s)
        finally:
            self._wanted = ()
        self._desk.raise_if_latched()
        with self._lock:
            missing = next((one for one in objects if one._entry.state == PENDING), None)
        if missing is not None:
            raise FedTimeoutError(f"fed.get: {missing!r} did not arrive within {timeout_s:g} s")
        for entry in entries:
            if entry.failure is not None:
                self._desk.raise_failure(entry.failure, entry.cause)
        return self._fetch(entries)

    def _fetch(self, entries: Sequence[Entry]) -> list[Any]:
        try:
            return self._runtime.fetch([entry.ref for entry in entries])
        except FetchFailed as error:
            # It was there and is lost; the others still have it, so this party alone cannot go on.
            entry = entries[error.position]
            with self._lock:
                failure = self._desk.new_failure(error.fault, entry.label, entry.id.sequence)
                self._desk.learn(failure, cause=error.cause, ends_job=True)
        self._desk.raise_if_latched()
        raise RuntimeError("a lost value did not end the job")

    def _call(
        self,
        label: str,
        party: str,
        packed: Packed,
        returns: int,
        submit: Callable[[Call], Any],
        *,
        of: str = "",
        after: Entry | None = None,
    ) -> tuple[FedObject[Any], ...]:
        uses = [self._entry(one) for one in packed.objects]
        suffix = "" if returns == 1 else f" -> {returns}"
        text = f"{label}.party({party!r}).remote({_arguments_text(packed)}){of}{suffix}"
        step = self._plan.task(party, uses)
        with self._lock:
            stamp = self._desk.note(text)
            self._moves += 1
        self._advance(step, uses)
        named = f"#{step.sequence} {label}"
        made = tuple(
            Entry(self, ObjectId(self.number, step.sequence, slot, stamp), party, named) for slot in range(returns)
        )
        if step.here:
            values = tuple(value._entry.ref if type(value) is FedObject else value for value in packed.values)
            extras = tuple(one._entry.ref for one in packed.extras)
            shape = Shape(packed.keywords, len(extras), returns)
            call = Call((*values, *extras), None if shape == PLAIN else shape)
            depends = uses if after is None else [*uses, after]

            def submit_call() -> Any:
                if any(used.ref is None for used in depends):
                    raise UsageError("an argument comes from a call that could not be made")
                return submit(call)

            self._start(_Task(step.sequence, named, made, depends), submit_call)
        return tuple(FedObject(entry.id, party, label, entry) for entry in made)

    def _start(self, task: _Task, submit: Callable[[], Any]) -> None:
        # The job may have latched while the call was prepared [E21].
        self._desk.raise_if_latched()
        with self._lock:
            self._tasks.add(task)
        try:
            refs, task.done = submit()
        except Exception as error:  # noqa: BLE001 - an argument that cannot be pickled, an option that Ray refuses
            # The call has its number and the others count on it: it must end like any other that fails.
            self._task_done(task, Outcome(None, Fault(Kind.TASK, type(error).__name__, message=text_of(error)), error))
            return
        for entry, ref in zip(task.results, refs, strict=True):
            entry.ref = ref
        self._watch(task.done, functools.partial(self._task_done, task))

    def _entry(self, one: FedObject[Any]) -> Entry:
        entry: Entry = one._entry
        if entry.epoch is not self:
            raise UsageError(f"{one!r} belongs to an earlier job or epoch, and its value is gone")
        return entry

    def _advance(self, step: Step, uses: Sequence[Entry]) -> None:
        """Carry out what a call asks of this party besides running the task."""
        # One call for the results of one task: those of several would all wait for the slowest of them.
        by_task: dict[tuple[str, int], list[Entry]] = {}
        for position in step.receives:
            used = uses[position]
            by_task.setdefault((used.party, used.id.sequence), []).append(used)
        for entries in by_task.values():
            self._receive(entries)
        if step.pushes:
            needed: dict[Entry, tuple[str, ...]] = {}
            for position, consumer in step.pushes:
                needed[uses[position]] = (*needed.get(uses[position], ()), consumer)
            with self._lock:
                for entry, consumers in needed.items():
                    self._need(entry, consumers)

    def _receive(self, entries: list[Entry]) -> None:
        # Waits for earlier objects only, whose tasks do not depend on later ones, so this cannot deadlock.
        self._desk.wait(lambda: not self._receiving or len(self._receiving) + len(entries) <= self._max_receives)
        self._desk.raise_if_latched()
        with self._lock:
            confirmed, self._unconfirmed = self._unconfirmed, []
        submission = self._proxies.receive([Key(entry.party, entry.id) for entry in entries], confirmed)
        with self._lock:
            for entry, ref in zip(entries, submission.results, strict=True):
                entry.ref = ref
                self._receiving.add(entry)
        self._watch(submission.done, functools.partial(self._received, entries, submission.done))

    def _need(self, entry: Entry, consumers: tuple[str, ...]) -> None:
        """Parties need an object of this one. The lock is held."""
        if entry.state == READY:
            self._post_pushes(entry, consumers)
        elif entry.failure is not None:
            for consumer in consumers:
                self._tell_failed(consumer, entry.failure, entry)
        else:
            entry.consumers += consumers

    def _post_pushes(self, entry: Entry, consumers: Sequence[str]) -> None:
        self._pushing += len(consumers)
        self._desk.push([Push(self, entry, tuple(consumers))])

    @property
    def arrived(self) -> Mapping[str, IdSet]:
        """What has come from other parties in this epoch, by owner. With the lock."""
        return self._arrived

    @property
    def missing(self) -> Mapping[Key, Failure]:
        """What other parties have told will never come, as far as nobody has waited for it yet. With the lock."""
        return self._missing

    def note_missing(self, peer: str, objects: Iterable[ObjectId], failure: Failure) -> None:
        """A party tells that objects of it will never come. With the lock."""
        for object_id in objects:
            # What it names beyond all that could be waited for, a receiver may forget.
            if object_id.epoch == self.number and len(self._missing) < MAX_MISSING:
                self._missing[Key(peer, object_id)] = failure

    def _tell_failed(self, consumer: str, failure: Failure, entry: Entry) -> None:
        self._desk.tell(consumer, Notice(NoticeKind.FAILURE, self.number, failure, (entry.id,)))

    # On the data-sending thread

    def push(self, ready: Sequence[tuple[Entry, Sequence[str]]]) -> None:
        """Send results that are ready, each to its consumers."""
        small = [(entry, consumers, entry.small) for entry, consumers in ready if entry.small is not None]
        large = [(entry, consumers, entry.ref) for entry, consumers in ready if entry.small is None]
        for group, push in ((small, self._proxies.push_small), (large, self._proxies.push)):
            if group:
                done = push([Delivery(entry.id, tuple(to)) for entry, to, _ in group], [what for _, _, what in group])
                entries = {entry.id: entry for entry, _, _ in group}
                self._watch(done, functools.partial(self._pushed, entries, sum(len(to) for _, to, _ in group), done))

    def flush_confirmations(self) -> None:
        """Confirm what has arrived and no receive has confirmed along the way."""
        with self._lock:
            confirmed, self._unconfirmed = self._unconfirmed, []
        if confirmed:
            self._proxies.confirm(confirmed)

    # On the runtime's callback thread

    def _watch(self, done: Ref, handle: Callable[[Outcome], None]) -> None:
        """Have a callback called that may raise: whoever waits for what it was to do is let go with the job [E18]."""

        def guarded(outcome: Outcome) -> None:
            try:
                handle(outcome)
            except Exception as error:
                logger.exception("a callback of party %r raised", self._party)
                with self._lock:
                    fault = Fault(Kind.INTERNAL, type(error).__name__, message=text_of(error))
                    self._desk.learn(self._desk.new_failure(fault))

        self._runtime.watch(done, guarded)

    def _task_done(self, task: _Task, outcome: Outcome) -> None:
        with self._lock:
            if self._over:
                return
            self._moves += 1
            if outcome.fault is None:
                receipt: Receipt = outcome.value
                for entry, small in zip(task.results, receipt or [None] * len(task.results), strict=True):
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
            self._finish([task])
            self._lock.notify_all()

    def _received(self, entries: list[Entry], done: Ref, outcome: Outcome) -> None:
        with self._lock:
            if self._over:
                return
            self._moves += 1
            failures: Sequence[Failure | None]
            if outcome.fault is not None:
                failures = [self._proxy_failed(outcome.fault)] * len(entries)
            else:
                failures = outcome.value
            for entry, failure in zip(entries, failures, strict=True):
                self._receiving.discard(entry)
                self._missing.pop(Key(entry.party, entry.id), None)
                if entry.state != PENDING:
                    continue
                if failure is None:
                    self._finish(self._ready(entry))
                    self._unconfirmed.append(Key(entry.party, entry.id))
                    self._arrived.setdefault(entry.party, IdSet()).add(entry.id)
                else:
                    believed = self._desk.believed(failure)
                    self._finish(self._fail(entry, believed, None))
                    self._learn_inherited(believed)
            if self._unconfirmed:
                self._desk.confirm()
            self._lock.notify_all()

    def _pushed(self, entries: Mapping[ObjectId, Entry], count: int, done: Ref, outcome: Outcome) -> None:
        with self._lock:
            if self._over:
                return
            self._moves += 1
            pending: Sequence[Delivery] = ()
            if outcome.fault is not None:
                self._proxy_failed(outcome.fault)
            else:
                pending = outcome.value.pending
                for undelivered in outcome.value.undelivered:
                    entry = entries[undelivered.id]
                    failure = undelivered.fault.inherited or self._desk.new_failure(
                        undelivered.fault, entry.label, entry.id.sequence
                    )
                    self._tell_failed(undelivered.consumer, failure, entry)
                    self._desk.learn(failure)
            self._pushing -= count
            # Asked again, the sender goes on waiting for the receipts of the rest.
            for delivery in pending:
                self._post_pushes(entries[delivery.id], delivery.consumers)
            self._lock.notify_all()

    def _proxy_failed(self, fault: Fault) -> Failure:
        """A proxy failed. Whatever it failed of, the other parties do not see the same: that ends the job."""
        failure = self._desk.new_failure(
            Fault(Kind.INTERNAL, fault.type_name, detail="a proxy failed", message=fault.message)
        )
        self._desk.learn(failure)
        return failure

    def _learn_inherited(self, failure: Failure) -> None:
        """A failure is known because of something that came, or ended, after it."""
        # A task of this party's own was known to have failed before, and may have been read since.
        if failure.src_party != self._party or not failure.kind.symmetric:
            self._desk.learn(failure)

    def _finish(self, tasks: Iterable[_Task]) -> None:
        """Tasks have ended and it is known why. The lock is held."""
        # A queue instead of recursion: a chain of failed tasks may be long.
        finishing = collections.deque(tasks)
        while finishing:
            task = finishing.popleft()
            self._tasks.discard(task)
            # An id is used again once its actor's handle is gone; it may stand for a younger one by now.
            if task.actor is not None and self._constructing.get(task.actor) is task:
                del self._constructing[task.actor]
            if task.failed is None or task.killed:
                for entry in task.results:
                    finishing += self._ready(entry)
                continue
            failure, cause = self._failure_of(task, task.failed)
            for entry in task.results:
                finishing += self._fail(entry, failure, cause)

    def _ready(self, entry: Entry) -> list[_Task]:
        """An object is there. Returns the failed tasks that are thereby decided."""
        entry.state = READY
        consumers, entry.consumers = entry.consumers, ()
        if consumers:
            self._post_pushes(entry, consumers)
        return self._decided(entry)

    def _fail(self, entry: Entry, failure: Failure, cause: BaseException | None) -> list[_Task]:
        """An object will never be. Returns the failed tasks that are thereby decided."""
        entry.state, entry.failure, entry.cause = FAILED, failure, cause
        consumers, entry.consumers = entry.consumers, ()
        for consumer in consumers:
            self._tell_failed(consumer, failure, entry)
        return self._decided(entry)

    def _decided(self, entry: Entry) -> list[_Task]:
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

    def _failure_of(self, task: _Task, outcome: Outcome) -> tuple[Failure, BaseException | None]:
        """The failure of a task: that of an argument where that is why, else a new one, which everybody is told."""
        fault = outcome.fault or Fault(Kind.INTERNAL, "Unknown")
        inherited = next((entry.failure for entry in task.uses if entry.failure is not None), None)
        if inherited is None and fault.inherited is not None:
            inherited = self._desk.believed(fault.inherited)
        if inherited is not None:
            cause = next((entry.cause for entry in task.uses if entry.failure is not None), None)
            # This may be the first that is heard of it, and whoever is woken by it must find it known [E13].
            self._learn_inherited(inherited)
            return inherited, cause
        failure = self._desk.new_failure(fault, task.label, task.sequence)
        cause = outcome.error
        if cause is not None and fault.traceback and cause.__cause__ is None and cause.__traceback__ is None:
            cause.__cause__ = RemoteTraceback(fault.traceback)
        self._desk.learn(failure, cause=cause)
        return failure, cause


def _arguments_text(packed: Packed) -> str:
    """What of the arguments must be equal in all parties: their number and names, and the fed objects among them."""
    texts = [
        str(value.id) if type(value) is FedObject else "[...]" if type(value) is Nested else "_"
        for value in packed.values
    ]
    first = len(texts) - len(packed.keywords)
    for place, name in enumerate(packed.keywords, start=first):
        texts[place] = f"{name}={texts[place]}"
    inside = f" with {', '.join([str(one.id) for one in packed.extras])} inside" if packed.extras else ""
    return ", ".join(texts) + inside
