"""One job in one party: the agreement with the others, the runtime and the threads, wired together.

Threads, and what each may do:

- the *driver* thread, the user's: fed calls. It submits work and waits on one condition; it never blocks in the
  runtime, so that a failure can always wake it.
- the direct channel's thread for data: takes in what arrives from peers, and submits the tasks that waited for it.
- the direct channel's thread for control: takes in what peers tell, and what the proxies find of them.
- the runtime's callback thread: tells the epoch what became of tasks and pushes; see `fed.epoch`.
- the *data-sending* thread: pushes results that are ready.
- the *error-queue* thread: tells peers of failures and of progress, apart from data; see `fed.error_queue`.
- the *cleanup* thread: waits for the votes on the root, lets everyone go who waits, runs the failure handler, wakes
  a driver that is outside fed; see `fed.cleanup`.

One lock guards all states. Nothing is called under it but the pure core and posts to queues, none of which block
or take another lock, so there is no order of locks to keep. A signal handler takes no lock: see `fed.interruption`.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib.metadata
import logging
import math
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fed.cleanup import CleanupManager, FailureReport, run_steps
from fed.clock import SYSTEM_CLOCK, Clock
from fed.condition import PredicateCondition
from fed.config import Config
from fed.core.coordination import EXIT, LEAVE, Coordinator, Instruction, Latched, PeerDeparted, Switched, Tell
from fed.core.failure import Exposure, Failure, FailureBook, Fault, Kind
from fed.core.lifecycle import State
from fed.core.notice import Notice, NoticeKind
from fed.core.stall import Due, StallDetector, describe_wait, graph, mermaid
from fed.epoch import Actor, Entry, Epoch, Push
from fed.error_queue import QUESTIONS, ErrorQueue
from fed.errors import (
    ConfigError,
    FailureError,
    FedTimeoutError,
    InitError,
    JobAborted,
    JobInterrupted,
    UsageError,
)
from fed.interruption import Interrupter
from fed.object import FedObject, ObjectId
from fed.proxy.arriving import Arrived
from fed.proxy.control import Snapshot
from fed.proxy.events import PeerEvent, PeerEventKind
from fed.proxy.sender import REJECTED
from fed.raising import aborted, error_of, init_error
from fed.runtime.arguments import Packed
from fed.runtime.body import text_of
from fed.runtime.contract import ActorBody, Outcome, Proxies, Ref, Runtime, TaskBody
from fed.runtime.placement import amounts
from fed.sending import QueueThread
from fed.serde.receipt import SmallCodec
from fed.transport.contract import MAX_GREETING_BYTES, PROTOCOL_VERSION, Hello, LinkStatistics

__all__ = ["Job", "JobStatistics", "hello_of"]

logger = logging.getLogger("fed")

VOTES_S: Final = 10.0
"""How long the votes on the root may take. A party votes without its driver, in milliseconds, or in seconds where the
machine has far too much to do; one that takes longer has no say any more."""

PROGRESS_S: Final = 0.4
"""How long after a call the others are told how far this party is, and, twice that after the last one, everyone who has
not been: so a divergence is found within a second. A party that tells it more often has less time for its work."""

FAREWELL_S: Final = 2.0
"""How long a party that leaves because of a failure waits for the others to have heard it."""

START_S: Final = 60.0
"""How long the proxies may take to start; a Ray worker takes about a second."""

SIGNAL_CHECK_S: Final = 1.0
"""How often a wait looks up. Python can miss a signal that comes between its last look and the system call; a Ctrl-C
would then wait for something else to happen."""

STALL_S: Final = 30.0
"""How long a driver waits while nothing moves until people are told what for. A line, and never a failure by itself."""

STOP_S: Final = 5.0
"""How long a thread or proxy may take to end."""

PUSH_BATCH: Final = 64
"""Results that are ready together travel to the sender in calls of up to this many: Ray's cost is per call."""

MAX_UNREAD: Final = 1000
"""Failures of this party's own that nobody has read, and that are kept with their exceptions."""


class _Step(NamedTuple):
    """For the data-sending thread: something that the runtime's thread must not be held up by."""

    run: Callable[[], None]


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
    """How a party greets the others.

    Raises:
        ConfigError: It declares more than fits into a greeting.
    """
    types = tuple(sorted(f"{one.__module__}.{one.__qualname__}" for one in config.types))
    exceptions = tuple(sorted(one.__name__ for one in config.exceptions))
    # Each name takes up to three bytes more, and what else is in a greeting less than a kilobyte.
    names = (*types, *exceptions, *config.parties)
    nbytes = sum(len(name.encode("utf-8", "replace")) + 3 for name in names)
    if nbytes > MAX_GREETING_BYTES - 1024:
        raise ConfigError(
            f"the names of {len(types)} types and {len(exceptions)} exceptions take {nbytes} bytes, and a greeting has "
            f"room for {MAX_GREETING_BYTES - 1024}: declare fewer (options types and exceptions)"
        )
    return Hello(
        protocol=PROTOCOL_VERSION,
        version=importlib.metadata.version("fedray"),
        job=config.job,
        party=config.party,
        incarnation=incarnation,
        parties=config.parties,
        types=types,
        exceptions=exceptions,
    )


class _ProxyListener(NamedTuple):
    """Takes in what one of the proxies says (`fed.proxy.control.Listener`)."""

    job: Job
    name: str
    then: Callable[[], None]

    def handle(self, events: Sequence[PeerEvent]) -> None:
        """See `fed.proxy.control.Listener`."""
        try:
            self.job._handle_events(events)
        # Also what ends a thread: this one is not the job's to end.
        except BaseException as error:
            logger.exception("what peers told could not be taken in")
            self.job._thread_failed(error)

    def lives_again(self) -> None:
        """See `fed.proxy.control.Listener`."""
        logger.warning("the %s proxy of party %r was killed and lives again", self.name, self.job.party)
        self.then()


class Job:
    """One job in one party, from joining to the end.

    Args:
        config: The options.
        runtime: Where tasks run.
        incarnation: One life of this driver, as greeted.
        clock: What its waits go by.
    """

    def __init__(
        self, config: Config, runtime: Runtime, incarnation: str | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.config = config
        self.party = config.party
        self._clock = clock
        self._runtime = runtime
        self._proxies: Proxies | None = None
        self._thread = threading.get_ident()
        # Entered as itself and not through the condition: that is one step, between which no Ctrl-C can fall.
        self._lock = threading.Lock()
        self.changed = PredicateCondition(self._lock)
        self._coordinator = Coordinator(
            config.party,
            config.peers,
            incarnation or new_incarnation(),
            isolate=config.on_error == "isolate",
        )
        self._life = self._coordinator.life
        self._epoch: Epoch | None = None
        self._root_error: FailureError | None = None
        # What the driver is interrupted by if it is outside.
        self._interruption: JobInterrupted | None = None
        # Interrupted from the end of `fed.init` on only: earlier it would leave a job that nobody shuts down.
        self._watched = False
        self._root_cause: BaseException | None = None
        self._unread: dict[str, tuple[Failure, BaseException | None]] = {}
        self._disagreed: dict[str, str] = {}
        # The life of each peer's driver that has greeted this party.
        self._incarnations: dict[str, str] = {}
        # Who will acknowledge nothing more, and why, as the proxies have been told.
        self._gone: dict[str, Failure | None] = {}
        # Whose question about what this party is at is being answered; another one of theirs can wait.
        self._answering: set[str] = set()
        self._stall = StallDetector(config.party, STALL_S)
        self._idle = False
        self._progress_due = False
        self._joined_at = 0.0
        # How far joining has come: whether the proxies were asked to start, and to greet the others.
        self._listened = False
        self._connecting = False
        self._greeted = False
        self._refused = False
        self._fast_shutdown = False
        self._said_goodbye = False
        self._votes_s = VOTES_S
        self._leave_by = 0.0
        # What is left to do of the shutdown; an interrupted one is finished by the next call.
        self._steps: collections.deque[tuple[str, Callable[[], object]]] = collections.deque()
        self._last_statistics: Mapping[str, LinkStatistics] = {}
        self._exposure = _exposures(config)
        self._data: QueueThread[Push | _Step] = QueueThread(
            f"fed-{config.party}-data",
            self._handle_data,
            self._thread_failed,
            clock=clock,
        )
        self._errors = ErrorQueue(config.party, self, self._tell_progress, PROGRESS_S, self._thread_failed, clock)
        self._interrupter = Interrupter(lambda: self._errors.run(self._wake_driver))
        self._cleanup = self._new_cleanup()
        self._past_cleanups: list[CleanupManager] = []

    # Joining

    def join(self) -> None:
        """Start the runtime and the proxies, and return when every party is ready.

        Raises:
            ConfigError: The port is taken, or this party's credentials are wrong.
            InitError: A party refused, failed, or was not ready in time.
        """
        try:
            self._interrupter.install()
            with self._interrupter.inside:
                self._join()
        except BaseException as error:
            self.close(error)
            raise

    def watch(self) -> None:
        """Interrupt the driver from here on: if the job fails, or has failed since it began."""
        self._watched = True
        self._errors.run(self._wake_driver)

    def _join(self) -> None:
        self._proxies = self._runtime.start()
        with self._lock:
            self._epoch = self._new_epoch(0, self._proxies)
        direct = self._proxies.direct
        direct.arrivals.listen(self._arrived)
        direct.sender.listen(_ProxyListener(self, "sender", _nothing))
        direct.receiver.listen(_ProxyListener(self, "receiver", self._receiver_lives_again))
        for ended in self._proxies.ended():
            self._runtime.watch(ended, self._handle_end)
        deadline = self._clock.monotonic() + START_S
        self._listened = True
        awaited_start = "the proxies to start"
        if self.config.ray_proxy_resources:
            # Some node has that much, which leaves that it is in use.
            wanted = amounts(self.config.ray_proxy_resources)
            awaited_start += f" where each finds {wanted} not in use (option ray_proxy_resources)"
        trouble = self._result_of(self._proxies.started(), deadline, awaited_start)
        if trouble is not None:
            raise ConfigError(trouble)
        timeout_s = self.config.init_timeout_s
        deadline = self._clock.monotonic() + timeout_s
        self._connecting = True
        joining = self._proxies.connect(timeout_s)
        connected: list[Outcome] = []
        self._runtime.watch(joining, functools.partial(self._note_outcome, connected))
        self._log_event("waiting", {"for": list(self.config.peers)})
        # Beyond the budget, which the sender keeps from when it has started, and which then knows what it last heard.
        self._wait_for(lambda: connected or self._join_failed(), timeout_s + START_S)
        self._raise_if_join_failed(connected)
        with self._lock:
            self._greeted = True
            self._errors.run(self._publish)
            self._carry_out(self._coordinator.ready())
        while True:
            with self._lock:
                awaited = self._life.awaited
            if awaited:
                self._wait_for(
                    lambda known=awaited: (  # type: ignore[misc]
                        self._life.awaited != known or self._life.latched or self._join_failed()
                    ),
                    deadline - self._clock.monotonic(),
                )
            with self._lock:
                still = self._life.awaited
                failed = self._join_failed()
                # Where something else has failed already, some party had begun, so that all were ready.
                if not failed and (not still or self._life.latched):
                    still = ()
                    # From here on a peer's driver that was started anew is another one.
                    self._life.joined()
                    self._joined_at = self._clock.monotonic()
                    self._errors.run(self._publish)
            if failed:
                self._raise_if_join_failed(connected)
            if not still:
                break
            if self._clock.monotonic() >= deadline:
                raise init_error(dict.fromkeys(still, "it is reached, but has not finished its own start"), timeout_s)
            self._log_event("waiting", {"for": list(still)})
        self._log_event("joined", {})

    def _join_failed(self) -> bool:
        return bool(self._disagreed or self._life.quitters) or self._init_failure() is not None

    def _init_failure(self) -> Failure | None:
        """A failure that keeps the job from starting. One of a party that was quicker, and had begun, does not."""
        return next((failure for failure in self._coordinator.book.all if failure.kind is Kind.INIT), None)

    def _raise_if_join_failed(self, connected: Sequence[Outcome]) -> None:
        if self._disagreed:
            self._refused = True
            raise init_error(self._disagreed)
        outcome = connected[0] if connected else None
        problems = outcome.value if outcome is not None and outcome.fault is None else None
        refusals = {problem.peer: problem.reason for problem in problems or () if problem.final}
        if refusals:
            self._refused = True
            raise init_error(refusals)
        failed = self._init_failure()
        if failed is not None:
            reason = f"its own start failed ({failed.type_name}){failed.hearsay}; its output says why"
            if failed.src_party == self.party:
                # What others tell of it.
                reason = failed.detail or failed.message
            raise init_error({failed.src_party: reason})
        if self._life.quitters:
            raise init_error(dict.fromkeys(self._life.quitters, "it left before the job started"))
        if problems:
            # Last: who has told why it leaves is not greeted any more, and that is no reason.
            raise init_error({problem.peer: problem.reason for problem in problems}, self.config.init_timeout_s)
        if problems is None:
            fault = outcome.fault if outcome is not None else None
            raise InitError(f"the sender proxy did not start: {fault.message if fault else 'no answer'}")

    # Fed calls

    def run(self, body: TaskBody, party: str, packed: Packed, returns: int) -> tuple[FedObject[Any], ...]:
        """A call of a function."""
        with self._interrupter.inside:
            return self._running().run(body, party, packed, returns)

    def create(self, body: ActorBody, party: str, packed: Packed) -> Actor:
        """The creation of an actor."""
        with self._interrupter.inside:
            return self._running().create(body, party, packed)

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
        with self._interrupter.inside:
            return self._running().call(actor, label, method, party, packed, returns, options)

    def kill(self, actor: Actor, party: str) -> None:
        """The end of an actor."""
        self.check_party(party)
        with self._interrupter.inside:
            self._running().kill(actor, party)

    def get(self, objects: Sequence[FedObject[Any]], timeout_s: float | None) -> list[Any]:
        """The values of objects; see `Epoch.get`."""
        with self._interrupter.inside:
            return self._running().get(objects, timeout_s)

    def reset(self) -> None:
        """Begin the next epoch together with all other parties.

        Raises:
            FailureError: The job has failed and the driver has not been told yet; or it fails meanwhile.
            JobAborted: A party has left, so there is nobody to go on with.
            InitError: Not all parties were ready within ``init_timeout_s``.
        """
        self.check_thread()
        with self._interrupter.inside:
            self._reset()

    def _reset(self) -> None:
        if self._life.leaving:
            raise UsageError(f"the job {self.config.job!r} is over: call fed.init() again")
        old = self._running()
        if self.interruption is not None:
            # It has told the driver of the failure, and to call this.
            with self._lock:
                self._life.tell()
        while True:
            if self._life.latched and not self._life.told:
                self.raise_if_latched()
            with self._lock:
                failed_before = self._life.latched
                # It may have failed since we looked, and the driver is to be told before it goes on.
                if self._life.told or not failed_before:
                    self._carry_out(self._coordinator.reset())
                    break

        def hopeless() -> bool:
            return bool(self._life.gone) or (self._life.latched and not failed_before)

        try:
            self._wait_for(lambda: self._epoch is not old or hopeless(), self.config.init_timeout_s)
        finally:
            with self._lock:
                unready = self._life.unready_for_reset
                gone = self._life.gone
                if self._epoch is old:
                    self._coordinator.not_reset()
        if self._epoch is old:
            if self._life.latched and not self._life.told:
                self.raise_if_latched()
            if gone:
                root = self._coordinator.book.settle()
                raise JobAborted(f"the job cannot go on without {', '.join(gone)}: call fed.shutdown()", root)
            raise FedTimeoutError(
                f"fed.reset was not called within {self.config.init_timeout_s:g} s (init_timeout_s) by "
                f"{', '.join(unready)}"
            )
        self._interrupter.forget()
        # What another thread is just submitting of the old epoch comes before all that is called from here on.
        self._wait_for(lambda: not old.being_submitted, START_S)
        while self._past_cleanups:
            self._end_cleanup(self._past_cleanups.pop())
        self._log_event("reset", {"epoch": self._coordinator.epoch})

    def check_party(self, party: str) -> None:
        """Refuse a call that this job cannot make.

        Raises:
            UsageError: Wrong thread, no such party, or the job is over.
            FailureError: The job is latched.
        """
        self.check_thread()
        if self._life.latched:
            with self._interrupter.inside:
                self.raise_if_latched()
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
        with self._interrupter.inside:
            if self._proxies is not None and self._life.state is not State.CLOSED:
                self._last_statistics = self._result_of(
                    self._proxies.statistics(), self._clock.monotonic() + STOP_S, "the sender proxy"
                )
        links = self._last_statistics
        return JobStatistics(
            calls=self._epoch.calls if self._epoch is not None else 0,
            objects_sent={peer: one.parcels_sent for peer, one in links.items()},
            bytes_sent={peer: one.bytes_sent for peer, one in links.items()},
            seconds=self._clock.monotonic() - self._joined_at if self._joined_at else 0.0,
        )

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Every failure of this epoch known so far."""
        with self._lock:
            return self._coordinator.book.all

    @property
    def interruption(self) -> JobInterrupted | None:
        """What the driver was interrupted by, if the job did that because it failed in this epoch."""
        interruption = self._interruption
        return interruption if interruption is not None and self._interrupter.raised is interruption else None

    def validate(self) -> None:
        """Check the laws of the core. Raises RuntimeError where one is broken."""
        with self._lock:
            self._coordinator.validate()
            if self._epoch is not None:
                self._epoch.validate()

    def _running(self) -> Epoch:
        if self._epoch is None:
            raise UsageError("the job has not started")
        return self._epoch

    def _running_proxies(self) -> Proxies:
        if self._proxies is None:
            raise UsageError("the job has not started")
        return self._proxies

    # What the epoch needs (`fed.epoch.Desk`)

    def wait(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """See `fed.epoch.Desk.wait`."""
        self._wait_for(lambda: predicate() or self._life.latched, timeout_s)
        with self._lock:
            return predicate()

    def raise_if_latched(self) -> None:
        """See `fed.epoch.Desk.raise_if_latched`."""
        if not self._life.latched:
            return
        # Not longer than the votes take. Nor may this wait outlive the thread that is to end it.
        with self._lock:
            self._clock.wait_for(self.changed, lambda: self._root_error is not None or self._cleanup.ended)
            first = self._life.tell()
            root = self._coordinator.book.settle()
        if self._root_error is None or not first:
            raise aborted(root)
        raise self._root_error

    def note(self, text: str) -> int:
        """See `fed.epoch.Desk.note`."""
        self._carry_out(self._coordinator.call(text))
        if not self._progress_due:
            self._progress_due = True
            # So that the thread rests after that.
            self._errors.run(_nothing)
        return self._coordinator.journal.digest

    def new_failure(self, fault: Fault, label: str = "", sequence: int = -1) -> Failure:
        """See `fed.epoch.Desk.new_failure`."""
        return self._coordinator.new_failure(fault, label, sequence)

    def believed(self, failure: Failure) -> Failure:
        """See `fed.epoch.Desk.believed`."""
        return self._coordinator.believed(failure)

    def learn(self, failure: Failure, *, cause: BaseException | None = None, ends_job: bool | None = None) -> None:
        """See `fed.epoch.Desk.learn`."""
        latched = self._life.latched
        self._carry_out(self._coordinator.learn(failure, ends_job=ends_job))
        if self._life.latched:
            if not latched:
                self._root_cause = cause
        elif failure.src_party == self.party and len(self._unread) < MAX_UNREAD:
            self._unread[failure.error_id] = (failure, cause)

    def tell(self, peer: str, notice: Notice) -> None:
        """See `fed.epoch.Desk.tell`."""
        self._errors.tell(peer, notice)

    def push(self, pushes: Sequence[Push]) -> None:
        """See `fed.epoch.Desk.push`."""
        for one in pushes:
            self._data.post(one)

    def soon(self, step: Callable[[], None]) -> None:
        """See `fed.epoch.Desk.soon`."""
        self._data.post(_Step(step))

    def raise_failure(self, failure: Failure, cause: BaseException | None) -> None:
        """See `fed.epoch.Desk.raise_failure`."""
        with self._lock:
            self._unread.pop(failure.error_id, None)
            # The party itself may have told of it since.
            failure = self.believed(failure)
        raise error_of(failure, self.party, cause, self.config.exceptions)

    def _carry_out(self, instructions: Sequence[Instruction]) -> None:
        """Do what the coordinator says. The lock is held."""
        for one in instructions:
            if isinstance(one, Tell):
                self.tell(one.peer, one.notice)
            elif isinstance(one, Latched):
                self._cleanup.trigger()
            elif isinstance(one, PeerDeparted):
                self._gone[one.peer] = one.failure
                self._errors.run(self._publish)
            elif isinstance(one, Switched):
                self._switch(one)
        if instructions:
            self.changed.notify_all()

    def _switch(self, switched: Switched) -> None:
        """The next epoch begins. The lock is held."""
        if self._epoch is not None:
            self._epoch.end()
        self._epoch = self._new_epoch(switched.epoch, self._running_proxies())
        self._errors.run(self._publish)
        for peer, notice in switched.early:
            if notice.failure is not None:
                self._epoch.note_missing(peer, notice.objects, notice.failure)
        self._stall = StallDetector(self.party, STALL_S)
        self._root_error = self._root_cause = self._interruption = None
        self._unread.clear()
        self._past_cleanups.append(self._cleanup)
        self._cleanup = self._new_cleanup()

    def _new_epoch(self, number: int, proxies: Proxies) -> Epoch:
        return Epoch(
            number,
            self.party,
            self.config.parties,
            self.config.on_error == "isolate",
            SmallCodec(self.config.types),
            self._runtime,
            proxies,
            self,
        )

    def _new_cleanup(self) -> CleanupManager:
        settle = functools.partial(self._settle, self._coordinator.book)
        return CleanupManager(self.party, settle, self.config.failure_handler, self._notify)

    def _notify(self) -> None:
        with self._lock:
            self.changed.notify_all()

    # On the data-sending thread

    def _handle_data(self, items: list[Push | _Step]) -> None:
        epoch = self._running()
        pushes: dict[ObjectId, tuple[Entry, list[str]]] = {}
        for item in items:
            if isinstance(item, Push):
                if item.epoch is epoch:
                    pushes.setdefault(item.entry.id, (item.entry, []))[1].extend(item.consumers)
            else:
                item.run()
        ready = list(pushes.values())
        for start in range(0, len(ready), PUSH_BATCH):
            epoch.push(ready[start : start + PUSH_BATCH])

    def _arrived(self, arrivals: Sequence[Arrived]) -> None:
        """Objects of peers are here. On the channel's thread for data."""
        try:
            self._running().arrived(arrivals)
        # Also what ends a thread: this one is not the job's to end.
        except BaseException as error:
            logger.exception("what arrived could not be taken in")
            self._thread_failed(error)

    # On the direct channel's thread for control

    def _handle_events(self, events: Sequence[PeerEvent]) -> None:
        """A proxy tells what peers told or did, or what it found of them."""
        with self._lock:
            for event in events:
                self._handle_event(event)
            self.changed.notify_all()
        if any(event.notice is not None and event.notice.failure is not None for event in events):
            self.soon(self._running().submit_ready)
        for event in events:
            if event.kind is PeerEventKind.ABSENT:
                self._running_proxies().direct.receiver.suspect(event.peer)

    def _handle_event(self, event: PeerEvent) -> None:
        if event.kind is PeerEventKind.NOTICE and event.notice is not None:
            latched = self._life.latched
            notice, epoch = event.notice, self._running()
            if notice.kind in QUESTIONS:
                if notice.epoch == epoch.number:
                    self._handle_question(event.peer, notice)
                return
            if notice.kind is NoticeKind.FAILURE and notice.failure is not None and notice.epoch == epoch.number:
                epoch.note_missing(event.peer, notice.objects, self.believed(notice.failure))
            self._carry_out(self._coordinator.heard(event.peer, notice))
            if self._life.latched and not latched:
                self._root_cause = None
        elif event.kind is PeerEventKind.GREETED:
            self._handle_greeting(event.peer, event.incarnation)
        elif event.kind is PeerEventKind.DISAGREED:
            self._disagreed[event.peer] = event.reason
        elif event.kind is PeerEventKind.LOST:
            detail = f"nothing was heard of it for {event.silent_s:.1f} s (lease_s is {self.config.lease_s:g})"
            self._lose(event.peer, detail)
        elif event.kind is PeerEventKind.REJECTED and not self._life.leaving:
            self._lose(event.peer, REJECTED, event.reason)

    def _handle_greeting(self, peer: str, incarnation: str) -> None:
        """A peer's driver has greeted this party for the first time. The lock is held."""
        if self._incarnations.get(peer) == incarnation:
            return
        if self._joined_at:
            # It came before the receiver had heard that the job has begun, with the one before.
            self._lose(peer, "it was started anew")
            return
        self._incarnations[peer] = incarnation
        self._running().started_anew(peer)
        self._errors.run(self._publish)
        self._carry_out(self._coordinator.started_anew(peer))

    def _handle_question(self, peer: str, notice: Notice) -> None:
        """A peer asks what this party is at, or has answered. The lock is held."""
        if notice.kind is NoticeKind.ASK and peer in self._answering:
            return
        own = self._running().standing(idle=self._idle, untold=self._errors.untold)
        if notice.kind is NoticeKind.ASK:
            self._answering.add(peer)
            self.tell(peer, Notice(NoticeKind.STANDING, notice.epoch, calls=notice.calls, standing=own))
        elif notice.standing is not None:
            self._stall.answered(peer, notice.calls, notice.standing)
            standings = self._stall.deadlock(own)
            if standings is not None and not self._life.latched:
                logger.error("nothing will ever move again; who waits for what:\n%s", mermaid(standings))
                self.learn(self.new_failure(Fault(Kind.DEADLOCK, "DeadlockError", detail=graph(standings))))

    def _lose(self, peer: str, detail: str, message: str = "") -> None:
        """A peer is gone, or has given us up. The lock is held."""
        failure = self.new_failure(Fault(Kind.PARTY_LOST, "PartyLostError", detail=detail, message=message))
        self._carry_out(self._coordinator.lost(peer, dataclasses.replace(failure, src_party=peer)))

    def _receiver_lives_again(self) -> None:
        self._runtime.watch(self._running_proxies().started(), self._handle_listening)

    def _handle_end(self, outcome: Outcome) -> None:
        """A proxy has come to its end: it was closed, or it has gone for good, and no other one will take its place."""
        if outcome.fault is not None:
            with self._lock:
                self._learn_defect(dataclasses.replace(outcome.fault, detail="a proxy has gone"))

    def _handle_listening(self, outcome: Outcome) -> None:
        """A receiver that lives again listens, or cannot: then nobody reaches this party any more."""
        trouble = outcome.value if outcome.fault is None else outcome.fault.message
        with self._lock:
            if trouble is not None:
                detail = "the receiver proxy was killed, and the one in its place cannot listen"
                logger.error("%s: %s", detail, trouble)
                # What stands in the way names addresses of this party's own.
                self._learn_defect(Fault(Kind.INTERNAL, "ConfigError", detail=detail, message=trouble))

    # On the error-queue thread

    def _publish(self) -> None:
        """Let the proxies know the state of the job."""
        with self._lock:
            snapshot = Snapshot(
                epoch=self._running().number,
                greeted=self._greeted,
                begun=self._joined_at > 0,
                incarnations=dict(self._incarnations),
                left=dict(self._gone),
            )
        self._running_proxies().direct.publish(snapshot)

    def _wake_driver(self) -> None:
        """Wake the driver, inside fed or outside."""
        with self._lock:
            self.changed.notify_all()
            self._interrupt_driver()

    def _tell_progress(self) -> None:
        with self._lock:
            if self._progress_due:
                told = self._coordinator.progress()
                # What is told makes the thread rest again, after which there may be others to tell.
                self._progress_due = bool(told)
                self._carry_out(told)

    # What the error queue needs (`fed.error_queue.Desk`)

    def exposed(self, peer: str, notice: Notice) -> Notice | None:
        """See `fed.error_queue.Desk.exposed`."""
        # Who has left hears no more of us, but that we leave too: it waits for that.
        listens = peer in self._life.attentive or notice.kind is NoticeKind.GOODBYE
        if self._proxies is None or not listens:
            return None
        return self._exposed(notice, peer)

    def send(self, peer: str, notices: Sequence[Notice]) -> concurrent.futures.Future[str]:
        """See `fed.error_queue.Desk.send`."""
        return self._running_proxies().direct.sender.send(peer, notices)

    def told(self, peer: str, notices: Sequence[Notice], reason: str) -> None:
        """See `fed.error_queue.Desk.told`."""
        if any(notice.kind is NoticeKind.STANDING for notice in notices):
            self._answering.discard(peer)
        # A peer that has left meanwhile need not be told, and while we leave ourselves it probably has.
        if reason and peer in self._life.attentive and not self._life.leaving:
            logger.warning("party %r could not be told: %s", peer, reason)

    def _exposed(self, notice: Notice, peer: str) -> Notice:
        """What a peer may see. Text of another party's failure is not ours to pass on [E02]."""
        failure = notice.failure
        if failure is None:
            return notice
        own = failure.origin == failure.src_party == self.party
        exposure = self._exposure.get(peer, Exposure.TYPE) if own else Exposure.TYPE
        return dataclasses.replace(notice, failure=failure.redacted(exposure))

    def _thread_failed(self, error: BaseException) -> None:
        """A queue thread's handler raised: nobody may be left waiting for what it was to do."""
        with self._lock:
            self._learn_defect(Fault(Kind.INTERNAL, type(error).__name__, message=text_of(error)))

    def _learn_defect(self, fault: Fault) -> None:
        """What this library itself needs has failed here. The lock is held."""
        if not self._life.leaving:
            kind = Kind.INTERNAL if self._joined_at else Kind.INIT
            self.learn(self.new_failure(dataclasses.replace(fault, kind=kind)))

    # On the cleanup thread

    def _settle(self, book: FailureBook) -> FailureReport:
        """The job has latched: wait for the root, let go of everyone who waits, wake the driver."""
        with self._lock:
            if not self._clock.wait_for(self.changed, lambda: book.settled, VOTES_S) and self._is_current(book):
                self._carry_out(self._coordinator.out_of_time())
            root, failures = book.settle(), book.all
            cause = self._root_cause if root.src_party == self.party and self._is_current(book) else None
        error = error_of(root, self.party, cause, self.config.exceptions)
        interruption = JobInterrupted(str(aborted(root)), root)
        interruption.__cause__ = error
        with self._lock:
            # The driver may be in the next epoch already, which has its own root or none.
            if self._is_current(book):
                self._root_error = error
                self._interruption = interruption
                if self._epoch is not None:
                    self._epoch.abort(root)
                self.changed.notify_all()
                self._interrupt_driver()
        self._log_event(
            "failed",
            {
                "root": str(root),
                "src_party": root.src_party,
                "error_id": root.error_id,
                "kind": root.kind.value,
                "type": root.type_name,
                "task": root.task,
                "here": root.src_party == self.party,
                "failures": len(failures),
            },
            error,
        )
        return FailureReport(self.party, root, failures, error)

    def _is_current(self, book: FailureBook) -> bool:
        return self._coordinator.book is book

    def _interrupt_driver(self) -> None:
        """Interrupt a driver that is outside fed and does not know that the job has failed.

        With the lock held, which the driver needs to be told of the root: it cannot be told in between. What is sent
        here is received in signal context, which takes no lock. In a fed call it is told of the root; or it is not,
        and the end of that call has this called again.
        """
        knows = self._life.told or self._life.leaving or self.interruption is not None
        if self._interruption is not None and not knows and self._watched and self.config.interrupt_driver:
            self._interrupter.interrupt(self._interruption)

    # Leaving

    def close(self, error: BaseException | None = None, *, exiting: bool = False) -> None:
        """Leave the job, in order, once. Later calls do nothing.

        Args:
            error: What the driver died of. Without one the shutdown is a regular one: it waits until everything
                was delivered, and until the other parties have finished too.
            exiting: Whether a regular shutdown is the program's exit, which the others are told if they go on.

        Raises:
            FailureError: The job failed, and no fed call has raised it yet [E19].
            SystemExit: The failure handler raised it [E45].
        """
        with self._interrupter.inside:
            try:
                self._close(error, exiting=exiting)
            finally:
                if self._life.state is State.CLOSED:
                    self._interrupter.uninstall()

    def _close(self, error: BaseException | None, *, exiting: bool) -> None:
        with self._lock:
            joined = self._joined_at > 0
            text = None if error is not None else EXIT if exiting else LEAVE
            first, found = self._coordinator.close(text)
            self._carry_out(found)
            if error is not None:
                self._fast_shutdown = True
        if first and error is not None:
            self._give_up(error)
        if first:
            self._steps.extend(
                [
                    ("drain", self._drain),
                    ("note statistics", self.statistics if joined else _nothing),
                    ("say goodbye", self._say_goodbye),
                    ("end the data-sending thread", lambda: self._data.stop(STOP_S)),
                    ("end the error-queue thread", lambda: self._errors.stop(STOP_S)),
                    ("end the cleanup thread", lambda: self._end_cleanup(self._cleanup)),
                    ("report what is left", self._report_unclaimed if joined else _nothing),
                    ("close the proxies", self._close_proxies),
                    ("close the runtime", self._runtime.close),
                    ("report", self._report_closed),
                ]
            )
        raised = run_steps(self._steps, self._hurry)
        for one in raised:
            if not isinstance(one, Exception):
                raise one
        if first:
            if isinstance(self._cleanup.handler_error, SystemExit):
                raise self._cleanup.handler_error
            if error is None:
                self._raise_untold()
                if raised:
                    raise raised[0]

    def _give_up(self, error: BaseException) -> None:
        """The driver has died: unless the job has failed already, that is why it does."""
        message = text_of(error)
        if isinstance(error, KeyboardInterrupt):
            self._votes_s = FAREWELL_S
        with self._lock:
            if not self._life.latched:
                kind = Kind.DRIVER if self._joined_at else Kind.INIT
                self.learn(self.new_failure(Fault(kind, type(error).__name__, message=message)))

    def _hurry(self) -> None:
        """An interruption during the shutdown: the rest of it waits for nobody."""
        self._fast_shutdown = True

    def _end_cleanup(self, cleanup: CleanupManager) -> None:
        """Let a failure handler that runs come to its end."""
        cleanup.stop()
        self._wait_leaving(lambda: cleanup.ended, self.config.handler_timeout_s, patient=True)
        if not cleanup.ended:
            logger.warning(
                "the failure handler has not returned within %g s (handler_timeout_s): going on without it",
                self.config.handler_timeout_s,
            )

    def _report_closed(self) -> None:
        with self._lock:
            self._life.closed()
        statistics = self._last_statistics.values()
        self._log_event(
            "closed",
            {
                "objects_sent": sum(one.parcels_sent for one in statistics),
                "bytes_sent": sum(one.bytes_sent for one in statistics),
                "seconds": self._clock.monotonic() - self._joined_at if self._joined_at else 0.0,
            },
        )

    def _raise_untold(self) -> None:
        if self._life.latched:
            with self._lock:
                self._clock.wait_for(self.changed, lambda: self._root_error is not None, STOP_S)
            if self._life.tell() and self._root_error is not None:
                raise self._root_error
            return
        for failure, cause in list(self._unread.values()):
            self.raise_failure(failure, cause)

    def _drain(self) -> None:
        """Wait until every task here has ended and every result that another party needs was delivered."""
        self._leave_by = self._clock.monotonic() + self.config.drain_timeout_s
        epoch = self._epoch
        if epoch is None:
            return
        self._wait_leaving(lambda: self._life.latched or epoch.drained, self.config.drain_timeout_s)
        if self._life.latched:
            # What waits for other parties is let go as soon as the root is known [E27].
            self._await_root()
            self._wait_leaving(lambda: not epoch.expected, FAREWELL_S)
        with self._lock:
            running, undelivered = epoch.running, epoch.undelivered
            drained = self._fast_shutdown or self._life.latched or epoch.drained
        if not drained:
            logger.warning(
                "leaving after %g s (drain_timeout_s) with %d tasks running and %d results undelivered",
                self.config.drain_timeout_s,
                running,
                undelivered,
            )

    def _say_goodbye(self) -> None:
        """Tell everyone, and wait until everyone has said the same: whoever still runs may still fail."""
        if self._proxies is None:
            self._announce()
            return
        # One budget for all that a failed party waits for: votes, the goodbyes of the others, and what it tells them.
        until = self._clock.monotonic() + FAREWELL_S
        if not self._connecting and self._listened:
            # It never came to greet anybody, and who is not greeted is not told. Those who are up hear of it [E33].
            self._result_of(
                self._proxies.connect(FAREWELL_S), self._clock.monotonic() + STOP_S, "the others to be told"
            )
        self._await_root()
        until = max(until, self._clock.monotonic() + FAREWELL_S / 2)
        with self._lock:
            clean = not self._life.latched
            self._said_goodbye = True
            self._carry_out(self._coordinator.goodbye())
        if clean:
            budget_s = self._leave_by - self._clock.monotonic() if not self._fast_shutdown else FAREWELL_S
            self._wait_leaving(lambda: not self._life.busy or self._life.latched, budget_s)
            until = self._clock.monotonic() + FAREWELL_S
            if self._life.latched:
                # It has finished, but others failed: now it leaves because of that.
                self._await_root()
                with self._lock:
                    self._carry_out(self._coordinator.goodbye())
        with self._lock:
            failed = self._life.latched
            still = self._life.busy if not failed and not self._fast_shutdown else ()
            # One that was refused stays a moment too, or the other would find nobody and never learn why.
            awaited = failed and (self._joined_at > 0 or self._refused)
        self._wait_leaving(
            lambda: not self._errors.untold and not (awaited and self._life.busy),
            until - self._clock.monotonic(),
            patient=True,
        )
        if still:
            logger.warning(
                "left after %g s (drain_timeout_s) although these had not finished: %s",
                self.config.drain_timeout_s,
                ", ".join(still),
            )

    def _announce(self) -> None:
        """There are no proxies: those who are up hear all the same that this party cannot start [E33]."""
        with self._lock:
            # Without a failure there is nobody to tell: nothing but one keeps the proxies from starting.
            farewell = self._coordinator.goodbye() if self._life.latched else ()
            told = {one.peer: [self._exposed(one.notice, one.peer)] for one in farewell if isinstance(one, Tell)}
        if told:
            self._runtime.announce(told, FAREWELL_S)

    def _await_root(self) -> None:
        """A goodbye tells the root that all have agreed on, and not merely the one that leads."""
        if self._life.latched:
            book = self._coordinator.book
            self._wait_leaving(lambda: book.settled, self._votes_s, patient=True)
            with self._lock:
                # Who says goodbye votes on nothing any more, and need not be waited for by its own handler.
                if self._is_current(book):
                    self._carry_out(self._coordinator.out_of_time())

    def _report_unclaimed(self) -> None:
        if self._life.latched or self._fast_shutdown:
            return
        answer = self._running_proxies().unclaimed()
        unclaimed = self._result_of(answer, self._clock.monotonic() + STOP_S, "the receiver proxy")
        for peer, count in sorted(unclaimed.items()):
            logger.warning("%d objects of party %r were never asked for, and are dropped", count, peer)

    def _close_proxies(self) -> None:
        if self._proxies is not None:
            deadline = self._clock.monotonic() + STOP_S
            for closed in self._proxies.close():
                self._result_of(closed, deadline, "the proxies to close")

    # Waiting

    def _wait_for(self, predicate: Callable[[], object], timeout_s: float | None) -> None:
        """Wait on the driver's thread, without the lock. Ctrl-C is raised from here, and never with the lock held."""
        limit = math.inf if timeout_s is None else self._clock.monotonic() + timeout_s
        with self._standing_still():
            while True:
                left_s = max(0.0, limit - self._clock.monotonic())
                with self._lock:
                    self._idle = True
                    met = self._clock.wait_for(
                        self.changed, lambda: predicate() or self._interrupter.interrupted, min(left_s, SIGNAL_CHECK_S)
                    )
                if self._interrupter.interrupted:
                    # The user's handler may do anything, and return.
                    self._idle = False
                    self._interrupter.deliver()
                elif met or left_s <= SIGNAL_CHECK_S:
                    return
                self._check_stall()

    def _wait_leaving(self, predicate: Callable[[], object], timeout_s: float, *, patient: bool = False) -> None:
        """Wait during the shutdown. A Ctrl-C cuts it short, and so does haste, unless it is worth some patience."""
        limit = self._clock.monotonic() + timeout_s
        cut = False
        with self._standing_still():
            while True:
                if not cut and (self._interrupter.interrupted or (self._fast_shutdown and not patient)):
                    cut = True
                    limit = min(limit, self._clock.monotonic() + FAREWELL_S)
                    if not self._fast_shutdown:
                        self._fast_shutdown = True
                        if not self._said_goodbye:
                            self._give_up(KeyboardInterrupt())
                with self._lock:
                    self._idle = True
                    self._clock.wait_for(
                        self.changed,
                        lambda known=cut: predicate() or (not known and self._interrupter.interrupted),  # type: ignore[misc]
                        min(max(0.0, limit - self._clock.monotonic()), SIGNAL_CHECK_S),
                    )
                    if predicate() or self._clock.monotonic() >= limit:
                        return
                self._check_stall()

    @contextlib.contextmanager
    def _standing_still(self) -> Iterator[None]:
        """The driver waits in a fed call, whatever ends that: a signal handler of the user's may raise out of it."""
        with self._lock:
            if self._epoch is not None:
                # It was elsewhere before: a driver that comes to wait again and again moves.
                self._epoch.note_move()
        try:
            yield
        finally:
            # All that it does from here on comes later, and so does whatever that moves.
            self._idle = False

    def _check_stall(self) -> None:
        """The driver has waited for a moment: if nothing has moved for long, ask why, and tell people [E36]."""
        now = self._clock.monotonic()
        text = ""
        with self._lock:
            epoch = self._epoch
            if epoch is None or not self._joined_at or self._life.latched:
                return
            due = self._stall.look(now, epoch.moves)
            if due is None:
                return
            own = epoch.standing(idle=True, untold=self._errors.untold)
            peers = self._life.attentive
            if due is Due.REPORT:
                text = describe_wait(own, peers, self._stall.answers)
            # What a peer was told of this may be lost with a receiver that was killed, and a divergence unseen with it.
            self._carry_out(self._coordinator.progress(everyone=True))
            number = self._stall.ask(peers, own)
            for peer in peers:
                self.tell(peer, Notice(NoticeKind.ASK, epoch.number, calls=number))
        if text:
            logger.warning("nothing has moved for %.0f s: %s", self._stall.waited_s(now), text)

    def _result_of(self, ref: Ref, deadline: float, what: str) -> Any:
        """Wait for a proxy's answer, without blocking in the runtime."""
        outcomes: list[Outcome] = []
        self._runtime.watch(ref, functools.partial(self._note_outcome, outcomes))
        if self._life.leaving:
            self._wait_leaving(lambda: bool(outcomes), deadline - self._clock.monotonic(), patient=True)
        else:
            self._wait_for(lambda: bool(outcomes), deadline - self._clock.monotonic())
        if not outcomes:
            raise InitError(f"party {self.party!r} waited too long for {what}")
        if outcomes[0].fault is not None:
            raise InitError(f"party {self.party!r} waited for {what}: {outcomes[0].fault.message}")
        return outcomes[0].value

    def _note_outcome(self, into: list[Outcome], outcome: Outcome) -> None:
        with self._lock:
            into.append(outcome)
            self.changed.notify_all()

    def _log_event(self, event: str, detail: Mapping[str, Any], error: BaseException | None = None) -> None:
        logger.info(
            "%s: %s %s",
            self.party,
            event,
            dict(detail),
            exc_info=error,
            extra={"fed_event": event, "fed_detail": detail},
        )


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
