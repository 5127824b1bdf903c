"""The way in for all peers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import warnings
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
from typing_extensions import override

from fed.config import Address, TLSConfig
from fed.transport import wire
from fed.transport.blocks import Blocks
from fed.transport.chunks import Assembly
from fed.transport.contract import (
    Ack,
    AddressInUse,
    Handler,
    Listener,
    ListenerStatistics,
    NotNow,
    Parcel,
    Refusal,
    Verdict,
)
from fed.transport.credentials import check_own_credentials, load_credentials, party_of_certificate
from fed.transport.greeting import answer_hello
from fed.transport.grpc.calls import (
    INCARNATION_KEY,
    PARTY_KEY,
    SERVER_OPTIONS,
    SERVICE,
)
from fed.transport.wire import MalformedFrame

__all__ = ["GrpcListener"]

_LOG: Final = logging.getLogger(__name__)

MAX_GREETINGS: Final = 4
MAX_TELLS: Final = 4
MAX_UPLOADS: Final = 4
"""Calls of one peer whose frames are read at once; further ones wait, and only what they have in the windows of HTTP/2
is held. An honest peer greets one at a time, tells one notice and one ping, and uploads two objects; twice as many are
for what a broken connection has left."""

MAX_CALLS: Final = 64
"""Calls of one peer that are served at once, but greetings. More are refused."""

GREETING_S: Final = 10.0
FRAME_S: Final = 60.0
"""How long a greeting may take to come, and another frame, so that half of one does not keep a place for ever."""

MAX_UNREAD_ACKS: Final = 1 << 18
"""A peer that never reads its acknowledgements loses its stream when this many wait for it."""


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
        # Who makes it, of those that end with the stream of that peer, as long as they are to go on.
        self._calls: dict[asyncio.Task[Any], str] = {}
        self._turns: dict[tuple[str, str], asyncio.Semaphore] = {}
        self._blocks = Blocks()
        self._statistics = ListenerStatistics(0, 0, 0, 0)

    def __del__(self) -> None:
        if self._server is not None:
            warnings.warn(f"the listener at {self._bind} was not closed", ResourceWarning, stacklevel=2, source=self)

    @property
    def address(self) -> Address:
        """Where it listens; the port is the one that the system chose, once it is started."""
        return self._bind

    @override
    async def start(self, handler: Handler) -> None:
        credentials = None
        if self._tls is not None:
            check_own_credentials(self._party, self._tls)
            own = load_credentials(self._tls)
            credentials = grpc.ssl_server_credentials([(own.key, own.cert)], own.ca, require_client_auth=True)
        host_port = str(self._bind)
        if self._any_port:
            host_port = f"{host_port.rpartition(':')[0]}:0"
        else:
            await _check_bindable(self._bind)
        self._handler = handler
        server = grpc.aio.server(options=SERVER_OPTIONS)
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    SERVICE,
                    {
                        # One frame each way. As streams, so that a call is looked at before its frame is read.
                        "Greet": grpc.stream_unary_rpc_method_handler(self._greet),
                        "Tell": grpc.stream_unary_rpc_method_handler(self._tell),
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
            # It was free a moment ago, and gRPC says the same where it is not and where it cannot use the credentials.
            which = (
                "could not bind it" if credentials is None else "could not bind it, or cannot use tls.cert and tls.key"
            )
            raise AddressInUse(f"cannot listen at {self._bind}: gRPC {which} ({error})") from error
        self._bind = Address(self._bind.host, port)
        self._server = server
        await server.start()

    @override
    async def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)
        if self._calls:
            await asyncio.wait(tuple(self._calls))

    @override
    def statistics(self) -> ListenerStatistics:
        return self._statistics

    async def _greet(self, _requests: object, context: Any) -> bytes:
        handler = self._enter()
        certified = await self._certified(context)
        if certified is not None and not self._is_of_the_job(certified):
            return self._strange(certified)
        try:
            async with self._turn("greet", certified or "", MAX_GREETINGS):
                request = await self._read_one(context, GREETING_S)
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
        if not self._is_of_the_job(peer):
            return self._strange(peer)
        try:
            welcome = answer_hello(handler, self._party, peer, hello)
        except Refusal as refusal:
            self._count(refused=1)
            return wire.encode_refusal(str(refusal))
        except NotNow as reason:
            # No refusal: the peer is welcome, only later.
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(reason))
            raise RuntimeError("an aborted call goes on") from reason
        if self._incarnations.get(peer) != hello.incarnation:
            self._incarnations[peer] = hello.incarnation
            self._end_stream(peer)
        self._count(greetings=1)
        return wire.encode_welcome(welcome)

    def _is_of_the_job(self, party: str) -> bool:
        return self._parties is None or party in self._parties

    def _strange(self, party: str) -> bytes:
        self._count(refused=1)
        listed = ", ".join(sorted(self._parties or ()))
        return wire.encode_refusal(f"party {party!r} is not one of the job's: {listed}")

    async def _tell(self, _requests: object, context: Any) -> bytes:
        handler = self._enter()
        peer, _ = await self._admit(context)
        async with self._ending_with_the_stream(context, peer):
            try:
                async with self._turn("tell", peer, MAX_TELLS):
                    request = await self._read_one(context)
                notice = wire.decode_notice(request)
            except MalformedFrame as error:
                await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
            taken = handler.on_notice(peer, notice)
            if taken is not None:
                # Not awaited itself: a call that was cancelled could not be told from a notice that nobody will take.
                await asyncio.wait({taken})
                if taken.cancelled():
                    await self._refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "the notice was not taken")
            return b""

    async def _exchange(self, _requests: object, context: Any) -> None:
        handler = self._enter()
        peer, _ = await self._admit(context)
        self._end_stream(peer)
        # A link opens a stream before anything else: what is under way belongs to a connection that broke.
        for task, caller in tuple(self._calls.items()):
            if caller == peer:
                self._calls[task] = ""
                task.cancel()
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
        async with self._ending_with_the_stream(context, peer), self._turn("upload", peer, MAX_UPLOADS):
            return await self._take_upload(handler, peer, incarnation, context)

    async def _take_upload(self, handler: Handler, peer: str, incarnation: str, context: Any) -> bytes:
        try:
            offer = wire.decode_offer(await self._read_one(context))
        except MalformedFrame as error:
            await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if handler.on_offer(peer, offer.id, offer.nbytes, offer.overhead) is Verdict.DECLINE:
            return wire.encode_result(Verdict.DECLINE)
        parcel = None
        refusal = (grpc.StatusCode.FAILED_PRECONDITION, "a newer incarnation has greeted")
        try:
            assembled = await self._assemble(context, offer)
            if self._incarnations.get(peer) == incarnation:
                parcel = assembled
        except MalformedFrame as error:
            refusal = (grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except MemoryError as error:
            refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        finally:
            # On cancellation too, and before the peer hears of it, who may offer the object again at once.
            if parcel is None:
                handler.on_offer_broken(peer, offer.id)
        if parcel is None:
            await self._refuse(context, *refusal)
        self._count(parcels_received=1, bytes_received=parcel.nbytes)
        handler.on_parcels(peer, [parcel])
        return wire.encode_result(Verdict.ADMIT)

    async def _assemble(self, context: Any, offer: wire.Offer) -> Parcel:
        assembly = Assembly(offer, self._blocks)
        while (chunk := await context.read()) is not grpc.aio.EOF:
            assembly.write(chunk)
        if len(offer.buffer_sizes) > wire.MAX_FRAME_BUFFERS:
            # To make so many views takes a while.
            return await asyncio.to_thread(assembly.finish)
        return assembly.finish()

    def _enter(self) -> Handler:
        """Note that a call is served, so that `close` can wait for it."""
        task = asyncio.current_task()
        if task is None or self._handler is None:
            raise RuntimeError("a call is served outside of a task, or before the start")
        self._calls[task] = ""
        task.add_done_callback(self._calls.pop)
        return self._handler

    @contextlib.asynccontextmanager
    async def _ending_with_the_stream(self, context: Any, peer: str) -> AsyncIterator[None]:
        """Be one of the calls of a peer that end with its stream."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call is served outside of a task")
        self._calls[task] = peer
        if list(self._calls.values()).count(peer) > MAX_CALLS:
            await self._refuse(
                context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"more than {MAX_CALLS} calls of {peer!r} at once"
            )
        try:
            yield
        except asyncio.CancelledError:
            if self._calls[task] == peer:
                raise
            # Whose handler is cancelled, gRPC leaves the caller without an answer.
            await context.abort(grpc.StatusCode.ABORTED, "the stream that this call came with has ended")

    def _turn(self, what: str, party: str, most: int) -> asyncio.Semaphore:
        """What to hold while a frame of a party is read."""
        turn = self._turns.get((what, party))
        if turn is None:
            turn = self._turns[what, party] = asyncio.Semaphore(most)
        return turn

    async def _read_one(self, context: Any, within_s: float = FRAME_S) -> bytes:
        """The frame of a call that has one.

        Raises:
            MalformedFrame: There is none.
        """
        try:
            frame = await asyncio.wait_for(context.read(), within_s)
        except asyncio.TimeoutError:
            # No mistake of the peer's: it may be a connection that broke.
            await self._refuse(context, grpc.StatusCode.UNAVAILABLE, f"a frame was not whole after {within_s:g} s")
        if frame is grpc.aio.EOF:
            raise MalformedFrame("a call without a frame")
        return frame  # type: ignore[no-any-return]

    async def _certified(self, context: Any) -> str | None:
        """The party that the caller's certificate names; None without TLS."""
        if self._tls is None:
            return None
        for pem in context.auth_context().get("x509_pem_cert", ()):
            try:
                return party_of_certificate(pem)
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
        incarnation = _decoded(metadata.get(INCARNATION_KEY))
        claimed = _decoded(metadata.get(PARTY_KEY))
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
        task = asyncio.current_task()
        if task in self._calls:
            # It has its answer, which nothing is to break off.
            self._calls[task] = ""
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
