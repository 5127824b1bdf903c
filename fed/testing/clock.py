"""A clock for simulations, on which only waiting takes time: a lease of 15 s runs out in a moment.

It stands still while anything in this process runs. When every thread waits, it jumps to the next moment that one of
them waits for, as trio's ``MockClock`` with ``autojump_threshold`` does for one event loop. So a test of a time limit
takes no longer than its jumps, some five milliseconds each, and a machine that is busy with other things cannot make a
lease run out.

What it does not know of: a thread that sleeps in the program's own code (`time.sleep`), or that waits for another
process, a file or a socket, counts as one that waits, and the clock goes on meanwhile. Use gates
(`fed.testing.FaultPlan`) or `threading.Event` there. The end of the runtime is waited for in real time.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import queue
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from fed.clock import Clock, Queue
from fed.errors import UsageError

__all__ = ["SkippingClock"]

LOOK_S: Final = 0.001
"""Real seconds that every thread must have stood still for."""

BUSY_S: Final = 0.0003
"""Processor time within `LOOK_S` above which some thread has run, so that a closer look is not worth its cost."""


class SkippingClock(Clock):
    """A clock that jumps over the time in which every thread of this process waits. Linux only.

    Use it as a context manager: it has a thread, which ends with the context.
    """

    def __init__(self) -> None:
        # Not 0: a job takes that for a time which has not come.
        self._now = 1.0
        # Guards the alarms and the time. Nothing else is locked and nobody is called while it is held.
        self._changed = threading.Condition()
        self._alarms: dict[int, tuple[float, Callable[[], object]]] = {}
        self._numbers = itertools.count()
        self._closed = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._serve, name="fed-clock", daemon=True)

    def __enter__(self) -> SkippingClock:
        try:
            _threads()
        except (OSError, ValueError) as error:
            raise UsageError(f"waiting cannot be skipped: /proc does not tell what threads do ({error})") from error
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        if self._error is not None:
            raise RuntimeError("the clock had stopped") from self._error

    def monotonic(self) -> float:
        """Seconds that were skipped since a second before the clock was made."""
        return self._now

    def wait_for(
        self, condition: threading.Condition, predicate: Callable[[], Any], timeout_s: float | None = None
    ) -> Any:
        """Wait until a predicate holds or the clock has jumped past the time limit."""
        if timeout_s is None:
            return condition.wait_for(predicate)
        deadline = self._now + timeout_s

        def wake() -> None:
            with condition:
                condition.notify_all()

        with self._alarm(deadline, wake):
            condition.wait_for(lambda: predicate() or self._now >= deadline)
        return predicate()

    def queue(self) -> Queue[Any]:
        """A queue whose time limits are this clock's. A party that is simulated gets no signals: `put` takes a lock."""
        return _Queue(self)

    def event_loop(self) -> asyncio.AbstractEventLoop:
        """An event loop whose `time()` is this clock's."""
        return _EventLoop(self)

    @contextlib.contextmanager
    def _alarm(self, deadline: float, wake: Callable[[], object]) -> Iterator[None]:
        """Within it, `wake` is called once the clock has come to `deadline`: on the clock's thread, at least once."""
        with self._changed:
            number = next(self._numbers)
            self._alarms[number] = (deadline, wake)
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                del self._alarms[number]

    def _serve(self) -> None:
        try:
            self._skip()
        except Exception as error:  # noqa: BLE001 - raised where the clock is left
            self._error = error

    def _skip(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._alarms or self._closed)
                if self._closed:
                    return
            if not _everyone_waits():
                continue
            with self._changed:
                self._now = max(self._now, min((at for at, _ in self._alarms.values()), default=self._now))
                due = [wake for at, wake in self._alarms.values() if at <= self._now]
            for wake in due:
                wake()


class _Queue:
    """A queue whose time limits are a clock's."""

    def __init__(self, clock: SkippingClock) -> None:
        self._clock = clock
        self._items: collections.deque[Any] = collections.deque()
        self._changed = threading.Condition()

    def put(self, item: Any) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        with self._changed:
            if block:
                self._clock.wait_for(self._changed, lambda: self._items, timeout)
            if not self._items:
                raise queue.Empty
            return self._items.popleft()


class _Selector(selectors.DefaultSelector):
    """A selector that waits by a clock."""

    def __init__(self, clock: SkippingClock) -> None:
        super().__init__()
        self._clock = clock
        self.wake: Callable[[], object] = bool

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        with self._clock._alarm(self._clock.monotonic() + timeout, self.wake):
            return super().select(None)


class _EventLoop(asyncio.SelectorEventLoop):
    """An event loop that lives by a clock."""

    def __init__(self, clock: SkippingClock) -> None:
        selector = _Selector(clock)
        super().__init__(selector)
        self._skipping_clock = clock
        selector.wake = self._wake

    def _wake(self) -> None:
        # It may have woken for something else and been closed since.
        with contextlib.suppress(RuntimeError):
            self.call_soon_threadsafe(bool)

    def time(self) -> float:
        return self._skipping_clock.monotonic()


def _everyone_waits() -> bool:
    """Whether no thread of this process but the caller's ran, or could have run, for `LOOK_S`."""
    began = time.process_time()
    time.sleep(LOOK_S)
    if time.process_time() - began > BUSY_S:
        return False
    before = _threads()
    if any(state != b"S" for state, _ in before.values()):
        return False
    time.sleep(LOOK_S)
    # One that was woken in between has run, or is about to: a thread that waits for the interpreter lock has it now.
    return _threads() == before


def _threads() -> dict[str, tuple[bytes, bytes]]:
    """Of every other thread: whether it runs, and how often it has begun or ceased to. From proc(5)."""
    own = str(threading.get_native_id())
    found = {}
    for folder in Path("/proc/self/task").iterdir():
        if folder.name != own:
            # It may have ended meanwhile.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                text = (folder / "status").read_bytes()
                state = text.index(b"State:\t") + 7
                found[folder.name] = (text[state : state + 1], text[text.index(b"voluntary_ctxt_switches") :])
    return found
