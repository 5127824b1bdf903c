"""What an epoch needs of its job, and what its parts share."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from fed.condition import PredicateCondition
from fed.core.failure import Failure, Fault, Kind
from fed.core.notice import Notice
from fed.core.trace import Trace
from fed.engine.records import Push
from fed.runtime.contract import Outcome, Proxies, Ref, Runtime
from fed.runtime.worker import text_of

__all__ = ["EpochState", "JobServices"]

logger = logging.getLogger("fed.engine.services")


class JobServices(Protocol):
    """What an epoch needs of its job."""

    lock: threading.Lock
    """Guards every state."""

    changed: PredicateCondition
    """Of that lock; notified when a state changed. Entered by the lock, which is C and takes a tenth of the time."""

    trace: Trace
    """Where what goes into the tables is noted."""

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

    def send_control(self, peer: str, notice: Notice) -> None:
        """Queue something to tell a peer. With the lock."""
        ...

    def push(self, pushes: Sequence[Push]) -> None:
        """Queue results to be sent. With the lock."""
        ...

    def soon(self, step: Callable[[], None]) -> None:
        """Have something done on the data-sending thread. With the lock or without."""
        ...

    def raise_failure(self, failure: Failure, cause: BaseException | None) -> NoReturn:
        """Raise the error of a failure to the user. Without the lock."""
        ...


class EpochState:
    """What the parts of an epoch share.

    Attributes:
        number: Which epoch, from 0.
        party: This party.
        isolate: Whether failed tasks leave the job running.
        runtime: Where tasks run.
        proxies: The way to the other parties.
        job: The job.
        over: Whether the next epoch has begun: nothing that still comes of this one counts.
        aborted: What nothing that waits gets past any more: the job has failed.
        moves: Grows with each call, each end of a task, each arrival and each delivery.
    """

    __slots__ = (
        "aborted",
        "changed",
        "isolate",
        "job",
        "lock",
        "moves",
        "number",
        "over",
        "party",
        "proxies",
        "runtime",
    )

    def __init__(
        self, number: int, party: str, runtime: Runtime, proxies: Proxies, job: JobServices, *, isolate: bool
    ) -> None:
        self.number = number
        self.party = party
        self.isolate = isolate
        self.runtime = runtime
        self.proxies = proxies
        self.job = job
        self.lock = job.lock
        self.changed = job.changed
        self.over = False
        self.aborted: Failure | None = None
        self.moves = 0

    def watch(self, done: Ref, handle: Callable[[Outcome], None]) -> None:
        """Have the end of something handled on the runtime's callback thread."""
        self.runtime.watch(done, self.guarded(handle))

    def guarded(self, handle: Callable[[Outcome], None]) -> Callable[[Outcome], None]:
        """A callback that may raise: whoever waits for what it was to do is let go with the job [E18]."""
        return functools.partial(self._handle, handle)

    def _handle(self, handle: Callable[[Outcome], None], outcome: Outcome) -> None:
        try:
            handle(outcome)
        except Exception as error:
            logger.exception("a callback of party %r raised", self.party)
            with self.lock:
                self.job.learn(self.job.new_failure(Fault(Kind.INTERNAL, type(error).__name__, message=text_of(error))))

    def proxy_failed(self, fault: Fault) -> Failure:
        """A proxy failed. Whatever it failed of, the other parties do not see the same: that ends the job."""
        failure = self.job.new_failure(
            Fault(Kind.INTERNAL, fault.type_name, detail="a proxy failed", message=fault.message)
        )
        self.job.learn(failure)
        return failure

    def learn_inherited(self, failure: Failure) -> None:
        """A failure is known because of something that came, or ended, after it. With the lock."""
        # A task of this party's own was known to have failed before, and may have been read since.
        if failure.src_party != self.party or not failure.kind.symmetric:
            self.job.learn(failure)
