"""The outbox: what one peer still has to acknowledge, and what of it may go out now.

States of one object::

    QUEUED ── taken ──► SENT ── DELIVERED or REFUSED ──► (gone)
      ▲                  │ ▲
      │    WANTED        │ │
      ├───────────── DEFERRED ◄─ DEFERRED
      └── reconnected: everything unacknowledged is queued again

Law: an object leaves the outbox when it is `finished` (delivered, refused, or its peer is gone) or with its epoch, at
a `reset`, and by nothing else, so a broken connection or a restarted peer costs time and loses nothing.
"""

from __future__ import annotations

import enum
from typing import Generic, TypeVar

# Python 3.10 has no generic NamedTuple of its own.
from typing_extensions import NamedTuple

from fed.object import ObjectId

__all__ = ["Outbox", "Queued"]

P = TypeVar("P")


class _State(enum.Enum):
    QUEUED = enum.auto()
    SENT = enum.auto()
    DEFERRED = enum.auto()


class Queued(NamedTuple, Generic[P]):
    """An object that may go out now."""

    id: ObjectId
    payload: P
    nbytes: int


class _Entry(Generic[P]):
    __slots__ = ("nbytes", "payload", "state")

    def __init__(self, payload: P, nbytes: int) -> None:
        self.payload = payload
        self.nbytes = nbytes
        self.state = _State.QUEUED


class Outbox(Generic[P]):
    """What is on its way to one peer. Not thread-safe; it belongs to one event loop."""

    def __init__(self) -> None:
        self._entries: dict[ObjectId, _Entry[P]] = {}
        # The order of queueing; a dict, because an entry may leave from the middle.
        self._queue: dict[ObjectId, None] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, object_id: ObjectId) -> bool:
        return object_id in self._entries

    def put(self, object_id: ObjectId, payload: P, nbytes: int) -> bool:
        """Queue an object. Returns False, and changes nothing, if it is there already."""
        if object_id in self._entries:
            return False
        self._entries[object_id] = _Entry(payload, nbytes)
        self._queue[object_id] = None
        return True

    def take(self, max_bytes: int) -> list[Queued[P]]:
        """The next objects to send, oldest first: at least one if any is queued, and no more than `max_bytes`."""
        taken: list[Queued[P]] = []
        total = 0
        for object_id in list(self._queue):
            entry = self._entries[object_id]
            if taken and total + entry.nbytes > max_bytes:
                break
            del self._queue[object_id]
            entry.state = _State.SENT
            total += entry.nbytes
            taken.append(Queued(object_id, entry.payload, entry.nbytes))
        return taken

    def finished(self, object_id: ObjectId) -> P | None:
        """The peer has it, or refuses it for ever: forget it. Returns its payload, None if it was not there."""
        self._queue.pop(object_id, None)
        entry = self._entries.pop(object_id, None)
        return None if entry is None else entry.payload

    def deferred(self, object_id: ObjectId) -> None:
        """The peer has no room for it now."""
        entry = self._entries.get(object_id)
        if entry is not None and entry.state is _State.SENT:
            entry.state = _State.DEFERRED

    def wanted(self, object_id: ObjectId) -> bool:
        """The peer asks for it again. Returns whether it is now queued."""
        entry = self._entries.get(object_id)
        if entry is None:
            return False
        entry.state = _State.QUEUED
        self._queue[object_id] = None
        return True

    def reconnected(self) -> None:
        """Nothing that was sent is known to have arrived: queue everything again, oldest first."""
        for object_id, entry in self._entries.items():
            entry.state = _State.QUEUED
            self._queue.setdefault(object_id)
        self._queue = {object_id: None for object_id in self._entries if object_id in self._queue}

    def reset(self, epoch: int) -> tuple[ObjectId, ...]:
        """Forget everything of earlier epochs, which nobody wants any more. Returns its names, oldest first."""
        past = tuple(object_id for object_id in self._entries if object_id.epoch < epoch)
        for object_id in past:
            self.finished(object_id)
        return past

    def validate(self) -> None:
        """Check the laws; run at the teardown of tests.

        Raises:
            RuntimeError: A law is broken.
        """
        queued = {object_id for object_id, entry in self._entries.items() if entry.state is _State.QUEUED}
        if queued != set(self._queue):
            raise RuntimeError("the queue does not hold exactly the queued objects")
