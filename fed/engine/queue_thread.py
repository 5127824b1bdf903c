"""The data-sending thread and the error-queue thread: two queues, so that neither can hold up the other.

Both take everything that is queued at once: results that are ready together leave in one call, and errors for one
peer in one.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from fed.clock import SYSTEM_CLOCK, Clock, Queue

__all__ = ["QueueThread"]

logger = logging.getLogger("fed.engine.queue_thread")

T = TypeVar("T")


class _Stop(NamedTuple):
    """Ends the thread after everything queued before it."""


class _Rest(NamedTuple):
    """Has the thread rest soon."""


_STOP: Final = _Stop()
_REST: Final = _Rest()


class QueueThread(Generic[T]):
    """A thread that hands what is posted to it, in order and in batches, to one function.

    The function may raise: that is reported and the thread goes on [E18]. The thread is a daemon: a process that
    ends without closing its job must not hang on it.

    Args:
        name: The thread's name.
        handle: Called on the thread with everything posted since the last call, at least one item.
        failed: Called on the thread with what `handle` raised.
        idle: Called on the thread at the latest `idle_s` after a batch, and then not before the next one.
        idle_s: Seconds.
        clock: What they are counted by.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[list[T]], None],
        failed: Callable[[BaseException], None],
        *,
        idle: Callable[[], None] | None = None,
        idle_s: float = 0.02,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._handle = handle
        self._failed = failed
        self._idle = idle
        self._idle_s = idle_s
        self._clock = clock
        self._queue: Queue[T | _Stop | _Rest] = clock.queue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def post(self, item: T) -> None:
        """Queue an item. Never blocks; safe from any thread and from a signal handler."""
        self._queue.put(item)

    def rest(self) -> None:
        """Have `idle` called as after a batch. Never blocks."""
        self._queue.put(_REST)

    def stop(self, timeout_s: float) -> bool:
        """Handle what is queued and end. Returns whether it ended in time. Idempotent.

        Raises:
            RuntimeError: Called on the thread itself, which cannot wait for its own end [E08].
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError(f"thread {self._thread.name} cannot stop itself")
        self._queue.put(_STOP)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        rest_at: float | None = None
        while True:
            # Due also while there is always something to do: what waits for the rest must not starve.
            if rest_at is not None and self._clock.monotonic() >= rest_at:
                rest_at = None
                self._guard(self._rest)
            try:
                first = self._queue.get(
                    timeout=None if rest_at is None else max(0.0, rest_at - self._clock.monotonic())
                )
            except queue.Empty:
                continue
            batch, stopping = self._take(first)
            if rest_at is None and self._idle is not None:
                rest_at = self._clock.monotonic() + self._idle_s
            if batch:
                self._guard(lambda items=batch: self._handle(items))  # type: ignore[misc]
            if stopping:
                self._guard(self._rest)
                return

    def _take(self, first: T | _Stop | _Rest) -> tuple[list[T], bool]:
        """Everything queued now, up to a stop."""
        batch: list[T] = []
        item = first
        while not isinstance(item, _Stop):
            if not isinstance(item, _Rest):
                batch.append(item)
            try:
                item = self._queue.get(block=False)
            except queue.Empty:
                return batch, False
        return batch, True

    def _rest(self) -> None:
        if self._idle is not None:
            self._idle()

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        # Also what ends a thread: nobody would hear of what is posted after that.
        except BaseException as error:
            logger.exception("thread %s", self._thread.name)
            try:
                self._failed(error)
            except BaseException:
                logger.exception("thread %s: the report of the above", self._thread.name)
