"""The faults of the wire: a link on which greetings, parcels and notices suffer.

All parties of a simulation are in one process. So one link does the faults of both its ends: those of ``send`` and
those of ``receive``, in this order. It keeps the contract of what it wraps: a party cannot tell an injected fault from
a real one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from typing_extensions import override

from fed.testing.fault_run import FaultRun, InjectedFault, InjectionPoint
from fed.transport.contract import (
    Ack,
    Hello,
    Link,
    LinkStatistics,
    Notice,
    NoticeKind,
    Parcel,
    PeerUnreachable,
    TransportError,
    Verdict,
)

__all__ = ["FaultyLink"]

T = TypeVar("T")

REORDER_S: Final = 0.05
"""How long a parcel that is to come after the next one waits for that: there may be none."""

_Later = Callable[[Callable[[], Awaitable[T]]], Awaitable[T]]
"""How something is done that others overtake: the caller waits for it, or goes on."""


class FaultyLink(Link):
    """A link that suffers the faults of a plan.

    Args:
        inner: The link.
        run: The plan in this simulation.
        party: Whose link it is.
    """

    def __init__(self, inner: Link, run: FaultRun, party: str) -> None:
        self._inner = inner
        self._run = run
        self._party = party
        self._connection: _Connection | None = None
        self._closed = False

    @property
    @override
    def peer(self) -> str:
        return self._inner.peer

    @override
    async def connect(self, hello: Hello, *, timeout_s: float) -> Hello:
        fault = self._run.fault_at(InjectionPoint("connect", self._party, self.peer))
        if fault is not None:
            await self._within(timeout_s, self._suffer(fault))
        if self._closed:
            raise self._unreachable("is closed")
        self._end_connection()
        welcome = await self._inner.connect(hello, timeout_s=timeout_s)
        self._connection = _Connection()
        return welcome

    @override
    async def send(self, parcels: Sequence[Parcel]) -> None:
        connection = self._connected()

        async def send() -> None:
            if not (self._run.watches("send") or self._run.watches("receive")):
                await self._inner.send(parcels)
                return
            for parcel in parcels:
                await self._cross(connection, parcel, lambda sent: self._inner.send([sent]), connection.later)

        await self._unless_broken(connection, send)

    @override
    def send_now(self, parcels: Sequence[Parcel]) -> bool:
        watched = self._run.watches("send") or self._run.watches("receive")
        return not watched and self._connection is not None and self._inner.send_now(parcels)

    @override
    async def upload(self, parcel: Parcel) -> Verdict:
        connection = self._connected()
        return await self._unless_broken(
            connection, lambda: self._cross(connection, parcel, self._inner.upload, _waited_for)
        )

    @override
    def acks(self) -> AsyncIterator[Sequence[Ack]]:
        acks = self._inner.acks()
        return acks if self._connection is None else self._read_acks(self._connection, acks)

    @override
    async def tell(self, notice: Notice, *, timeout_s: float) -> None:
        connection = self._connected()
        failure = notice.failure
        call = failure.sequence if failure is not None and failure.sequence >= 0 else None
        point = InjectionPoint("broadcast", self._party, self.peer, call, kind=notice.kind.name)

        def tell(told: Notice) -> Awaitable[None]:
            return self._inner.tell(told, timeout_s=timeout_s)

        telling = self._unless_broken(connection, lambda: self._pass(connection, point, notice, tell, _waited_for))
        await self._within(timeout_s, telling)

    @override
    async def close(self) -> None:
        self._closed = True
        self._end_connection()
        await self._inner.close()

    @override
    def statistics(self) -> LinkStatistics:
        return self._inner.statistics()

    async def _read_acks(
        self, connection: _Connection, acks: AsyncIterator[Sequence[Ack]]
    ) -> AsyncIterator[Sequence[Ack]]:
        while True:
            try:
                yield await self._unless_broken(connection, acks.__anext__)
            except StopAsyncIteration:
                return
            except PeerUnreachable:
                if self._closed:
                    return
                raise

    async def _cross(
        self, connection: _Connection, parcel: Parcel, send: Callable[[Parcel], Awaitable[T]], later: _Later[T]
    ) -> T:
        """Send a parcel past the faults of both ends."""
        leaving = InjectionPoint("send", self._party, self.peer, parcel.id.sequence, slot=parcel.id.slot)
        arriving = leaving._replace(place="receive", party=self.peer, peer=self._party)

        async def send_and_note(sent: Parcel) -> T:
            result = await send(sent)
            connection.note_sent()
            return result

        def arrive(sent: Parcel) -> Awaitable[T]:
            return self._pass(connection, arriving, sent, send_and_note, later)

        return await self._pass(connection, leaving, parcel, arrive, later)

    async def _pass(
        self,
        connection: _Connection,
        point: InjectionPoint,
        item: Any,
        onward: Callable[[Any], Awaitable[T]],
        later: _Later[T],
    ) -> T:
        """Pass a parcel or a notice on, behind all that came here before it, and past the fault that strikes it."""
        fault = self._run.fault_at(point)
        if fault is not None and fault.action in ("delay", "reorder"):
            return await later(lambda: self._pass_late(connection, fault, item, onward))
        async with connection.queue(point):
            if fault is not None and fault.action in ("hang", "drop", "kill"):
                await self._suffer(fault)
        if fault is None or fault.action == "hang":
            return await onward(item)
        fault.record()
        result = await onward(_corrupted(item) if fault.action == "corrupt" else item)
        if fault.action == "duplicate":
            await onward(item)
        return result

    async def _pass_late(
        self, connection: _Connection, fault: InjectedFault, item: Any, onward: Callable[[Any], Awaitable[T]]
    ) -> T:
        if fault.action == "delay":
            await self._suffer(fault)
        else:
            fault.record()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(connection.sent.wait(), REORDER_S)
        return await onward(item)

    async def _suffer(self, fault: InjectedFault) -> None:
        """Wait as long as the fault says, or break.

        Raises:
            TransportError: What the fault raises, or that the connection broke.
        """
        if await fault.inject_async():
            return
        if fault.action == "kill" and fault.proxy == "sender":
            # This link dies with the sender, before the runtime comes to close it.
            self._closed = True
        self._end_connection()
        raise self._unreachable("broke")

    def _connected(self) -> _Connection:
        if self._connection is None:
            raise self._unreachable("is not connected")
        self._check(self._connection)
        return self._connection

    def _end_connection(self) -> None:
        if self._connection is not None:
            self._connection.end()

    def _check(self, connection: _Connection) -> None:
        if connection.broken.done():
            raise self._unreachable("broke")

    async def _unless_broken(self, connection: _Connection, work: Callable[[], Awaitable[T]]) -> T:
        """Do it, unless the connection breaks first.

        Raises:
            PeerUnreachable: It did.
        """
        self._check(connection)
        task: asyncio.Future[T] = asyncio.ensure_future(work())
        # Whoever waits for it may be cancelled at the moment that it fails, and then nobody looks at it.
        task.add_done_callback(_look_at)
        waiting: set[asyncio.Future[Any]] = {task, connection.broken}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
        if connection.broken.done():
            await asyncio.wait({task})
            self._check(connection)
        return task.result()

    async def _within(self, timeout_s: float, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await asyncio.wait_for(work, timeout_s)
        except asyncio.TimeoutError:
            raise self._unreachable(f"did not answer within {timeout_s:g} s") from None

    def _unreachable(self, why: str) -> PeerUnreachable:
        return PeerUnreachable(f"the link from {self._party!r} to {self.peer!r} {why}")


class _Connection:
    """What one greeting of a link made. Belongs to the link's event loop."""

    def __init__(self) -> None:
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Set when a parcel was sent, for what is to come after it.
        self.sent = asyncio.Event()
        # Held, at each place, by what hangs there, and so by all that is behind it.
        self._queues = {place: asyncio.Lock() for place in ("send", "receive", "broadcast")}
        self._late: set[asyncio.Task[None]] = set()

    def queue(self, point: InjectionPoint) -> contextlib.AbstractAsyncContextManager[None]:
        """Where something waits for what came before it. A ping passes by, as it does in every transport."""
        return contextlib.nullcontext() if point.kind == NoticeKind.PING.name else self._queues[point.place]

    def note_sent(self) -> None:
        """A parcel was sent."""
        self.sent.set()
        self.sent = asyncio.Event()

    async def later(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have something done later, and go on."""

        async def do() -> None:
            try:
                await work()
            except TransportError:
                # Whoever sent it believes it to be on its way, and is to hear that it is not.
                self.end()

        task = asyncio.ensure_future(do())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    def end(self) -> None:
        """Break: what is under way is lost."""
        if not self.broken.done():
            self.broken.set_result(None)
        for task in self._late:
            task.cancel()


def _waited_for(work: Callable[[], Awaitable[T]]) -> Awaitable[T]:
    """Have something done later, and wait for it."""
    return work()


def _look_at(task: asyncio.Future[Any]) -> None:
    """Take note of how a task ended, so that asyncio does not complain that nobody did."""
    if not task.cancelled():
        task.exception()


def _corrupted(parcel: Parcel) -> Parcel:
    """The same parcel with bytes changed on the way."""
    # No header begins with this byte, so no codec can take what was changed for another value.
    header = b"\xc1" + bytes(byte ^ 0xFF for byte in parcel.header[1:])
    return parcel._replace(header=header, buffers=tuple(memoryview(_changed(buffer)) for buffer in parcel.buffers))


def _changed(buffer: memoryview) -> bytes:
    changed = bytearray(buffer)
    changed[:1] = bytes(byte ^ 0xFF for byte in changed[:1])
    return bytes(changed)
