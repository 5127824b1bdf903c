"""The cleanup manager: whatever ends a job, in whatever thread it is noticed, ends it once and on one thread.

The claim is an atomic flag that never blocks, so that a signal handler may take it [E06, E07]. The failure handler
and every cleanup step run on the manager's own thread or on the one that closes the job, never on a thread of the
runtime's, and one that raises keeps none of the others from running [E28].
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import threading
from collections.abc import Callable

from fed.core.failure import Failure
from fed.errors import FailureError

__all__ = ["AtomicFlag", "CleanupManager", "FailureReport", "run_steps"]

logger = logging.getLogger("fed.engine.cleanup")


@dataclasses.dataclass(frozen=True)
class FailureReport:
    """What a failure handler is given.

    Attributes:
        party: This party.
        root: The failure that ended the job, equal in every party.
        failures: All failures known by then, the root among them.
        error: The exception that the driver sees; never None.
    """

    party: str
    root: Failure
    failures: tuple[Failure, ...]
    error: FailureError


class AtomicFlag:
    """A flag that one caller sets. Claiming it takes no lock that anybody else could hold."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def claim(self) -> bool:
        """Set the flag. Returns whether this caller was the first."""
        return self._lock.acquire(blocking=False)

    def __bool__(self) -> bool:
        return self._lock.locked()


class CleanupManager:
    """Waits for the failure that ends the job, lets the parties agree on the root, and runs the failure handler once.

    One of them serves one epoch.

    Attributes:
        root: The failure that the job has ended with, once all agree. Guarded by the job's lock.

    Args:
        party: Its name, for the thread's.
        settle: Called first, on the manager's thread: waits for `root` and returns what the handler is given.
        handler: The user's.
        ended: Called last, on the manager's thread.
    """

    def __init__(
        self,
        party: str,
        settle: Callable[[CleanupManager], FailureReport],
        handler: Callable[[FailureReport], object] | None,
        ended: Callable[[], None],
    ) -> None:
        self.flag = AtomicFlag()
        self.root: Failure | None = None
        self.ended = False
        self.handler_error: BaseException | None = None
        self._settle = settle
        self._handler = handler
        self._end = ended
        self._wake = threading.Event()
        # A daemon: a handler that hangs must not keep the process from its end.
        self._thread = threading.Thread(target=self._serve, name=f"fed-{party}-cleanup", daemon=True)
        self._thread.start()

    def trigger(self) -> bool:
        """A failure ends the job. Returns whether this call was the one that counts. Never blocks."""
        first = self.flag.claim()
        if first:
            self._wake.set()
        return first

    def stop(self) -> None:
        """End the thread when the handler, if it has begun, has returned; then `ended` is called. Idempotent."""
        self._wake.set()

    def _serve(self) -> None:
        try:
            self._wake.wait()
            if self.flag:
                self._run_handler(self._settle(self))
        finally:
            self.ended = True
            self._end()

    def _run_handler(self, report: FailureReport) -> None:
        if self._handler is None:
            return
        try:
            self._handler(report)
        except SystemExit as error:
            # Not a failure of the handler: it says what the program is to end with [E45].
            self.handler_error = error
        except BaseException as error:
            self.handler_error = error
            logger.exception("the failure handler raised")


def run_steps(
    steps: collections.deque[tuple[str, Callable[[], object]]], interrupted: Callable[[], None]
) -> list[BaseException]:
    """Run every step, whatever an earlier one raised, and take it from the queue when it has run [E28].

    Args:
        steps: What is to be done, with names.
        interrupted: Called when a step was interrupted (by Ctrl-C, say), before the next one.

    Returns:
        What the steps raised.
    """
    raised: list[BaseException] = []
    while steps:
        name, step = steps[0]
        try:
            step()
        except Exception as error:
            logger.debug("cleanup step %r raised", name, exc_info=True)
            raised.append(error)
        except BaseException as error:  # noqa: BLE001 - likewise
            interrupted()
            raised.append(error)
        steps.popleft()
    return raised
