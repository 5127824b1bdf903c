"""What a proxy tells its driver of the peers, and how it is kept until the driver has handled it.

One batch is under way at a time. What happens meanwhile waits for the next one, and what renews an event that still
waits takes its place: a peer may say something as often as it likes, and costs the proxy one event.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import Callable
from typing import Final, NamedTuple

from fed.core.notice import Notice

__all__ = ["Batch", "EventQueue", "PeerEvent", "PeerEventKind"]

MAX_BATCH: Final = 32
"""Events that travel together at most: of the largest ones that there are, as many fit into a frame."""


class PeerEventKind(enum.Enum):
    """What the driver hears from its proxies."""

    GREETED = "GREETED"
    """A driver has greeted for the first time: a peer's first one, or one that takes its predecessor's place."""
    NOTICE = "NOTICE"
    """A peer told something."""
    DISAGREED = "DISAGREED"
    """A peer's greeting was refused."""
    LOST = "LOST"
    """A peer has been silent for longer than its lease."""
    REJECTED = "REJECTED"
    """A peer that had joined refuses this party for good."""
    ABSENT = "ABSENT"
    """Nobody listens any more where a peer that had joined did."""


@dataclasses.dataclass(frozen=True)
class PeerEvent:
    """Something that a peer told or did, or that was found of it.

    Attributes:
        kind: What it is.
        peer: Who.
        incarnation: For GREETED: that life of the peer's driver.
        notice: For NOTICE: as the peer told it, of the current epoch or a later one; READY and GOODBYE of any epoch.
        reason: For DISAGREED and REJECTED: a sentence. For LOST: what has shortened its lease, as a clause, or nothing.
        silent_s: For LOST: for how many seconds nothing was heard of it.
    """

    kind: PeerEventKind
    peer: str
    incarnation: str = ""
    notice: Notice | None = None
    reason: str = ""
    silent_s: float = 0.0


class Batch(NamedTuple):
    """Events, in order.

    Attributes:
        number: Of the last one of them, counted since the proxy began to live.
        events: The events.
    """

    number: int
    events: tuple[PeerEvent, ...]


class EventQueue:
    """The events of one life of a proxy that its driver has not handled. Belongs to the proxy's event loop."""

    def __init__(self) -> None:
        self._wake: Callable[[], None] = _nothing
        self._count = 0
        # By number, in order.
        self._waiting: dict[int, PeerEvent] = {}
        self._under_way: Batch | None = None
        # Of those that wait and can be renewed: the number of the newest one.
        self._newest: dict[tuple[str, object], int] = {}
        # Of those whose peer is to learn that they were handled: who it is, and what resolves then.
        self._unacknowledged: dict[int, tuple[str, asyncio.Future[None]]] = {}

    def attach(self, wake: Callable[[], None]) -> None:
        """Call this whenever there is something to take."""
        self._wake = wake

    def add(self, event: PeerEvent, *, renews: bool = False) -> None:
        """Have the driver told.

        Args:
            event: What.
            renews: Whether it makes one of its kind worthless that waits, of the same peer.
        """
        self._count += 1
        if renews:
            key = (event.peer, event.kind if event.notice is None else event.notice.kind)
            self._waiting.pop(self._newest.get(key, 0), None)
            self._newest[key] = self._count
        self._waiting[self._count] = event
        self._wake()

    def add_acknowledged(self, event: PeerEvent) -> asyncio.Future[None]:
        """Have the driver told. What is returned resolves when it has handled that, and is cancelled at the end."""
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unacknowledged[self._count + 1] = (event.peer, acknowledged)
        self.add(event)
        return acknowledged

    def unacknowledged(self, peer: str) -> int:
        """How many events are there of a peer that is to learn that they were handled."""
        return sum(who == peer for who, _ in self._unacknowledged.values())

    def batch(self) -> Batch | None:
        """What the driver is to be told now: the batch that is under way, else the next one, if there is any."""
        if self._under_way is None and self._waiting:
            numbers = list(self._waiting)[:MAX_BATCH]
            self._under_way = Batch(numbers[-1], tuple([self._waiting.pop(number) for number in numbers]))
            self._newest = {key: number for key, number in self._newest.items() if number > numbers[-1]}
        return self._under_way

    def handled(self, number: int) -> None:
        """The driver has handled the batch with this number."""
        if self._under_way is not None and number == self._under_way.number:
            self._under_way = None
            for handled in [earlier for earlier in self._unacknowledged if earlier <= number]:
                self._acknowledge(handled)

    def drop(self, is_stale: Callable[[Notice], bool]) -> int:
        """Drop what waits and is of no use any more; whoever told it learns that it was handled. Returns how many."""
        stale = [
            number for number, event in self._waiting.items() if event.notice is not None and is_stale(event.notice)
        ]
        for number in stale:
            del self._waiting[number]
            self._acknowledge(number)
        return len(stale)

    def close(self) -> None:
        """The proxy ends. What was not handled is not acknowledged, and is told again to the next one."""
        self._wake = _nothing
        for _, acknowledged in self._unacknowledged.values():
            acknowledged.cancel()

    def _acknowledge(self, number: int) -> None:
        _, acknowledged = self._unacknowledged.pop(number, ("", None))
        if acknowledged is not None and not acknowledged.done():
            acknowledged.set_result(None)


def _nothing() -> None:
    """Nobody takes anything."""
