"""The trace: what went last into the state machines of this party, in order, to be read when something went wrong.

The machines of `fed.core` take events and give instructions, and nothing else changes them. So the same events, put
into new machines in the same order, do the same again: an interleaving that was met once is a pure test from then on.

What is noted stays in this party. Of failures it has all that the party knows.

The idea is that of the stimulus log of Dask's distributed scheduler.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Concatenate, Final, NamedTuple, ParamSpec, Protocol, TypeVar

from fed.core.failure import Failure, Fault
from fed.core.notice import Notice
from fed.object import ObjectId
from fed.text import cut, plain

__all__ = ["Event", "Trace", "replay", "trace_lines", "traced"]

SIZE: Final = 2048
"""Events that are kept, as long as they do not take more than `MAX_BYTES`."""

MAX_BYTES: Final = 4 << 20
"""What they may take, roughly. A peer can tell a megabyte at once, of which nothing else is kept."""

MAX_SHOWN_BYTES: Final = 160
"""Of one argument, where the trace is printed."""

MAX_FEW: Final = 5
"""Of several things in one argument."""

EVENT_BYTES: Final = 300
OBJECT_BYTES: Final = 150
"""What an event takes by itself, and each name of an object in it."""

P = ParamSpec("P")
T = TypeVar("T")


class Event(NamedTuple):
    """One event.

    Attributes:
        seconds: When, by the clock.
        machine: Which machine it went into.
        name: The method.
        arguments: Its arguments.
        options: Those by keyword.
    """

    seconds: float
    machine: str
    name: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]

    def __str__(self) -> str:
        given = [*map(_shown, self.arguments), *(f"{name}={_shown(value)}" for name, value in self.options.items())]
        return plain(f"{self.machine}.{self.name}({', '.join(given)})")


class Trace:
    """The last events of the machines of one party. Guarded by what guards these.

    Args:
        clock: Tells the seconds.

    Attributes:
        noted: How many there have been.
    """

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self._clock = clock
        self._events: collections.deque[Event] = collections.deque()
        self._weights: collections.deque[int] = collections.deque()
        self._weight = 0
        self.noted = 0
        # A machine calls its own methods, and those of the machines within it: that is no event.
        self._inside = False

    @property
    def events(self) -> tuple[Event, ...]:
        """The events, oldest first. From any thread, since a deque is copied in one step of the interpreter."""
        return tuple(self._events)

    def note(self, machine: str, name: str, *arguments: Any, **options: Any) -> None:
        """An event goes into a machine. Its arguments must be values that nobody changes."""
        weight = EVENT_BYTES + sum(map(_weight, arguments))
        self._events.append(Event(self._clock(), machine, name, arguments, options))
        self._weights.append(weight)
        self._weight += weight
        self.noted += 1
        while len(self._events) > SIZE or self._weight > MAX_BYTES:
            self._events.popleft()
            self._weight -= self._weights.popleft()

    def call(self, machine: str, name: str, method: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Put an event into a machine, and note it."""
        if self._inside:
            return method(*arguments, **options)
        self.note(machine, name, *arguments, **options)
        self._inside = True
        try:
            return method(*arguments, **options)
        finally:
            self._inside = False


class _Machine(Protocol):
    @property
    def trace(self) -> Trace:
        """Where its events are noted."""
        ...


M = TypeVar("M", bound=_Machine)


def traced(method: Callable[Concatenate[M, P], T]) -> Callable[Concatenate[M, P], T]:
    """Have the calls of a machine's method noted as events."""
    name = method.__name__

    @functools.wraps(method)
    def noted(machine: M, /, *arguments: P.args, **options: P.kwargs) -> T:
        return machine.trace.call(
            type(machine).__name__, name, functools.partial(method, machine), *arguments, **options
        )

    return noted


def trace_lines(events: Sequence[Event]) -> list[str]:
    """Events as text, each with the seconds since the first one. Indented, so that none can be taken for a record."""
    return [f"    {event.seconds - events[0].seconds:10.6f} {event}" for event in events]


def replay(events: Iterable[Event], machine: Callable[[str], object]) -> list[Any]:
    """Put events into machines again.

    Args:
        events: Those of a whole trace, of which nothing was dropped.
        machine: Gives the machine of a name.

    Returns:
        What each gave.
    """
    return [getattr(machine(event.machine), event.name)(*event.arguments, **event.options) for event in events]


def _weight(value: Any) -> int:
    """What it takes, roughly, where that may be much."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Notice):
        return sum(map(len, value.texts)) + OBJECT_BYTES * len(value.objects) + _weight(value.failure)
    if isinstance(value, (Failure, Fault)):
        return sum(map(len, (value.type_name, *value.cause_types, value.detail, value.message, value.traceback)))
    if isinstance(value, tuple):
        return OBJECT_BYTES * len(value)
    return 0


def _shown(value: Any) -> str:
    return cut(_text(value), MAX_SHOWN_BYTES)[0]


def _text(value: Any) -> str:
    if isinstance(value, Notice):
        parts = [value.kind.name, f"epoch {value.epoch}"]
        parts += [_text(value.failure)] if value.failure is not None else []
        parts += [_few(value.objects)] if value.objects else []
        parts += [f"{value.calls} calls, digest {value.digest:016x}"] if value.calls or value.digest else []
        return f"<{', '.join(parts)}>"
    if isinstance(value, Failure):
        return f"<{value.error_id} {value.kind.name} {value.type_name} at {value.src_party}{value.hearsay}>"
    if isinstance(value, Fault):
        return f"<{value.kind.name} {value.type_name}>"
    if isinstance(value, ObjectId):
        return str(value)
    if isinstance(value, tuple):
        return f"({_few(value)})"
    return repr(value)


def _few(values: tuple[Any, ...]) -> str:
    more = f", and {len(values) - MAX_FEW} more" if len(values) > MAX_FEW else ""
    return ", ".join(map(_text, values[:MAX_FEW])) + more
