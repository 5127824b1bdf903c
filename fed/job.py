"""One job in one party: the pure core, the runtime and the threads, wired together.

Threads, and what each may do:

- the *driver* thread, the user's: fed calls. It submits work and waits on one condition; it never blocks in the
  runtime, so that a failure can always wake it.
- the runtime's callback thread: `_task_done`, `_received` and `_pushed` change states and post to queues. They hold
  the lock for moments, call nothing that blocks, and so cannot stall the runtime.
- the *data-sending* thread: pushes results that are ready, confirms arrivals, listens to what peers tell.
- the *error-queue* thread: tells peers of failures, apart from data.
- the *cleanup* thread: see `fed.cleanup`.

One lock guards all states. Nothing is called under it but the pure core and posts to queues, none of which block
or take another lock, so there is no order of locks to keep.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import importlib.metadata
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fed.cleanup import CleanupManager, FailureReport, run_steps
from fed.config import Config
from fed.core.failure import Exposure, Failure, FailureBook, Fault, Kind
from fed.core.lifecycle import Lifecycle, State
from fed.core.notice import Notice, NoticeKind
from fed.core.plan import Plan, PlannedObject, Step
from fed.core.rendezvous import Key
from fed.errors import ConfigError, FailureError, FedTimeoutError, InitError, UsageError
from fed.object import FedObject, ObjectId
from fed.proxy.receiver import PeerEvent, PeerEventKind
from fed.proxy.sender import Delivery
from fed.raising import RemoteTraceback, aborted, error_of, init_error
from fed.runtime.arguments import PLAIN, Packed, Shape
from fed.runtime.body import text_of
from fed.runtime.contract import ActorBody, Call, Outcome, Proxies, Ref, Runtime, TaskBody
from fed.sending import QueueThread
from fed.transport.contract import PROTOCOL_VERSION, Hello, LinkStatistics

__all__ = ["Entry", "Job", "JobStatistics", "hello_of"]

logger = logging.getLogger("fed")

SETTLE_S: Final = 0.01
"""How long after the first failure a simultaneous one elsewhere may still become the root: a few round trips."""

TELL_S: Final = 5.0
"""How long the error queue tries to tell a peer of a failure."""

FAREWELL_S: Final = 2.0
"""How long a party that leaves because of a failure waits for the others to have heard it."""

START_S: Final = 60.0
"""How long the proxies may take to start; a Ray worker takes about a second."""

STOP_S: Final = 5.0
"""How long a thread or proxy may take to end."""

PUSH_BATCH: Final = 64
"""Results that are ready together travel to the sender in calls of up to this many: Ray's cost is per call."""

PENDING: Final = 0
READY: Final = 1
FAILED: Final = 2


class Entry(PlannedObject):
    """The job's record of one object, owned by the user's handle.

    Attributes:
        label: The call that makes it, for people.
        state: PENDING, READY or FAILED; leaves PENDING once [E12].
        ref: Where this party has it, or will; None where it does not need it.
        failure: Why there is no value, in FAILED.
        consumers: Parties to push it to as soon as it is READY.
        dependents: Failed tasks that wait for this state, to know whether they failed because of it.
        wait: The `fed.get` that waits for it.
        job: The job that it belongs to.
    """

    __slots__ = ("consumers", "dependents", "failure", "job", "label", "ref", "state", "wait")

    def __init__(self, job: Job, object_id: ObjectId, party: str, label: str) -> None:
        super().__init__(object_id, party)
        self.job = job
        self.label = label
        self.state = PENDING
        self.ref: Ref = None
        self.failure: Failure | None = None
        self.consumers: tuple[str, ...] = ()
        self.dependents: list[_Task] = []
        self.wait: _Wait | None = None


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


class _Push(NamedTuple):
    """For the data-sending thread: an object that is ready, and a party that needs it."""

    entry: Entry
    consumer: str


class _Events(NamedTuple):
    """For the data-sending thread: what peers told."""

    outcome: Outcome


class _Confirm(NamedTuple):
    """For the data-sending thread: something has arrived and is to be confirmed soon."""


class _Tell(NamedTuple):
    """For the error-queue thread: something to tell a peer."""

    peer: str
    kind: NoticeKind
    failure: Failure | None
    objects: tuple[ObjectId, ...]


class _Told(NamedTuple):
    """For the error-queue thread: a peer has taken what it was told last, or never will."""

    peer: str


@dataclasses.dataclass(frozen=True)
class JobStatistics:
    """What one party did in one job so far.

    Attributes:
        calls: Fed calls numbered.
        objects_sent: Objects that left this party, by peer.
        bytes_sent: Their size in bytes, by peer.
        seconds: Since the job had been joined.
    """

    calls: int
    objects_sent: Mapping[str, int]
    bytes_sent: Mapping[str, int]
    seconds: float


def hello_of(config: Config, incarnation: str) -> Hello:
    """How a party greets the others."""
    return Hello(
        protocol=PROTOCOL_VERSION,
        version=importlib.metadata.version("fedray"),
        job=config.job,
        party=config.party,
        incarnation=incarnation,
        parties=config.parties,
        types=tuple(sorted(f"{one.__module__}.{one.__qualname__}" for one in config.types)),
        exceptions=tuple(sorted(one.__name__ for one in config.exceptions)),
    )


class Job:
    """One job in one party, from joining to the end.

    Args:
        config: The options.
        runtime: Where tasks run.
        incarnation: One life of this driver, as greeted.
    """

    def __init__(self, config: Config, runtime: Runtime, incarnation: str | None = None) -> None:
        self.config = config
        self.party = config.party
        self._incarnation = incarnation or new_incarnation()
        self._runtime = runtime
        self._proxies: Proxies | None = None
        self._thread = threading.get_ident()
        # Entered as itself and not through the condition: that is one step, between which no Ctrl-C can fall.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._plan = Plan(config.party, config.parties)
        self._life = Lifecycle(config.peers)
        self._book = FailureBook()
        self._root_error: FailureError | None = None
        self._causes: dict[str, BaseException] = {}
        self._raised: set[str] = set()
        self._failure_count = 0
        self._disagreed: dict[str, str] = {}
        self._tasks: set[_Task] = set()
        self._constructing: dict[int, _Task] = {}
        self._receiving: set[Entry] = set()
        self._pushing = 0
        self._telling = 0
        # These two belong to the error-queue thread.
        self._untold: dict[str, list[_Tell]] = {}
        self._being_told: set[str] = set()
        self._unconfirmed: list[Key] = []
        self._joined_at = 0.0
        self._refused = False
        self._in_haste = False
        self._leave_by = 0.0
        # What is left to do of the shutdown; an interrupted one is finished by the next call.
        self._steps: collections.deque[tuple[str, Callable[[], object]]] = collections.deque()
        self._last_statistics: Mapping[str, LinkStatistics] = {}
        self._exposure = _exposures(config)
        self._cleanup = CleanupManager(config.party, SETTLE_S, self._settle, config.failure_handler)
        self._data: QueueThread[_Push | _Events | _Confirm] = QueueThread(
            f"fed-{config.party}-data", self._handle_data, self._thread_failed, idle=self._flush_confirmations
        )
        self._errors: QueueThread[_Tell | _Told] = QueueThread(
            f"fed-{config.party}-errors", self._handle_errors, self._thread_failed
        )

    # Joining

    def join(self) -> None:
        """Start the runtime and the proxies, and return when every party is ready.

        Raises:
            ConfigError: The port is taken, or this party's credentials are wrong.
            InitError: A party refused, failed, or was not ready in time.
        """
        try:
            self._join()
        except BaseException as error:
            self.close(error)
            raise

    def _join(self) -> None:
        self._proxies = self._runtime.start()
        deadline = time.monotonic() + START_S
        self._listen()
        trouble = self._result_of(self._proxies.started(), deadline, "the proxies to start")
        if trouble is not None:
            raise ConfigError(trouble)
        timeout_s = self.config.init_timeout_s
        deadline = time.monotonic() + timeout_s
        joining = self._proxies.connect(timeout_s)
        connected: list[Outcome] = []
        self._runtime.watch(joining, functools.partial(self._note, connected))
        self._log_event("waiting", {"for": list(self.config.peers)})
        with self._lock:
            # A little beyond the budget, which the sender keeps, and which then knows what it last heard.
            self._changed.wait_for(lambda: connected or self._join_failed(), timeout_s + STOP_S)
        self._raise_if_join_failed(connected)
        with self._lock:
            for peer in self.config.peers:
                self._tell(peer, NoticeKind.READY)
        while True:
            with self._lock:
                awaited = self._life.awaited
                self._changed.wait_for(
                    lambda known=awaited: self._life.awaited != known or self._join_failed(),  # type: ignore[misc]
                    0 if not awaited else max(0.0, deadline - time.monotonic()),
                )
                still = self._life.awaited
                failed = self._join_failed()
            if failed:
                self._raise_if_join_failed(connected)
            if not still:
                break
            if time.monotonic() >= deadline:
                raise init_error(dict.fromkeys(still, "it is reached, but has not finished its own start"), timeout_s)
            self._log_event("waiting", {"for": list(still)})
        with self._lock:
            self._life.joined()
        self._joined_at = time.monotonic()
        self._log_event("joined", {})

    def _join_failed(self) -> bool:
        return bool(self._disagreed or self._life.quitters) or self._init_failure() is not None

    def _init_failure(self) -> Failure | None:
        """A failure that keeps the job from starting. A task that failed in a party that was quicker does not."""
        return next((failure for failure in self._book.all if failure.kind in (Kind.INIT, Kind.INTERNAL)), None)

    def _raise_if_join_failed(self, connected: Sequence[Outcome]) -> None:
        if self._disagreed:
            self._refused = True
            raise init_error(self._disagreed)
        outcome = connected[0] if connected else None
        problems = outcome.value if outcome is not None and outcome.fault is None else None
        if problems:
            final = any(problem.final for problem in problems)
            self._refused = final
            raise init_error(
                {problem.peer: problem.reason for problem in problems if problem.final or not final},
                None if final else self.config.init_timeout_s,
            )
        failed = self._init_failure()
        if failed is not None:
            raise init_error({failed.src_party: f"its own start failed ({failed.type_name}); its output says why"})
        if self._life.quitters:
            raise init_error(dict.fromkeys(self._life.quitters, "it left before the job started"))
        if problems is None:
            fault = outcome.fault if outcome is not None else None
            raise InitError(f"the sender proxy did not start: {fault.message if fault else 'no answer'}")

    # Fed calls

    def run(self, body: TaskBody, party: str, packed: Packed, returns: int) -> tuple[FedObject[Any], ...]:
        """A call of a function."""
        return self._call(body.name, party, packed, returns, lambda call: self._runtime.submit(body, call))

    def create(self, body: ActorBody, party: str, packed: Packed) -> Any:
        """The creation of an actor. Returns the runtime's actor in its own party, None elsewhere."""
        created: list[Any] = []

        def submit(call: Call) -> Any:
            actor, done = self._runtime.create(body, call)
            created.append(actor)
            return (), done

        self._call(f"{body.name}.__init__", party, packed, 1, submit, results=0)
        if not created:
            return None
        with self._lock:
            # None if it is made already, or has failed.
            task = next((one for one in self._tasks if one.sequence == self._plan.calls - 1), None)
            if task is not None:
                task.actor = id(created[0])
                self._constructing[task.actor] = task
        return created[0]

    def call(
        self, actor: Any, label: str, method: str, party: str, packed: Packed, returns: int, options: Mapping[str, Any]
    ) -> tuple[FedObject[Any], ...]:
        """A call of an actor's method."""
        return self._call(label, party, packed, returns, lambda call: self._runtime.call(actor, method, call, options))

    def kill(self, actor: Any, party: str) -> None:
        """The end of an actor."""
        self.check_party(party)
        step = self._plan.task(party, ())
        if step.here:
            with self._lock:
                task = self._constructing.pop(id(actor), None)
                if task is not None:
                    task.killed = True
            self._runtime.kill(actor)

    def get(self, objects: Sequence[FedObject[Any]], timeout_s: float | None) -> list[Any]:
        """The values of objects, in every party.

        Raises:
            TaskError: The task of one failed.
            FedTimeoutError: Not all were there in time.
        """
        entries = [self._entry(one) for one in objects]
        self._advance(self._plan.get(entries), entries)
        with self._lock:
            wait = _Wait()
            for entry in set(entries):
                if entry.state == PENDING:
                    entry.wait = wait
                    wait.left += 1
            limit_s = None if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX)
            self._changed.wait_for(lambda: wait.left == 0 or self._life.latched, limit_s)
            missing = next((one for one in objects if one._entry.state == PENDING), None)
        self._raise_if_latched()
        if missing is not None:
            raise FedTimeoutError(f"fed.get: {missing!r} did not arrive within {timeout_s:g} s")
        for entry in entries:
            if entry.state == FAILED and entry.failure is not None:
                raise self._error(entry.failure)
        return self._runtime.fetch([entry.ref for entry in entries])

    def check_party(self, party: str) -> None:
        """Refuse a call that this job cannot make.

        Raises:
            UsageError: Wrong thread, no such party, or the job is over.
            FailureError: The job is latched.
        """
        self.check_thread()
        self._raise_if_latched()
        if not self._life.accepts_work:
            raise UsageError(f"the job {self.config.job!r} is over: call fed.init() again")
        if party not in self.config.addresses:
            raise UsageError(
                f"no party {party!r} in job {self.config.job!r}: there are {', '.join(self.config.parties)}"
            )

    def check_thread(self) -> None:
        """Refuse a call from a thread that is not the job's.

        Raises:
            UsageError: It is not.
        """
        if threading.get_ident() != self._thread:
            raise UsageError(
                "fed calls come from the one thread that called fed.init: in another thread their order would differ "
                "between the parties"
            )

    def statistics(self) -> JobStatistics:
        """What this party did so far."""
        if self._proxies is not None and self._life.state is not State.CLOSED:
            self._last_statistics = self._result_of(
                self._proxies.statistics(), time.monotonic() + STOP_S, "the sender proxy"
            )
        links = self._last_statistics
        return JobStatistics(
            calls=self._plan.calls,
            objects_sent={peer: one.parcels_sent for peer, one in links.items()},
            bytes_sent={peer: one.bytes_sent for peer, one in links.items()},
            seconds=time.monotonic() - self._joined_at if self._joined_at else 0.0,
        )

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Every failure known so far."""
        with self._lock:
            return self._book.all

    def validate(self) -> None:
        """Check the laws of the core. Raises RuntimeError where one is broken."""
        with self._lock:
            self._book.validate()
            self._life.validate()

    def _call(
        self,
        label: str,
        party: str,
        packed: Packed,
        returns: int,
        submit: Callable[[Call], Any],
        *,
        results: int | None = None,
    ) -> tuple[FedObject[Any], ...]:
        uses = [self._entry(one) for one in packed.objects]
        step = self._plan.task(party, uses)
        self._advance(step, uses)
        named = f"#{step.sequence} {label}"
        made = tuple(
            Entry(self, ObjectId(self._plan.epoch, step.sequence, slot), party, named)
            for slot in range(returns if results is None else results)
        )
        if step.here:
            values = tuple(value._entry.ref if type(value) is FedObject else value for value in packed.values)
            extras = tuple(one._entry.ref for one in packed.extras)
            shape = Shape(packed.keywords, len(extras), returns)
            call = Call((*values, *extras), None if shape == PLAIN else shape)
            self._start(_Task(step.sequence, named, made, uses), lambda: submit(call))
        return tuple(FedObject(entry.id, party, label, entry) for entry in made)

    def _start(self, task: _Task, submit: Callable[[], Any]) -> None:
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
        self._runtime.watch(task.done, functools.partial(self._task_done, task))

    def _entry(self, one: FedObject[Any]) -> Entry:
        entry: Entry = one._entry
        if entry.job is not self or entry.id.epoch != self._plan.epoch:
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
            with self._lock:
                for position, consumer in step.pushes:
                    self._need(uses[position], consumer)

    def _receive(self, entries: list[Entry]) -> None:
        proxies = self._running_proxies()
        limit = self.config.max_pending_receives
        with self._lock:
            # Waits for earlier objects only, whose tasks do not depend on later ones, so this cannot deadlock.
            self._changed.wait_for(
                lambda: not self._receiving or len(self._receiving) + len(entries) <= limit or self._life.latched
            )
            confirmed, self._unconfirmed = self._unconfirmed, []
        self._raise_if_latched()
        keys = [Key(entry.party, entry.id) for entry in entries]
        submission = proxies.receive(keys, confirmed)
        with self._lock:
            for entry, ref in zip(entries, submission.results, strict=True):
                entry.ref = ref
                self._receiving.add(entry)
        self._runtime.watch(submission.done, functools.partial(self._received, entries, submission.done))

    def _need(self, entry: Entry, consumer: str) -> None:
        """A party needs an object of this one. The lock is held."""
        if entry.state == READY:
            self._post_push(entry, consumer)
        elif entry.failure is not None:
            self._tell(consumer, NoticeKind.FAILURE, entry.failure, (entry.id,))
        else:
            entry.consumers = (*entry.consumers, consumer)

    def _post_push(self, entry: Entry, consumer: str) -> None:
        self._pushing += 1
        self._data.post(_Push(entry, consumer))

    def _raise_if_latched(self) -> None:
        if not self._life.latched:
            return
        with self._lock:
            self._changed.wait_for(lambda: self._root_error is not None)
            first = self._life.tell()
        if self._root_error is None or not first:
            raise aborted(self._book.settle())
        raise self._root_error

    def _running_proxies(self) -> Proxies:
        if self._proxies is None:
            raise UsageError("the job has not started")
        return self._proxies

    # On the runtime's callback thread

    def _task_done(self, task: _Task, outcome: Outcome) -> None:
        with self._lock:
            if outcome.fault is not None:
                task.failed = outcome
                undecided = [entry for entry in set(task.uses) if entry.state == PENDING and entry.ref is not None]
                if undecided and outcome.fault.inherited is None:
                    # Whether it failed by itself or because of an argument is known when the argument is.
                    task.undecided = len(undecided)
                    for entry in undecided:
                        entry.dependents.append(task)
                    return
            self._finish([task])
            self._changed.notify_all()

    def _received(self, entries: list[Entry], done: Ref, outcome: Outcome) -> None:
        with self._lock:
            failures: Sequence[Failure | None]
            if outcome.fault is not None:
                failures = [self._proxy_failure(outcome.fault)] * len(entries)
            else:
                failures = outcome.value
            for entry, failure in zip(entries, failures, strict=True):
                self._receiving.discard(entry)
                if entry.state != PENDING:
                    continue
                if failure is None:
                    self._finish(self._ready(entry))
                    self._unconfirmed.append(Key(entry.party, entry.id))
                else:
                    self._finish(self._fail(entry, failure))
                    found_here = failure.src_party == self.party or failure.kind is Kind.PARTY_LEFT
                    self._learn(failure, broadcast=found_here)
            if self._unconfirmed:
                self._data.post(_Confirm())
            self._changed.notify_all()

    def _pushed(self, entries: Mapping[ObjectId, Entry], count: int, done: Ref, outcome: Outcome) -> None:
        with self._lock:
            self._pushing -= count
            if outcome.fault is not None:
                if self._life.state is not State.CLOSED:
                    self._learn(self._proxy_failure(outcome.fault), broadcast=True)
            else:
                for undelivered in outcome.value:
                    entry = entries[undelivered.id]
                    failure = undelivered.fault.inherited or self._new_failure(
                        undelivered.fault, entry.label, entry.id.sequence
                    )
                    self._tell(undelivered.consumer, NoticeKind.FAILURE, failure, (entry.id,))
                    self._learn(failure, broadcast=True)
            self._changed.notify_all()

    def _note(self, into: list[Outcome], outcome: Outcome) -> None:
        with self._lock:
            into.append(outcome)
            self._changed.notify_all()

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
            failure = self._failure_of(task) if task.failed is not None and not task.killed else None
            for entry in task.results:
                finishing += self._ready(entry) if failure is None else self._fail(entry, failure)

    def _ready(self, entry: Entry) -> list[_Task]:
        """An object is there. Returns the failed tasks that are thereby decided."""
        entry.state = READY
        consumers, entry.consumers = entry.consumers, ()
        for consumer in consumers:
            self._post_push(entry, consumer)
        return self._decided(entry)

    def _fail(self, entry: Entry, failure: Failure) -> list[_Task]:
        """An object will never be. Returns the failed tasks that are thereby decided."""
        entry.state, entry.failure = FAILED, failure
        consumers, entry.consumers = entry.consumers, ()
        for consumer in consumers:
            self._tell(consumer, NoticeKind.FAILURE, failure, (entry.id,))
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

    def _failure_of(self, task: _Task) -> Failure:
        """The failure of a task: that of an argument where that is why, else a new one, which everybody is told."""
        outcome = task.failed
        fault = outcome.fault if outcome is not None else None
        inherited = fault.inherited if fault is not None else None
        if inherited is None:
            inherited = next((entry.failure for entry in task.uses if entry.failure is not None), None)
        if inherited is not None:
            return inherited if inherited.src_party == self.party else inherited.relayed(self.party)
        failure = self._new_failure(fault or Fault(Kind.INTERNAL, "Unknown"), task.label, task.sequence)
        if outcome is not None and outcome.error is not None:
            cause = outcome.error
            if fault is not None and fault.traceback and cause.__cause__ is None and cause.__traceback__ is None:
                cause.__cause__ = RemoteTraceback(fault.traceback)
            self._causes[failure.error_id] = cause
        self._learn(failure, broadcast=True)
        return failure

    def _proxy_failure(self, fault: Fault) -> Failure:
        """A proxy failed. Whatever it failed of, the other parties do not see the same: that ends the job."""
        return self._new_failure(dataclasses.replace(fault, kind=Kind.INTERNAL), "", -1)

    def _new_failure(self, fault: Fault, label: str, sequence: int) -> Failure:
        self._failure_count += 1
        return Failure.of_fault(
            fault,
            error_id=f"{self.party}/{self._incarnation}/{self._failure_count}",
            party=self.party,
            task=label,
            sequence=sequence,
        )

    def _learn(self, failure: Failure, *, broadcast: bool) -> None:
        """A failure is known. The lock is held."""
        ends_job = self.config.on_error == "abort" or not failure.kind.symmetric
        if not self._book.record(failure, ends_job=ends_job) or not ends_job:
            return
        if broadcast:
            for peer in self._life.present:
                self._tell(peer, NoticeKind.FAILURE, failure)
        if self._life.latch():
            self._cleanup.trigger()
        self._changed.notify_all()

    # On the data-sending thread

    def _handle_data(self, items: list[_Push | _Events | _Confirm]) -> None:
        pushes: dict[ObjectId, tuple[Entry, list[str]]] = {}
        for item in items:
            if isinstance(item, _Push):
                pushes.setdefault(item.entry.id, (item.entry, []))[1].append(item.consumer)
            elif isinstance(item, _Events):
                self._handle_events(item.outcome)
        ready = list(pushes.values())
        for start in range(0, len(ready), PUSH_BATCH):
            self._push(ready[start : start + PUSH_BATCH])

    def _push(self, ready: Sequence[tuple[Entry, list[str]]]) -> None:
        deliveries = [Delivery(entry.id, tuple(consumers)) for entry, consumers in ready]
        done = self._running_proxies().push(deliveries, [entry.ref for entry, _ in ready])
        count = sum(len(consumers) for _, consumers in ready)
        entries = {entry.id: entry for entry, _ in ready}
        self._runtime.watch(done, functools.partial(self._pushed, entries, count, done))

    def _flush_confirmations(self) -> None:
        with self._lock:
            confirmed, self._unconfirmed = self._unconfirmed, []
        if confirmed:
            self._running_proxies().confirm(confirmed)

    def _listen(self) -> None:
        """Ask the receiver for what peers tell next."""
        events = self._running_proxies().events()
        self._runtime.watch(events, lambda outcome: self._data.post(_Events(outcome)))

    def _handle_events(self, outcome: Outcome) -> None:
        if outcome.fault is not None:
            with self._lock:
                if self._life.state not in (State.CLOSING, State.CLOSED):
                    self._learn(self._proxy_failure(outcome.fault), broadcast=True)
            return
        if outcome.value:
            self._listen()
        for event in outcome.value:
            self._handle_event(event)

    def _handle_event(self, event: PeerEvent) -> None:
        with self._lock:
            if event.kind is PeerEventKind.READY:
                self._life.ready(event.peer)
            elif event.kind is PeerEventKind.DISAGREED:
                self._disagreed[event.peer] = event.reason
            elif event.kind is PeerEventKind.FAILURE:
                if event.failure is not None:
                    self._learn(event.failure, broadcast=event.peer == self.party)
            elif self._life.left(event.peer) and event.failure is not None:
                self._learn(event.failure, broadcast=False)
            self._changed.notify_all()
        if event.kind is PeerEventKind.GOODBYE:
            self._running_proxies().forget(event.peer, event.failure)

    def _tell(
        self, peer: str, kind: NoticeKind, failure: Failure | None = None, objects: tuple[ObjectId, ...] = ()
    ) -> None:
        """Queue something to tell a peer. The lock is held."""
        self._telling += 1
        self._errors.post(_Tell(peer, kind, failure, objects))

    # On the error-queue thread

    def _handle_errors(self, items: list[_Tell | _Told]) -> None:
        for item in items:
            if isinstance(item, _Told):
                self._being_told.discard(item.peer)
            else:
                self._untold.setdefault(item.peer, []).append(item)
        # One call at a time for each peer keeps the order, which the runtime does not; peers do not wait for another.
        for peer in [peer for peer in self._untold if peer not in self._being_told]:
            self._tell_peer(peer, self._untold.pop(peer))

    def _tell_peer(self, peer: str, items: list[_Tell]) -> None:
        with self._lock:
            present = peer in self._life.present
            leaving = self._life.state in (State.CLOSING, State.CLOSED)
            in_haste = leaving and (self._life.latched or not self._joined_at)
        notices = [
            Notice(item.kind, self._plan.epoch, item.failure and self._exposed(item.failure, peer), item.objects)
            for item in items
            # Who has said goodbye hears no more of us, but that we leave too: it waits for that.
            if present or item.kind is NoticeKind.GOODBYE
        ]
        if not notices:
            self._told(peer, len(items), None, Outcome({}, None, None))
            return
        done = self._running_proxies().tell({peer: notices}, FAREWELL_S if in_haste else TELL_S)
        self._being_told.add(peer)
        self._runtime.watch(done, functools.partial(self._told, peer, len(items), done))

    def _told(self, peer: str, count: int, done: Ref, outcome: Outcome) -> None:
        reason = outcome.fault.message if outcome.fault is not None else outcome.value.get(peer)
        with self._lock:
            self._telling -= count
            # A peer that has left meanwhile need not be told, and while we leave ourselves it probably has.
            leaving = self._life.state in (State.CLOSING, State.CLOSED)
            matters = reason and peer in self._life.present
            self._changed.notify_all()
        if matters:
            level = logging.DEBUG if leaving else logging.WARNING
            logger.log(level, "party %r could not be told: %s", peer, reason)
        self._errors.post(_Told(peer))

    def _exposed(self, failure: Failure, peer: str) -> Failure:
        """What a peer may see. Text of another party's failure is not ours to pass on [E02]."""
        exposure = self._exposure.get(peer, Exposure.TYPE) if failure.src_party == self.party else Exposure.TYPE
        return failure.redacted(exposure)

    def _thread_failed(self, error: Exception) -> None:
        """A queue thread's handler raised: nobody may be left waiting for what it was to do."""
        with self._lock:
            if self._life.state not in (State.CLOSING, State.CLOSED):
                fault = Fault(Kind.INTERNAL, type(error).__name__, message=text_of(error))
                self._learn(self._new_failure(fault, "", -1), broadcast=True)

    # On the cleanup thread

    def _settle(self) -> FailureReport:
        with self._lock:
            root = self._book.settle()
            error = self._error(root)
            self._root_error = error
            report = FailureReport(self.party, root, self._book.all, error)
            self._changed.notify_all()
        if self._proxies is not None:
            self._proxies.abort(root)
        self._log_event("failed", {"root": str(root), "src_party": root.src_party, "error_id": root.error_id})
        return report

    def _error(self, failure: Failure) -> FailureError:
        self._raised.add(failure.error_id)
        return error_of(failure, self.party, self._causes.get(failure.error_id), self.config.exceptions)

    # Leaving

    def close(self, error: BaseException | None = None) -> None:
        """Leave the job, in order, once. Later calls do nothing.

        Args:
            error: What the driver died of. Without one the shutdown is a regular one: it waits until everything
                was delivered, and until the other parties have finished too.

        Raises:
            FailureError: The job failed, and no fed call has raised it yet [E19].
        """
        message = "" if error is None else text_of(error)
        with self._lock:
            joined = self._joined_at > 0
            first = self._life.close()
            if error is not None:
                self._in_haste = True
            if first and error is not None and not self._life.latched:
                kind = Kind.DRIVER if joined else Kind.INIT
                self._learn(
                    self._new_failure(Fault(kind, type(error).__name__, message=message), "", -1), broadcast=False
                )
        if first:
            self._steps.extend(
                [
                    ("drain", self._drain),
                    ("note statistics", self.statistics if joined else _nothing),
                    ("say goodbye", self._say_goodbye),
                    ("end the data-sending thread", lambda: self._data.stop(STOP_S)),
                    ("end the error-queue thread", lambda: self._errors.stop(STOP_S)),
                    ("end the cleanup thread", lambda: self._cleanup.stop(STOP_S)),
                    ("close the proxies", self._close_proxies),
                    ("close the runtime", self._runtime.close),
                    ("report", self._report_closed),
                ]
            )
        raised = run_steps(self._steps, self._hurry)
        for one in raised:
            if not isinstance(one, Exception):
                raise one
        if first and error is None:
            self._raise_untold()
            if raised:
                raise raised[0]

    def _hurry(self) -> None:
        """An interruption during the shutdown: the rest of it waits for nobody."""
        self._in_haste = True

    def _report_closed(self) -> None:
        with self._lock:
            self._life.closed()
        statistics = self._last_statistics.values()
        self._log_event(
            "closed",
            {
                "objects_sent": sum(one.parcels_sent for one in statistics),
                "bytes_sent": sum(one.bytes_sent for one in statistics),
                "seconds": time.monotonic() - self._joined_at if self._joined_at else 0.0,
            },
        )

    def _raise_untold(self) -> None:
        if self._life.latched:
            with self._lock:
                self._changed.wait_for(lambda: self._root_error is not None, STOP_S)
            if self._life.tell() and self._root_error is not None:
                raise self._root_error
            return
        for failure in self._book.all:
            if failure.src_party == self.party and failure.error_id not in self._raised:
                raise self._error(failure)

    def _drain(self) -> None:
        """Wait until every task here has ended and every result that another party needs was delivered."""
        self._leave_by = time.monotonic() + self.config.drain_timeout_s
        with self._lock:
            drained = self._in_haste or self._changed.wait_for(
                lambda: self._life.latched or not (self._tasks or self._pushing or self._receiving),
                self.config.drain_timeout_s,
            )
            running, undelivered = len(self._tasks), self._pushing
        if not drained:
            logger.warning(
                "leaving after %g s (drain_timeout_s) with %d tasks running and %d results undelivered",
                self.config.drain_timeout_s,
                running,
                undelivered,
            )
        self._flush_confirmations()

    def _say_goodbye(self) -> None:
        """Tell everyone, and wait until everyone has said the same: whoever still runs may still fail."""
        if self._proxies is None:
            return
        with self._lock:
            for peer in self.config.peers:
                self._tell(peer, NoticeKind.GOODBYE, self._book.root)
            regular = not self._in_haste and not self._life.latched
            budget_s = max(0.0, self._leave_by - time.monotonic()) if regular else FAREWELL_S
            if self._joined_at or self._refused:
                # One that was refused stays a moment too, or the other would find nobody and never learn why.
                self._changed.wait_for(lambda: not self._life.present or (regular and self._life.latched), budget_s)
            still = self._life.present if regular and not self._life.latched else ()
            self._changed.wait_for(lambda: not self._telling, FAREWELL_S)
        if still:
            logger.warning(
                "left after %g s (drain_timeout_s) although these had not finished: %s",
                self.config.drain_timeout_s,
                ", ".join(still),
            )

    def _close_proxies(self) -> None:
        if self._proxies is not None:
            deadline = time.monotonic() + STOP_S
            for closed in self._proxies.close():
                self._result_of(closed, deadline, "the proxies to close")

    def _result_of(self, ref: Ref, deadline: float, what: str) -> Any:
        """Wait for a proxy's answer, without blocking in the runtime."""
        outcomes: list[Outcome] = []
        self._runtime.watch(ref, functools.partial(self._note, outcomes))
        with self._lock:
            arrived = self._changed.wait_for(lambda: bool(outcomes), max(0.0, deadline - time.monotonic()))
        if not arrived:
            raise InitError(f"party {self.party!r} waited too long for {what}")
        if outcomes[0].fault is not None:
            raise InitError(f"party {self.party!r} waited for {what}: {outcomes[0].fault.message}")
        return outcomes[0].value

    def _log_event(self, event: str, detail: Mapping[str, Any]) -> None:
        logger.info("%s: %s %s", self.party, event, dict(detail), extra={"fed_event": event, "fed_detail": detail})


def new_incarnation() -> str:
    """A name for one life of a driver, unlike any other."""
    return secrets.token_hex(8)


def _exposures(config: Config) -> dict[str, Exposure]:
    exposed = config.expose_errors
    if isinstance(exposed, str):
        return {peer: Exposure[exposed.upper()] for peer in config.peers}
    return {peer: Exposure[level.upper()] for peer, level in exposed.items()}


def _nothing() -> None:
    """In place of a step that has nothing to do."""
