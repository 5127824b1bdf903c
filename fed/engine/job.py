"""One job in one party, as the calls of a user see it: the parts, wired together.

Threads, and what each may do:

- the *driver* thread, the user's: fed calls. It submits work and waits on one condition; it never blocks in the
  runtime, so that a failure can always wake it.
- the direct channel's thread for data: takes in what arrives from peers, and submits the tasks that waited for it.
- the direct channel's thread for control: takes in what peers tell, and what the proxies find of them.
- the runtime's callback thread: tells the epoch what became of tasks and pushes; see `fed.engine.epoch`.
- the *data-sending* thread: pushes results that are ready.
- the *error-queue* thread: tells peers of failures and of progress, apart from data; see `fed.engine.error_queue`.
- the *cleanup* thread: waits for the votes on the root, lets everyone go who waits, runs the failure handler, wakes
  a driver that is outside fed; see `fed.engine.cleanup`.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from fed.clock import SYSTEM_CLOCK, Clock
from fed.config import Config
from fed.core.failure import Failure
from fed.core.lifecycle import State
from fed.core.trace import Event
from fed.engine.joining import START_S, Joining
from fed.engine.leaving import ANSWER_S, Leaving
from fed.engine.records import Actor
from fed.engine.shell import Shell, log_event
from fed.errors import FedTimeoutError, JobAborted, JobInterrupted, UsageError
from fed.object import FedObject
from fed.runtime.arguments import Packed
from fed.runtime.contract import ActorBody, Runtime, TaskBody

__all__ = ["Job", "JobStatistics"]


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
        self._thread = threading.get_ident()
        self.shell = Shell(config, runtime, incarnation, clock)
        self._joining = Joining(self.shell)
        self._leaving = Leaving(self.shell, self._joining)

    def join(self) -> None:
        """Start the runtime and the proxies, and return when every party is ready.

        Raises:
            ConfigError: The port is taken, or this party's credentials are wrong.
            InitError: A party refused, failed, or was not ready in time.
        """
        try:
            self.shell.interrupter.install()
            with self.shell.interrupter.inside:
                self._joining.join()
        except BaseException as error:
            self.close(error)
            raise

    def watch(self) -> None:
        """Interrupt the driver from here on: if the job fails, or has failed since it began."""
        self.shell.watched = True
        self.shell.errors.run(self.shell.wake_driver)

    # Fed calls

    def run(self, body: TaskBody, party: str, packed: Packed, returns: int) -> tuple[FedObject[Any], ...]:
        """A call of a function."""
        with self.shell.interrupter.inside:
            return self.shell.running().run(body, party, packed, returns)

    def create(self, body: ActorBody, party: str, packed: Packed) -> Actor:
        """The creation of an actor."""
        with self.shell.interrupter.inside:
            return self.shell.running().create(body, party, packed)

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
        with self.shell.interrupter.inside:
            return self.shell.running().call(actor, label, method, party, packed, returns, options)

    def kill(self, actor: Actor, party: str) -> None:
        """The end of an actor."""
        self.check_party(party)
        with self.shell.interrupter.inside:
            self.shell.running().kill(actor, party)

    def get(self, objects: Sequence[FedObject[Any]], timeout_s: float | None) -> list[Any]:
        """The values of objects; see `Epoch.get`."""
        with self.shell.interrupter.inside:
            return self.shell.running().get(objects, timeout_s)

    def reset(self) -> None:
        """Begin the next epoch together with all other parties.

        Raises:
            FailureError: The job has failed and the driver has not been told yet; or it fails meanwhile.
            JobAborted: A party has left, so there is nobody to go on with.
            FedTimeoutError: Not all parties called it within ``init_timeout_s``.
        """
        self.check_thread()
        with self.shell.interrupter.inside:
            self._reset()

    def _reset(self) -> None:
        if self.shell.life.leaving:
            raise UsageError(f"the job {self.config.job!r} is over: call fed.init() again")
        old = self.shell.running()
        if self.shell.interruption is not None:
            # It has told the driver of the failure, and to call this.
            with self.shell.lock:
                self.shell.life.tell()
        while True:
            if self.shell.life.latched and not self.shell.life.told:
                self.shell.raise_if_latched()
            with self.shell.lock:
                failed_before = self.shell.life.latched
                # It may have failed since we looked, and the driver is to be told before it goes on.
                if self.shell.life.told or not failed_before:
                    self.shell.carry_out(self.shell.coordinator.reset())
                    break

        def hopeless() -> bool:
            return bool(self.shell.life.gone) or (self.shell.life.latched and not failed_before)

        try:
            self.shell.waits.wait_for(lambda: self.shell.epoch is not old or hopeless(), self.config.init_timeout_s)
        finally:
            with self.shell.lock:
                unready = self.shell.life.unready_for_reset
                gone = self.shell.life.gone
                if self.shell.epoch is old:
                    self.shell.coordinator.not_reset()
        if self.shell.epoch is old:
            if self.shell.life.latched and not self.shell.life.told:
                self.shell.raise_if_latched()
            if gone:
                text = f"the job cannot go on without {', '.join(gone)}: call fed.shutdown()"
                with self.shell.lock:
                    root = self.shell.leading_root(self.shell.coordinator.book)
                raise JobAborted(text, root)
            within = f"within {self.config.init_timeout_s:g} s (init_timeout_s)"
            if unready:
                raise FedTimeoutError(f"fed.reset was not called {within} by {', '.join(unready)}")
            raise FedTimeoutError(f"fed.reset was not called {within} by all parties after the same calls")
        self.shell.interrupter.forget()
        # What another thread is just submitting of the old epoch comes before all that is called from here on.
        self.shell.waits.wait_for(lambda: not old.being_submitted, START_S)
        while self.shell.past_cleanups:
            self._leaving.end_cleanup(self.shell.past_cleanups.pop())
        log_event(self.party, "reset", {"epoch": self.shell.coordinator.epoch})

    def check_party(self, party: str) -> None:
        """Refuse a call that this job cannot make.

        Raises:
            UsageError: Wrong thread, no such party, or the job is over.
            FailureError: The job is latched.
        """
        self.check_thread()
        if self.shell.life.latched:
            with self.shell.interrupter.inside:
                self.shell.raise_if_latched()
        if not self.shell.life.accepts_work:
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
        with self.shell.interrupter.inside:
            if self.shell.proxies is not None and self.shell.life.state is not State.CLOSED:
                self._leaving.last_statistics = self.shell.waits.result_of(
                    self.shell.proxies.statistics(), self.shell.clock.monotonic() + ANSWER_S, "the sender proxy"
                )
        links = self._leaving.last_statistics
        return JobStatistics(
            calls=self.shell.epoch.calls if self.shell.epoch is not None else 0,
            objects_sent={peer: link.parcels_sent for peer, link in links.items()},
            bytes_sent={peer: link.bytes_sent for peer, link in links.items()},
            seconds=self.shell.clock.monotonic() - self.shell.joined_at if self.shell.joined_at else 0.0,
        )

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Every failure of this epoch known so far."""
        with self.shell.lock:
            return self.shell.coordinator.book.all

    @property
    def interruption(self) -> JobInterrupted | None:
        """What the driver was interrupted by, if the job did that because it failed in this epoch."""
        return self.shell.interruption

    @property
    def trace(self) -> tuple[Event, ...]:
        """What went into this party's state machines last, oldest first."""
        # Without the lock, which may be what a job that hangs hangs on.
        return self.shell.trace.events

    def validate(self) -> None:
        """Check the laws of the core. Raises RuntimeError where one is broken."""
        with self.shell.lock:
            self.shell.coordinator.validate()
            if self.shell.epoch is not None:
                self.shell.epoch.validate()

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
        with self.shell.interrupter.inside:
            try:
                self._leaving.close(error, exiting=exiting)
            finally:
                if self.shell.life.state is State.CLOSED:
                    self.shell.interrupter.uninstall()
