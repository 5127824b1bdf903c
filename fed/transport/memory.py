"""A transport within one process: the contract without a wire, for tests and for federations in one process.

Parties may run on one event loop or each on its own, in threads. They share no memory: what is sent is copied.
A notice is written and read as for a wire, since what would be cut or refused there must be here as well.
Identity is the network's word: a link belongs to the party that it was made for.

Thread safety: a link's state is touched on its own loop only, a listener's on its own; they reach one another
through `_post` alone. What both must see at once - who listens, which pairs are cut, which parcels are held -
belongs to the network and is guarded by its lock. Nothing waits while holding that lock.

For tests, `MemoryNetwork.cut` breaks the connections of two parties until `heal`, and `hold` keeps parcels on
their way until `release`. Both take effect before they return.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from typing_extensions import override

from fed.object import ObjectId
from fed.transport import wire
from fed.transport.chunks import offer_of
from fed.transport.contract import (
    Ack,
    AddressInUse,
    Handler,
    Hello,
    Link,
    LinkStatistics,
    Listener,
    ListenerStatistics,
    Notice,
    NotNow,
    Parcel,
    PeerAbsent,
    PeerRefused,
    PeerUnreachable,
    Refusal,
    TransportError,
    Verdict,
)
from fed.transport.greeting import answer_hello, check_own_hello, check_welcome

__all__ = ["MemoryLink", "MemoryListener", "MemoryNetwork"]

_S = TypeVar("_S", LinkStatistics, ListenerStatistics)
_LOG: Final = logging.getLogger(__name__)


class MemoryNetwork:
    """Connects the parties of one process. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[str, MemoryListener] = {}
        # By the party that listens: what one party does costs nothing for the connections of others.
        self._connections: defaultdict[str, set[_Connection]] = defaultdict(set)
        self._cut: set[frozenset[str]] = set()
        self._held: dict[tuple[str, str], list[Callable[[], object]]] = {}

    def listener(self, party: str) -> MemoryListener:
        """The way in to `party`."""
        return MemoryListener(self, party)

    def link(self, party: str, peer: str) -> MemoryLink:
        """The way out from `party` to `peer`."""
        return MemoryLink(self, party, peer)

    def cut(self, party: str, peer: str) -> None:
        """Break every connection between the two, in both directions, and let none be made until `heal`."""
        pair = frozenset((party, peer))
        with self._lock:
            self._cut.add(pair)
            broken = [
                *self._sever(party, lambda connection: connection.link.party == peer),
                *self._sever(peer, lambda connection: connection.link.party == party),
            ]
        for connection in broken:
            connection.announce_break()

    def heal(self, party: str, peer: str) -> None:
        """Allow the two to connect again."""
        with self._lock:
            self._cut.discard(frozenset((party, peer)))

    def hold(self, party: str, peer: str) -> None:
        """Keep parcels from `party` to `peer` on their way until `release`. Offers and notices pass."""
        with self._lock:
            self._held.setdefault((party, peer), [])

    def release(self, party: str, peer: str) -> None:
        """Let go of what `hold` kept, in order."""
        with self._lock:
            for deliver in self._held.pop((party, peer), []):
                # Only posts to a loop, so it cannot come back for the lock.
                deliver()

    def held(self, party: str, peer: str) -> int:
        """How many frames of parcels `hold` keeps at present."""
        with self._lock:
            return len(self._held.get((party, peer), []))

    def _open(self, link: MemoryLink) -> _Connection:
        with self._lock:
            listener = self._listeners.get(link.peer)
            if listener is None:
                raise PeerAbsent(f"party {link.peer!r} does not listen")
            if frozenset((link.party, link.peer)) in self._cut:
                raise PeerUnreachable(f"the network between {link.party!r} and {link.peer!r} is cut")
            connection = _Connection(link, listener)
            self._connections[link.peer].add(connection)
        return connection

    def _break(self, broken: _Connection) -> None:
        with self._lock:
            broken.alive = False
            self._connections[broken.listener.party].discard(broken)

    def _listen(self, listener: MemoryListener) -> None:
        with self._lock:
            if self._listeners.setdefault(listener.party, listener) is not listener:
                raise AddressInUse(f"party {listener.party!r} listens already: close its other listener first")

    def _stop(self, listener: MemoryListener) -> list[_Connection]:
        with self._lock:
            if self._listeners.get(listener.party) is listener:
                del self._listeners[listener.party]
            return self._sever(listener.party, lambda connection: connection.listener is listener)

    def _sever(self, party: str, which: Callable[[_Connection], bool]) -> list[_Connection]:
        """Mark connections to a party as broken, with the lock held. Returns them, for both ends to be told."""
        connections = self._connections[party]
        broken = [connection for connection in connections if which(connection)]
        for connection in broken:
            connection.alive = False
        connections.difference_update(broken)
        return broken

    def _pass(self, connection: _Connection, deliver: Callable[[], object]) -> None:
        with self._lock:
            held = self._held.get((connection.link.party, connection.link.peer))
            if held is not None:
                held.append(deliver)
                return
        deliver()


class _Connection:
    """What one `connect` made. Either end may find `alive` false at any time; neither sets it true again."""

    def __init__(self, link: MemoryLink, listener: MemoryListener) -> None:
        self.link = link
        self.listener = listener
        self.alive = True
        # On the link's loop:
        self.pending: set[asyncio.Future[Any]] = set()
        self.acks: deque[Ack] = deque()
        self.acks_changed = asyncio.Event()
        # On the listener's loop:
        self.offers: dict[int, ObjectId] = {}

    def announce_break(self) -> None:
        """Tell both ends. From any thread."""
        _post(self.link.loop, self.link._on_break, self)
        _post(self.listener.loop, self.listener._on_break, self)

    def send_acks(self, acks: Sequence[Ack]) -> None:
        """What the handler is given for its acknowledgements. On the listener's loop."""
        if self.alive:
            _post(self.link.loop, self.link._on_acks, self, tuple(acks))


class MemoryListener(Listener):
    """The way in to one party.

    Args:
        network: What connects it.
        party: Whose it is.
    """

    def __init__(self, network: MemoryNetwork, party: str) -> None:
        self.party: Final = party
        self.loop: asyncio.AbstractEventLoop
        self._network = network
        self._handler: Handler | None = None
        self._streams: dict[str, _Connection] = {}
        self._statistics = ListenerStatistics(0, 0, 0, 0)

    @override
    async def start(self, handler: Handler) -> None:
        self.loop = asyncio.get_running_loop()
        self._handler = handler
        self._network._listen(self)

    @override
    async def close(self) -> None:
        for connection in self._network._stop(self):
            self._on_break(connection)
            _post(connection.link.loop, connection.link._on_break, connection)
        self._handler = None

    @override
    def statistics(self) -> ListenerStatistics:
        return self._statistics

    def _on_break(self, connection: _Connection) -> None:
        peer = connection.link.party
        if self._streams.get(peer) is connection:
            del self._streams[peer]
        offers, connection.offers = connection.offers, {}
        for object_id in offers.values():
            if self._handler is not None:
                self._handler.on_offer_broken(peer, object_id)

    def _handler_of(self, connection: _Connection) -> Handler:
        if self._handler is None or not connection.alive:
            raise PeerUnreachable(f"the connection to {self.party!r} broke")
        return self._handler

    def _on_hello(self, connection: _Connection, hello: Hello) -> Hello:
        handler = self._handler_of(connection)
        peer = connection.link.party
        try:
            welcome = answer_hello(handler, self.party, peer, hello)
        except Refusal as refusal:
            self._count(refused=1)
            raise PeerRefused(str(refusal)) from refusal
        except NotNow as reason:
            raise PeerUnreachable(str(reason)) from reason
        before = self._streams.get(peer)
        self._streams[peer] = connection
        if before is not None and before is not connection:
            self._network._break(before)
            before.announce_break()
        self._count(greetings=1)
        handler.on_stream(peer, connection.send_acks)
        return welcome

    def _on_parcels(self, connection: _Connection, parcels: Sequence[Parcel]) -> None:
        if self._handler is not None and connection.alive:
            self._count(parcels_received=len(parcels), bytes_received=sum(parcel.nbytes for parcel in parcels))
            self._handler.on_parcels(connection.link.party, parcels)

    def _on_offer(self, connection: _Connection, token: int, parcel: Parcel) -> Verdict:
        handler = self._handler_of(connection)
        verdict = handler.on_offer(connection.link.party, parcel.id, parcel.nbytes, parcel.overhead)
        if verdict is Verdict.ADMIT:
            connection.offers[token] = parcel.id
        return verdict

    def _on_upload(self, connection: _Connection, token: int, parcel: Parcel) -> Verdict:
        if connection.offers.pop(token, None) is None:
            raise PeerUnreachable(f"the connection to {self.party!r} broke")
        self._on_parcels(connection, [parcel])
        return Verdict.ADMIT

    def _on_withdrawn(self, connection: _Connection, token: int) -> None:
        object_id = connection.offers.pop(token, None)
        if object_id is not None and self._handler is not None:
            self._handler.on_offer_broken(connection.link.party, object_id)

    def _on_notices(self, connection: _Connection, notices: Sequence[Notice]) -> asyncio.Future[Any] | None:
        handler = self._handler_of(connection)
        taken = [handler.on_notice(connection.link.party, notice) for notice in notices]
        waiting = [future for future in taken if future is not None]
        return asyncio.gather(*waiting) if waiting else None

    def _count(self, **counts: int) -> None:
        self._statistics = _counted(self._statistics, counts)


class MemoryLink(Link):
    """The way out from one party to another.

    Args:
        network: What connects it.
        party: Whose it is.
        peer: The party at the other end.
    """

    def __init__(self, network: MemoryNetwork, party: str, peer: str) -> None:
        self.party: Final = party
        self.loop: asyncio.AbstractEventLoop
        self._peer = peer
        self._network = network
        self._connection: _Connection | None = None
        self._closed = False
        self._tokens = 0
        self._statistics = LinkStatistics(0, 0, 0)

    @property
    @override
    def peer(self) -> str:
        return self._peer

    @override
    async def connect(self, hello: Hello, *, timeout_s: float) -> Hello:
        check_own_hello(self.party, hello)
        if self._closed:
            raise PeerUnreachable(f"the link to {self._peer!r} is closed")
        self.loop = asyncio.get_running_loop()
        self._abandon()
        connection = self._network._open(self)
        self._connection = connection
        try:
            welcome: Hello = await self._ask(connection, connection.listener._on_hello, hello, timeout_s=timeout_s)
            check_welcome(self._peer, "the address in memory", welcome)
        except BaseException:
            if self._connection is connection:
                self._abandon()
            raise
        self._count(connects=1)
        return welcome

    @override
    async def send(self, parcels: Sequence[Parcel]) -> None:
        connection = self._connected()
        _check_carried(parcels)
        copies = [_copy(parcel) for parcel in parcels]
        listener = connection.listener
        self._network._pass(connection, lambda: _post(listener.loop, listener._on_parcels, connection, copies))
        self._count(parcels_sent=len(copies), bytes_sent=sum(parcel.nbytes for parcel in copies))
        # A sender in a loop of its own must not keep the consumer, on the same event loop, from running.
        await asyncio.sleep(0)

    @override
    async def upload(self, parcel: Parcel) -> Verdict:
        connection = self._connected()
        _check_carried([parcel])
        listener = connection.listener
        self._tokens += 1
        token = self._tokens
        try:
            verdict: Verdict = await self._ask(connection, listener._on_offer, token, parcel)
            if verdict is Verdict.DECLINE:
                return verdict
            copy = _copy(parcel)
            verdict = await self._ask(connection, listener._on_upload, token, copy, may_be_held=True)
        except BaseException:
            _post(listener.loop, listener._on_withdrawn, connection, token)
            raise
        self._count(parcels_sent=1, bytes_sent=copy.nbytes)
        return verdict

    @override
    def acks(self) -> AsyncIterator[Sequence[Ack]]:
        return self._read_acks(self._connection)

    async def _read_acks(self, connection: _Connection | None) -> AsyncIterator[Sequence[Ack]]:
        while not self._closed:
            if connection is None:
                raise PeerUnreachable(f"the link to {self._peer!r} is not connected")
            if connection.acks:
                acks = tuple(connection.acks)
                connection.acks.clear()
                yield acks
                continue
            if not connection.alive:
                raise PeerUnreachable(f"the connection to {self._peer!r} broke")
            connection.acks_changed.clear()
            await connection.acks_changed.wait()

    @override
    async def tell(self, notice: Notice, *, timeout_s: float) -> None:
        connection = self._connected()
        notices = [wire.decode_notice(frame) for frame in wire.encode_notice(notice)]
        await self._ask(connection, connection.listener._on_notices, notices, timeout_s=timeout_s)

    @override
    async def close(self) -> None:
        self._closed = True
        self._abandon()

    @override
    def statistics(self) -> LinkStatistics:
        return self._statistics

    def _connected(self) -> _Connection:
        connection = self._connection
        if connection is None or not connection.alive:
            raise PeerUnreachable(f"the link to {self._peer!r} is {'closed' if self._closed else 'not connected'}")
        return connection

    def _abandon(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._network._break(connection)
            self._on_break(connection)
            _post(connection.listener.loop, connection.listener._on_break, connection)

    def _on_break(self, connection: _Connection) -> None:
        why = "was closed" if self._closed else "broke"
        for future in connection.pending:
            if not future.done():
                future.set_exception(PeerUnreachable(f"the connection to {self._peer!r} {why}"))
        connection.acks_changed.set()

    def _on_acks(self, connection: _Connection, acks: Sequence[Ack]) -> None:
        connection.acks.extend(acks)
        connection.acks_changed.set()

    async def _ask(
        self,
        connection: _Connection,
        call: Callable[..., object],
        *arguments: object,
        timeout_s: float | None = None,
        may_be_held: bool = False,
    ) -> Any:
        """Run a listener's method on its loop, and wait for what it returns or raises."""
        future: asyncio.Future[Any] = self.loop.create_future()

        def resolve(answer: object, error: TransportError | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(answer)

        def reply(answer: object, error: TransportError | None = None) -> None:
            _post(self.loop, resolve, answer, error)

        def start() -> None:
            if not _post(connection.listener.loop, _answer, reply, call, connection, *arguments):
                reply(None, PeerUnreachable(f"the event loop of party {self._peer!r} is closed"))

        connection.pending.add(future)
        try:
            if may_be_held:
                self._network._pass(connection, start)
            else:
                start()
            await asyncio.wait({future}, timeout=timeout_s)
            if not future.done():
                raise PeerUnreachable(f"party {self._peer!r} did not answer within {timeout_s:g} s")
            return future.result()
        finally:
            connection.pending.discard(future)
            if not future.cancel() and not future.cancelled():
                # Its error, if any, is either being raised from here or of no use to one who was cancelled.
                future.exception()

    def _count(self, **counts: int) -> None:
        self._statistics = _counted(self._statistics, counts)


def _post(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> bool:
    """Run something on a loop, from any thread. Returns whether the loop still takes anything."""
    try:
        loop.call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        _LOG.debug("dropped %s: its event loop is closed", getattr(call, "__qualname__", call))
        return False
    return True


def _answer(
    reply: Callable[..., object], call: Callable[..., object], connection: _Connection, *arguments: object
) -> None:
    def settled(taken: asyncio.Future[Any]) -> None:
        if taken.cancelled() or taken.exception() is not None:
            reply(None, PeerUnreachable(f"the connection to {connection.link.peer!r} broke"))
        else:
            reply(None)

    try:
        answer = call(connection, *arguments)
        if isinstance(answer, asyncio.Future):
            answer.add_done_callback(settled)
        else:
            reply(answer)
    except TransportError as error:
        reply(None, error)
    except Exception as error:
        # A handler must not raise. One that does is a defect of ours, which must not leave the peer waiting.
        reply(None, PeerUnreachable("the peer's handler failed"))
        raise RuntimeError("a transport handler raised") from error


def _counted(statistics: _S, counts: Mapping[str, int]) -> _S:
    return statistics._replace(**{name: getattr(statistics, name) + count for name, count in counts.items()})


def _check_carried(parcels: Sequence[Parcel]) -> None:
    """Refuse what another transport could not carry."""
    for parcel in parcels:
        wire.encode_offer(offer_of(parcel))


def _copy(parcel: Parcel) -> Parcel:
    return Parcel(parcel.id, bytes(parcel.header), tuple(memoryview(bytes(buffer)) for buffer in parcel.buffers))
