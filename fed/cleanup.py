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

logger = logging.getLogger("fed.cleanup")


@dataclasses.dataclass(frozen=True)
class FailureReport:
    """What a failure handler is given.

    Attributes:
        party: This party.
        root: The failure that ended the job. Equal in every party unless several began within milliseconds.
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
    """Waits for the one failure that ends the job, lets it settle, and runs the failure handler once.

    Args:
        party: Its name, for the thread's.
        settle_s: How long after the first failure another one of lower rank may still become the root [E29].
        settled: Called first, on the manager's thread: freezes the root and returns what the handler is given.
        handler: The user's.
    """

    def __init__(
        self,
        party: str,
        settle_s: float,
        settled: Callable[[], FailureReport],
        handler: Callable[[FailureReport], object] | None,
    ) -> None:
        self.flag = AtomicFlag()
        self.handler_error: BaseException | None = None
        self._settle_s = settle_s
        self._settled = settled
        self._handler = handler
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"fed-{party}-cleanup", daemon=True)
        self._thread.start()

    def trigger(self) -> bool:
        """A failure ends the job. Returns whether this call was the one that counts. Never blocks."""
        first = self.flag.claim()
        if first:
            self._wake.set()
        return first

    def stop(self, timeout_s: float) -> bool:
        """Let a handler that has begun end, and end the thread. Returns whether it ended in time. Idempotent.

        Raises:
            RuntimeError: Called by the handler, on the manager's own thread.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("the failure handler cannot shut its own job down: return from it instead")
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        self._wake.wait()
        if not self.flag:
            return
        # Not a delay for its own sake: it ends early when the job closes.
        self._stopping.wait(self._settle_s)
        report = self._settled()
        if self._handler is None:
            return
        try:
            self._handler(report)
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
