"""Waiters that are woken when what they wait for has come about."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from fed.condition import PredicateCondition
from tests.support.eventually import eventually

WAIT_S = 30.0


class Waiting:
    """A thread that waits for a number to reach a bound, and counts how often it looked."""

    def __init__(self, condition: PredicateCondition, number: Callable[[], int], bound: int) -> None:
        self.looks = 0
        self.found = False
        self._condition, self._number, self._bound = condition, number, bound
        self.thread = threading.Thread(target=self._wait, daemon=True)
        self.thread.start()

    def _wait(self) -> None:
        with self._condition:
            self.found = self._condition.wait_for(self._holds, WAIT_S)

    def _holds(self) -> bool:
        if threading.current_thread() is self.thread:
            self.looks += 1
        return self._number() >= self._bound

    def ended(self) -> bool:
        self.thread.join(WAIT_S)
        return not self.thread.is_alive()


def test_a_waiter_sleeps_through_changes_that_are_not_its_own() -> None:
    condition, numbers = PredicateCondition(threading.Lock()), [0]
    waiting = Waiting(condition, lambda: numbers[0], 100)
    assert eventually(lambda: waiting.looks == 1)
    for number in (1, 2, 100):
        with condition:
            numbers[0] = number
            condition.notify_all()
        # Time to wake in, if it is to.
        waiting.thread.join(0.1)
    assert waiting.ended()
    assert waiting.found
    # Once before it waited, and once when it was woken.
    assert waiting.looks == 2


def test_each_of_several_waiters_is_woken() -> None:
    condition, numbers = PredicateCondition(threading.Lock()), [0]
    first, second = (Waiting(condition, lambda: numbers[0], bound) for bound in (1, 2))
    assert eventually(lambda: first.looks == second.looks == 1)
    for number, waiting in ((1, first), (2, second)):
        with condition:
            numbers[0] = number
            condition.notify_all()
        assert waiting.ended()
        assert waiting.found


def test_the_time_runs_out_and_an_exception_leaves_nothing_behind() -> None:
    condition = PredicateCondition(threading.Lock())
    with condition:
        assert condition.wait_for(lambda: False, 0.001) is False

    def raises() -> bool:
        raise LookupError

    with pytest.raises(LookupError), condition:
        condition.wait_for(raises, WAIT_S)
    # Nobody looks at what is not waited for any more.
    with condition:
        condition.notify_all()
