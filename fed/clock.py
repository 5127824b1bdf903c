"""The one clock of a party's driver, and everything that waits by it [E35].

Whatever has a time limit while a job runs asks its `Clock`, and the proxies of the in-process runtime live on event
loops whose `time()` is that clock's. So a simulation can put a clock in its place that skips waiting
(`fed.testing.clock`; the idea is trio's `MockClock`). How long a thread may take to end is real time.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

__all__ = ["SYSTEM_CLOCK", "Clock", "Queue"]

T = TypeVar("T")


class Queue(Protocol[T]):
    """What `queue.SimpleQueue` offers of a queue without an upper bound."""

    def put(self, item: T) -> None:
        """Add an item. Never blocks."""

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Remove the oldest item and return it.

        Args:
            block: Wait for an item if there is none.
            timeout: For how many seconds; None for ever.

        Raises:
            queue.Empty: There is none, or none came in time.
        """


class Clock:
    """The system's monotonic clock. Every method is safe in any thread."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.monotonic()

    def wait_for(
        self, condition: threading.Condition, predicate: Callable[[], Any], timeout_s: float | None = None
    ) -> Any:
        """Wait until a predicate holds, as `threading.Condition.wait_for`. The condition's lock is held.

        Returns:
            The last value of the predicate, which is false if the time was up.
        """
        return condition.wait_for(predicate, timeout_s)

    def queue(self) -> Queue[Any]:
        """A new queue, whose `put` is safe in a signal handler too."""
        return queue.SimpleQueue()

    def event_loop(self) -> asyncio.AbstractEventLoop:
        """A new event loop."""
        return asyncio.new_event_loop()


SYSTEM_CLOCK = Clock()
