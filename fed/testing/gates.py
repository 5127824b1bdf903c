"""Where the injected faults make things wait: until a test lets them go, and never beyond the simulation.

A waiter is a future, so that a thread and a coroutine can wait in the same way. It resolves to True where the thing
goes on, and to False where there is nothing left to go on with: its party has left, or the simulation is over.

Thread safety: one lock guards all. Futures are resolved outside of it, because that runs callbacks.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Gates"]


class _Waiter(NamedTuple):
    party: str
    gate: str | None
    future: concurrent.futures.Future[bool]


class Gates:
    """The gates of one simulation. All of them are closed at first, and one that was opened stays open."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: set[str] = set()
        self._reached: set[str] = set()
        self._waiters: list[_Waiter] = []
        self._left: set[str] = set()
        self._all_open = False
        self._over = False

    def wait(self, party: str, gate: str | None) -> concurrent.futures.Future[bool]:
        """Wait at a gate, or at none: then until everything is let go.

        Args:
            party: Whose thing it is.
            gate: The gate's name.
        """
        future: concurrent.futures.Future[bool] = concurrent.futures.Future()
        with self._changed:
            if gate is not None:
                self._reached.add(gate)
                self._changed.notify_all()
            if self._over or party in self._left:
                outcome: bool | None = False
            elif self._all_open or gate in self._open:
                outcome = True
            else:
                outcome = None
                # Those that gave up are dropped here, since nobody else looks at the list for long.
                self._waiters = [waiter for waiter in self._waiters if not waiter.future.done()]
                self._waiters.append(_Waiter(party, gate, future))
        if outcome is not None:
            future.set_result(outcome)
        return future

    def open(self, gate: str | None) -> None:
        """Open one gate, or let everything go: what waits now, and what would wait later."""
        with self._changed:
            if gate is None:
                self._all_open = True
            else:
                self._open.add(gate)
            going = [waiter for waiter in self._waiters if gate is None or waiter.gate == gate]
        _resolve(going, goes_on=True)

    def reached(self, gate: str, timeout_s: float) -> bool:
        """Wait until something waits at a gate, or did."""
        with self._changed:
            return self._changed.wait_for(lambda: gate in self._reached, timeout_s)

    def enter(self, party: str) -> None:
        """A party begins a job."""
        with self._changed:
            self._left.discard(party)

    def leave(self, party: str) -> None:
        """A party's job is over: nothing of it waits any more."""
        with self._changed:
            self._left.add(party)
            going = [waiter for waiter in self._waiters if waiter.party == party]
        _resolve(going, goes_on=False)

    def end(self) -> None:
        """The simulation is over: nothing waits any more."""
        with self._changed:
            self._over = True
            going = self._waiters
        _resolve(going, goes_on=False)


def _resolve(waiters: Iterable[_Waiter], *, goes_on: bool) -> None:
    for waiter in waiters:
        # It may have given up, or have been let go by somebody else, at this very moment.
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            waiter.future.set_result(goes_on)
