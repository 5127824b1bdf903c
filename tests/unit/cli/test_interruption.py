"""Signals become events, wherever the main thread is when they arrive."""

from __future__ import annotations

import queue
import signal
import sys
import threading

import pytest

from fed.cli.interruption import SIGNALS, catch_signals
from fed.cli.processes import EventQueue, Interrupted
from tests.support.eventually import eventually

DEADLINE_S = 10.0


def take(events: EventQueue) -> object:
    return events.get(timeout=DEADLINE_S)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_does_not_wake_the_main_thread_is_an_event(number: signal.Signals) -> None:
    events: EventQueue = queue.SimpleQueue()
    main = threading.get_ident()

    def strike() -> None:
        eventually(lambda: sys._current_frames()[main].f_code is take.__code__, DEADLINE_S)
        # Delivered to this thread, it interrupts no system call of the main thread's.
        signal.pthread_kill(threading.get_ident(), number)

    striking = threading.Thread(target=strike)
    with catch_signals(events, lambda: None) as interruption:
        striking.start()
        assert take(events) == Interrupted()
        striking.join()
    assert interruption.count == 1


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_is_ignored_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with catch_signals(queue.SimpleQueue(), lambda: None) as interruption:
            assert signal.getsignal(number) is signal.SIG_IGN
            signal.raise_signal(number)
        assert interruption.count == 0
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_second_signal_is_impatience_until_events_are_listened_to() -> None:
    impatience: list[int] = []
    events: EventQueue = queue.SimpleQueue()
    before = signal.getsignal(signal.SIGTERM)
    with catch_signals(events, lambda: impatience.append(1)) as interruption:
        signal.raise_signal(signal.SIGTERM)
        assert not impatience
        signal.raise_signal(signal.SIGINT)
        assert len(impatience) == 1
        interruption.impatience = None
        signal.raise_signal(signal.SIGHUP)
        assert len(impatience) == 1
        assert [take(events) for _ in range(3)] == [Interrupted()] * 3
    assert interruption.count == 3
    assert signal.getsignal(signal.SIGTERM) is before
