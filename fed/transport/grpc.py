"""The transport between machines: gRPC over HTTP/2, with mutual TLS.

Each link holds two channels to its peer, and they share no connection: *control* carries greetings and notices,
*data* carries objects. So a stalled object cannot delay the news of a failure [E03].

========  ===============  ====================================  =======
Method    Kind             Frames                                Channel
========  ===============  ====================================  =======
Greet     unary            Hello, Greeting                       control
Tell      unary            Notice, nothing                       control
Exchange  bidirectional    batches of small parcels, of acks     data
Upload    client stream    an offer, then bare chunks; a result  data
========  ===============  ====================================  =======

Frames are bytes to gRPC: `fed.transport.wire` reads them, so that what is malformed is refused here and not inside
the library, and a chunk is not wrapped, for that would be one more copy.

Laws:

1. Whoever calls proves its name on every call: by its certificate or, without TLS, by the name it greeted with.
   Every call but Greet also names the incarnation that it greeted as, and is out of turn unless the last greeting
   of its party was by that one. A listener that was restarted knows nobody, so its peers find out and greet again.
2. A link trusts exactly the certificate whose name it has checked. gRPC shows a client nothing of its server's
   certificate, so `fed.transport.identity.prove` looks at it first, over a connection of its own, and it alone
   becomes the trust anchor of both channels. They can then reconnect, but only to the same identity.
3. Errors of gRPC and asyncio end at `map_error`.
4. Waiting ends: a call that waits for the peer runs in a task of its own, which `close` and timeouts end, and which
   does not outlive the link.

All state belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import warnings
from collections import deque
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

# Without this, gRPC's core writes to the terminal about every handshake that fails and every port that is taken,
# past Python's logging. What matters of it is an exception here. It reads the variable when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio

from fed.config import Address, TLSConfig
from fed.errors import ConfigError
from fed.transport import identity, wire
from fed.transport.chunks import Assembly, cut, offer_of
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
    Parcel,
    PeerRefused,
    PeerUnreachable,
    PeerUntrusted,
    Refusal,
    TransportError,
    Verdict,
)
from fed.transport.greeting import answer_hello, check_own_hello, check_welcome
from fed.transport.wire import MalformedFrame

__all__ = ["GrpcLink", "GrpcListener", "map_error"]

_LOG: Final = logging.getLogger(__name__)
_T = TypeVar("_T")

_SERVICE: Final = "fed.v1.Transport"
_PARTY: Final = "fed-party-bin"
_INCARNATION: Final = "fed-incarnation-bin"
"""Metadata of every call but Greet. The suffix makes them binary to gRPC, so any name may be in them."""

MAX_FRAME_BYTES: Final = 16 << 20
"""No frame is larger, whatever a peer sends; gRPC refuses it before it is held."""
MAX_BATCH_BYTES: Final = 1 << 20
"""Of small parcels in one frame, unless a single one is larger."""
MAX_PARCEL_BYTES: Final = 8 << 20
"""Of one small parcel; a larger one has to be uploaded."""
MAX_UNREAD_ACKS: Final = 1 << 20
"""A peer that never reads its acknowledgements loses its stream when this many wait for it."""

_COMMON_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", MAX_FRAME_BYTES),
    # A peer whose machine vanished sends no FIN. Pings notice within half a minute, and they keep a mapping alive in
    # firewalls between sites, which commonly forget silent connections after a minute or more.
    ("grpc.keepalive_time_ms", 10_000),
    # Long enough for a ping to pass what lies in the buffers of a slow line.
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
_SERVER_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    *_COMMON_OPTIONS,
    # With it two listeners could share a port in silence, each getting half of the connections.
    ("grpc.so_reuseport", 0),
    # Peers ping as above; the defaults would take that for an attack and hang up.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    # More uploads than this at once, on one connection, queue at the sender.
    ("grpc.max_concurrent_streams", 256),
)
_CHANNEL_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    *_COMMON_OPTIONS,
    # Without it channels with equal arguments share one connection, and the two of a link are equal.
    ("grpc.use_local_subchannel_pool", 1),
    # Retrying is the sender's business: it alone knows what has been acknowledged.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.service_config_disable_resolution", 1),
    # Else the environment's http_proxy would carry the channels, but not the connection that proves the identity.
    ("grpc.enable_http_proxy", 0),
)

_UNREACHABLE: Final = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_REFUSED: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
_UNTRUSTED: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
_ERRORS: Final[Mapping[Any, type[TransportError]]] = {
    **dict.fromkeys(_UNREACHABLE, PeerUnreachable),
    **dict.fromkeys(_REFUSED, PeerRefused),
    **dict.fromkeys(_UNTRUSTED, PeerUntrusted),
}

_CALL_ERRORS: Final = (
    grpc.RpcError,
    grpc.aio.BaseError,
    # grpc.aio raises it for a call that has ended.
    asyncio.InvalidStateError,
    OSError,
    MalformedFrame,
)
"""Whatever a call of gRPC may raise, but the cancellation of the task it is in."""


def map_error(error: BaseException, where: str) -> TransportError:
    """The error of this transport that an error of gRPC, asyncio or the operating system comes to.

    Args:
        error: Any of `grpc.RpcError`, `grpc.aio.BaseError`, `asyncio.InvalidStateError`,
            `asyncio.CancelledError`, `OSError`, `MalformedFrame`; a `TransportError` is returned as it is.
        where: Names the peer and its address, to begin a sentence with.
    """
    if isinstance(error, TransportError):
        return error
    if isinstance(error, grpc.aio.AioRpcError):
        return _status_error(error.code(), error.details(), where)
    if isinstance(error, MalformedFrame):
        return PeerRefused(f"{where} does not speak this protocol: {error}")
    if isinstance(error, asyncio.CancelledError):
        return PeerUnreachable(f"{where}: the connection was closed")
    return PeerUnreachable(f"{where}: the connection broke ({str(error) or type(error).__name__})")


def _status_error(code: Any, details: str | None, where: str) -> TransportError:
    return _ERRORS.get(code, PeerUnreachable)(f"{where}: {details or code.name}")


# The way out ---------------------------------------------------------------------------------------------------


class GrpcLink(Link):
    """The way out from one party to another.

    Args:
        party: Whose it is.
        peer: The party at the other end.
        address: Where that party's listener is reached.
        tls: This party's credentials. None: no TLS, and anyone at `address` may call itself `peer`.
        chunk_bytes: Size of one chunk of an upload, 4 KiB to 8 MiB.

    Raises:
        ValueError: `chunk_bytes` is out of range.
    """

    def __init__(
        self, party: str, peer: str, address: Address, tls: TLSConfig | None = None, chunk_bytes: int = 1 << 20
    ) -> None:
        if not 4 << 10 <= chunk_bytes <= 8 << 20:
            raise ValueError(f"chunk_bytes must be from 4096 to {8 << 20}, not {chunk_bytes}")
        self._party = party
        self._peer = peer
        self._address = address
        self._tls = tls
        self._chunk_bytes = chunk_bytes
        self._where = f"party {peer!r} at {address}"
        self._session: _Session | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._telling = asyncio.Lock()
        self._closed = False
        self._counts = _LinkCounts()

    def __del__(self) -> None:
        if self._session is not None:
            warnings.warn(f"the link to {self._where} was not closed", ResourceWarning, stacklevel=2, source=self)

    @property
    def peer(self) -> str:  # noqa: D102
        return self._peer

    async def connect(self, hello: Hello, *, timeout_s: float) -> Hello:  # noqa: D102
        check_own_hello(self._party, hello)
        if self._closed:
            raise self._closed_error()
        await self._abandon(PeerUnreachable(f"{self._where}: a newer connection took the place of this one"))
        return await self._run(self._connect(hello, timeout_s), timeout_s)

    async def send(self, parcels: Sequence[Parcel]) -> None:  # noqa: D102
        session = self._connected()
        await session.stream.send([_frame(group) for group in _batches(parcels)])

    async def upload(self, parcel: Parcel) -> Verdict:  # noqa: D102
        verdict = await self._run(self._upload(self._connected(), parcel))
        if verdict is Verdict.ADMIT:
            self._counts.add(1, parcel.nbytes)
        return verdict

    def acks(self) -> AsyncIterator[Sequence[Ack]]:  # noqa: D102
        return self._read_acks(self._session)

    async def tell(self, notice: Notice, *, timeout_s: float) -> None:  # noqa: D102
        await self._run(self._tell(self._connected(), wire.encode_notice(notice), timeout_s), timeout_s)

    async def close(self) -> None:  # noqa: D102
        self._closed = True
        await self._abandon(self._closed_error())

    def statistics(self) -> LinkStatistics:  # noqa: D102
        return LinkStatistics(self._counts.parcels, self._counts.nbytes, self._counts.connects)

    async def _connect(self, hello: Hello, timeout_s: float) -> Hello:
        options: list[tuple[str, Any]] = list(_CHANNEL_OPTIONS)
        channel_credentials = None
        if self._tls is None:
            await identity.reach(self._peer, self._address)
        else:
            server = await identity.prove(self._party, self._peer, self._address, self._tls)
            try:
                own = identity.load_credentials(self._tls)
            except ConfigError as error:
                raise PeerUntrusted(f"this party cannot prove itself to {self._peer!r}: {error}") from error
            channel_credentials = grpc.ssl_channel_credentials(server.pem, own.key, own.cert)
            options.append(("grpc.ssl_target_name_override", server.host_name))
        session = _Session(self._where, f"dns:///{self._address}", channel_credentials, options, hello)
        try:
            welcome = await session.open(hello, timeout_s)
            check_welcome(self._peer, str(self._address), welcome)
            await session.exchange(self._counts)
        except BaseException:
            await session.close(PeerUnreachable(f"{self._where} was not greeted"))
            raise
        self._session = session
        self._counts.connects += 1
        return welcome

    async def _upload(self, session: _Session, parcel: Parcel) -> Verdict:
        call = session.upload(metadata=session.metadata)
        try:
            try:
                await call.write(wire.encode_offer(offer_of(parcel)))
                for chunk in cut(parcel, self._chunk_bytes):
                    await call.write(chunk)
                await call.done_writing()
            except (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
                # The peer ended the call before its end: it declined, or it broke. Its answer below says which.
                _LOG.debug("the upload of %s to %s was ended by its receiver", parcel.id, self._where)
            return wire.decode_result(await call)
        finally:
            call.cancel()

    async def _tell(self, session: _Session, frames: Sequence[bytes], timeout_s: float) -> None:
        # One at a time: gRPC promises no order between two calls.
        async with self._telling:
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
        session, self._session = self._session, None
        running = tuple(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
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
        except _CALL_ERRORS as error:
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
        self.metadata = ((_PARTY, hello.party.encode()), (_INCARNATION, hello.incarnation.encode()))
        self._greet = control.unary_unary(f"/{_SERVICE}/Greet")
        self.tell = control.unary_unary(f"/{_SERVICE}/Tell")
        self._exchange = data.stream_stream(f"/{_SERVICE}/Exchange")
        self.upload = data.stream_unary(f"/{_SERVICE}/Upload")
        self._stream: _Outgoing | None = None

    @property
    def stream(self) -> _Outgoing:
        """The data stream, which is open from `exchange` on."""
        if self._stream is None:
            raise PeerUnreachable(f"{self._where}: not connected")
        return self._stream

    async def open(self, hello: Hello, timeout_s: float) -> Hello:
        answer = wire.decode_greeting(await self._greet(wire.encode_hello(hello), timeout=timeout_s))
        if isinstance(answer, str):
            raise PeerRefused(f"{self._where} refused the greeting: {answer}")
        return answer

    async def exchange(self, counts: _LinkCounts) -> None:
        call = self._exchange(metadata=self.metadata)
        try:
            # The listener sends it once its handler knows of the stream.
            await call.initial_metadata()
            if call.done():
                raise _status_error(await call.code(), await call.details(), self._where)
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
        except _CALL_ERRORS as error:
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
            self._fail(_status_error(await self._call.code(), await self._call.details(), self._where))
        except _CALL_ERRORS as error:
            self._fail(await self._why(error))
        finally:
            self._fail(PeerUnreachable(f"{self._where}: the connection was closed"))
            self._call.cancel()

    async def _why(self, error: Exception) -> TransportError:
        """The status that ended the call says more than the error of one more operation on it."""
        if self._call.done():
            return _status_error(await self._call.code(), await self._call.details(), self._where)
        return map_error(error, self._where)

    def _take(self) -> list[_Frame]:
        """The next frames that go as one, at least one."""
        batch = [self._frames.popleft()]
        room = MAX_BATCH_BYTES - len(batch[0].data)
        while self._frames and len(self._frames[0].data) <= room:
            room -= len(self._frames[0].data)
            batch.append(self._frames.popleft())
        return batch


def _settle(frame: _Frame, *, written: bool) -> None:
    if not frame.written.done():
        frame.written.set_result(written)


def _batches(parcels: Sequence[Parcel]) -> list[list[Parcel]]:
    batches: list[list[Parcel]] = []
    room = 0
    for parcel in parcels:
        nbytes = parcel.nbytes
        if nbytes > MAX_PARCEL_BYTES:
            raise ValueError(f"object {parcel.id} of {nbytes} bytes is too large for a batch: upload it")
        if nbytes > room or not batches:
            batches.append([])
            room = MAX_BATCH_BYTES
        batches[-1].append(parcel)
        room -= nbytes
    return batches


def _frame(parcels: Sequence[Parcel]) -> _Frame:
    written = asyncio.get_running_loop().create_future()
    nbytes = sum(parcel.nbytes for parcel in parcels)
    return _Frame(wire.encode_parcels(parcels), len(parcels), nbytes, written)


# The way in ----------------------------------------------------------------------------------------------------


class GrpcListener(Listener):
    """Where all peers come in.

    Args:
        party: Whose it is.
        bind: Where to listen.
        tls: This party's credentials. None: no TLS, and a peer is who it says it is.
        parties: The parties of the job; a greeting by another one is refused. None: that is for the handler to say.
        any_port: Let the system choose the port instead; `address` tells which.
    """

    def __init__(
        self,
        party: str,
        bind: Address,
        tls: TLSConfig | None = None,
        *,
        parties: Collection[str] | None = None,
        any_port: bool = False,
    ) -> None:
        self._party = party
        self._bind = bind
        self._tls = tls
        self._parties = None if parties is None else frozenset(parties)
        self._any_port = any_port
        self._server: Any = None
        self._handler: Handler | None = None
        self._incarnations: dict[str, str] = {}
        self._streams: dict[str, _Incoming] = {}
        self._calls: set[asyncio.Task[Any]] = set()
        self._statistics = ListenerStatistics(0, 0, 0, 0)

    def __del__(self) -> None:
        if self._server is not None:
            warnings.warn(f"the listener at {self._bind} was not closed", ResourceWarning, stacklevel=2, source=self)

    @property
    def address(self) -> Address:
        """Where it listens; the port is the one that the system chose, once it is started."""
        return self._bind

    async def start(self, handler: Handler) -> None:  # noqa: D102
        credentials = None
        if self._tls is not None:
            identity.check_own_credentials(self._party, self._tls)
            own = identity.load_credentials(self._tls)
            credentials = grpc.ssl_server_credentials([(own.key, own.cert)], own.ca, require_client_auth=True)
        host_port = str(self._bind)
        if self._any_port:
            host_port = f"{host_port.rpartition(':')[0]}:0"
        else:
            await _check_bindable(self._bind)
        self._handler = handler
        server = grpc.aio.server(options=_SERVER_OPTIONS)
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    _SERVICE,
                    {
                        "Greet": grpc.unary_unary_rpc_method_handler(self._greet),
                        "Tell": grpc.unary_unary_rpc_method_handler(self._tell),
                        "Exchange": grpc.stream_stream_rpc_method_handler(self._exchange),
                        "Upload": grpc.stream_unary_rpc_method_handler(self._upload),
                    },
                ),
            )
        )
        try:
            if credentials is None:
                port = server.add_insecure_port(host_port)
            else:
                port = server.add_secure_port(host_port, credentials)
        except RuntimeError as error:
            await server.stop(None)
            raise AddressInUse(f"cannot listen at {self._bind}: {error}") from error
        self._bind = Address(self._bind.host, port)
        self._server = server
        await server.start()

    async def close(self) -> None:  # noqa: D102
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)
        if self._calls:
            await asyncio.wait(tuple(self._calls))

    def statistics(self) -> ListenerStatistics:  # noqa: D102
        return self._statistics

    async def _greet(self, request: bytes, context: Any) -> bytes:
        handler = self._enter()
        certified = await self._certified(context)
        try:
            hello = wire.decode_hello(request)
        except MalformedFrame as error:
            await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if certified is not None and certified != hello.party:
            await self._refuse(
                context,
                grpc.StatusCode.UNAUTHENTICATED,
                f"the certificate belongs to party {certified!r}, but the greeting comes from {hello.party!r}: "
                "give each party its own certificate",
            )
        peer = hello.party
        try:
            if self._parties is not None and peer not in self._parties:
                raise Refusal(f"party {peer!r} is not one of the job's: {', '.join(sorted(self._parties))}")
            welcome = answer_hello(handler, self._party, peer, hello)
        except Refusal as refusal:
            self._count(refused=1)
            return wire.encode_refusal(str(refusal))
        if self._incarnations.get(peer) != hello.incarnation:
            self._incarnations[peer] = hello.incarnation
            self._end_stream(peer)
        self._count(greetings=1)
        return wire.encode_welcome(welcome)

    async def _tell(self, request: bytes, context: Any) -> bytes:
        handler = self._enter()
        peer, _ = await self._admit(context)
        try:
            notice = wire.decode_notice(request)
        except MalformedFrame as error:
            await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        handler.on_notice(peer, notice)
        return b""

    async def _exchange(self, _requests: object, context: Any) -> None:
        handler = self._enter()
        peer, _ = await self._admit(context)
        self._end_stream(peer)
        stream = self._streams[peer] = _Incoming(context)
        reading = asyncio.create_task(self._read_parcels(handler, peer, context, stream))
        try:
            handler.on_stream(peer, stream.send)
            await context.send_initial_metadata(())
            ended = await stream.write()
        finally:
            stream.end(grpc.StatusCode.ABORTED, "the stream has ended")
            if self._streams.get(peer) is stream:
                del self._streams[peer]
            reading.cancel()
            await asyncio.wait({reading})
            if not reading.cancelled() and (defect := reading.exception()) is not None:
                _LOG.error("the handler of parcels from %r failed", peer, exc_info=defect)
        await context.abort(*ended)

    async def _read_parcels(self, handler: Handler, peer: str, context: Any, stream: _Incoming) -> None:
        try:
            while (data := await context.read()) is not grpc.aio.EOF:
                parcels = wire.decode_parcels(data)
                self._count(parcels_received=len(parcels), bytes_received=sum(parcel.nbytes for parcel in parcels))
                handler.on_parcels(peer, parcels)
            stream.end(grpc.StatusCode.ABORTED, "the stream was ended by its sender")
        except MalformedFrame as error:
            self._count(refused=1)
            stream.end(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except (grpc.aio.BaseError, asyncio.InvalidStateError) as error:
            stream.end(grpc.StatusCode.ABORTED, f"the stream broke: {error}")
        finally:
            # A handler must not raise; if one does nevertheless, its peer must not be left waiting.
            stream.end(grpc.StatusCode.INTERNAL, "the stream's reader failed")

    async def _upload(self, _requests: object, context: Any) -> bytes:
        handler = self._enter()
        peer, incarnation = await self._admit(context)
        offer = await self._read_offer(context)
        if handler.on_offer(peer, offer.id, offer.nbytes) is Verdict.DECLINE:
            return wire.encode_result(Verdict.DECLINE)
        parcel = None
        try:
            parcel = await self._assemble(context, offer)
            if self._incarnations.get(peer) != incarnation:
                parcel = None
                await self._refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "a newer incarnation has greeted")
        finally:
            if parcel is None:
                handler.on_offer_broken(peer, offer.id)
        self._count(parcels_received=1, bytes_received=parcel.nbytes)
        handler.on_parcels(peer, [parcel])
        return wire.encode_result(Verdict.ADMIT)

    async def _read_offer(self, context: Any) -> wire.Offer:
        try:
            first = await context.read()
            if first is grpc.aio.EOF:
                raise MalformedFrame("an upload without an offer")
            return wire.decode_offer(first)
        except MalformedFrame as error:
            await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def _assemble(self, context: Any, offer: wire.Offer) -> Parcel:
        try:
            assembly = Assembly(offer)
            while (chunk := await context.read()) is not grpc.aio.EOF:
                assembly.write(chunk)
            return assembly.finish()
        except MalformedFrame as error:
            await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except MemoryError as error:
            await self._refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    def _enter(self) -> Handler:
        """Note that a call is served, so that `close` can wait for it."""
        task = asyncio.current_task()
        if task is None or self._handler is None:
            raise RuntimeError("a call is served outside of a task, or before the start")
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return self._handler

    async def _certified(self, context: Any) -> str | None:
        """The party that the caller's certificate names; None without TLS."""
        if self._tls is None:
            return None
        for pem in context.auth_context().get("x509_pem_cert", ()):
            try:
                return identity.party_of_certificate(pem)
            except ValueError as error:
                await self._refuse(
                    context,
                    grpc.StatusCode.UNAUTHENTICATED,
                    f"the certificate {error}: have it issued with the SAN URI fed://<party>",
                )
        return await self._refuse(context, grpc.StatusCode.UNAUTHENTICATED, "the caller shows no certificate")

    async def _admit(self, context: Any) -> tuple[str, str]:
        """The party and the incarnation of a call other than a greeting."""
        metadata = dict(context.invocation_metadata() or ())
        incarnation = _decoded(metadata.get(_INCARNATION))
        claimed = _decoded(metadata.get(_PARTY))
        certified = await self._certified(context)
        if certified is not None and certified != claimed:
            await self._refuse(
                context,
                grpc.StatusCode.UNAUTHENTICATED,
                f"the certificate belongs to party {certified!r}, but the call comes from {claimed!r}",
            )
        if not claimed or not incarnation or self._incarnations.get(claimed) != incarnation:
            await self._refuse(
                context, grpc.StatusCode.FAILED_PRECONDITION, f"party {self._party!r} wants to be greeted first"
            )
        return claimed, incarnation

    async def _refuse(self, context: Any, code: Any, details: str) -> NoReturn:
        self._count(refused=1)
        _LOG.debug("refused %s: %s", context.peer(), details)
        await context.abort(code, details)
        raise RuntimeError("an aborted call goes on")

    def _end_stream(self, peer: str) -> None:
        stream = self._streams.pop(peer, None)
        if stream is not None:
            stream.end(grpc.StatusCode.ABORTED, "a newer stream took the place of this one")

    def _count(self, **counts: int) -> None:
        added = {name: getattr(self._statistics, name) + count for name, count in counts.items()}
        self._statistics = self._statistics._replace(**added)


class _Incoming:
    """One Exchange stream, seen from the listener: acknowledgements queue here until the stream can take them."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._acks: list[Ack] = []
        self._changed = asyncio.Event()
        self._ended: tuple[Any, str] | None = None

    def send(self, acks: Sequence[Ack]) -> None:
        if self._ended is not None:
            return
        self._acks.extend(acks)
        if len(self._acks) > MAX_UNREAD_ACKS:
            self.end(grpc.StatusCode.ABORTED, "acknowledgements are not being read")
        self._changed.set()

    def end(self, code: Any, details: str) -> None:
        """Make `write` return this. The first reason counts."""
        if self._ended is None:
            self._ended = (code, details)
            self._acks.clear()
            self._changed.set()

    async def write(self) -> tuple[Any, str]:
        """Write acknowledgements until the stream ends; returns why it does."""
        while self._ended is None:
            if not self._acks:
                self._changed.clear()
                await self._changed.wait()
                continue
            acks = self._acks[: wire.MAX_ACKS]
            del self._acks[: wire.MAX_ACKS]
            try:
                await self._context.write(wire.encode_acks(acks))
            except (grpc.aio.BaseError, asyncio.InvalidStateError) as error:
                self.end(grpc.StatusCode.ABORTED, f"the stream broke: {error}")
        return self._ended


def _decoded(value: Any) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else ""
    except UnicodeDecodeError:
        return ""


async def _check_bindable(bind: Address) -> None:
    """Find out why an address cannot be bound, which gRPC does not tell.

    gRPC is also content when a name has several addresses and only one of them is free.

    Raises:
        AddressInUse: It cannot be.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise AddressInUse(
            f"cannot listen at {bind}: the name {bind.host!r} cannot be resolved ({error.strerror}): give a name or "
            "an address of this machine"
        ) from error
    foreign: OSError | None = None
    usable = False
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                # As a server does, or connections that linger from the last one would stand in the way.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                usable = True
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(
                    f"cannot listen at {bind}: another process listens there; stop it, or choose another port"
                ) from error
            if error.errno == errno.EACCES:
                raise AddressInUse(
                    f"cannot listen at {bind}: this user may not bind that port; choose one above 1023"
                ) from error
            foreign = error
    if not usable:
        raise AddressInUse(
            f"cannot listen at {bind}: {bind.host!r} is no address of this machine; give one that is, as `listen`"
        ) from foreign
