"""The signals that end a simulation, as events.

Python runs the handler of a signal in the main thread, between two instructions. A signal that arrives just before that
thread begins to wait does not end the wait, and its handler runs when something else does. So events are put by a
thread, which learns of each signal as it arrives, by Python's wakeup descriptor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

from fed.cli.processes import EventQueue, Interrupted

__all__ = ["Interruption", "catch_signals"]

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """What the main thread knows of the signals.

    Attributes:
        count: How many there were.
        impatience: What a second one does while the main thread is not listening to events yet. It runs as a signal
            handler does.
    """

    def __init__(self, impatience: Callable[[], object]) -> None:
        self.count = 0
        self.impatience: Callable[[], object] | None = impatience

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler of each signal."""
        self.count += 1
        if self.impatience is not None and self.count > 1:
            self.impatience()


@contextlib.contextmanager
def catch_signals(events: EventQueue, impatience: Callable[[], object]) -> Iterator[Interruption]:
    """Have every signal put an event inside of the block, which must be entered in the main thread.

    One that this process was started to ignore, by ``nohup`` or in the background of a shell, stays ignored.
    """
    interruption = Interruption(impatience)
    arrived, wakeup = os.pipe()
    # Python writes to it from within the signal.
    os.set_blocking(wakeup, False)
    passing_on = threading.Thread(target=_pass_on, args=(arrived, events), name="fed-signals", daemon=True)
    passing_on.start()
    wakeup_before = signal.set_wakeup_fd(wakeup)
    caught = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interruption.handle) for number in caught}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup_before)
        os.close(wakeup)
        passing_on.join()


def _pass_on(arrived: int, events: EventQueue) -> None:
    with os.fdopen(arrived, "rb", buffering=0) as stream:
        while numbers := stream.read(16):
            for number in numbers:
                if number in SIGNALS:
                    events.put(Interrupted())
