"""The rendezvous: where an object from a peer and the driver that waits for it meet, whichever comes first.

States of one object (the key is the peer it comes from and its id)::

    (unknown) ── awaited ──► AWAITED ── arrives ──► HANDED ── confirmed ──► DELIVERED
        │                       │  ▲                   ▲
        │ arrives, room         │  └─ awaited: WANTED ─┼──────── DEFERRED
        ├─────────────► STORED ─┴──── awaited ─────────┘            ▲
        │ arrives, no room                                          │
        └───────────────────────────────────────────────────────────┘

Laws:

1. At least once on the wire, exactly once to the driver: what has arrived before is dropped, and acknowledged again if
   it had been delivered.
2. DELIVERED is said only when the driver has confirmed that it has the value, or that it has done with the object;
   until then the owner keeps it, so a receiver that dies loses nothing.
3. Bytes that nobody waits for are held up to a limit, beyond it they stay with their owner (DEFERRED). An object
   that somebody waits for is always admitted, so the limit cannot deadlock.
4. After `reset` objects of earlier epochs do not exist. What still comes of them is dropped, counted and acknowledged,
   so that its owner may forget it; nobody waits for them any more.

Each method returns what is to be done; the caller does it.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

from fed.core.idset import IdSet
from fed.object import ObjectId

__all__ = ["Arrival", "Key", "Rendezvous", "Reply", "Statistics"]

P = TypeVar("P")

ENTRY_BYTES: Final = 512
"""Charged for each stored object on top of its size, so that a flood of tiny ones is bounded too."""

MAX_ENTRIES: Final = 1 << 17
"""Objects of one peer that are in the table at once. Far more than a job ever has under way: what is deferred is
charged no bytes, and a peer that names objects without end must not fill the memory with their names."""


class Key(NamedTuple):
    """One object from one peer."""

    peer: str
    id: ObjectId


class Reply(enum.Enum):
    """What the peer is to be told about an object."""

    DELIVERED = "DELIVERED"
    DEFERRED = "DEFERRED"
    WANTED = "WANTED"
    REFUSED = "REFUSED"
    """It is too large."""
    CROWDED = "CROWDED"
    """There are too many."""


@dataclasses.dataclass(frozen=True)
class Arrival(Generic[P]):
    """What is to be done after something happened to one object.

    Attributes:
        payload: What to hand to the driver, if anything.
        reply: What to tell the peer, if anything.
        admitted: Whether an offered object is to be sent.
    """

    payload: P | None = None
    reply: Reply | None = None
    admitted: bool = False


class Statistics(NamedTuple):
    """Counts for operators and tests.

    Attributes:
        awaited: Waiters without an object.
        stored: Objects without a waiter.
        stored_bytes: Their size, including a charge for each.
        unconfirmed: Objects handed over and not yet confirmed.
        delivered: Objects confirmed.
        duplicates: Arrivals dropped because they had been there before.
        deferred: Arrivals turned away for lack of room.
        stale: Arrivals and offers dropped because they belong to an earlier epoch.
    """

    awaited: int
    stored: int
    stored_bytes: int
    unconfirmed: int
    delivered: int
    duplicates: int
    deferred: int
    stale: int


class _State(enum.Enum):
    AWAITED = enum.auto()
    STORED = enum.auto()
    DEFERRED = enum.auto()
    HANDED = enum.auto()


@dataclasses.dataclass(slots=True)
class _Entry:
    state: _State
    payload: Any = None
    nbytes: int = 0
    # Reserved for an offer that was admitted while nobody waited.
    reserved: int = 0


_NOTHING: Final[Arrival[Any]] = Arrival()


class Rendezvous(Generic[P]):
    """The table of one receiver. Not thread-safe; it belongs to one event loop.

    Args:
        max_stored_bytes: Limit for objects that nobody waits for yet.
        max_object_bytes: Objects beyond this are refused. None: no limit.
    """

    def __init__(self, max_stored_bytes: int, max_object_bytes: int | None = None) -> None:
        self._max_stored = max_stored_bytes
        self._max_object = max_object_bytes
        self._entries: dict[Key, _Entry] = {}
        # How many of these each peer has.
        self._counts: collections.Counter[str] = collections.Counter()
        # Of one epoch, by owner: the current one, or a later one that has begun here before the reset was heard of.
        self._delivered: dict[str, IdSet] = {}
        self._delivered_epoch = 0
        self._stored_bytes = 0
        # The earliest epoch whose objects exist.
        self._epoch = 0
        self._delivered_count = self._duplicates = self._deferred = self._stale = 0

    def awaited(self, key: Key) -> Arrival[P]:
        """The driver waits for an object. It may say so again, which means that it has not got it."""
        if self._is_past(key.id) or self._was_delivered(key):
            return _NOTHING
        entry = self._entries.get(key)
        if entry is None:
            self._put(key, _Entry(_State.AWAITED))
            return _NOTHING
        if entry.state is _State.STORED:
            return self._hand(entry, entry.payload)
        # An admitted offer is on its way already; asking for it again would only double the traffic.
        wanted = entry.state is not _State.AWAITED and not entry.reserved
        self._free(entry)
        entry.state = _State.AWAITED
        return Arrival(reply=Reply.WANTED) if wanted else _NOTHING

    def offered(self, key: Key, nbytes: int, overhead: int = 0) -> Arrival[P]:
        """A large object is offered before any of it is sent; see `arrived`."""
        early = self._before_arrival(key, nbytes)
        if early is not None:
            return early
        entry = self._entries.get(key)
        if entry is not None and entry.state is _State.AWAITED:
            return Arrival(admitted=True)
        if entry is not None:
            # Offered again: the stream of the first offer is gone, or its object will be dropped as a duplicate.
            self._free(entry)
        cost = nbytes + overhead + ENTRY_BYTES
        if not self._fits(cost):
            return self._defer(key)
        entry = entry or self._put(key, _Entry(_State.DEFERRED))
        entry.reserved = cost
        self._stored_bytes += entry.reserved
        return Arrival(admitted=True)

    def offer_broken(self, key: Key) -> None:
        """An admitted object will not come after all; its owner will offer it again."""
        entry = self._entries.get(key)
        if entry is not None and entry.state is _State.DEFERRED:
            self._drop(key)

    def arrived(self, key: Key, payload: P, nbytes: int, overhead: int = 0) -> Arrival[P]:
        """An object has arrived whole.

        Args:
            key: Which.
            payload: What arrived.
            nbytes: Its size, which its owner knows it by.
            overhead: What it takes besides to keep it, in bytes.
        """
        early = self._before_arrival(key, nbytes)
        if early is not None:
            return early
        entry = self._entries.get(key)
        if entry is not None and entry.state is _State.AWAITED:
            return self._hand(entry, payload)
        if entry is not None:
            self._free(entry)
        cost = nbytes + overhead + ENTRY_BYTES
        if not self._fits(cost):
            return self._defer(key)
        entry = entry or self._put(key, _Entry(_State.STORED))
        entry.state, entry.payload, entry.nbytes = _State.STORED, payload, cost
        self._stored_bytes += entry.nbytes
        return _NOTHING

    def confirmed(self, key: Key) -> Arrival[P]:
        """The driver has the value, or has done with the object: it has failed."""
        if self._is_past(key.id):
            return Arrival(reply=Reply.DELIVERED)
        entry = self._entries.get(key)
        # Whatever this table knows of it: the driver may have got it from the one in whose place this is.
        if entry is not None:
            self._drop(key)
        self._begin_delivered(key.id.epoch)
        # One of an epoch that is about to end here need not be known: nobody will wait for it again.
        if key.id.epoch == self._delivered_epoch:
            self._delivered.setdefault(key.peer, IdSet()).add(key.id)
        self._delivered_count += 1
        return Arrival(reply=Reply.DELIVERED)

    def restore(self, epoch: int, delivered: Mapping[str, IdSet]) -> list[Key]:
        """What the driver has: this table may not know it, in the place of one that is gone.

        Args:
            epoch: The epoch of these.
            delivered: The objects, by owner.

        Returns:
            Those of them that are in this table: they are to be acknowledged.
        """
        self.reset(epoch)
        self._begin_delivered(epoch)
        again: list[Key] = []
        if epoch < self._delivered_epoch:
            return again
        for peer, ids in delivered.items():
            self._delivered.setdefault(peer, IdSet()).update(ids)
            again += [key for key in self._entries if key.peer == peer and key.id.epoch == epoch and key.id in ids]
        for key in again:
            self._drop(key)
        return again

    def reset(self, epoch: int) -> None:
        """Objects of earlier epochs exist no more.

        Resetting to the current epoch or an earlier one changes nothing.

        Args:
            epoch: From now on the current one.
        """
        if epoch <= self._epoch:
            return
        self._epoch = epoch
        for key in [key for key in self._entries if key.id.epoch < epoch]:
            self._drop(key)
        self._begin_delivered(epoch)

    def unclaimed(self) -> dict[str, int]:
        """How many objects each peer has sent or offered that nobody has asked for.

        There are none when programs have ended that were the same everywhere and have not failed.
        """
        counts: dict[str, int] = {}
        for key, entry in self._entries.items():
            if entry.state in (_State.STORED, _State.DEFERRED):
                counts[key.peer] = counts.get(key.peer, 0) + 1
        return counts

    def is_awaited(self, key: Key) -> bool:
        """Whether the driver waits for an object that is not here."""
        entry = self._entries.get(key)
        return entry is not None and entry.state is _State.AWAITED

    def started_anew(self, peer: str) -> None:
        """Another driver takes the place of a peer's: what that one had sent is worth nothing."""
        unclaimed = (_State.STORED, _State.DEFERRED)
        for key in [key for key, entry in self._entries.items() if key.peer == peer and entry.state in unclaimed]:
            self._drop(key)

    def statistics(self) -> Statistics:
        """Counts now."""
        states = [entry.state for entry in self._entries.values()]
        return Statistics(
            awaited=states.count(_State.AWAITED),
            stored=states.count(_State.STORED),
            stored_bytes=self._stored_bytes,
            unconfirmed=states.count(_State.HANDED),
            delivered=self._delivered_count,
            duplicates=self._duplicates,
            deferred=self._deferred,
            stale=self._stale,
        )

    def validate(self) -> None:
        """Check the laws that a table can show; run at the teardown of tests.

        Raises:
            RuntimeError: A law is broken.
        """
        held = sum(entry.nbytes + entry.reserved for entry in self._entries.values())
        if held != self._stored_bytes:
            raise RuntimeError(f"{held} bytes are held but {self._stored_bytes} are accounted for")
        if held > self._max_stored:
            raise RuntimeError(f"{held} bytes are held beyond the limit of {self._max_stored}")
        for key, entry in self._entries.items():
            if (entry.payload is not None) != (entry.state is _State.STORED):
                raise RuntimeError(f"{key}: a payload is kept in state {entry.state.name}")
            # Where programs differ a peer's object may be here that has the name of one that the driver has done with.
            if entry.state in (_State.AWAITED, _State.HANDED) and self._was_delivered(key):
                raise RuntimeError(f"{key}: delivered and in the table")
        if self._counts != collections.Counter(key.peer for key in self._entries):
            raise RuntimeError(f"the objects of the peers are not {dict(self._counts)}")
        for key in self._entries:
            if self._is_past(key.id):
                raise RuntimeError(f"{key} of epoch {key.id.epoch} is kept in epoch {self._epoch}")
        if self._delivered and self._delivered_epoch < self._epoch:
            raise RuntimeError(f"what was delivered in epoch {self._delivered_epoch} is kept in epoch {self._epoch}")

    def _before_arrival(self, key: Key, nbytes: int) -> Arrival[P] | None:
        """The cases in which what comes is not wanted, whole or offered."""
        if self._is_past(key.id):
            self._stale += 1
            return Arrival(reply=Reply.DELIVERED)
        if self._was_delivered(key):
            self._duplicates += 1
            return Arrival(reply=Reply.DELIVERED)
        entry = self._entries.get(key)
        if entry is not None and entry.state in (_State.STORED, _State.HANDED):
            self._duplicates += 1
            return _NOTHING
        if self._max_object is not None and nbytes > self._max_object:
            return Arrival(reply=Reply.REFUSED)
        # Room for what a peer names, however little that is.
        if entry is None and self._counts[key.peer] >= MAX_ENTRIES:
            return Arrival(reply=Reply.CROWDED)
        return None

    def _was_delivered(self, key: Key) -> bool:
        known = self._delivered.get(key.peer)
        return known is not None and key.id.epoch == self._delivered_epoch and key.id in known

    def _begin_delivered(self, epoch: int) -> None:
        if epoch > self._delivered_epoch:
            self._delivered_epoch = epoch
            self._delivered.clear()

    def _is_past(self, object_id: ObjectId) -> bool:
        return object_id.epoch < self._epoch

    def _hand(self, entry: _Entry, payload: P) -> Arrival[P]:
        self._free(entry)
        entry.state, entry.payload = _State.HANDED, None
        return Arrival(payload)

    def _defer(self, key: Key) -> Arrival[P]:
        self._deferred += 1
        entry = self._entries.get(key) or self._put(key, _Entry(_State.DEFERRED))
        entry.state = _State.DEFERRED
        return Arrival(reply=Reply.DEFERRED)

    def _fits(self, cost: int) -> bool:
        return self._stored_bytes + cost <= self._max_stored

    def _put(self, key: Key, entry: _Entry) -> _Entry:
        self._entries[key] = entry
        self._counts[key.peer] += 1
        return entry

    def _drop(self, key: Key) -> None:
        self._free(self._entries.pop(key))
        self._counts[key.peer] -= 1

    def _free(self, entry: _Entry) -> None:
        self._stored_bytes -= entry.nbytes + entry.reserved
        entry.nbytes = entry.reserved = 0
