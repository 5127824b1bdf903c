"""The shell of `fed.core.coordination` in one party: what happens goes in, and what comes out is carried out.

One lock guards all states. Nothing is called under it but the pure core and posts to queues, none of which block
or take another lock, so there is no order of locks to keep. A signal handler takes no lock: see `fed.engine.signals`.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import logging
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from fed.clock import Clock
from fed.condition import PredicateCondition
from fed.config import Config
from fed.core.coordination import Coordinator
from fed.core.failure import Exposure, Failure, FailureBook, Fault, Kind
from fed.core.instructions import Instruction, Latched, PeerDeparted, SendControl, Settled, Switched
from fed.core.notice import Notice, NoticeKind
from fed.core.trace import Trace, trace_lines
from fed.engine.cleanup import CleanupManager, FailureReport
from fed.engine.data_sender import DataSender
from fed.engine.dialogue import Dialogue
from fed.engine.epoch import Epoch
from fed.engine.error_queue import ErrorQueue
from fed.engine.exceptions import aborted, error_of
from fed.engine.records import Push
from fed.engine.signals import Interrupter
from fed.engine.stalling import StallWatch
from fed.engine.waiting import DriverWaits
from fed.errors import FailureError, JobInterrupted, UsageError
from fed.proxy.arriving import Arrived
from fed.runtime.contract import Proxies, Runtime
from fed.runtime.worker import text_of
from fed.serde.receipt import SmallCodec

__all__ = ["Shell", "log_event", "new_incarnation"]

logger = logging.getLogger("fed")
trace_logger = logging.getLogger("fed.engine.trace")

VOTES_S: Final = 10.0
"""How long the votes on the root may take. A party votes without its driver, in milliseconds, or in seconds where the
machine has far too much to do; one that takes longer has no say any more."""

PROGRESS_S: Final = 0.4
"""How long after a call the others are told how far this party is, and, twice that after the last one, everyone who has
not been: so a divergence is found within a second. A party that tells it more often has less time for its work."""

MAX_UNREAD: Final = 1000
"""Failures of this party's own that nobody has read, and that are kept with their exceptions."""


class Shell:
    """One party's part in the agreement with the others, and the threads that carry it out.

    Attributes:
        config: The options.
        party: This party.
        clock: What everything waits by.
        runtime: Where tasks run.
        proxies: The way to the other parties; None until they were asked to start.
        lock: Guards every state.
        changed: The condition of the lock.
        trace: What went into the tables last.
        coordinator: The pure core.
        life: Its state of the job and of the peers.
        epoch: The calls of the current epoch; None until the proxies were asked to start.
        joined_at: When all parties were ready, by the clock; 0 before that.
        root_error: What the job has failed with, once that is known.
        watched: Whether the driver is interrupted where it is outside fed and the job fails.
        cleanup: The cleanup manager of this epoch.
        past_cleanups: Those of earlier epochs that may not have ended.
    """

    def __init__(self, config: Config, runtime: Runtime, incarnation: str | None, clock: Clock) -> None:
        self.config = config
        self.party = config.party
        self.clock = clock
        self.runtime = runtime
        self.proxies: Proxies | None = None
        # Entered as itself and not through the condition: that is one step, between which no Ctrl-C can fall.
        self.lock = threading.Lock()
        self.changed = PredicateCondition(self.lock)
        self.trace = Trace(clock.monotonic)
        # How much of it has been logged.
        self._logged = 0
        self.coordinator = Coordinator(
            config.party,
            config.peers,
            incarnation or new_incarnation(),
            isolate=config.on_error == "isolate",
            trace=self.trace,
        )
        self.life = self.coordinator.life
        self.epoch: Epoch | None = None
        self.joined_at = 0.0
        self.root_error: FailureError | None = None
        # Interrupted from the end of `fed.init` on only: earlier it would leave a job that nobody shuts down.
        self.watched = False
        # What the driver is interrupted by if it is outside.
        self._interruption: JobInterrupted | None = None
        self._root_cause: BaseException | None = None
        self._unread: dict[str, tuple[Failure, BaseException | None]] = {}
        self._progress_due = False
        # Peers that could not be told something, of which it is said once.
        self._unreachable: set[str] = set()
        self._exposure = _exposures(config)
        self.dialogue = Dialogue(self)
        self.stall = StallWatch(self)
        self.data = DataSender(config.party, self.running, self.thread_failed, clock)
        self.errors = ErrorQueue(config.party, self, self._tell_progress, PROGRESS_S, self.thread_failed, clock)
        self.interrupter = Interrupter(lambda: self.errors.run(self.wake_driver))
        self.waits = DriverWaits(
            config.party, clock, self.lock, self.changed, self.interrupter, runtime, self._note_wait, self.stall.check
        )
        self.cleanup = self._new_cleanup()
        self.past_cleanups: list[CleanupManager] = []

    def running(self) -> Epoch:
        """The calls of the current epoch.

        Raises:
            UsageError: The job has not started.
        """
        if self.epoch is None:
            raise UsageError("the job has not started")
        return self.epoch

    def running_proxies(self) -> Proxies:
        """The way to the other parties.

        Raises:
            UsageError: The job has not started.
        """
        if self.proxies is None:
            raise UsageError("the job has not started")
        return self.proxies

    def start(self) -> Proxies:
        """Start the runtime, and have the proxies started.

        Raises:
            ConfigError: See `fed.runtime.contract.Runtime.start`.
        """
        proxies = self.runtime.start()
        self.proxies = proxies
        with self.lock:
            self.epoch = self._new_epoch(0, proxies)
        proxies.direct.arrivals.listen(self._arrived)
        self.dialogue.listen(proxies)
        return proxies

    @property
    def interruption(self) -> JobInterrupted | None:
        """What the driver was interrupted by, if the job did that because it failed in this epoch."""
        interruption = self._interruption
        return interruption if interruption is not None and self.interrupter.raised is interruption else None

    @property
    def unread(self) -> list[tuple[Failure, BaseException | None]]:
        """Failures of this party's own that left the job running and that nobody has read."""
        return list(self._unread.values())

    # What the epoch needs (`fed.engine.services.JobServices`)

    def wait(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """See `JobServices.wait`."""
        self.waits.wait_for(lambda: predicate() or self.life.latched, timeout_s)
        with self.lock:
            return predicate()

    def raise_if_latched(self) -> None:
        """See `JobServices.raise_if_latched`."""
        if not self.life.latched:
            return
        # Not longer than the votes take. Nor may this wait outlive the thread that is to end it.
        with self.lock:
            self.clock.wait_for(self.changed, lambda: self.root_error is not None or self.cleanup.ended)
            first = self.life.tell()
            root = self.leading_root(self.coordinator.book)
        if self.root_error is None or not first:
            raise aborted(root)
        raise self.root_error

    def note(self, text: str) -> int:
        """See `JobServices.note`."""
        self.carry_out(self.coordinator.call(text))
        if not self._progress_due:
            self._progress_due = True
            self.errors.rest()
        return self.coordinator.journal.digest

    def new_failure(self, fault: Fault, label: str = "", sequence: int = -1) -> Failure:
        """See `JobServices.new_failure`."""
        return self.coordinator.new_failure(fault, label, sequence)

    def believed(self, failure: Failure) -> Failure:
        """See `JobServices.believed`."""
        return self.coordinator.believed(failure)

    def learn(self, failure: Failure, *, cause: BaseException | None = None, ends_job: bool | None = None) -> None:
        """See `JobServices.learn`."""
        latched = self.life.latched
        self.carry_out(self.coordinator.learn(failure, ends_job=ends_job))
        if self.life.latched:
            if not latched:
                self._root_cause = cause
        elif failure.src_party == self.party and len(self._unread) < MAX_UNREAD:
            self._unread[failure.error_id] = (failure, cause)

    def send_control(self, peer: str, notice: Notice) -> None:
        """See `JobServices.send_control`."""
        self.errors.send_control(peer, notice)

    def push(self, pushes: Sequence[Push]) -> None:
        """See `JobServices.push`."""
        self.data.push(pushes)

    def soon(self, step: Callable[[], None]) -> None:
        """See `JobServices.soon`."""
        self.data.run(step)

    def raise_failure(self, failure: Failure, cause: BaseException | None) -> NoReturn:
        """See `JobServices.raise_failure`."""
        with self.lock:
            self._unread.pop(failure.error_id, None)
            # The party itself may have told of it since.
            failure = self.believed(failure)
        raise error_of(failure, self.party, cause, self.config.exceptions)

    # What the error queue needs (`fed.engine.error_queue.QueueServices`)

    def exposed(self, peer: str, notice: Notice) -> Notice | None:
        """See `fed.engine.error_queue.QueueServices.exposed`."""
        # Who has left hears no more of us, but that we leave too: it waits for that.
        listens = peer in self.life.attentive or notice.kind is NoticeKind.GOODBYE
        if self.proxies is None or not listens:
            return None
        return self.redacted(peer, notice)

    def send(self, peer: str, notices: Sequence[Notice]) -> concurrent.futures.Future[str]:
        """See `fed.engine.error_queue.QueueServices.send`."""
        return self.running_proxies().direct.sender.send(peer, notices)

    def acknowledged(self, peer: str, notices: Sequence[Notice], reason: str) -> None:
        """See `fed.engine.error_queue.QueueServices.acknowledged`."""
        if any(notice.kind is NoticeKind.STANDING for notice in notices):
            self.stall.answered(peer)
        # A peer that has left meanwhile need not be told, and while we leave ourselves it probably has.
        if not reason:
            self._unreachable.discard(peer)
        elif peer in self.life.attentive and peer not in self._unreachable and not self.life.leaving:
            self._unreachable.add(peer)
            # What this leads to people are told: that the party is lost, or has left.
            logger.info("party %r could not be told: %s", peer, reason)

    def redacted(self, peer: str, notice: Notice) -> Notice:
        """What a peer may see. Text of another party's failure is not ours to pass on [E02]."""
        failure = notice.failure
        if failure is None:
            return notice
        own = failure.origin == failure.src_party == self.party
        exposure = self._exposure.get(peer, Exposure.TYPE) if own else Exposure.TYPE
        return dataclasses.replace(notice, failure=failure.redacted(exposure))

    # Instructions

    def carry_out(self, instructions: Sequence[Instruction]) -> None:
        """Do what the coordinator says. The lock is held."""
        for instruction in instructions:
            if isinstance(instruction, SendControl):
                self.send_control(instruction.peer, instruction.notice)
            elif isinstance(instruction, Latched):
                self.cleanup.trigger()
            elif isinstance(instruction, Settled):
                # What waits is let go on the cleanup thread: this may be called from within the tables of the epoch.
                self.cleanup.root = instruction.root
            elif isinstance(instruction, PeerDeparted):
                self.dialogue.departed(instruction.peer, instruction.failure)
            elif isinstance(instruction, Switched):
                self._switch(instruction)
        if instructions:
            self.changed.notify_all()

    def _switch(self, switched: Switched) -> None:
        """The next epoch begins. The lock is held."""
        if self.epoch is not None:
            self.epoch.end()
        self.epoch = self._new_epoch(switched.epoch, self.running_proxies())
        self.dialogue.publish()
        for peer, notice in switched.early:
            if notice.failure is not None:
                self.epoch.arrivals.note_missing(peer, notice.objects, self.believed(notice.failure))
        self.stall.begin()
        self.root_error = self._root_cause = self._interruption = None
        self._unread.clear()
        self.past_cleanups.append(self.cleanup)
        self.cleanup = self._new_cleanup()

    def _new_epoch(self, number: int, proxies: Proxies) -> Epoch:
        return Epoch(
            number,
            self.party,
            self.config.parties,
            self.config.on_error == "isolate",
            SmallCodec(self.config.types),
            self.runtime,
            proxies,
            self,
        )

    def _new_cleanup(self) -> CleanupManager:
        settle = functools.partial(self._settle, self.coordinator.book)
        return CleanupManager(self.party, settle, self.config.failure_handler, self._notify)

    def _notify(self) -> None:
        with self.lock:
            self.changed.notify_all()

    # On threads other than the driver's

    def _note_wait(self) -> None:
        if self.epoch is not None:
            # It was elsewhere before: a driver that comes to wait again and again moves.
            self.epoch.note_move()

    def _arrived(self, arrivals: Sequence[Arrived]) -> None:
        """Objects of peers are here. On the channel's thread for data."""
        try:
            self.running().arrivals.arrived(arrivals)
        # Also what ends a thread: this one is not the job's to end.
        except BaseException as error:
            logger.exception("what arrived could not be taken in")
            self.thread_failed(error)

    def wake_driver(self) -> None:
        """Wake the driver, inside fed or outside."""
        with self.lock:
            self.changed.notify_all()
            self._interrupt_driver()

    def _tell_progress(self) -> None:
        with self.lock:
            if self._progress_due:
                told = self.coordinator.progress()
                # What is told makes the thread rest again, after which there may be others to tell.
                self._progress_due = bool(told)
                self.carry_out(told)

    def thread_failed(self, error: BaseException) -> None:
        """A queue thread's handler raised: nobody may be left waiting for what it was to do."""
        with self.lock:
            self.learn_defect(Fault(Kind.INTERNAL, type(error).__name__, message=text_of(error)))

    def learn_defect(self, fault: Fault) -> None:
        """What this library itself needs has failed here. The lock is held."""
        if not self.life.leaving:
            kind = Kind.INTERNAL if self.joined_at else Kind.INIT
            self.learn(self.new_failure(dataclasses.replace(fault, kind=kind)))

    def _settle(self, book: FailureBook, cleanup: CleanupManager) -> FailureReport:
        """The job has latched: wait for the root, let go of everyone who waits, wake the driver."""

        def known() -> bool:
            # The next epoch may begin before all votes are in.
            return cleanup.root is not None or self.cleanup is not cleanup

        with self.lock:
            if not self.clock.wait_for(self.changed, known, VOTES_S):
                self.carry_out(self.coordinator.out_of_time())
            root, failures = cleanup.root or self.leading_root(book), book.all
            cause = self._root_cause if root.src_party == self.party and self.cleanup is cleanup else None
        error = error_of(root, self.party, cause, self.config.exceptions)
        interruption = JobInterrupted(str(aborted(root)), root)
        interruption.__cause__ = error
        with self.lock:
            # The driver may be in the next epoch already, which has its own root or none.
            if self.cleanup is cleanup:
                self.root_error = error
                self._interruption = interruption
                if self.epoch is not None:
                    self.epoch.abort(root)
                self.changed.notify_all()
                self._interrupt_driver()
        log_event(
            self.party,
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
        self._log_trace()
        return FailureReport(self.party, root, failures, error)

    def leading_root(self, book: FailureBook) -> Failure:
        """The root of an epoch that has failed, or the failure that leads while not all have voted. With the lock.

        Raises:
            RuntimeError: Nothing has failed.
        """
        if book.root is None:
            raise RuntimeError("nothing has failed")
        return book.root

    def _log_trace(self) -> None:
        """Log what was noted since the last failure."""
        if trace_logger.isEnabledFor(logging.INFO):
            with self.lock:
                events = self.trace.events
                events = events[max(0, len(events) - (self.trace.noted - self._logged)) :]
                self._logged = self.trace.noted
            trace_logger.info("%s: what led there, oldest first:\n%s", self.party, "\n".join(trace_lines(events)))

    def _interrupt_driver(self) -> None:
        """Interrupt a driver that is outside fed and does not know that the job has failed.

        With the lock held, which the driver needs to be told of the root: it cannot be told in between. What is sent
        here is received in signal context, which takes no lock. In a fed call it is told of the root; or it is not,
        and the end of that call has this called again.
        """
        knows = self.life.told or self.life.leaving or self.interruption is not None
        if self._interruption is not None and not knows and self.watched and self.config.interrupt_driver:
            self.interrupter.interrupt(self._interruption)


def new_incarnation() -> str:
    """A name for one life of a driver, unlike any other."""
    return secrets.token_hex(8)


def _exposures(config: Config) -> dict[str, Exposure]:
    exposed = config.expose_errors
    if isinstance(exposed, str):
        return {peer: Exposure[exposed.upper()] for peer in config.peers}
    return {peer: Exposure[level.upper()] for peer, level in exposed.items()}


def log_event(party: str, event: str, detail: Mapping[str, Any], error: BaseException | None = None) -> None:
    """Log an event of the job, for people and for `fed.cli`."""
    logger.info(
        "%s: %s %s",
        party,
        event,
        dict(detail),
        exc_info=error,
        extra={"fed_event": event, "fed_detail": detail},
    )
