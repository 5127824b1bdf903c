"""The way out to one peer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import warnings
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple, TypeVar

import grpc
import grpc.aio
from typing_extensions import override

from fed.config import Address, TLSConfig
from fed.errors import ConfigError
from fed.transport import identity, wire
from fed.transport.chunks import cut, offer_of
from fed.transport.contract import (
    Ack,
    Hello,
    Link,
    LinkStatistics,
    Notice,
    NoticeKind,
    Parcel,
    PeerRefused,
    PeerUnreachable,
    PeerUntrusted,
    TransportError,
    Verdict,
)
from fed.transport.credentials import load_credentials
from fed.transport.greeting import check_own_hello, check_welcome
from fed.transport.grpc.calls import (
    CALL_ERRORS,
    CHANNEL_OPTIONS,
    INCARNATION_KEY,
    PARTY_KEY,
    SERVICE,
    map_error,
    status_error,
)

__all__ = ["GrpcLink"]

_LOG: Final = logging.getLogger(__name__)
_T = TypeVar("_T")

MAX_BATCH_BYTES: Final = 1 << 20
"""Of small parcels in one frame, unless a single one is larger."""
MAX_CHUNK_BYTES: Final = 2 << 20
"""Of one chunk of an upload, and of one parcel in a batch: well below the limit for a frame."""


class GrpcLink(Link):
    """The way out from one party to another.

    Args:
        party: Whose it is.
        peer: The party at the other end.
        address: Where that party's listener is reached.
        tls: This party's credentials. None: no TLS, and anyone at `address` may call itself `peer`.
        chunk_bytes: Size of one chunk of an upload, at least 1; more than 2 MiB comes to 2 MiB.

    Raises:
        ValueError: `chunk_bytes` is not positive.
    """

    # Of the class too, for `__del__` of one that was never made.
    _session: _Session | None = None

    def __init__(
        self, party: str, peer: str, address: Address, tls: TLSConfig | None = None, chunk_bytes: int = 1 << 20
    ) -> None:
        if chunk_bytes < 1:
            raise ValueError(f"chunk_bytes must be at least 1, not {chunk_bytes}")
        self._party = party
        self._peer = peer
        self._address = address
        self._tls = tls
        self._chunk_bytes = min(chunk_bytes, MAX_CHUNK_BYTES)
        self._where = f"party {peer!r} at {address}"
        self._running: set[asyncio.Task[Any]] = set()
        self._telling = asyncio.Lock()
        self._closed = False
        self._counts = _LinkCounts()

    def __del__(self) -> None:
        if self._session is not None:
            warnings.warn(f"the link to {self._where} was not closed", ResourceWarning, stacklevel=2, source=self)

    @property
    @override
    def peer(self) -> str:
        return self._peer

    @override
    async def connect(self, hello: Hello, *, timeout_s: float) -> Hello:
        check_own_hello(self._party, hello)
        greeting = wire.encode_hello(hello)
        if self._closed:
            raise self._closed_error()
        await self._abandon(PeerUnreachable(f"{self._where}: a newer connection took the place of this one"))
        return await self._run(self._connect(hello, greeting, timeout_s), timeout_s)

    @override
    async def send(self, parcels: Sequence[Parcel]) -> None:
        session = self._connected()
        small = [parcel for parcel in parcels if _fits_a_frame(parcel)]
        await session.stream.send([_frame(group) for group in _batches(small)])
        for parcel in parcels:
            if not _fits_a_frame(parcel):
                await self.upload(parcel)

    @override
    def send_now(self, parcels: Sequence[Parcel]) -> bool:
        session = self._session
        if session is None or not all(map(_fits_a_frame, parcels)):
            return False
        return session.stream.send_now([_frame(group) for group in _batches(parcels)])

    @override
    async def upload(self, parcel: Parcel) -> Verdict:
        offer = wire.encode_offer(offer_of(parcel))
        verdict = await self._run(self._upload(self._connected(), parcel, offer))
        if verdict is Verdict.ADMIT:
            self._counts.add(1, parcel.nbytes)
        return verdict

    @override
    def acks(self) -> AsyncIterator[Sequence[Ack]]:
        return self._read_acks(self._session)

    @override
    async def tell(self, notice: Notice, *, timeout_s: float) -> None:
        session, frames = self._connected(), wire.encode_notice(notice)
        # A ping means the same wherever it comes, and must not wait for a peer that is slow to take what came before.
        turn = contextlib.nullcontext() if notice.kind is NoticeKind.PING else self._telling
        await self._run(self._tell(session, frames, timeout_s, turn), timeout_s)

    @override
    async def close(self) -> None:
        self._closed = True
        await self._abandon(self._closed_error())

    @override
    def statistics(self) -> LinkStatistics:
        return LinkStatistics(self._counts.parcels, self._counts.nbytes, self._counts.connects)

    async def _connect(self, hello: Hello, greeting: bytes, timeout_s: float) -> Hello:
        options: list[tuple[str, Any]] = list(CHANNEL_OPTIONS)
        channel_credentials = None
        if self._tls is None:
            await identity.reach(self._peer, self._address)
        else:
            server = await identity.prove(self._party, self._peer, self._address, self._tls)
            try:
                own = load_credentials(self._tls)
            except ConfigError as error:
                raise PeerUntrusted(f"this party cannot prove itself to {self._peer!r}: {error}") from error
            channel_credentials = grpc.ssl_channel_credentials(server.pem, own.key, own.cert)
            options.append(("grpc.ssl_target_name_override", server.host_name))
        session = _Session(self._where, f"dns:///{self._address}", channel_credentials, options, hello)
        try:
            welcome = await session.greet(greeting, timeout_s)
            check_welcome(self._peer, str(self._address), welcome)
            await session.exchange(self._counts)
        except BaseException:
            await session.close(PeerUnreachable(f"{self._where} was not greeted"))
            raise
        self._session = session
        self._counts.connects += 1
        return welcome

    async def _upload(self, session: _Session, parcel: Parcel, offer: bytes) -> Verdict:
        call = session.upload(metadata=session.metadata)
        try:
            try:
                await call.write(offer)
                for chunk in cut(parcel, self._chunk_bytes):
                    await call.write(chunk)
                await call.done_writing()
            except (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
                # The peer ended the call before its end: it declined, or it broke. Its answer below says which.
                _LOG.debug("the upload of %s to %s was ended by its receiver", parcel.id, self._where)
            return wire.decode_result(await call)
        finally:
            call.cancel()

    async def _tell(
        self, session: _Session, frames: Sequence[bytes], timeout_s: float, turn: AbstractAsyncContextManager[None]
    ) -> None:
        # One at a time: gRPC promises no order between two calls.
        async with turn:
            for frame in frames:
                await session.tell(frame, metadata=session.metadata, timeout=timeout_s)

    async def _read_acks(self, session: _Session | None) -> AsyncIterator[Sequence[Ack]]:
        stream = None if session is None else session.stream
        if stream is None and not self._closed:
            raise PeerUnreachable(f"{self._where}: not connected")
        while stream is not None:
            try:
                acks = await stream.acks()
            except TransportError:
                if self._closed:
                    return
                raise
            yield acks

    def _connected(self) -> _Session:
        if self._closed:
            raise self._closed_error()
        if self._session is None:
            raise PeerUnreachable(f"{self._where}: not connected")
        return self._session

    def _closed_error(self) -> TransportError:
        return PeerUnreachable(f"{self._where}: the link is closed")

    async def _abandon(self, reason: TransportError) -> None:
        running = tuple(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        session, self._session = self._session, None
        if session is not None:
            await session.close(reason)

    async def _run(self, work: Coroutine[Any, Any, _T], timeout_s: float | None = None) -> _T:
        """Wait for a task of the link's own, which its close, the timeout or the caller's cancellation ends.

        A call of gRPC that is cancelled raises CancelledError in whoever waits for it. In a task of its own that
        cannot be taken for the cancellation of the caller.
        """
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._forget)
        try:
            done, _ = await asyncio.wait({task}, timeout=timeout_s)
        except BaseException:
            task.cancel()
            raise
        if not done:
            task.cancel()
            await asyncio.wait({task})
            raise PeerUnreachable(f"{self._where} did not answer within {timeout_s:g} s")
        try:
            return task.result()
        except asyncio.CancelledError as error:
            raise map_error(error, self._where) from error
        except CALL_ERRORS as error:
            raise map_error(error, self._where) from error

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Whoever waited has it; if nobody waits any more, nobody wants it.
            task.exception()


class _LinkCounts:
    """What `LinkStatistics` tells, while it still changes."""

    def __init__(self) -> None:
        self.parcels = 0
        self.nbytes = 0
        self.connects = 0

    def add(self, parcels: int, nbytes: int) -> None:
        self.parcels += parcels
        self.nbytes += nbytes


class _Session:
    """What one `connect` made: two channels and what runs on them."""

    def __init__(
        self, where: str, target: str, credentials: Any, options: Sequence[tuple[str, Any]], hello: Hello
    ) -> None:
        self._where = where
        control, data = self._channels = [
            grpc.aio.insecure_channel(target, options)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options)
            for _ in ("control", "data")
        ]
        self.metadata = ((PARTY_KEY, hello.party.encode()), (INCARNATION_KEY, hello.incarnation.encode()))
        self._greet = control.unary_unary(f"/{SERVICE}/Greet")
        self.tell = control.unary_unary(f"/{SERVICE}/Tell")
        self._exchange = data.stream_stream(f"/{SERVICE}/Exchange")
        self.upload = data.stream_unary(f"/{SERVICE}/Upload")
        self._stream: _Outgoing | None = None

    @property
    def stream(self) -> _Outgoing:
        """The data stream, which is open from `exchange` on."""
        if self._stream is None:
            raise PeerUnreachable(f"{self._where}: not connected")
        return self._stream

    async def greet(self, greeting: bytes, timeout_s: float) -> Hello:
        answer = wire.decode_greeting(await self._greet(greeting, timeout=timeout_s))
        if isinstance(answer, str):
            raise PeerRefused(f"{self._where} refused the greeting: {answer}")
        return answer

    async def exchange(self, counts: _LinkCounts) -> None:
        call = self._exchange(metadata=self.metadata)
        try:
            # The listener sends it once its handler knows of the stream.
            await call.initial_metadata()
            if call.done():
                raise status_error(await call.code(), await call.details(), self._where)
        except BaseException:
            call.cancel()
            raise
        self._stream = _Outgoing(call, self._where, counts)

    async def close(self, reason: TransportError) -> None:
        if self._stream is not None:
            await self._stream.close(reason)
        for channel in self._channels:
            await channel.close()


class _Frame(NamedTuple):
    """An encoded batch that waits to be written. `written` tells whether it was."""

    data: bytes
    parcels: int
    buffers: int
    nbytes: int
    written: asyncio.Future[bool]


class _Outgoing:
    """One Exchange stream, seen from the link: frames wait on one side of it, acknowledgements on the other.

    Writing and reading have a task each, so that a caller who is cancelled does not break the stream: gRPC cancels
    a call when a task that waits for it is cancelled.
    """

    def __init__(self, call: Any, where: str, counts: _LinkCounts) -> None:
        self._call = call
        self._where = where
        self._counts = counts
        self._error: TransportError | None = None
        self._frames: deque[_Frame] = deque()
        self._frames_changed = asyncio.Event()
        self._acks: list[Ack] = []
        self._acks_changed = asyncio.Event()
        self._tasks = (asyncio.create_task(self._write()), asyncio.create_task(self._read()))

    async def send(self, frames: Sequence[_Frame]) -> None:
        self._check()
        self._frames.extend(frames)
        self._frames_changed.set()
        for frame in frames:
            if not await frame.written:
                self._check()

    def send_now(self, frames: Sequence[_Frame]) -> bool:
        """Send frames unless others wait already, or the stream is over."""
        if self._error is not None or self._frames:
            return False
        self._frames.extend(frames)
        self._frames_changed.set()
        return True

    async def acks(self) -> Sequence[Ack]:
        while not self._acks:
            self._check()
            self._acks_changed.clear()
            await self._acks_changed.wait()
        acks, self._acks = self._acks, []
        return acks

    async def close(self, reason: TransportError) -> None:
        self._fail(reason)
        for task in self._tasks:
            task.cancel()
        self._call.cancel()
        await asyncio.wait(self._tasks)

    def _check(self) -> None:
        if self._error is not None:
            # A new one each time: a traceback grows with every raise of the same.
            raise type(self._error)(*self._error.args)

    def _fail(self, error: TransportError) -> None:
        if self._error is not None:
            return
        self._error = error
        while self._frames:
            _settle(self._frames.popleft(), written=False)
        self._acks_changed.set()

    async def _write(self) -> None:
        batch: list[_Frame] = []
        try:
            while True:
                while not self._frames:
                    self._frames_changed.clear()
                    await self._frames_changed.wait()
                batch = self._take()
                # Encoded repeated fields that follow one another are one repeated field: the batches become one.
                await self._call.write(b"".join(frame.data for frame in batch))
                for frame in batch:
                    self._counts.add(frame.parcels, frame.nbytes)
                    _settle(frame, written=True)
                batch = []
        except CALL_ERRORS as error:
            self._fail(await self._why(error))
        finally:
            self._fail(PeerUnreachable(f"{self._where}: the connection was closed"))
            for frame in batch:
                _settle(frame, written=False)

    async def _read(self) -> None:
        try:
            while (data := await self._call.read()) is not grpc.aio.EOF:
                self._acks.extend(wire.decode_acks(data))
                self._acks_changed.set()
            self._fail(status_error(await self._call.code(), await self._call.details(), self._where))
        except CALL_ERRORS as error:
            self._fail(await self._why(error))
        finally:
            self._fail(PeerUnreachable(f"{self._where}: the connection was closed"))
            self._call.cancel()

    async def _why(self, error: Exception) -> TransportError:
        """The status that ended the call says more than the error of one more operation on it."""
        if self._call.done():
            return status_error(await self._call.code(), await self._call.details(), self._where)
        return map_error(error, self._where)

    def _take(self) -> list[_Frame]:
        """The next frames that go as one, at least one."""
        batch = [self._frames.popleft()]
        room = _Room()
        room.take(batch[0].parcels, batch[0].buffers, len(batch[0].data))
        while self._frames:
            frame = self._frames[0]
            if not room.take(frame.parcels, frame.buffers, len(frame.data)):
                break
            batch.append(self._frames.popleft())
        return batch


def _settle(frame: _Frame, *, written: bool) -> None:
    if not frame.written.done():
        frame.written.set_result(written)


class _Room:
    """What still fits into one frame."""

    def __init__(self) -> None:
        self._parcels = wire.MAX_PARCELS
        self._buffers = wire.MAX_FRAME_BUFFERS
        self._nbytes = MAX_BATCH_BYTES

    def take(self, parcels: int, buffers: int, nbytes: int) -> bool:
        """Take so much of it. Returns whether there was as much."""
        self._parcels -= parcels
        self._buffers -= buffers
        self._nbytes -= nbytes
        return min(self._parcels, self._buffers, self._nbytes) >= 0


def _fits_a_frame(parcel: Parcel) -> bool:
    return parcel.nbytes <= MAX_CHUNK_BYTES and len(parcel.buffers) <= wire.MAX_FRAME_BUFFERS


def _batches(parcels: Sequence[Parcel]) -> list[list[Parcel]]:
    batches: list[list[Parcel]] = []
    room = _Room()
    for parcel in parcels:
        taken = 1, len(parcel.buffers), parcel.nbytes
        if not batches or not room.take(*taken):
            batches.append([])
            room = _Room()
            room.take(*taken)
        batches[-1].append(parcel)
    return batches


def _frame(parcels: Sequence[Parcel]) -> _Frame:
    written = asyncio.get_running_loop().create_future()
    buffers = sum(len(parcel.buffers) for parcel in parcels)
    nbytes = sum(parcel.nbytes for parcel in parcels)
    return _Frame(wire.encode_parcels(parcels), len(parcels), buffers, nbytes, written)
