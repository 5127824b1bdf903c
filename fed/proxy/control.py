"""What a driver and one of its proxies have to say to one another apart from data, over lane CONTROL of their channel.

::

    driver                                   proxy
    SNAPSHOT ──────────────────────────────► first on each connection, and whenever it has changed
    HANDLED  ──────────────────────────────► the batch is handled, the next one may come
             ◄───────────────────────── EVENTS
    SEND     ──────────────────────────────► tell a peer; to the sender
             ◄─────────────────── ACKNOWLEDGED  it has taken that, or why it never will
    SUSPECT  ──────────────────────────────► a peer may be gone; to the receiver

Each end keeps what the other one has not answered, and says it again on the next connection. So a proxy that was killed
and lives again needs nothing of its own: it begins like the first one. Frames are msgpack, as in `fed.proxy.pushing`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import enum
import itertools
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgpack

from fed.channel import ChannelError, Connection, Lane, ProxyEnd
from fed.core.failure import Failure
from fed.core.notice import Notice
from fed.proxy.events import Batch, EventQueue, PeerEvent, PeerEventKind
from fed.transport import wire

__all__ = ["ControlClient", "ControlServer", "Listener", "Snapshot"]

logger = logging.getLogger("fed.proxy")

Send = Callable[[str, Sequence[Notice]], Awaitable[str]]


class Snapshot(NamedTuple):
    """The state of a job, as far as its proxies have a use for it. What it says stays true, so the last one says all.

    Attributes:
        epoch: The current one.
        greeted: Whether the sender was asked to greet the peers, and has answered: nobody will ask another life of it.
        begun: Whether the job has begun, so that no driver of a peer may be started anew any more.
        incarnations: The life of each peer's driver that has greeted this party.
        left: Peers of which nothing more is expected, and the failure because of which they left or are lost, if it was
            one.
    """

    epoch: int
    greeted: bool
    begun: bool
    incarnations: Mapping[str, str]
    left: Mapping[str, Failure | None]


class _Kind(enum.IntEnum):
    SNAPSHOT = 0
    HANDLED = 1
    EVENTS = 2
    SEND = 3
    ACKNOWLEDGED = 4
    SUSPECT = 5


class _Sending(NamedTuple):
    """Something to tell a peer that has not been answered."""

    frame: bytes
    answer: concurrent.futures.Future[str]


class Listener(Protocol):
    """What the driver does with what a proxy says. Called on the lane's thread; must not raise."""

    def handle(self, events: Sequence[PeerEvent]) -> None:
        """Events have come, in order. When this returns they are in safe hands."""

    def lives_again(self) -> None:
        """The proxy was killed, and another one is in its place."""


class ControlClient:
    """The driver's end. Handles the connections of lane CONTROL of one proxy."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        # Belong to the lane's thread: which life of the proxy it is, and its last batch that was handled.
        self._boot_id = ""
        self._handled = 0
        # Guards the rest.
        self._lock = threading.Lock()
        self._listener: Listener | None = None
        self._connection: Connection | None = None
        self._snapshot = Snapshot(0, False, False, {}, {})
        self._sending: dict[int, _Sending] = {}

    def listen(self, listener: Listener) -> None:
        """Tell this one of what happens. Before that the proxy hears nothing, and waits."""
        with self._lock:
            self._listener = listener
            self._begin()

    def publish(self, snapshot: Snapshot) -> None:
        """Let the proxy know the state of the job. Never blocks."""
        with self._lock:
            self._snapshot = snapshot
            self._send(encode_snapshot(snapshot))

    def send(self, peer: str, notices: Sequence[Notice]) -> concurrent.futures.Future[str]:
        """Have a peer told, for as long as it may still take it. Never blocks.

        These are told in order. What is sent before these have been answered may come before them.

        Returns:
            What resolves to the empty text when it has taken all, or to the reason why it never will.
        """
        number = next(self._numbers)
        sending = _Sending(encode_send(number, peer, notices), concurrent.futures.Future())
        with self._lock:
            self._sending[number] = sending
            self._send(sending.frame)
        return sending.answer

    def suspect(self, peer: str) -> None:
        """Something says that a peer may be gone. In vain if the proxy is not there: what says so says it again."""
        with self._lock:
            self._send(_frame(_Kind.SUSPECT, peer))

    def connected(self, connection: Connection) -> None:
        """See `fed.channel.DriverHandler`."""
        before, self._boot_id = self._boot_id, connection.boot_id
        if before != connection.boot_id:
            self._handled = 0
        with self._lock:
            self._connection = connection
            self._begin()
        if before not in ("", connection.boot_id) and self._listener is not None:
            self._listener.lives_again()

    def received(self, connection: Connection, frames: Sequence[bytes]) -> None:
        """See `fed.channel.DriverHandler`."""
        for frame in frames:
            kind, *told = _read(frame)
            if kind == _Kind.EVENTS and self._listener is not None:
                number, events = decode_events(told)
                # It comes again where the word that it was handled was lost.
                if number > self._handled:
                    self._listener.handle(events)
                    self._handled = number
                connection.send(_frame(_Kind.HANDLED, number))
            elif kind == _Kind.ACKNOWLEDGED:
                self._acknowledged(*told)

    def lost(self, connection: Connection) -> None:
        """See `fed.channel.DriverHandler`."""
        with self._lock:
            if self._connection is connection:
                self._connection = None

    def _acknowledged(self, number: int, reason: str) -> None:
        with self._lock:
            sending = self._sending.pop(number, None)
        # An earlier life of the proxy may have answered too.
        if sending is not None:
            sending.answer.set_result(reason)

    def _begin(self) -> None:
        """Say all that the proxy has to know. With the lock."""
        self._send(encode_snapshot(self._snapshot), *[sending.frame for sending in self._sending.values()])

    def _send(self, *frames: bytes) -> None:
        """Say this if the proxy is there. With the lock."""
        if self._connection is not None and self._listener is not None:
            self._connection.send(*frames)


class ControlServer:
    """The proxy's end. Handles lane CONTROL of its channel.

    Args:
        end: The channel.
        events: What the proxy has to tell.
        learn: Called with each snapshot.
        send: Tells a peer; returns the empty text, or the reason why it will not take that.
        suspect: Called with a peer that may be gone.
    """

    def __init__(
        self,
        end: ProxyEnd,
        events: EventQueue,
        learn: Callable[[Snapshot], None],
        *,
        send: Send | None = None,
        suspect: Callable[[str], None] | None = None,
    ) -> None:
        self._end = end
        self._events = events
        self._learn = learn
        self._send = send
        self._suspect = suspect
        self._reached = asyncio.Event()
        self._closed = False
        # On this connection: whether the driver has said what the state of the job is, and the batch that it is at.
        self._informed = False
        self._sent = 0
        # What is being told to peers, by the driver's number: it asks again on each connection.
        self._tasks: dict[int, asyncio.Task[None]] = {}
        events.attach(self._send_events)

    async def reach(self, within_s: float) -> None:
        """Wait until the driver has said for the first time what the state of the job is.

        Raises:
            ChannelError: It has not in time, or before this was closed.
        """
        try:
            await asyncio.wait_for(self._reached.wait(), None if within_s == math.inf else within_s)
        except asyncio.TimeoutError:
            raise ChannelError(
                f"a proxy could not reach its driver within {within_s:g} s: if they are on two nodes of the cluster, "
                "let these reach one another's ports"
            ) from None
        if self._closed:
            raise ChannelError("the proxy is closed")

    def connected(self, lane: Lane) -> None:
        """See `fed.channel.ProxyHandler`."""

    def received(self, lane: Lane, frames: Sequence[bytes]) -> None:
        """See `fed.channel.ProxyHandler`."""
        for frame in frames:
            kind, *told = _read(frame)
            if kind == _Kind.SNAPSHOT:
                self._learn(decode_snapshot(told))
                self._informed = True
                self._reached.set()
            elif kind == _Kind.HANDLED:
                (number,) = told
                self._events.handled(number)
            elif kind == _Kind.SUSPECT and self._suspect is not None:
                self._suspect(*told)
            elif kind == _Kind.SEND and self._send is not None:
                number, peer, notices = decode_send(told)
                if number not in self._tasks:
                    task = asyncio.ensure_future(self._acknowledge(number, self._send, peer, notices))
                    self._tasks[number] = task
                    # Of one that is cancelled before it began.
                    task.add_done_callback(lambda _, number=number: self._tasks.pop(number, None))  # type: ignore[misc]
        self._send_events()

    def lost(self, lane: Lane) -> None:
        """See `fed.channel.ProxyHandler`."""
        self._informed, self._sent = False, 0

    async def close(self) -> None:
        """End what is being told to peers, and whoever waits for the driver."""
        self._closed = True
        self._reached.set()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _send_events(self) -> None:
        batch = self._events.batch() if self._informed else None
        if batch is not None and batch.number != self._sent:
            self._sent = batch.number
            self._end.send(Lane.CONTROL, encode_events(batch))

    async def _acknowledge(self, number: int, send: Send, peer: str, notices: Sequence[Notice]) -> None:
        try:
            reason = await send(peer, notices)
        except Exception as error:
            logger.exception("a peer could not be told")
            reason = f"{type(error).__name__}: {error}"
        # In vain if the driver is not there: it asks again on the next connection, and the peer is told twice. Asked
        # from here on this is none that is under way.
        self._tasks.pop(number, None)
        self._end.send(Lane.CONTROL, _frame(_Kind.ACKNOWLEDGED, number, reason))


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """A snapshot as a frame."""
    left = {peer: failure and wire.encode_failure(failure) for peer, failure in snapshot.left.items()}
    return _frame(_Kind.SNAPSHOT, *snapshot[:3], dict(snapshot.incarnations), left)


def decode_snapshot(told: Sequence[Any]) -> Snapshot:
    """Read what `encode_snapshot` wrote, after the kind."""
    epoch, greeted, begun, incarnations, left = told
    failures = {peer: failure and wire.decode_failure(failure) for peer, failure in left.items()}
    return Snapshot(epoch, greeted, begun, incarnations, failures)


def encode_send(number: int, peer: str, notices: Sequence[Notice]) -> bytes:
    """What a peer is to be told, as a frame."""
    return _frame(_Kind.SEND, number, peer, [part for notice in notices for part in wire.encode_notice(notice)])


def decode_send(told: Sequence[Any]) -> tuple[int, str, list[Notice]]:
    """Read what `encode_send` wrote, after the kind."""
    number, peer, parts = told
    return number, peer, [wire.decode_notice(part) for part in parts]


def encode_events(batch: Batch) -> bytes:
    """Events as a frame."""
    events = [
        (event.kind.value, event.peer, event.incarnation, notice, event.reason, event.silent_s)
        for event in batch.events
        for notice in ((None,) if event.notice is None else wire.encode_notice(event.notice))
    ]
    return _frame(_Kind.EVENTS, batch.number, events)


def decode_events(told: Sequence[Any]) -> Batch:
    """Read what `encode_events` wrote, after the kind."""
    number, events = told
    return Batch(number, tuple([_read_event(*event) for event in events]))


def _read_event(
    kind: str, peer: str, incarnation: str, notice: bytes | None, reason: str, silent_s: float
) -> PeerEvent:
    told = None if notice is None else wire.decode_notice(notice)
    return PeerEvent(PeerEventKind(kind), peer, incarnation, told, reason, silent_s)


def _frame(kind: _Kind, *told: Any) -> bytes:
    # Sentences name what the machine calls its files, which may have what no encoding has.
    frame: bytes = msgpack.packb((kind.value, *told), unicode_errors="surrogatepass")
    return frame


def _read(frame: bytes) -> Any:
    return msgpack.unpackb(frame, use_list=False, unicode_errors="surrogatepass")
