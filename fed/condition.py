"""A condition whose waiters are woken when what they wait for has come about, and not whenever anything changed.

`threading.Condition` wakes a waiter to have it look for itself. Where states change a hundred times for each one that
somebody waits for, most of that is threads that pass the interpreter on to one another. Here whoever changes something
looks first, which takes a microsecond.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["PredicateCondition"]


class PredicateCondition(threading.Condition):
    """A condition for predicates that are cheap, do not raise, and change with the lock held.

    Wait with `wait_for` only: nobody who waits without a predicate is woken by `notify_all`.

    Args:
        lock: Guards what the predicates look at.
    """

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__(lock)
        self._awaited: list[Callable[[], object]] = []

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until a predicate holds. Returns its last value, which is false if the time was up."""
        self._awaited.append(predicate)
        try:
            return super().wait_for(predicate, timeout)
        finally:
            self._awaited.remove(predicate)

    def notify_all(self) -> None:
        """Something has changed: wake the waiters if what one of them waits for has come about."""
        if any(predicate() for predicate in self._awaited):
            super().notify_all()
