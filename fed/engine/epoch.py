"""The calls of one epoch in one party: its objects, its tasks, and what is on its way in and out.

A job that is reset begins a new one of these and forgets the old: whatever still comes of an old call finds an epoch
that is over, and changes nothing [E23, E30].

A task is submitted when what it needs from other parties is here (`fed.core.dataflow`), by whatever thread finds that
it is: the driver's, that of the direct channel (`arrived`) or the data-sending one (`_took`). Not by the runtime's
callback thread (`_task_done`, `_pushed`), which must not be held up.

Everything here is guarded by the job's lock, which is taken for moments, to change states and to post to queues.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import heapq
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from fed.condition import PredicateCondition
from fed.core.dataflow import Dataflow, Instruction, Submit
from fed.core.failure import Failure, Fault, Kind
from fed.core.notice import Notice, NoticeKind
from fed.core.plan import Plan, PlannedObject, Step
from fed.core.rendezvous import Key
from fed.core.stall import MAX_SHOWN, PartyStatus, Wait
from fed.engine.exceptions import RemoteTraceback
from fed.errors import FedTimeoutError, UsageError
from fed.object import FedObject, ObjectId
from fed.proxy.arriving import Arrived
from fed.proxy.sender import Delivery
from fed.runtime.arguments import Nested, Packed, Shape
from fed.runtime.body import text_of
from fed.runtime.contract import (
    ActorBody,
    ActorKilledError,
    Body,
    Call,
    FetchFailed,
    Outcome,
    Proxies,
    Ref,
    Runtime,
    Submission,
    TaskBody,
)
from fed.serde.contract import DecodeError
from fed.serde.receipt import SmallCodec, SmallValue, read_receipt

__all__ = ["Actor", "Desk", "Entry", "Epoch", "Push"]

logger = logging.getLogger("fed.engine.epoch")

IMMUTABLE: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
"""Types of arguments that nobody can change."""

MAX_MISSING: Final = 1 << 17
"""Objects of one other party that will not come and that nobody has waited for yet. No program has nearly as many under
way, and a party that names objects without end must not fill the memory with their names."""

PENDING: Final = 0
READY: Final = 1
FAILED: Final = 2


class Desk(Protocol):
    """What an epoch needs of its job."""

    lock: threading.Lock
    """Guards every state."""

    changed: PredicateCondition
    """Of that lock; notified when a state changed. Entered by the lock, which is C and takes a tenth of the time."""

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

    def soon(self, step: Callable[[], None]) -> None:
        """Have something done on the data-sending thread. With the lock or without."""
        ...

    def raise_failure(self, failure: Failure, cause: BaseException | None) -> None:
        """Raise the error of a failure to the user. Without the lock."""
        ...


class Entry(PlannedObject):
    """The record of one object, owned by the user's handle.

    Attributes:
        label: The call that makes it, for people.
        state: PENDING, READY or FAILED; leaves PENDING once [E12].
        ref: Where this party has it, or will; None if it has it in `small` only, or does not need it.
        failure: Why there is no value, in FAILED.
        cause: The user's exception behind the failure, where that was raised here.
        small: Its value in bytes, where it is READY and small.
        consumers: Parties to push it to as soon as it is READY, or to tell that it will not be.
        task: The task of this party that makes it, in PENDING.
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
        "task",
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
        self.task: _Task | None = None
        self.dependents: list[_Task] = []
        self.wait: _Wait | None = None


class Push(NamedTuple):
    """An object that is ready, and parties that need it."""

    epoch: Epoch
    entry: Entry
    consumers: tuple[str, ...]


class Actor:
    """An actor, as the driver of each party knows it.

    Attributes:
        name: In calls; equal everywhere.
        label: Its class, for people.
        ordered: Whether its calls run in the order of the program.
        handle: The runtime's, in its own party, once it is created.
        construction: What stands for its construction there: what failed in it fails every method.
        killed: Whether `fed.kill` ended it.
    """

    __slots__ = ("construction", "handle", "killed", "label", "name", "ordered")

    def __init__(self, name: str, label: str, *, ordered: bool) -> None:
        self.name = name
        self.label = label
        self.ordered = ordered
        self.handle: Any = None
        self.construction: Entry | None = None
        self.killed = False


class _Task:
    """A task of this party that has not ended.

    Attributes:
        sequence: The number of its call.
        label: The call, for people.
        results: What it makes.
        uses: What it needs.
        submit: Hands it to the runtime; None once that is done.
        actor: The actor that it is a call of, or constructs.
        done: The runtime's reference that tells of its end, once it is submitted.
        failed: Why it failed, if it did.
        undecided: How many of those that it uses have no state yet, once it has failed.
    """

    __slots__ = ("actor", "done", "failed", "label", "results", "sequence", "submit", "undecided", "uses")

    def __init__(
        self,
        sequence: int,
        label: str,
        results: tuple[Entry, ...],
        uses: Sequence[Entry],
        submit: Callable[[], Submission],
        actor: Actor | None = None,
    ) -> None:
        self.sequence = sequence
        self.label = label
        self.results = results
        self.uses = uses
        self.submit: Callable[[], Submission] | None = submit
        self.actor = actor
        self.done: Ref = None
        self.failed: Outcome | None = None
        self.undecided = 0

    @property
    def is_killed_construction(self) -> bool:
        """Whether it constructs an actor that was killed, which is no failure of the construction."""
        return self.actor is not None and self.actor.killed and self.results[0] is self.actor.construction


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
        isolate: Whether failed tasks leave the job running.
        codec: Reads small values.
        runtime: Where tasks run.
        proxies: The way to the other parties.
        desk: The job.
    """

    def __init__(
        self,
        number: int,
        party: str,
        parties: Sequence[str],
        isolate: bool,
        codec: SmallCodec,
        runtime: Runtime,
        proxies: Proxies,
        desk: Desk,
    ) -> None:
        self.number = number
        self._party = party
        self._isolate = isolate
        self._codec = codec
        self._runtime = runtime
        self._proxies = proxies
        self._desk = desk
        self._lock = desk.lock
        self._changed = desk.changed
        self._plan = Plan(party, parties, number)
        self._over = False
        # What nothing that waits gets past any more: the job has failed.
        self._aborted: Failure | None = None
        self._tasks: set[_Task] = set()
        self._flow: Dataflow[_Task, Outcome] = Dataflow()
        # How many tasks are being handed to the runtime. With the lock.
        self.being_submitted = 0
        # Tasks that some thread is about to submit.
        self._submitting: collections.deque[_Task] = collections.deque()
        # Objects of other parties that are waited for; and of those that are large, by which call they are taken.
        self._expected: dict[Key, Entry] = {}
        self._taking: dict[Key, Submission] = {}
        self._pushing = 0
        # What a `fed.get` in progress wants.
        self._wanted: Sequence[Entry] = ()
        self._moves = 0
        # What will not come and nobody has waited for yet, by owner.
        self._missing: dict[str, dict[ObjectId, Failure]] = {}
        # What will not come and was waited for, which the receiver has not heard.
        self._given_up: list[Key] = []

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
    def expected(self) -> int:
        """How many objects of other parties are waited for."""
        return len(self._expected)

    @property
    def moves(self) -> int:
        """A number that grows with each call, each end of a task, each arrival and each delivery."""
        return self._moves

    def note_move(self) -> None:
        """The driver has come to wait. With the lock."""
        self._moves += 1

    def standing(self, *, idle: bool, untold: int) -> PartyStatus:
        """What this party is at. With the lock.

        Args:
            idle: Whether the driver waits in a fed call.
            untold: Failures and the like that are on their way to other parties.
        """
        running: list[_Task] = []
        waiting: list[tuple[int, Wait]] = []
        for task in self._tasks:
            pending = next((used for used in task.uses if used.state == PENDING), None)
            before = self._flow.held_up_by(task)
            if pending is not None:
                waiting.append((task.sequence, Wait(task.label, pending.label, pending.party)))
            elif before is not None:
                waiting.append((task.sequence, Wait(task.label, before.label, self._party)))
            else:
                running.append(task)
        # The wanted ones after the tasks: what the driver wants, it has called for before.
        wanted = [one for one in self._wanted if one.state == PENDING]
        waiting += [(self._plan.calls, Wait("fed.get", one.label, one.party)) for one in wanted]
        shown = heapq.nsmallest(MAX_SHOWN, running, key=lambda task: task.sequence)
        return PartyStatus(
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
        return not (self._tasks or self._pushing or self._expected)

    def validate(self) -> None:
        """Check the laws of the table. With the lock. Raises RuntimeError where one is broken."""
        self._flow.validate()

    def end(self) -> None:
        """The next epoch has begun: nothing that still comes of this one counts. With the lock."""
        self._over = True
        self._tasks.clear()
        self._flow = Dataflow()
        self._submitting.clear()
        self._expected.clear()
        self._taking.clear()
        self._given_up.clear()
        self._missing.clear()
        self._pushing = 0

    def abort(self, root: Failure) -> None:
        """The job has failed: nothing that waits goes on, and nothing is submitted any more. With the lock."""
        if self._aborted is None and not self._over:
            self._aborted = root
            for entry in list(self._expected.values()):
                self._not_coming(entry, root)

    # The driver's calls

    def run(self, body: TaskBody, party: str, packed: Packed, returns: int) -> tuple[FedObject[Any], ...]:
        """A call of a function."""
        return self._call(body.name, party, packed, returns, lambda call: self._runtime.submit(body, call), body=body)

    def create(self, body: ActorBody, party: str, packed: Packed) -> Actor:
        """The creation of an actor."""
        actor = Actor(f"{self.number}#{self._plan.calls}", body.name, ordered=not body.is_concurrent)

        def submit(call: Call) -> Submission:
            handle, done = self._runtime.create(body, call)
            with self._lock:
                actor.handle = handle
                killed = actor.killed
            if killed:
                self._runtime.kill(handle)
            return Submission((done,), done)

        self._call(f"{body.name}.__init__", party, packed, 1, submit, body=body, actor=actor)
        return actor

    def call(
        self,
        actor: Actor,
        label: str,
        method: str,
        party: str,
        packed: Packed,
        returns: int,
        options: Mapping[str, Any],
    ) -> tuple[FedObject[Any], ...]:
        """A call of an actor's method."""

        def submit(call: Call) -> Submission:
            return self._runtime.call(actor.handle, method, call, options)

        return self._call(label, party, packed, returns, submit, of=f" of actor {actor.name}", actor=actor)

    def kill(self, actor: Actor, party: str) -> None:
        """The end of an actor."""
        step = self._plan.task(party, ())
        with self._lock:
            self._desk.note(f"fed.kill(actor {actor.name})")
            self._moves += 1
            if step.here and not actor.killed:
                actor.killed = True
                if actor.construction is not None and actor.construction.epoch is self:
                    # Who calls it fails because of the kill, and does not wait for what becomes of the construction.
                    self._finish(self._ready(actor.construction))
                self._apply(self._flow.discard(actor, _killed(actor)))
            handle = actor.handle
        self._desk.raise_if_latched()
        if step.here and handle is not None:
            self._runtime.kill(handle)
        self.submit_ready()

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
        with self._lock:
            missing = next((one for one in objects if one._entry.state == PENDING), None)
            failed = next((entry for entry in entries if entry.failure is not None), None)
        # A failure that leaves the job running all parties see, also one whose driver wakes late: others may have left
        # because of it by then.
        if missing is not None or failed is None or not self._survivable(failed.failure):
            self._desk.raise_if_latched()
        if missing is not None:
            raise FedTimeoutError(f"fed.get: {missing!r} did not arrive within {timeout_s:g} s")
        if failed is not None and failed.failure is not None:
            self._desk.raise_failure(failed.failure, failed.cause)
        return self._fetch(entries)

    def _survivable(self, failure: Failure | None) -> bool:
        return self._isolate and failure is not None and failure.kind.symmetric

    def _fetch(self, entries: Sequence[Entry]) -> list[Any]:
        """What is small this party reads too, its own as well, so that all parties get equal values."""
        stored = [entry for entry in entries if entry.small is None]
        try:
            fetched = iter(self._runtime.fetch([entry.ref for entry in stored]) if stored else ())
            values = []
            for entry in entries:
                values.append(next(fetched) if entry.small is None else self._codec.read(entry.small))
            return values
        except FetchFailed as error:
            # It was there and is lost; the others still have it, so this party alone cannot go on.
            entry, label = stored[error.position], stored[error.position].label
            fault, cause = error.fault, error.cause
        except DecodeError as error:
            detail, label = f"{_origin(entry)} cannot be decoded", ""
            fault, cause = Fault(Kind.DELIVERY, type(error).__name__, detail=detail, message=str(error)), error
        with self._lock:
            failure = self._desk.new_failure(fault, label, entry.id.sequence)
            self._desk.learn(failure, cause=cause, ends_job=True)
        self._desk.raise_if_latched()
        raise RuntimeError("a lost value did not end the job")

    def _call(
        self,
        label: str,
        party: str,
        packed: Packed,
        returns: int,
        submit: Callable[[Call], Submission],
        *,
        of: str = "",
        body: Body | None = None,
        actor: Actor | None = None,
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
            if actor is not None and actor.construction is None:
                (actor.construction,) = made
            elif actor is not None and actor.construction is not None and actor.construction.epoch is self:
                uses.append(actor.construction)
            given = list(packed.values)

            def submit_call() -> Submission:
                arriving: list[tuple[int, str]] = []
                values = [
                    _passed(value._entry, arriving, position) if type(value) is FedObject else value
                    for position, value in enumerate([*given, *packed.extras])
                ]
                shape = Shape(packed.keywords, len(packed.extras), returns, tuple(arriving))
                return submit(Call(tuple(values), shape, step.sequence))

            self._start(_Task(step.sequence, named, made, uses, submit_call, actor), given, body)
        return tuple(FedObject(entry.id, party, label, entry) for entry in made)

    def _start(self, task: _Task, values: list[Any], body: Body | None) -> None:
        # The job may have latched while the call was prepared [E21].
        self._desk.raise_if_latched()
        with self._lock:
            # Only this thread adds tasks, so what need not wait now need not wait in a moment.
            waits = bool(self._needs(task)) or (task.actor is not None and self._flow.has_queue(task.actor))
        try:
            if waits:
                self._hold(values, body)
        except BaseException as error:  # noqa: BLE001 - as in `_submit`
            with self._lock:
                task.failed = _refused(error)
                self._finish([task])
            return
        with self._lock:
            self._tasks.add(task)
            for entry in task.results:
                entry.task = task
            queue, ordered = (None, True) if task.actor is None else (task.actor, task.actor.ordered)
            self._apply(self._flow.add(task, self._needs(task), queue=queue, in_turn=ordered))
            # One whose arguments are not held this thread submits itself, before the user may change them.
            ready = bool(self._submitting) and self._submitting[-1] is task
            if ready:
                self._submitting.pop()
                self.being_submitted += 1
        if ready:
            self._submit(task)
        self.submit_ready()

    def _hold(self, values: list[Any], body: Body | None) -> None:
        """Keep what a call was given as it is now: the user may change it before the call is submitted."""
        for position, value in enumerate(values):
            if type(value) is not FedObject and type(value) not in IMMUTABLE:
                values[position] = self._runtime.hold(value)
        if body is not None:
            self._runtime.hold_code(body)

    def _needs(self, task: _Task) -> list[Entry | _Task]:
        """What of a task's arguments is not here and not the runtime's to wait for. The lock is held."""
        needs: list[Entry | _Task] = []
        for used in task.uses:
            if used.state == PENDING:
                if used.party != self._party:
                    needs.append(used)
                elif used.task is not None and used.task in self._flow:
                    needs.append(used.task)
        return needs

    def _apply(self, instructions: Sequence[Instruction[_Task, Outcome]]) -> None:
        """Do what the table says; what is to be submitted, `submit_ready` does. The lock is held."""
        pending = collections.deque(instructions)
        failed: list[_Task] = []
        while pending:
            one = pending.popleft()
            if isinstance(one, Submit):
                outcome = self._why_not(one.task)
                if outcome is None:
                    self._submitting.append(one.task)
                    continue
                pending.extend(self._flow.failed(one.task, outcome))
            else:
                outcome = one.reason
            one.task.failed = outcome
            failed.append(one.task)
        self._finish(failed)

    def _why_not(self, task: _Task) -> Outcome | None:
        """Why a task is not to be submitted, if it is not. The lock is held."""
        if self._aborted is not None:
            return _inherited(self._aborted, None)
        failed = next((used for used in task.uses if used.failure is not None), None)
        if failed is not None and failed.failure is not None:
            return _inherited(failed.failure, failed.cause)
        actor = task.actor
        if actor is None or actor.construction is None:
            return None
        if actor.handle is None and actor.construction.epoch is not self:
            return _dead(f"actor {actor.label} was never made: the epoch ended while its construction waited")
        return _killed(actor) if actor.killed else None

    def submit_ready(self) -> None:
        """Submit what is ready, and have done with what will not come. Without the lock."""
        while True:
            with self._lock:
                given_up, self._given_up = self._given_up, []
            if given_up:
                self._proxies.direct.arrivals.confirm(given_up)
            with self._lock:
                if not self._submitting:
                    return
                task = self._submitting.popleft()
                outcome = self._why_not(task)
                if outcome is not None:
                    self._fail_unsubmitted(task, outcome)
                    continue
                self.being_submitted += 1
            self._submit(task)

    def _submit(self, task: _Task) -> None:
        submit, task.submit = task.submit, None
        if submit is None:
            raise RuntimeError(f"{task.label} was submitted before")
        try:
            refs, done = submit()
        # An argument that cannot be pickled, an option that Ray refuses; whatever it raises, in whatever thread.
        except BaseException as error:  # noqa: BLE001
            # The call has its number and the others count on it: it must end like any other that fails.
            with self._lock:
                self.being_submitted -= 1
                self._fail_unsubmitted(task, _refused(error))
                self._changed.notify_all()
            return
        with self._lock:
            self.being_submitted -= 1
            if self._over:
                self._changed.notify_all()
                return
            task.done = done
            for entry, ref in zip(task.results, refs, strict=True):
                entry.ref = ref
            self._apply(self._flow.submitted(task))
        self._watch(done, functools.partial(self._task_done, task))

    def _fail_unsubmitted(self, task: _Task, outcome: Outcome) -> None:
        """A task that was to be submitted fails instead. The lock is held."""
        if not self._over:
            self._moves += 1
            further = self._flow.failed(task, outcome)
            task.failed = outcome
            self._finish([task])
            self._apply(further)
            self._changed.notify_all()

    def _entry(self, one: FedObject[Any]) -> Entry:
        entry: Entry = one._entry
        if entry.epoch is not self:
            raise UsageError(f"{one!r} belongs to an earlier job or epoch, and its value is gone")
        return entry

    def _advance(self, step: Step, uses: Sequence[Entry]) -> None:
        """Carry out what a call asks of this party besides running the task."""
        if step.receives:
            awaited = [uses[position] for position in step.receives]
            keys = [Key(entry.party, entry.id) for entry in awaited]
            with self._lock:
                self._expected.update(zip(keys, awaited, strict=True))
                for key, entry in zip(keys, awaited, strict=True):
                    failure = self._missing.get(key.peer, {}).pop(key.id, None) or self._aborted
                    if failure is not None:
                        self._not_coming(entry, failure)
                keys = [key for key in keys if key in self._expected]
            if keys:
                self._proxies.direct.arrivals.expect(keys)
            self.submit_ready()
        if step.pushes:
            needed: dict[Entry, tuple[str, ...]] = {}
            for position, consumer in step.pushes:
                needed[uses[position]] = (*needed.get(uses[position], ()), consumer)
            with self._lock:
                for entry, consumers in needed.items():
                    self._need(entry, consumers)

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

    def note_missing(self, peer: str, objects: Iterable[ObjectId], failure: Failure) -> None:
        """A party tells that objects of it will never come. With the lock, and `submit_ready` after that."""
        if self._aborted is not None:
            return
        missing = self._missing.setdefault(peer, {})
        for object_id in objects:
            entry = self._expected.get(Key(peer, object_id))
            if entry is not None:
                self._not_coming(entry, failure)
            elif object_id.epoch != self.number or object_id in missing:
                continue
            elif len(missing) < MAX_MISSING:
                missing[object_id] = failure
            else:
                # To forget one would let this party wait for it for ever.
                detail = f"party {peer!r} tells of more than {MAX_MISSING} failed objects that nobody has asked for"
                fault = Fault(Kind.DIVERGED, "DivergenceError", detail=detail)
                self._desk.learn(self._desk.new_failure(fault), ends_job=True)
                return

    def started_anew(self, peer: str) -> None:
        """Another driver takes the place of a party's: what that one had told is worth nothing. With the lock."""
        self._missing.pop(peer, None)

    def _tell_failed(self, consumer: str, failure: Failure, entry: Entry) -> None:
        self._desk.tell(consumer, Notice(NoticeKind.FAILURE, self.number, failure, (entry.id,)))

    # On the data-sending thread

    def push(self, ready: Sequence[tuple[Entry, Sequence[str]]]) -> None:
        """Send results that are ready, each to its consumers."""
        small = [(entry, consumers, entry.small) for entry, consumers in ready if entry.small is not None]
        large = [(entry, consumers) for entry, consumers in ready if entry.small is None]
        if small:
            group = [(entry, to) for entry, to, _ in small]
            answer = self._proxies.direct.pushes.push(_deliveries(group), [value for _, _, value in small])
            small_pushed = self._when_pushed(group)
            answer.add_done_callback(lambda answer: small_pushed(_outcome(answer)))
        if large:
            done = self._proxies.push(_deliveries(large), [entry.ref for entry, _ in large])
            self._runtime.watch(done, self._when_pushed(large))

    def _when_pushed(self, group: Sequence[tuple[Entry, Sequence[str]]]) -> Callable[[Outcome], None]:
        """What to call with what became of a push."""
        entries = {entry.id: entry for entry, _ in group}
        count = sum(len(consumers) for _, consumers in group)
        return self._guarded(functools.partial(self._pushed, entries, count))

    # On the channel's thread, and on the data-sending one

    def arrived(self, arrivals: Sequence[Arrived]) -> None:
        """Objects of other parties have come."""
        large: list[Key] = []
        with self._lock:
            if self._over:
                return
            self._moves += 1
            for key, small in arrivals:
                entry = self._expected.get(key)
                if entry is None:
                    continue
                if small is not None:
                    entry.small = small
                    self._came(entry)
                else:
                    large.append(key)
            self._changed.notify_all()
        for key in large:
            self._take(key)
        self.submit_ready()

    def _take(self, key: Key) -> None:
        taking = self._proxies.take(key)
        with self._lock:
            if key not in self._expected:
                return
            self._taking[key] = taking
        # What becomes possible by it is not to be submitted on the runtime's thread.
        self._watch(taking.done, lambda outcome: self._desk.soon(functools.partial(self._took, key, taking, outcome)))

    def _took(self, key: Key, taking: Submission, outcome: Outcome) -> None:
        with self._lock:
            if self._over or self._taking.get(key) is not taking:
                return
            del self._taking[key]
            if _is_lost(outcome):
                # A receiver that was killed was asked in vain, and the one in its place tells of the object again.
                return
            self._moves += 1
            entry = self._expected.get(key)
            if entry is None:
                return
            if outcome.fault is not None:
                self._not_coming(entry, self._proxy_failed(outcome.fault))
            elif outcome.value is not None:
                failure = self._desk.new_failure(outcome.value, "", entry.id.sequence)
                self._not_coming(entry, failure)
            else:
                (entry.ref,) = taking.results
                self._came(entry)
            self._changed.notify_all()
            came = entry.state == READY
        if came:
            self._proxies.direct.arrivals.confirm([key])
        self.submit_ready()

    def _came(self, entry: Entry) -> None:
        """An object of another party is here. The lock is held."""
        self._expected.pop(Key(entry.party, entry.id), None)
        self._finish(self._ready(entry))
        self._apply(self._flow.arrived(entry))

    def _not_coming(self, entry: Entry, failure: Failure) -> None:
        """An object of another party will never be here. The lock is held."""
        self._moves += 1
        key = Key(entry.party, entry.id)
        self._expected.pop(key, None)
        self._taking.pop(key, None)
        self._given_up.append(key)
        self._finish(self._fail(entry, failure, None))
        self._apply(self._flow.failed(entry, _inherited(failure, None)))
        self._learn_inherited(failure)

    # On the runtime's callback thread, and on the channel's

    def _watch(self, done: Ref, handle: Callable[[Outcome], None]) -> None:
        self._runtime.watch(done, self._guarded(handle))

    def _guarded(self, handle: Callable[[Outcome], None]) -> Callable[[Outcome], None]:
        """A callback that may raise: whoever waits for what it was to do is let go with the job [E18]."""

        def guarded(outcome: Outcome) -> None:
            try:
                handle(outcome)
            except Exception as error:
                logger.exception("a callback of party %r raised", self._party)
                with self._lock:
                    fault = Fault(Kind.INTERNAL, type(error).__name__, message=text_of(error))
                    self._desk.learn(self._desk.new_failure(fault))

        return guarded

    def _task_done(self, task: _Task, outcome: Outcome) -> None:
        with self._lock:
            if self._over:
                return
            self._moves += 1
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
            self._finish([task])
            self._changed.notify_all()

    def _pushed(self, entries: Mapping[ObjectId, Entry], count: int, outcome: Outcome) -> None:
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
            self._changed.notify_all()

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
            if task.failed is None or task.is_killed_construction:
                for entry in task.results:
                    finishing += self._ready(entry)
                continue
            failure, cause = self._failure_of(task, task.failed)
            for entry in task.results:
                finishing += self._fail(entry, failure, cause)

    def _ready(self, entry: Entry) -> list[_Task]:
        """An object is there. Returns the failed tasks that are thereby decided."""
        if entry.state != PENDING:
            # The construction of an actor that was killed meanwhile.
            return []
        entry.state, entry.task = READY, None
        consumers, entry.consumers = entry.consumers, ()
        if consumers:
            self._post_pushes(entry, consumers)
        return self._decided(entry)

    def _fail(self, entry: Entry, failure: Failure, cause: BaseException | None) -> list[_Task]:
        """An object will never be. Returns the failed tasks that are thereby decided."""
        entry.state, entry.failure, entry.cause, entry.task = FAILED, failure, cause, None
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
        # What cannot be decoded is no failure of the task's.
        label = "" if fault.kind is Kind.DELIVERY else task.label
        failure = self._desk.new_failure(fault, label, task.sequence)
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


def _origin(entry: Entry) -> str:
    return f"object {entry.id} from party {entry.party!r}"


def _passed(entry: Entry, arriving: list[tuple[int, str]], position: int) -> Any:
    """What the runtime is given for an object: a reference, or what came as it came, which is noted."""
    if entry.ref is None and entry.small is not None:
        arriving.append((position, _origin(entry)))
        return entry.small.to_bytes()
    return entry.ref


def _inherited(failure: Failure, cause: BaseException | None) -> Outcome:
    """The end of a task of which an argument has failed."""
    return Outcome(None, Fault(failure.kind, failure.type_name, inherited=failure), cause)


def _refused(error: BaseException) -> Outcome:
    """The end of a task that could not be submitted."""
    return Outcome(None, Fault(Kind.TASK, type(error).__name__, message=text_of(error)), error)


def _killed(actor: Actor) -> Outcome:
    """The end of a call of an actor that was killed before that."""
    return _dead(f"actor {actor.label} was killed")


def _dead(text: str) -> Outcome:
    error = ActorKilledError(text)
    return Outcome(None, Fault(Kind.ACTOR_DIED, "ActorDiedError", message=str(error)), error)


def _deliveries(group: Iterable[tuple[Entry, Iterable[str]]]) -> list[Delivery]:
    return [Delivery(entry.id, tuple(consumers)) for entry, consumers in group]


def _outcome(answer: concurrent.futures.Future[Any]) -> Outcome:
    """How what the sender was asked for over the direct channel ended."""
    error = answer.exception()
    if error is None:
        return Outcome(answer.result(), None, None)
    return Outcome(None, Fault(Kind.INTERNAL, type(error).__name__, message=text_of(error)), error)


def _is_lost(outcome: Outcome) -> bool:
    return outcome.fault is not None and outcome.fault.kind is Kind.OBJECT_LOST
