"""What arrives from peers on its way from the receiver to its driver, over the direct channel.

The driver says what it waits for. The receiver answers with each object: its value if that is small, its failure, or
word that it is *large*, which the driver takes by a call to the runtime, since it belongs into the object store.

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

from fed.channel import Connection, Lane, ProxyEnd, Role
from fed.core.failure import Failure
from fed.core.idset import IdSet
from fed.core.rendezvous import Key
from fed.object import ObjectId
from fed.proxy.reach import Reach
from fed.serde.receipt import SmallValue
from fed.transport import wire

__all__ = ["LARGE_BYTES", "Arrived", "ArrivalClient", "ArrivalServer", "Deliver", "Waiting"]

LARGE_BYTES: Final = 1 << 16
"""Values of more than this many bytes are large."""

KEY_BYTES: Final = 64
KEYS_PER_FRAME: Final = 1 << 14
FRAME_BYTES: Final = 1 << 20
"""Where a frame ends, of at most so many names of so many bytes: far from the largest that there can be."""


class Arrived(NamedTuple):
    """What the driver is told of an object that it waits for. With neither value nor failure: it is large.

    Attributes:
        key: Which.
        small: Its value.
        failure: Why it will never come.
    """

    key: Key
    small: SmallValue | None = None
    failure: Failure | None = None


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
            self._expected.update(dict.fromkeys(keys))
            self._send(_Kind.EXPECT, keys)

    def confirm(self, keys: Sequence[Key]) -> None:
        """These are safe in this party's hands. Small ones are confirmed by themselves."""
        with self._lock:
            for key in keys:
                # One of an epoch that is over is of no interest any more.
                if key in self._expected:
                    del self._expected[key]
                    self._delivered.setdefault(key.peer, IdSet()).add(key.id)
            self._send(_Kind.CONFIRM, keys)

    def reset(self, epoch: int) -> None:
        """Begin an epoch: nothing of earlier ones is waited for any more."""
        with self._lock:
            self._begin(epoch)

    def connected(self, connection: Connection) -> None:
        """See `fed.channel.DriverHandler`."""
        if connection.lane is Lane.DATA:
            with self._lock:
                self._connection = connection
                connection.send(encode_has(self._epoch, self._delivered))
                self._send(_Kind.EXPECT, self._expected)

    def received(self, connection: Connection, frames: Sequence[bytes]) -> None:
        """See `fed.channel.DriverHandler`."""
        told = [arrived for frame in frames for arrived in decode_arrived(frame)]
        with self._lock:
            arrived = [one for one in told if one.key in self._expected]
            # What was lost with a connection, or was not confirmed to a receiver that lives again, may come again.
            again = [one.key for one in told if one.key.id in self._delivered.get(one.key.peer, ())]
        if arrived:
            self._deliver(arrived)
        with self._lock:
            for one in arrived:
                if one.failure is not None:
                    self._expected.pop(one.key, None)
        self.confirm([*again, *[one.key for one in arrived if one.small is not None]])

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
        self.reach = Reach(Role.RECEIVER)
        end.start(self)

    def deliver(self, arrived: Sequence[Arrived]) -> None:
        """Hand objects to the driver. In vain if it is not there: it asks for them again."""
        self._end.send(Lane.DATA, *encode_arrived(arrived))

    def connected(self, lane: Lane) -> None:
        """See `fed.channel.ProxyHandler`."""
        if lane is Lane.DATA:
            self.reach.reached()

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
        """End the channel."""
        await self._end.close()


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
    """Objects as frames. Those that follow one another with the same failure have it once."""
    frames: list[bytes] = []
    told: list[tuple[Any, ...]] = []
    nbytes = 0

    def end_frame() -> None:
        nonlocal told, nbytes
        if told:
            frames.append(msgpack.packb(told))
            told, nbytes = [], 0

    for (small, failure), group in itertools.groupby(arrived, key=lambda one: (one.small, one.failure)):
        keys = [(one.key.peer, tuple(one.key.id)) for one in group]
        what: tuple[Any, ...] = ()
        if small is not None:
            what = small
        elif failure is not None:
            what = (wire.encode_failure(failure),)
        for start in range(0, len(keys), KEYS_PER_FRAME):
            part = keys[start : start + KEYS_PER_FRAME]
            told.append((part, *what))
            nbytes += KEY_BYTES * len(part) + (small_bytes(small) if small is not None else sum(map(len, what)))
            if nbytes >= FRAME_BYTES:
                end_frame()
    end_frame()
    return frames


def decode_arrived(frame: bytes) -> list[Arrived]:
    """Read one of the frames that `encode_arrived` wrote."""
    arrived: list[Arrived] = []
    for names, *what in msgpack.unpackb(frame, use_list=False):
        small = SmallValue(*what) if len(what) == 2 else None
        failure = wire.decode_failure(what[0]) if len(what) == 1 else None
        arrived += [Arrived(Key(peer, ObjectId(*object_id)), small, failure) for peer, object_id in names]
    return arrived


def small_bytes(small: SmallValue) -> int:
    """What it takes in a frame, roughly."""
    return len(small.header) + sum(len(buffer) + 8 for buffer in small.buffers)


def _drop(arrived: Sequence[Arrived]) -> None:
    """Nothing is waited for before somebody listens."""
