"""Two parties and what lies between them, the same for every transport.

A `World` has one listener, bob's, and any number of links to it. What lies between can be stalled (objects stop,
notices do not), cut and healed. For gRPC that is done by a `Relay`, through which every byte goes.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any

from fed.config import Address, TLSConfig
from fed.object import ObjectId
from fed.testing.simulation import free_addresses
from fed.transport.contract import (
    PROTOCOL_VERSION,
    Ack,
    Handler,
    Hello,
    Link,
    Listener,
    Notice,
    NotNow,
    Parcel,
    Receipt,
    Refusal,
    Verdict,
)
from fed.transport.grpc import GrpcLink, GrpcListener
from fed.transport.memory import MemoryNetwork

PARTIES = ("alice", "bob", "carol")
LIMIT_S = 30.0
STALL_BYTES = 128 * 1024


def hello(party: str, *, incarnation: str = "first", protocol: int = PROTOCOL_VERSION, job: str = "census") -> Hello:
    return Hello(protocol, "0.1.0", job, party, incarnation, PARTIES, ("shop.Basket",), ("shop.Empty",))


def parcel(sequence: int, *buffers: bytes, header: bytes = b"head") -> Parcel:
    return Parcel(ObjectId(0, sequence, 0), header, tuple(memoryview(buffer) for buffer in buffers))


def content(received: Parcel) -> tuple[ObjectId, bytes, tuple[bytes, ...]]:
    return received.id, received.header, tuple(bytes(buffer) for buffer in received.buffers)


def run(scenario: Coroutine[Any, Any, None], limit_s: float = LIMIT_S) -> None:
    """Run a scenario, and make sure that it leaves no task behind.

    gRPC ends a call of its own accord a moment after it was cancelled, in a task that it shows to nobody.
    """

    async def bounded() -> None:
        await asyncio.wait_for(scenario, limit_s)
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            _, left = await asyncio.wait(left, timeout=LIMIT_S)
        assert not left, f"tasks left behind: {left}"

    asyncio.run(bounded())


class Recorder(Handler):
    """A handler that writes down what it is told, and can be waited for."""

    def __init__(self, party: str = "bob") -> None:
        self.party = party
        self.refusal: Refusal | NotNow | None = None
        self.verdict = Verdict.ADMIT
        self.confirms = True
        self.hellos: list[tuple[str, Hello]] = []
        self.streams: list[tuple[str, Callable[[Sequence[Ack]], None]]] = []
        self.parcels: list[tuple[str, Parcel]] = []
        self.offers: list[tuple[str, ObjectId, int]] = []
        self.broken: list[tuple[str, ObjectId]] = []
        self.notices: list[tuple[str, Notice]] = []
        # What each notice has to wait for.
        self.taken: asyncio.Future[None] | None = None
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not condition():
                self._changed.clear()
                await self._changed.wait()

        await asyncio.wait_for(wait(), LIMIT_S)

    def acknowledge(self, acks: Sequence[Ack]) -> None:
        self.streams[-1][1](acks)

    def on_hello(self, peer: str, hello_: Hello) -> Hello:
        if self.refusal is not None:
            raise self.refusal
        self.hellos.append((peer, hello_))
        return hello(self.party)

    def on_stream(self, peer: str, send_acks: Callable[[Sequence[Ack]], None]) -> None:
        self.streams.append((peer, send_acks))
        self._changed.set()

    def on_parcels(self, peer: str, parcels: Sequence[Parcel]) -> None:
        self.parcels.extend((peer, received) for received in parcels)
        if self.confirms:
            self.acknowledge([Ack(received.id, Receipt.DELIVERED) for received in parcels])
        self._changed.set()

    def on_offer(self, peer: str, object_id: ObjectId, nbytes: int, overhead: int) -> Verdict:
        self.offers.append((peer, object_id, nbytes))
        self._changed.set()
        return self.verdict

    def on_offer_broken(self, peer: str, object_id: ObjectId) -> None:
        self.broken.append((peer, object_id))
        self._changed.set()

    def on_notice(self, peer: str, notice: Notice) -> asyncio.Future[None] | None:
        self.notices.append((peer, notice))
        self._changed.set()
        return self.taken


class World(abc.ABC):
    """Bob listens; others have links to him."""

    def __init__(self) -> None:
        self.handler = Recorder()
        self.links: list[Link] = []

    @property
    @abc.abstractmethod
    def listener(self) -> Listener: ...

    @abc.abstractmethod
    async def listen(self) -> None:
        """Start bob's listener, always in the same place."""

    @abc.abstractmethod
    def make_link(self, party: str) -> Link: ...

    @abc.abstractmethod
    def stall(self) -> None:
        """From now on objects of any size above 256 KiB do not get through; notices do."""

    @abc.abstractmethod
    async def stalled(self) -> None:
        """Wait until something is being held up."""

    @abc.abstractmethod
    def flow(self) -> None:
        """End of `stall`."""

    @abc.abstractmethod
    def cut(self) -> None:
        """Break every connection, and let none be made."""

    @abc.abstractmethod
    def heal(self) -> None:
        """End of `cut`."""

    @abc.abstractmethod
    async def close_network(self) -> None: ...

    def link(self, party: str = "alice") -> Link:
        link = self.make_link(party)
        self.links.append(link)
        return link

    async def connected(self, party: str = "alice", incarnation: str = "first") -> Link:
        link = self.link(party)
        await link.connect(hello(party, incarnation=incarnation), timeout_s=LIMIT_S)
        return link

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[World]:
        try:
            await self.listen()
            yield self
        finally:
            for link in self.links:
                await link.close()
            await self.listener.close()
            await self.close_network()


class MemoryWorld(World):
    def __init__(self) -> None:
        super().__init__()
        self._network = MemoryNetwork()
        self._listener = self._network.listener("bob")

    @property
    def listener(self) -> Listener:
        return self._listener

    async def listen(self) -> None:
        self._listener = self._network.listener("bob")
        await self._listener.start(self.handler)

    def make_link(self, party: str) -> Link:
        return self._network.link(party, "bob")

    def stall(self) -> None:
        self._network.hold("alice", "bob")

    async def stalled(self) -> None:
        while not self._network.held("alice", "bob"):
            await asyncio.sleep(0)

    def flow(self) -> None:
        self._network.release("alice", "bob")

    def cut(self) -> None:
        self._network.cut("alice", "bob")

    def heal(self) -> None:
        self._network.heal("alice", "bob")

    async def close_network(self) -> None:
        pass


class GrpcWorld(World):
    def __init__(self, credentials: Mapping[str, TLSConfig]) -> None:
        super().__init__()
        self.credentials = credentials
        self._listener: GrpcListener | None = None
        self.relay = Relay()

    @property
    def listener(self) -> GrpcListener:
        assert self._listener is not None
        return self._listener

    async def listen(self) -> None:
        first = self._listener is None
        bind = Address("127.0.0.1", 1) if self._listener is None else self._listener.address
        self._listener = GrpcListener("bob", bind, self.credentials.get("bob"), parties=PARTIES, any_port=first)
        await self._listener.start(self.handler)
        if first:
            await self.relay.start(self._listener.address)

    def make_link(self, party: str) -> Link:
        return GrpcLink(party, "bob", self.relay.address, self.credentials.get(party))

    def stall(self) -> None:
        self.relay.gate.clear()

    async def stalled(self) -> None:
        await self.relay.stalled.wait()

    def flow(self) -> None:
        self.relay.gate.set()

    def cut(self) -> None:
        self.relay.cut()

    def heal(self) -> None:
        self.relay.open = True

    async def close_network(self) -> None:
        await self.relay.close()


class Relay:
    """Passes bytes on to a listener, and can stop doing so.

    While `gate` is closed, each connection passes on `STALL_BYTES` and then nothing more: enough for any number of
    notices, and not enough for an object.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.stalled = asyncio.Event()
        self.open = True
        self.connections = 0
        self._target: Address | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[Any]] = set()

    @property
    def address(self) -> Address:
        assert self._server is not None
        return Address("127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def start(self, target: Address) -> None:
        self._target = target
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    def cut(self) -> None:
        self.open = False
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        self.cut()
        if self._server is not None:
            self._server.close()
        self.gate.set()
        if self._serving:
            await asyncio.wait(set(self._serving))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert self._target is not None
        self._serving.add(task)
        self._writers.add(writer)
        onward: asyncio.StreamWriter | None = None
        pumps: set[asyncio.Task[None]] = set()
        try:
            if not self.open:
                return
            self.connections += 1
            back, onward = await asyncio.open_connection(self._target.host, self._target.port)
            self._writers.add(onward)
            pumps.add(asyncio.create_task(self._pump(reader, onward, gated=True)))
            pumps.add(asyncio.create_task(self._pump(back, writer, gated=False)))
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # the listener is gone, which the one who called will notice
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for each in (writer, onward):
                if each is not None:
                    self._writers.discard(each)
                    each.transport.abort()
            self._serving.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, gated: bool) -> None:
        passed = 0
        while data := await reader.read(1 << 16):
            passed += len(data)
            if gated and passed > STALL_BYTES and not self.gate.is_set():
                self.stalled.set()
                await self.gate.wait()
            writer.write(data)
            await writer.drain()


def free_address() -> Address:
    """Where nobody listens."""
    return free_addresses(1)[0]
