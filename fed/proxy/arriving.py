"""What arrives from peers on its way from the receiver to its driver, over the direct channel.

The driver says what it waits for. The receiver answers with each object: its value if that is small, or word that it
is *large*, which the driver takes by a call to the runtime, since it belongs into the object store. What will never
come the driver hears of apart from data (`fed.proxy.control`), and has done with.

The driver's end keeps what it waits for and what it has, and begins each new connection with both: an answer that was
lost is given again, and what it has is acknowledged, whatever the receiver had heard before.

Frames are msgpack, as in `fed.proxy.pushing`.
"""

from __future__ import annotations

import enum
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgpack

from fed.channel import Connection, Lane, ProxyEnd
from fed.core.idset import IdSet
from fed.core.rendezvous import Key
from fed.object import ObjectId
from fed.serde.receipt import SmallValue

__all__ = ["LARGE_BYTES", "Arrived", "ArrivalClient", "ArrivalServer", "Deliver", "Waiting"]

LARGE_BYTES: Final = 1 << 16
"""Values of more than this many bytes are large."""

KEY_BYTES: Final = 64
KEYS_PER_FRAME: Final = 1 << 14
FRAME_BYTES: Final = 1 << 20
"""Where a frame ends, of at most so many names of so many bytes: far from the largest that there can be."""


class Arrived(NamedTuple):
    """An object that the driver waits for is here.

    Attributes:
        key: Which.
        small: Its value; None of one that is large.
    """

    key: Key
    small: SmallValue | None = None


Deliver = Callable[[Sequence[Arrived]], None]


class Waiting(Protocol):
    """What the driver tells its receiver; see `fed.proxy.receiver.Receiver`."""

    def expect(self, keys: Iterable[Key]) -> None:
        """The driver waits for these."""

    def confirm(self, keys: Iterable[Key]) -> None:
        """The driver has these."""

    def restore(self, epoch: int, delivered: Mapping[str, IdSet]) -> None:
        """The driver is in this epoch, and has these objects of it, by owner."""


class _Kind(enum.IntEnum):
    EXPECT = 0
    CONFIRM = 1
    HAS = 2


class ArrivalClient:
    """The driver's end. Handles the connections of lane DATA of the receiver."""

    def __init__(self) -> None:
        self._deliver: Deliver = _drop
        # Guards the rest.
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._epoch = 0
        # In this order; and what has arrived in this epoch, by owner.
        self._expected: dict[Key, None] = {}
        self._delivered: dict[str, IdSet] = {}

    def listen(self, deliver: Deliver) -> None:
        """Have what arrives handed to this, on the channel's thread. It must not raise."""
        self._deliver = deliver

    def expect(self, keys: Sequence[Key]) -> None:
        """Have objects of peers handed over as soon as they are there. Never blocks."""
        with self._lock:
            self._begin(keys[0].id.epoch)
            # One that failed just now may be done with before it is asked for.
            wanted = [key for key in keys if key.id not in self._delivered.get(key.peer, ())]
            self._expected.update(dict.fromkeys(wanted))
            self._send(_Kind.EXPECT, wanted)

    def confirm(self, keys: Sequence[Key]) -> None:
        """These are safe in this party's hands, or will never come. Small ones are confirmed by themselves."""
        with self._lock:
            self._note_delivered(keys)
            self._send(_Kind.CONFIRM, keys)

    def _note_delivered(self, keys: Iterable[Key]) -> None:
        """With the lock."""
        for key in keys:
            # One of an epoch that is over is of no interest any more.
            if key.id.epoch == self._epoch:
                self._expected.pop(key, None)
                self._delivered.setdefault(key.peer, IdSet()).add(key.id)

    def reset(self, epoch: int) -> None:
        """Begin an epoch: nothing of earlier ones is waited for any more."""
        with self._lock:
            self._begin(epoch)

    def connected(self, connection: Connection) -> None:
        """See `fed.channel.DriverHandler`."""
        with self._lock:
            self._connection = connection
            connection.send(encode_has(self._epoch, self._delivered))
            self._send(_Kind.EXPECT, self._expected)

    def received(self, connection: Connection, frames: Sequence[bytes]) -> None:
        """See `fed.channel.DriverHandler`."""
        told = [arrived for frame in frames for arrived in decode_arrived(frame)]
        with self._lock:
            arrived = [answer for answer in told if answer.key in self._expected]
            # What was lost with a connection, or was not confirmed to a receiver that lives again, may come again.
            again = [key for key, _ in told if key.id in self._delivered.get(key.peer, ())]
        if arrived:
            self._deliver(arrived)
        here = [*again, *[key for key, small in arrived if small is not None]]
        if here:
            with self._lock:
                self._note_delivered(here)
                # Nobody waits for it, and the driver asks for something else soon.
                connection.send_soon(encode_keys(_Kind.CONFIRM, here))

    def lost(self, connection: Connection) -> None:
        """See `fed.channel.DriverHandler`."""
        with self._lock:
            if self._connection is connection:
                self._connection = None

    def _begin(self, epoch: int) -> None:
        if epoch > self._epoch:
            self._epoch = epoch
            self._expected.clear()
            self._delivered.clear()

    def _send(self, kind: _Kind, keys: Iterable[Key]) -> None:
        """Say this of some objects, if the receiver is there. With the lock."""
        if self._connection is not None:
            rest = iter(keys)
            while part := list(itertools.islice(rest, KEYS_PER_FRAME)):
                self._connection.send(encode_keys(kind, part))


class ArrivalServer:
    """The receiver's end. Handles lane DATA of its channel.

    Args:
        end: The channel.
        waiting: The receiver.
    """

    def __init__(self, end: ProxyEnd, waiting: Waiting) -> None:
        self._end = end
        self._waiting = waiting

    def deliver(self, arrived: Sequence[Arrived]) -> None:
        """Hand objects to the driver. In vain if it is not there: it asks for them again."""
        self._end.send(Lane.DATA, *encode_arrived(arrived))

    def connected(self, lane: Lane) -> None:
        """See `fed.channel.ProxyHandler`."""

    def received(self, lane: Lane, frames: Sequence[bytes]) -> None:
        """See `fed.channel.ProxyHandler`."""
        for frame in frames:
            kind, *told = msgpack.unpackb(frame, use_list=False)
            if kind == _Kind.HAS:
                self._waiting.restore(*decode_has(told))
            elif kind == _Kind.EXPECT:
                self._waiting.expect(decode_keys(told))
            else:
                self._waiting.confirm(decode_keys(told))

    def lost(self, lane: Lane) -> None:
        """See `fed.channel.ProxyHandler`."""

    async def close(self) -> None:
        """Nothing is under way."""


def encode_keys(kind: _Kind, keys: Iterable[Key]) -> bytes:
    """Names of objects as a frame."""
    frame: bytes = msgpack.packb((kind.value, [(peer, tuple(object_id)) for peer, object_id in keys]))
    return frame


def decode_keys(told: Sequence[Any]) -> list[Key]:
    """Read what `encode_keys` wrote, after the kind."""
    (keys,) = told
    return [Key(peer, ObjectId(*object_id)) for peer, object_id in keys]


def encode_has(epoch: int, delivered: Mapping[str, IdSet]) -> bytes:
    """What the driver has, as a frame."""
    has = {peer: ids.dump() for peer, ids in delivered.items()}
    frame: bytes = msgpack.packb((_Kind.HAS.value, epoch, has))
    return frame


def decode_has(told: Sequence[Any]) -> tuple[int, dict[str, IdSet]]:
    """Read what `encode_has` wrote, after the kind."""
    epoch, has = told
    return epoch, {peer: IdSet.load(dumped) for peer, dumped in has.items()}


def encode_arrived(arrived: Iterable[Arrived]) -> list[bytes]:
    """Objects as frames."""
    frames: list[bytes] = []
    told: list[tuple[Any, ...]] = []
    nbytes = 0
    for (peer, object_id), small in arrived:
        told.append((peer, tuple(object_id), *(small or ())))
        nbytes += KEY_BYTES + (small_bytes(small) if small is not None else 0)
        if nbytes >= FRAME_BYTES:
            frames.append(msgpack.packb(told))
            told, nbytes = [], 0
    if told:
        frames.append(msgpack.packb(told))
    return frames


def decode_arrived(frame: bytes) -> list[Arrived]:
    """Read one of the frames that `encode_arrived` wrote."""
    return [
        Arrived(Key(peer, ObjectId(*object_id)), SmallValue(*small) if small else None)
        for peer, object_id, *small in msgpack.unpackb(frame, use_list=False)
    ]


def small_bytes(small: SmallValue) -> int:
    """What it takes in a frame, roughly."""
    return len(small.header) + sum(len(buffer) + 8 for buffer in small.buffers)


def _drop(arrived: Sequence[Arrived]) -> None:
    """Nothing is waited for before somebody listens."""
