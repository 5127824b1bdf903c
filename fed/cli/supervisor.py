"""Who of a simulation's drivers is sent which signal, and when; and the exit code of the whole.

Laws:

1. No party is signalled while all goes well, however long it takes.
2. After the first failure the others have `grace_s` seconds to end by themselves: the framework tells them of it.
3. Whoever is to end is asked first, by SIGINT, so that it can clean up; then by SIGTERM; then killed. Drivers that
   ignore SIGINT are asked by SIGTERM at once.
4. An interruption begins that ladder at once; a second one goes to its end.
5. The exit code is that of the party where the failure began, if that is known and it ended by itself, else that of
   the party that failed first; an interruption overrides it.

Pure: the time comes in with each event, the signals go out as a return value.
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

__all__ = ["SendSignal", "Supervisor"]

INTERRUPTED: Final = 130
PATIENCE_S: Final = 5.0
"""How long a party that was asked to end may take before it is asked less kindly."""

_LADDER: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


@dataclasses.dataclass(frozen=True)
class SendSignal:
    """An instruction.

    Attributes:
        parties: To whom.
        signal: Which one.
        reason: Why, as a message for the user; empty where that of the signal before it holds.
    """

    parties: tuple[str, ...]
    signal: signal.Signals
    reason: str = ""


class Supervisor:
    """Follows the drivers of one simulation to their end. Times are monotonic, in seconds."""

    def __init__(self, parties: Sequence[str], grace_s: float, *, ignoring_sigint: bool = False) -> None:
        self._running = list(parties)
        self._ladder = _LADDER[1:] if ignoring_sigint else _LADDER
        self._grace_s = grace_s
        self._codes: dict[str, int] = {}
        self._signalled: set[str] = set()
        self._interruptions = 0
        self._step = 0
        self._deadline: float | None = None

    @property
    def running(self) -> tuple[str, ...]:
        """Who has not ended yet."""
        return tuple(self._running)

    @property
    def codes(self) -> Mapping[str, int]:
        """The exit codes, in the order in which the parties ended. Those of a signal are 128 and its number."""
        return MappingProxyType(self._codes)

    @property
    def first_failed(self) -> str | None:
        """Who failed first."""
        return next((party for party, code in self._codes.items() if code), None)

    @property
    def signalled(self) -> frozenset[str]:
        """Who was told to end, rather than ending by itself."""
        return frozenset(self._signalled)

    @property
    def interrupted(self) -> bool:
        """Whether the user, or whoever may, ended it."""
        return self._interruptions > 0

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to do next; None: not before another event."""
        return self._deadline if self._running else None

    def exit_code(self, source: str | None = None) -> int:
        """What the whole ends with. `source` is the party where the failure began, if that is known."""
        if self.interrupted:
            return INTERRUPTED
        if source is not None and source not in self._signalled and self._codes.get(source):
            return self._codes[source]
        return self._codes[self.first_failed] if self.first_failed is not None else 0

    def ended(self, party: str, code: int, now: float) -> None:
        """A party's process has ended. The code of a signal is the signal's negative number."""
        self._running.remove(party)
        self._codes[party] = code if code >= 0 else 128 - code
        if code and self._deadline is None:
            self._deadline = now + self._grace_s

    def interrupt(self, now: float) -> SendSignal | None:
        """Somebody wants it to end; returns what to do at once."""
        self._interruptions += 1
        if not self._running:
            return None
        if self._interruptions == 1:
            self._step = 0
            return self._climb(now, f"interrupted, ending {self._names()}")
        self._step = len(self._ladder) - 1
        return self._climb(now, f"interrupted again, killing {self._names()}")

    def tick(self, now: float) -> SendSignal | None:
        """Time has passed; returns what to do if the deadline has."""
        if self.deadline is None or now < self.deadline:
            return None
        if self._step:
            return self._climb(now, "")
        since = f"still running {self._grace_s:g} s after {self.first_failed} failed"
        return self._climb(now, f"ending {self._names()}, {since}")

    def _climb(self, now: float, reason: str) -> SendSignal:
        instruction = SendSignal(self.running, self._ladder[self._step], reason)
        self._signalled.update(instruction.parties)
        self._step = min(self._step + 1, len(self._ladder) - 1)
        self._deadline = now + PATIENCE_S
        return instruction

    def _names(self) -> str:
        return ", ".join(self._running)

    def validate(self) -> None:
        """Check the laws that hold between two events.

        Raises:
            RuntimeError: One is broken.
        """
        if set(self._running) & set(self._codes):
            raise RuntimeError("a party both runs and has ended")
        if self._step and self._deadline is None:
            raise RuntimeError("a ladder was begun that nobody will climb on")
        if self._step and not self.interrupted and self.first_failed is None:
            raise RuntimeError("a party was signalled although all went well")
