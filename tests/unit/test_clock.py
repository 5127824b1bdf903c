"""A clock that skips waiting: it stands still while anything runs, and then jumps to the next moment waited for."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import fed
from fed.clock import SYSTEM_CLOCK, Clock
from fed.testing import simulate
from fed.testing.clock import SkippingClock

HOUR_S = 3600.0


@pytest.fixture
def clock() -> Iterator[SkippingClock]:
    with SkippingClock() as one:
        yield one


@pytest.fixture(params=["system", "skipping"])
def either(request: pytest.FixtureRequest) -> Iterator[Clock]:
    with contextlib.ExitStack() as stack:
        yield SYSTEM_CLOCK if request.param == "system" else stack.enter_context(SkippingClock())


def wait(clock: Clock, timeout_s: float) -> float:
    """Wait in vain. Returns the time."""
    condition = threading.Condition()
    with condition:
        assert not clock.wait_for(condition, lambda: False, timeout_s)
    return clock.monotonic()


# What every clock does


def test_a_wait_ends_with_the_predicates_value(either: Clock) -> None:
    condition, values = threading.Condition(), [0]

    def change() -> None:
        with condition:
            values[0] = 7
            condition.notify_all()

    with condition:
        threading.Thread(target=change).start()
        assert either.wait_for(condition, lambda: values[0], 60) == 7
        assert either.wait_for(condition, lambda: values[0]) == 7


def test_a_wait_in_vain_lasts_as_long_as_it_was_given(either: Clock) -> None:
    began = either.monotonic()
    assert either.monotonic() <= wait(either, 0.02)
    assert either.monotonic() - began >= 0.02


def test_a_queue_gives_what_was_put_in_order_and_is_empty_when_the_time_is_up(either: Clock) -> None:
    items = either.queue()
    items.put(1)
    items.put(2)
    assert [items.get(), items.get(timeout=1)] == [1, 2]
    with pytest.raises(queue.Empty):
        items.get(block=False)
    with pytest.raises(queue.Empty):
        items.get(timeout=0.01)


def test_an_event_loop_lives_by_the_clock(either: Clock) -> None:
    loop = either.event_loop()
    try:
        before = either.monotonic()
        loop.run_until_complete(asyncio.sleep(0.02))
        assert before + 0.02 <= loop.time() <= either.monotonic()
    finally:
        loop.close()


# What only this one does


@pytest.mark.parametrize(
    "waiting",
    [
        lambda clock: wait(clock, HOUR_S),
        lambda clock: get(clock),
        lambda clock: run(clock, asyncio.sleep(HOUR_S)),
    ],
    ids=["condition", "queue", "event loop"],
)
def test_an_hour_takes_no_time_and_not_a_second_more(clock: SkippingClock, waiting: Callable[[Any], Any]) -> None:
    began, before = time.monotonic(), clock.monotonic()
    waiting(clock)
    assert clock.monotonic() - before == pytest.approx(HOUR_S)
    assert time.monotonic() - began < 10


def get(clock: Clock) -> None:
    with pytest.raises(queue.Empty):
        clock.queue().get(timeout=HOUR_S)


def run(clock: Clock, coroutine: Any) -> None:
    loop = clock.event_loop()
    try:
        loop.run_until_complete(coroutine)
    finally:
        loop.close()


def test_whoever_waits_for_less_is_woken_first_and_before_the_others_time_is_up(clock: SkippingClock) -> None:
    woken: list[tuple[int, float]] = []
    began = clock.monotonic()
    # Each in a thread of its own: the clock must not move before all wait, since starting them is work.
    everyone = threading.Barrier(5)

    def wait_for(hours: int) -> None:
        everyone.wait()
        woken.append((hours, wait(clock, hours * HOUR_S)))

    threads = [threading.Thread(target=wait_for, args=(hours,)) for hours in (3, 1, 5, 2, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [hours for hours, _ in woken] == [1, 2, 3, 4, 5]
    assert [at - began for _, at in woken] == pytest.approx([hours * HOUR_S for hours in range(1, 6)])


def test_no_time_passes_while_a_thread_computes(clock: SkippingClock) -> None:
    """Also while it waits for the interpreter lock, or for a processor."""
    waiting = threading.Thread(target=wait, args=(clock, HOUR_S))
    waiting.start()
    others = [threading.Thread(target=lambda: sum(range(3_000_000))) for _ in range(4)]
    before = clock.monotonic()
    for other in others:
        other.start()
    while any(other.is_alive() for other in others):
        # This thread runs too, whenever it is let.
        assert clock.monotonic() == before
    waiting.join()
    assert clock.monotonic() - before == pytest.approx(HOUR_S)


def test_no_time_passes_while_a_thread_does_a_little_again_and_again(clock: SkippingClock) -> None:
    """Nearly always it sleeps, and so whoever looks at one moment finds it idle."""
    waiting = threading.Thread(target=wait, args=(clock, HOUR_S))
    waiting.start()
    before, until = clock.monotonic(), time.monotonic() + 0.3
    while time.monotonic() < until:
        time.sleep(0.0002)
        assert clock.monotonic() == before
    waiting.join()


def test_a_value_that_is_passed_on_again_and_again_arrives_before_anybodys_time_is_up(clock: SkippingClock) -> None:
    """In between every thread waits for a moment, which is not what the clock may take for idleness."""
    stages = [clock.queue() for _ in range(50)]

    def pass_on(source: Any, target: Any) -> None:
        target.put(source.get(timeout=1.0))

    threads = [threading.Thread(target=pass_on, args=pair) for pair in itertools.pairwise(stages)]
    for thread in threads:
        thread.start()
    stages[0].put("a value")
    assert stages[-1].get(timeout=1.0) == "a value"
    for thread in threads:
        thread.join()


def test_a_simulation_on_real_connections_has_no_such_clock() -> None:
    with pytest.raises(fed.UsageError, match="needs transport='memory'"):
        simulate(lambda: None, parties=["alice"], transport="grpc", skip_waiting=True)
