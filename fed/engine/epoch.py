"""The calls of one epoch in one party.

A job that is reset begins a new one of these and forgets the old: whatever still comes of an old call finds an epoch
that is over, and changes nothing [E23, E30].

What a call asks of this party its parts do: `fed.engine.dataflow` submits tasks when what they need is here,
`fed.engine.arrivals` waits for objects of other parties, and `fed.engine.results` keeps the states of objects and sends
those that others need. All is guarded by the job's lock, which is taken for moments, to change states and to post to
queues.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from fed.core.failure import Failure, Fault, Kind
from fed.core.plan import Plan, Step
from fed.core.stall import MAX_SHOWN, PartyStatus, Wait
from fed.engine.arrivals import Arrivals
from fed.engine.dataflow import Submitter
from fed.engine.records import PENDING, Actor, Entry, GetWait, Task
from fed.engine.results import Results
from fed.engine.services import EpochState, JobServices
from fed.errors import FedTimeoutError, UsageError
from fed.object import FedObject, ObjectId
from fed.proxy.deliveries import refusal
from fed.runtime.arguments import Nested, Packed, Shape
from fed.runtime.contract import ActorBody, Body, Call, FetchFailed, Proxies, Runtime, Submission, TaskBody
from fed.serde.contract import DecodeError, EncodeError
from fed.serde.receipt import SmallCodec

__all__ = ["Epoch"]


class Epoch:
    """One epoch.

    Attributes:
        number: Which, from 0.
        results: The states of its objects.
        arrivals: What it waits for from other parties.

    Args:
        number: Which, from 0.
        party: This party.
        parties: All parties, in the order that is equal everywhere.
        isolate: Whether failed tasks leave the job running.
        codec: Reads small values.
        runtime: Where tasks run.
        proxies: The way to the other parties.
        job: The job.
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
        job: JobServices,
    ) -> None:
        self.number = number
        self._codec = codec
        self._runtime = runtime
        self._job = job
        self._lock = job.lock
        self._plan = Plan(party, parties, number)
        # A value that cannot cross is a failure that is isolated: then its owner must not go on with it alone.
        self._checks_values = isolate and len(parties) > 1
        self._state = EpochState(number, party, runtime, proxies, job, isolate=isolate)
        self.results = Results(self._state)
        self._submitter = Submitter(self._state, self.results)
        self.arrivals = Arrivals(self._state, self.results, self._submitter)
        # What a `fed.get` in progress wants.
        self._wanted: Sequence[Entry] = ()

    @property
    def calls(self) -> int:
        """How many calls have been numbered."""
        return self._plan.calls

    @property
    def running(self) -> int:
        """How many tasks of this party have not ended."""
        return len(self.results.tasks)

    @property
    def undelivered(self) -> int:
        """How many results are on their way to other parties."""
        return self.results.pushing

    @property
    def expected(self) -> int:
        """How many objects of other parties are waited for."""
        return len(self.arrivals.expected)

    @property
    def being_submitted(self) -> int:
        """How many tasks are being handed to the runtime."""
        return self._submitter.being_submitted

    @property
    def moves(self) -> int:
        """A number that grows with each call, each end of a task, each arrival and each delivery."""
        return self._state.moves

    def note_move(self) -> None:
        """The driver has come to wait. With the lock."""
        self._state.moves += 1

    def standing(self, *, idle: bool, untold: int) -> PartyStatus:
        """What this party is at. With the lock.

        Args:
            idle: Whether the driver waits in a fed call.
            untold: Failures and the like that are on their way to other parties.
        """
        running: list[Task] = []
        waiting: list[tuple[int, Wait]] = []
        for task in self.results.tasks.values():
            pending = next((used for used in task.uses if used.state == PENDING), None)
            before = self._submitter.table.held_up_by(task.sequence)
            if pending is not None:
                waiting.append((task.sequence, Wait(task.label, pending.label, pending.party)))
            elif before is not None:
                waiting.append((task.sequence, Wait(task.label, self.results.tasks[before].label, self._state.party)))
            else:
                running.append(task)
        # The wanted ones after the tasks: what the driver wants, it has called for before.
        wanted = [entry for entry in self._wanted if entry.state == PENDING]
        waiting += [(self._plan.calls, Wait("fed.get", entry.label, entry.party)) for entry in wanted]
        shown = heapq.nsmallest(MAX_SHOWN, running, key=lambda task: task.sequence)
        return PartyStatus(
            moves=self._state.moves,
            idle=idle,
            running=len(running),
            in_flight=self.results.pushing + untold,
            waiting=len(waiting),
            tasks=tuple(f"{task.label}{task.held_up and f' as soon as it gets {task.held_up}'}" for task in shown),
            waits=tuple(wait for _, wait in heapq.nsmallest(MAX_SHOWN, waiting)),
        )

    def look_for_room(self) -> None:
        """Note what of the cluster submitted tasks cannot get. Without the lock, since the cluster may be asked."""
        with self._lock:
            tasks = [task for task in self.results.tasks.values() if task.done is not None and task.body is not None]
            submitted = [(task.body, task.actor and task.actor.handle) for task in tasks if task.body is not None]
        for task, text in zip(tasks, self._runtime.held_up(submitted), strict=True):
            task.held_up = text

    @property
    def drained(self) -> bool:
        """Whether every task here has ended, and everything that was to come or go has."""
        return not (self.running or self.undelivered or self.expected)

    def validate(self) -> None:
        """Check the laws of the table. With the lock. Raises RuntimeError where one is broken."""
        self._submitter.table.validate()

    def end(self) -> None:
        """The next epoch has begun: nothing that still comes of this one counts. With the lock."""
        self._state.over = True
        self.results.clear()
        self._submitter.clear()
        self.arrivals.clear()

    def abort(self, root: Failure) -> None:
        """The job has failed: nothing that waits goes on, and nothing is submitted any more. With the lock."""
        if self._state.aborted is None and not self._state.over:
            self._state.aborted = root
            self.arrivals.give_up_all(root)

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
            self._job.note(f"fed.kill(actor {actor.name})")
            self._state.moves += 1
            if step.here and not actor.killed:
                actor.killed = True
                self._submitter.kill(actor)
            handle = actor.handle
        self._job.raise_if_latched()
        if step.here and handle is not None:
            self._runtime.kill(handle)
        self.arrivals.submit_ready()

    def get(self, objects: Sequence[FedObject[Any]], timeout_s: float | None) -> list[Any]:
        """The values of objects, in every party.

        Raises:
            TaskError: The task of one failed.
            FedTimeoutError: Not all were there in time.
        """
        entries = [self._entry(handle) for handle in objects]
        step = self._plan.get(entries)
        with self._lock:
            self._job.note(f"fed.get({', '.join([str(entry.id) for entry in entries])})")
            self._state.moves += 1
        self._advance(step, entries)
        wait = GetWait()
        with self._lock:
            for entry in set(entries):
                if entry.state == PENDING:
                    entry.wait = wait
                    wait.left += 1
            self._wanted = entries
        try:
            self._job.wait(lambda: wait.left == 0, timeout_s)
        finally:
            self._wanted = ()
        with self._lock:
            missing = next((handle for handle in objects if handle._entry.state == PENDING), None)
            position, failed = next(
                ((position, entry) for position, entry in enumerate(entries) if entry.failure is not None), (0, None)
            )
        # A failure that leaves the job running all parties see, also one whose driver wakes late: others may have left
        # because of it by then.
        if missing is not None or failed is None or not self._survivable(failed.failure):
            self._job.raise_if_latched()
        if missing is not None:
            raise FedTimeoutError(f"fed.get: {missing!r} did not arrive within {timeout_s:g} s")
        if failed is not None and failed.failure is not None:
            if self._checks_values:
                # What comes first is what all parties raise, and what cannot cross is found by fetching it.
                self._fetch(entries[:position])
            self._job.raise_failure(failed.failure, failed.cause)
        return self._fetch(entries)

    def _survivable(self, failure: Failure | None) -> bool:
        return self._state.isolate and failure is not None and failure.kind.symmetric

    def _fetch(self, entries: Sequence[Entry]) -> list[Any]:
        """What is small this party reads too, its own as well, so that all parties get equal values."""
        stored = [entry for entry in entries if entry.small is None]
        try:
            fetched = iter(self._runtime.fetch([entry.ref for entry in stored]) if stored else ())
            values = []
            for entry in entries:
                value = next(fetched) if entry.small is None else self._codec.read(entry.small)
                if self._checks_values and entry.small is None and entry.party == self._state.party:
                    self._check_serializable(entry, value)
                values.append(value)
            return values
        except FetchFailed as error:
            # It was there and is lost; the others still have it, so this party alone cannot go on.
            entry, label = stored[error.position], stored[error.position].label
            fault, cause = error.fault, error.cause
            if fault.kind is Kind.UNSERIALIZABLE:
                # It cannot be read anywhere, and the others are told so.
                self._raise_refused(entry, fault, cause)
        except DecodeError as error:
            detail, label = f"{entry.origin} cannot be decoded", ""
            fault, cause = Fault(Kind.DELIVERY, type(error).__name__, detail=detail, message=str(error)), error
        with self._lock:
            failure = self._job.new_failure(fault, label, entry.id.sequence)
            self._job.learn(failure, cause=cause, ends_job=True)
        self._job.raise_if_latched()
        raise RuntimeError("a lost value did not end the job")

    def _check_serializable(self, entry: Entry, value: Any) -> None:
        try:
            self._codec.check(value)
        except EncodeError as error:
            self._raise_refused(entry, refusal(error), None)

    def _raise_refused(self, entry: Entry, fault: Fault, cause: BaseException | None) -> NoReturn:
        with self._lock:
            failure = self.results.refuse(entry, fault, cause)
        # Unless failures are isolated it has ended the job.
        self._job.raise_if_latched()
        self._job.raise_failure(failure, cause)

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
        uses = [self._entry(handle) for handle in packed.objects]
        suffix = "" if returns == 1 else f" -> {returns}"
        text = f"{label}.party({party!r}).remote({_arguments_text(packed)}){of}{suffix}"
        step = self._plan.task(party, uses)
        with self._lock:
            stamp = self._job.note(text)
            self._state.moves += 1
        self._advance(step, uses)
        named = f"#{step.sequence} {label}"
        made = tuple(
            Entry(self._state, ObjectId(self.number, step.sequence, slot, stamp), party, named)
            for slot in range(returns)
        )
        if step.here:
            if actor is not None and actor.construction is None:
                (actor.construction,) = made
            elif actor is not None and actor.construction is not None and actor.construction.epoch is self._state:
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

            # The job may have latched while the call was prepared [E21].
            self._job.raise_if_latched()
            self._submitter.start(Task(step.sequence, named, made, uses, submit_call, actor), given, body)
            self.arrivals.submit_ready()
        return tuple(FedObject(entry.id, party, label, entry) for entry in made)

    def _entry(self, handle: FedObject[Any]) -> Entry:
        entry: Entry = handle._entry
        if entry.epoch is not self._state:
            raise UsageError(f"{handle!r} belongs to an earlier job or epoch, and its value is gone")
        return entry

    def _advance(self, step: Step, uses: Sequence[Entry]) -> None:
        """Carry out what a call asks of this party besides running the task."""
        if step.receives:
            self.arrivals.expect([uses[position] for position in step.receives])
            self.arrivals.submit_ready()
        if step.pushes:
            needed: dict[Entry, tuple[str, ...]] = {}
            for position, consumer in step.pushes:
                needed[uses[position]] = (*needed.get(uses[position], ()), consumer)
            with self._lock:
                for entry, consumers in needed.items():
                    self.results.need(entry, consumers)


def _arguments_text(packed: Packed) -> str:
    """What of the arguments must be equal in all parties: their number and names, and the fed objects among them."""
    texts = [
        str(value.id) if type(value) is FedObject else "[...]" if type(value) is Nested else "_"
        for value in packed.values
    ]
    first = len(texts) - len(packed.keywords)
    for place, name in enumerate(packed.keywords, start=first):
        texts[place] = f"{name}={texts[place]}"
    inside = f" with {', '.join([str(handle.id) for handle in packed.extras])} inside" if packed.extras else ""
    return ", ".join(texts) + inside


def _passed(entry: Entry, arriving: list[tuple[int, str]], position: int) -> Any:
    """What the runtime is given for an object: a reference, or what came as it came, which is noted."""
    if entry.ref is None and entry.small is not None:
        arriving.append((position, entry.origin))
        return entry.small.to_bytes()
    return entry.ref
