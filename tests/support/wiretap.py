"""What runs between the parties of a simulation, written down and disturbed by a test."""

from __future__ import annotations

import asyncio
import collections
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
from typing_extensions import override

import fed.testing.simulation as simulation
from fed.config import Config
from fed.object import ObjectId
from fed.transport import wire
from fed.transport.contract import (
    Ack,
    Handler,
    Hello,
    Link,
    LinkStatistics,
    Listener,
    ListenerStatistics,
    Notice,
    NoticeKind,
    Parcel,
    Verdict,
)
from fed.transport.memory import MemoryNetwork

Way = tuple[str, str]
"""From one party to another."""


class Network(MemoryNetwork):
    """A network in memory that says when it begins to hold something.

    Attributes:
        holds: Set when the first frame is held.
    """

    def __init__(self) -> None:
        super().__init__()
        self.holds = threading.Event()

    @override
    def _pass(self, connection: Any, deliver: Callable[[], object]) -> None:
        super()._pass(connection, deliver)
        if self.held(connection.link.party, connection.link.peer):
            self.holds.set()


class Wiretap:
    """Stands in every link and every listener.

    Attributes:
        network: The network, where the transport is the one in memory.
        handlers: What each party's listener hands things to, by party: to forge what a peer sends.
        sent: All bytes of values, notices, greetings and receipts, by way.
        told: All notices that were taken, in order, with their way.
        parcels: All objects that were sent, likewise.
        arrived: Set when the first object has arrived at a party, by party.
        before_tell: Called before a notice goes out; may wait, or raise a `TransportError`.
        copies: How often each notice and each parcel goes out.
    """

    def __init__(self) -> None:
        self.network = Network()
        self.handlers: dict[str, Handler] = {}
        self.sent: dict[Way, bytearray] = collections.defaultdict(bytearray)
        self.told: list[tuple[str, str, Notice]] = []
        self.parcels: list[tuple[str, str, Parcel]] = []
        self.arrived: dict[str, threading.Event] = collections.defaultdict(threading.Event)
        self.before_tell: Callable[[str, str, Notice], Awaitable[None]] | None = None
        self.copies = 1
        self._changed = threading.Condition()

    def attach(self, patch: pytest.MonkeyPatch) -> Wiretap:
        """Stand in the simulations from now on."""
        for name in ("_in_memory", "_over_grpc"):
            patch.setattr(simulation, name, self._wrapped(getattr(simulation, name)))
        patch.setattr(simulation, "MemoryNetwork", lambda: self.network)
        return self

    def count(self, kind: NoticeKind, *, source: str = "", target: str = "") -> int:
        """How many notices of a kind were taken."""
        return sum(
            notice.kind is kind and source in ("", sender) and target in ("", taker)
            for sender, taker, notice in list(self.told)
        )

    def wait_for_tell(self, kind: NoticeKind, *, source: str = "", target: str = "", timeout_s: float = 30) -> bool:
        """Wait until a notice of this kind was taken."""
        with self._changed:
            return self._changed.wait_for(lambda: self.count(kind, source=source, target=target) > 0, timeout_s)

    def forge(self, target: str, call: Callable[..., object], *arguments: object) -> None:
        """Have the listener of a party call something of its handler, on the thread that this belongs to."""
        self.network._listeners[target].loop.call_soon_threadsafe(call, *arguments)

    def note(self, way: Way, data: bytes) -> None:
        self.sent[way] += data

    def note_told(self, way: Way, notice: Notice) -> None:
        with self._changed:
            self.told.append((*way, notice))
            self._changed.notify_all()

    def _wrapped(self, make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any) -> Any:
            place, transport = make(*arguments)

            def listener(config: Config) -> Listener:
                return _TappedListener(self, config.party, transport.listener(config))

            def links(config: Config) -> Mapping[str, Link]:
                return {
                    peer: _TappedLink(self, (config.party, peer), link)
                    for peer, link in transport.links(config).items()
                }

            return place, type(transport)(listener, links)

        return made


class _TappedLink(Link):
    def __init__(self, tap: Wiretap, way: Way, link: Link) -> None:
        self._tap = tap
        self._way = way
        self._link = link

    @property
    @override
    def peer(self) -> str:
        return self._link.peer

    @override
    async def connect(self, hello: Hello, *, timeout_s: float) -> Hello:
        self._tap.note(self._way, wire.encode_hello(hello))
        return await self._link.connect(hello, timeout_s=timeout_s)

    @override
    async def send(self, parcels: Sequence[Parcel]) -> None:
        for parcel in parcels:
            self._note(parcel)
        for _ in range(self._tap.copies):
            await self._link.send(parcels)

    @override
    async def upload(self, parcel: Parcel) -> Verdict:
        self._note(parcel)
        return await self._link.upload(parcel)

    @override
    def acks(self) -> AsyncIterator[Sequence[Ack]]:
        return self._link.acks()

    @override
    async def tell(self, notice: Notice, *, timeout_s: float) -> None:
        for frame in wire.encode_notice(notice):
            self._tap.note(self._way, frame)
        if self._tap.before_tell is not None:
            await self._tap.before_tell(*self._way, notice)
        for _ in range(self._tap.copies):
            await self._link.tell(notice, timeout_s=timeout_s)
        self._tap.note_told(self._way, notice)

    @override
    async def close(self) -> None:
        await self._link.close()

    @override
    def statistics(self) -> LinkStatistics:
        return self._link.statistics()

    def _note(self, parcel: Parcel) -> None:
        self._tap.parcels.append((*self._way, parcel))
        self._tap.note(self._way, parcel.header)
        for buffer in parcel.buffers:
            self._tap.note(self._way, bytes(buffer))


class _TappedListener(Listener):
    def __init__(self, tap: Wiretap, party: str, listener: Listener) -> None:
        self._tap = tap
        self._party = party
        self._listener = listener

    @override
    async def start(self, handler: Handler) -> None:
        self._tap.handlers[self._party] = handler
        await self._listener.start(_TappedHandler(self._tap, self._party, handler))

    @override
    async def close(self) -> None:
        await self._listener.close()

    @override
    def statistics(self) -> ListenerStatistics:
        return self._listener.statistics()


class _TappedHandler:
    """Notes what goes back to whoever came in: greetings and receipts."""

    def __init__(self, tap: Wiretap, party: str, handler: Handler) -> None:
        self._tap = tap
        self._party = party
        self._handler = handler

    def on_hello(self, peer: str, hello: Hello) -> Hello:
        return self._handler.on_hello(peer, hello)

    def on_stream(self, peer: str, send_acks: Callable[[Sequence[Ack]], None]) -> None:
        def noted(acks: Sequence[Ack]) -> None:
            self._tap.note((self._party, peer), wire.encode_acks(acks))
            send_acks(acks)

        self._handler.on_stream(peer, noted)

    def on_parcels(self, peer: str, parcels: Sequence[Parcel]) -> None:
        self._handler.on_parcels(peer, parcels)
        self._tap.arrived[self._party].set()

    def on_offer(self, peer: str, object_id: ObjectId, nbytes: int, overhead: int) -> Verdict:
        return self._handler.on_offer(peer, object_id, nbytes, overhead)

    def on_offer_broken(self, peer: str, object_id: ObjectId) -> None:
        self._handler.on_offer_broken(peer, object_id)

    def on_notice(self, peer: str, notice: Notice) -> asyncio.Future[None] | None:
        return self._handler.on_notice(peer, notice)
