"""How the driver waits: woken by what it waits for, by a Ctrl-C, and every second to see whether anything moves."""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from fed.clock import Clock
from fed.condition import PredicateCondition
from fed.engine.signals import Interrupter
from fed.errors import InitError
from fed.runtime.contract import Outcome, Ref, Runtime

__all__ = ["SIGNAL_CHECK_S", "DriverWaits"]

SIGNAL_CHECK_S: Final = 1.0
"""How often a wait looks up. Python can miss a signal that comes between its last look and the system call; a Ctrl-C
would then wait for something else to happen."""


class DriverWaits:
    """The waits of one driver, all on its own thread.

    Attributes:
        idle: Whether the driver waits now. With the lock.

    Args:
        party: Its name.
        clock: What the waits go by.
        lock: Guards every state. Entered as itself and not through the condition: that is one step, between which no
            Ctrl-C can fall.
        changed: The condition of that lock.
        interrupter: Tells of a Ctrl-C.
        runtime: Whose references are waited for.
        begins: Called when the driver comes to wait. With the lock.
        check_stall: Called when a wait has lasted for a moment. Without the lock.
    """

    def __init__(
        self,
        party: str,
        clock: Clock,
        lock: threading.Lock,
        changed: PredicateCondition,
        interrupter: Interrupter,
        runtime: Runtime,
        begins: Callable[[], None],
        check_stall: Callable[[], None],
    ) -> None:
        self.idle = False
        self._party = party
        self._clock = clock
        self._lock = lock
        self._changed = changed
        self._interrupter = interrupter
        self._runtime = runtime
        self._begins = begins
        self._check_stall = check_stall

    def wait_for(self, predicate: Callable[[], object], timeout_s: float | None) -> None:
        """Wait on the driver's thread, without the lock. Ctrl-C is raised from here, and never with the lock held."""
        limit = math.inf if timeout_s is None else self._clock.monotonic() + timeout_s
        with self.standing_still():
            while True:
                left_s = max(0.0, limit - self._clock.monotonic())
                with self._lock:
                    self.idle = True
                    met = self._clock.wait_for(
                        self._changed, lambda: predicate() or self._interrupter.interrupted, min(left_s, SIGNAL_CHECK_S)
                    )
                if self._interrupter.interrupted:
                    # The user's handler may do anything, and return.
                    self.idle = False
                    self._interrupter.deliver()
                elif met or left_s <= SIGNAL_CHECK_S:
                    return
                self._check_stall()

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """The driver waits in a fed call, whatever ends that: a signal handler of the user's may raise out of it."""
        with self._lock:
            self._begins()
        try:
            yield
        finally:
            # All that it does from here on comes later, and so does whatever that moves.
            self.idle = False

    def result_of(
        self, ref: Ref, deadline: float, what: str, wait: Callable[[Callable[[], object], float], None] | None = None
    ) -> Any:
        """Wait for a proxy's answer, without blocking in the runtime.

        Args:
            ref: What resolves to it.
            deadline: By the clock.
            what: What is waited for, for people.
            wait: How. None: as `wait_for`.

        Raises:
            InitError: It did not come in time, or the proxy failed.
        """
        outcomes: list[Outcome] = []
        self._runtime.watch(ref, functools.partial(self.note_outcome, outcomes))
        (wait or self.wait_for)(lambda: bool(outcomes), deadline - self._clock.monotonic())
        if not outcomes:
            raise InitError(f"party {self._party!r} waited too long for {what}")
        if outcomes[0].fault is not None:
            raise InitError(f"party {self._party!r} waited for {what}: {outcomes[0].fault.reason}")
        return outcomes[0].value

    def note_outcome(self, into: list[Outcome], outcome: Outcome) -> None:
        """Something that is watched has ended. On any thread."""
        with self._lock:
            into.append(outcome)
            self._changed.notify_all()
