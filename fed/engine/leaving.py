"""How a party leaves the job: in order, once, whatever ends it, and with the reason told to the others."""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from fed.core.coordination import EXIT, LEAVE
from fed.core.failure import Fault, Kind
from fed.core.instructions import SendControl
from fed.engine.cleanup import CleanupManager, run_steps
from fed.engine.joining import Joining
from fed.engine.shell import VOTES_S, Shell, log_event
from fed.engine.waiting import SIGNAL_CHECK_S
from fed.runtime.contract import Ref
from fed.runtime.worker import text_of
from fed.text import counted
from fed.transport.contract import LinkStatistics

__all__ = ["ANSWER_S", "Leaving"]

logger = logging.getLogger("fed")

FAREWELL_S: Final = 2.0
"""How long a party that leaves because of a failure waits for the others to have heard it."""

ANSWER_S: Final = 60.0
"""How long a proxy may take to answer. One that is gone is known to be, so this is for a machine that has far too much
to do, which is no reason to fail at the end."""

STOP_S: Final = 5.0
"""How long a thread or proxy may take to end."""


class Leaving:
    """How far it has come.

    Attributes:
        last_statistics: What the sender counted, as far as it was asked.

    Args:
        shell: Of the job.
        joining: How far joining had come.
    """

    def __init__(self, shell: Shell, joining: Joining) -> None:
        self._shell = shell
        self._joining = joining
        self._fast = False
        self._said_goodbye = False
        self._votes_s = VOTES_S
        self._leave_by = 0.0
        # What is left to do of the shutdown; an interrupted one is finished by the next call.
        self._steps: collections.deque[tuple[str, Callable[[], object]]] = collections.deque()
        self.last_statistics: Mapping[str, LinkStatistics] = {}

    def close(self, error: BaseException | None, *, exiting: bool) -> None:
        """Leave the job, in order, once; see `fed.engine.job.Job.close`."""
        with self._shell.lock:
            joined = self._shell.joined_at > 0
            text = None if error is not None else EXIT if exiting else LEAVE
            first, found = self._shell.coordinator.close(text)
            self._shell.carry_out(found)
            if error is not None:
                self._fast = True
        if first and error is not None:
            self._give_up(error)
        if first:
            self._steps.extend(
                [
                    ("drain", self._drain),
                    ("note statistics", self._note_statistics if joined else _nothing),
                    ("say goodbye", self._say_goodbye),
                    ("end the data-sending thread", lambda: self._shell.data.stop(STOP_S)),
                    ("end the error-queue thread", lambda: self._shell.errors.stop(STOP_S)),
                    ("end the cleanup thread", lambda: self.end_cleanup(self._shell.cleanup)),
                    ("report what is left", self._report_unclaimed if joined else _nothing),
                    ("close the proxies", self._close_proxies),
                    ("close the runtime", self._shell.runtime.close),
                    ("report", self._report_closed),
                ]
            )
        raised = run_steps(self._steps, self._hurry)
        for step_error in raised:
            if not isinstance(step_error, Exception):
                raise step_error
        if first:
            if isinstance(self._shell.cleanup.handler_error, SystemExit):
                raise self._shell.cleanup.handler_error
            if error is None:
                self._raise_untold()
                if raised:
                    raise raised[0]

    def _give_up(self, error: BaseException) -> None:
        """The driver has died: unless the job has failed already, that is why it does."""
        message = text_of(error)
        if isinstance(error, KeyboardInterrupt):
            self._votes_s = FAREWELL_S
        with self._shell.lock:
            if not self._shell.life.latched:
                kind = Kind.DRIVER if self._shell.joined_at else Kind.INIT
                self._shell.learn(self._shell.new_failure(Fault(kind, type(error).__name__, message=message)))

    def _hurry(self) -> None:
        """An interruption during the shutdown: the rest of it waits for nobody."""
        self._fast = True

    def end_cleanup(self, cleanup: CleanupManager) -> None:
        """Let a failure handler that runs come to its end."""
        since = self._shell.clock.monotonic()
        cleanup.stop()
        self._wait(lambda: cleanup.ended, self._shell.config.handler_timeout_s, patient=True)
        if not cleanup.ended:
            # A Ctrl-C may have cut the time short.
            logger.warning(
                "the failure handler has not returned within %.1f s (handler_timeout_s is %g): going on without it",
                self._shell.clock.monotonic() - since,
                self._shell.config.handler_timeout_s,
            )

    def _report_closed(self) -> None:
        with self._shell.lock:
            self._shell.life.closed()
        statistics = self.last_statistics.values()
        log_event(
            self._shell.party,
            "closed",
            {
                "objects_sent": sum(link.parcels_sent for link in statistics),
                "bytes_sent": sum(link.bytes_sent for link in statistics),
                "seconds": self._shell.clock.monotonic() - self._shell.joined_at if self._shell.joined_at else 0.0,
            },
        )

    def _raise_untold(self) -> None:
        if self._shell.life.latched:
            with self._shell.lock:
                self._shell.clock.wait_for(
                    self._shell.changed, lambda: self._shell.root_error is not None or self._shell.cleanup.ended, STOP_S
                )
                first = self._shell.life.tell()
            if first and self._shell.root_error is not None:
                raise self._shell.root_error
            return
        for failure, cause in self._shell.unread:
            self._shell.raise_failure(failure, cause)

    def _drain(self) -> None:
        """Wait until every task here has ended and every result that another party needs was delivered."""
        self._leave_by = self._shell.clock.monotonic() + self._shell.config.drain_timeout_s
        epoch = self._shell.epoch
        if epoch is None:
            return
        self._wait(lambda: self._shell.life.latched or epoch.drained, self._shell.config.drain_timeout_s)
        if self._shell.life.latched:
            # What waits for other parties is let go as soon as the root is known [E27].
            self._await_root()
            self._wait(lambda: not epoch.expected, FAREWELL_S)
        with self._shell.lock:
            left = [
                (epoch.running, "task", "not ended"),
                (epoch.undelivered, "result", "not delivered"),
                (epoch.expected, "object", "of other parties not arrived"),
            ]
            drained = self._fast or self._shell.life.latched or epoch.drained
        if not drained:
            logger.warning(
                "leaving after %g s (drain_timeout_s) with %s",
                self._shell.config.drain_timeout_s,
                ", ".join(f"{counted(count, what)} {state}" for count, what, state in left if count),
            )

    def _say_goodbye(self) -> None:
        """Tell everyone, and wait until everyone has said the same: whoever still runs may still fail."""
        if self._shell.proxies is None:
            self._announce()
            return
        # One budget for all that a failed party waits for: votes, the goodbyes of the others, and what it tells them.
        until = self._shell.clock.monotonic() + FAREWELL_S
        if not self._joining.connecting and self._joining.listened:
            # It never came to greet anybody, and who is not greeted is not told. Those who are up hear of it [E33].
            self._result_of(
                self._shell.proxies.connect(FAREWELL_S), self._shell.clock.monotonic() + STOP_S, "the others to be told"
            )
        self._await_root()
        until = max(until, self._shell.clock.monotonic() + FAREWELL_S / 2)
        with self._shell.lock:
            clean = not self._shell.life.latched
            self._said_goodbye = True
            self._shell.carry_out(self._shell.coordinator.goodbye())
        if clean:
            budget_s = self._leave_by - self._shell.clock.monotonic() if not self._fast else FAREWELL_S
            self._wait(lambda: not self._shell.life.busy or self._shell.life.latched, budget_s)
            until = self._shell.clock.monotonic() + FAREWELL_S
            if self._shell.life.latched:
                # It has finished, but others failed: now it leaves because of that.
                self._await_root()
                with self._shell.lock:
                    self._shell.carry_out(self._shell.coordinator.goodbye())
        with self._shell.lock:
            failed = self._shell.life.latched
            still = self._shell.life.busy if not failed and not self._fast else ()
            # One that was refused stays a moment too, or the other would find nobody and never learn why.
            awaited = failed and (self._shell.joined_at > 0 or self._joining.refused)
        self._wait(
            lambda: not self._shell.errors.untold and not (awaited and self._shell.life.busy),
            until - self._shell.clock.monotonic(),
            patient=True,
        )
        if still:
            logger.warning(
                "left after %g s (drain_timeout_s) although these had not finished: %s",
                self._shell.config.drain_timeout_s,
                ", ".join(still),
            )

    def _announce(self) -> None:
        """There are no proxies: those who are up hear all the same that this party cannot start [E33]."""
        with self._shell.lock:
            # Without a failure there is nobody to tell: nothing but one keeps the proxies from starting.
            farewell = self._shell.coordinator.goodbye() if self._shell.life.latched else ()
            told = {said.peer: [self._shell.redacted(*said)] for said in farewell if isinstance(said, SendControl)}
        if told:
            self._shell.runtime.announce(told, FAREWELL_S)

    def _await_root(self) -> None:
        """A goodbye tells the root that all have agreed on, and not merely the one that leads."""
        if self._shell.life.latched:
            cleanup = self._shell.cleanup
            self._wait(lambda: cleanup.root is not None, self._votes_s, patient=True)
            with self._shell.lock:
                # Who says goodbye votes on nothing any more, and need not be waited for by its own handler.
                if self._shell.cleanup is cleanup:
                    self._shell.carry_out(self._shell.coordinator.out_of_time())

    def _report_unclaimed(self) -> None:
        if self._shell.life.latched or self._fast:
            return
        answer = self._shell.running_proxies().unclaimed()
        unclaimed = self._result_of(answer, self._shell.clock.monotonic() + ANSWER_S, "the receiver proxy")
        for peer, count in sorted(unclaimed.items()):
            logger.warning("%d objects of party %r were never asked for, and are dropped", count, peer)

    def _close_proxies(self) -> None:
        if self._shell.proxies is not None:
            deadline = self._shell.clock.monotonic() + STOP_S
            for closed in self._shell.proxies.close():
                self._result_of(closed, deadline, "the proxies to close")

    def _wait(self, predicate: Callable[[], object], timeout_s: float, *, patient: bool = False) -> None:
        """Wait during the shutdown. A Ctrl-C cuts it short, and so does haste, unless it is worth some patience."""
        limit = self._shell.clock.monotonic() + timeout_s
        cut = False
        with self._shell.waits.standing_still():
            while True:
                if not cut and (self._shell.interrupter.interrupted or (self._fast and not patient)):
                    cut = True
                    limit = min(limit, self._shell.clock.monotonic() + FAREWELL_S)
                    if not self._fast:
                        self._fast = True
                        if not self._said_goodbye:
                            self._give_up(KeyboardInterrupt())
                with self._shell.lock:
                    self._shell.waits.idle = True
                    self._shell.clock.wait_for(
                        self._shell.changed,
                        lambda known=cut: predicate() or (not known and self._shell.interrupter.interrupted),  # type: ignore[misc]
                        min(max(0.0, limit - self._shell.clock.monotonic()), SIGNAL_CHECK_S),
                    )
                    if predicate() or self._shell.clock.monotonic() >= limit:
                        return
                self._shell.stall.check()

    def _result_of(self, ref: Ref, deadline: float, what: str) -> Any:
        def wait(predicate: Callable[[], object], timeout_s: float) -> None:
            self._wait(predicate, timeout_s, patient=True)

        return self._shell.waits.result_of(ref, deadline, what, wait)

    def _note_statistics(self) -> None:
        deadline = self._shell.clock.monotonic() + ANSWER_S
        self.last_statistics = self._result_of(self._shell.running_proxies().statistics(), deadline, "the sender proxy")


def _nothing() -> None:
    """In place of a step that has nothing to do."""
