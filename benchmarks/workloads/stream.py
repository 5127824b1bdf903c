"""W3, the stream alone: one large parcel over our link, from one process to another, without Ray.

Limit: a gRPC client stream of 1 MiB chunks, bytes in and bytes out, between the same two processes. Unit: seconds for
a gigabyte. Target: 85 % of the limit's rate.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
import zlib
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import Lab, Worker
from benchmarks.outcome import Case, Measurement, Outcome, Reading
from benchmarks.statistics import spread
from fed.config import Address
from fed.object import ObjectId
from fed.transport.allocator import keep_freed_memory
from fed.transport.contract import PROTOCOL_VERSION, Ack, Handler, Hello, Notice, Parcel, Receipt, Verdict

__all__ = ["case", "check", "full", "listen", "listen_plain", "quick", "stream_plain", "upload"]

CHUNK: Final = 1 << 20
CALL_S: Final = 120.0
TARGET: Final = 1 / 0.85
METHOD: Final = "/benchmark/Stream"


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process's connections, on a thread of its own."""
    # As in the proxies, and for both of what is compared.
    keep_freed_memory()
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="benchmark-loop", daemon=True).start()
    return loop


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(work, _loop()).result(CALL_S)


@functools.cache
def _payload(nbytes: int) -> bytes:
    return os.urandom(CHUNK) * (nbytes // CHUNK)


def _hello(party: str) -> Hello:
    return Hello(PROTOCOL_VERSION, "0", "benchmark", party, party, ("alice", "bob"))


class _Consumer(Handler):
    """Takes every parcel, and keeps it until it is checked."""

    def __init__(self) -> None:
        self.parcels: list[Parcel] = []
        self._send_acks: Any = None

    def on_hello(self, peer: str, hello: Hello) -> Hello:
        return _hello("bob")

    def on_stream(self, peer: str, send_acks: Any) -> None:
        self._send_acks = send_acks

    def on_parcels(self, peer: str, parcels: Sequence[Parcel]) -> None:
        self.parcels.extend(parcels)
        self._send_acks([Ack(parcel.id, Receipt.DELIVERED) for parcel in parcels])

    def on_offer(self, peer: str, object_id: ObjectId, nbytes: int, overhead: int) -> Verdict:
        return Verdict.ADMIT

    def on_offer_broken(self, peer: str, object_id: ObjectId) -> None:
        """Whoever sent it is told."""

    def on_notice(self, peer: str, notice: Notice) -> None:
        """None is expected."""


@functools.cache
def _consumer() -> _Consumer:
    return _Consumer()


@functools.cache
def _kept() -> list[Any]:
    """What must not be collected while the process lives."""
    return []


def listen() -> int:
    """At the consumer: start our listener. Returns its port."""
    from fed.transport.grpc import GrpcListener

    async def start() -> int:
        listener = GrpcListener("bob", Address("127.0.0.1", 1), any_port=True)
        await listener.start(_consumer())
        _kept().append(listener)
        return listener.address.port

    return int(_run(start()))


def check() -> list[int]:
    """At the consumer: length and checksum of what our listener took since the last time, which is let go."""
    parcels = _consumer().parcels
    found = [0, 0]
    for parcel in parcels:
        for buffer in parcel.buffers:
            found = [found[0] + buffer.nbytes, zlib.crc32(buffer, found[1])]
    parcels.clear()
    return found


def listen_plain(tls: Mapping[str, str] | None = None) -> int:
    """At the consumer: start a plain gRPC server.

    Args:
        tls: Paths of the authority, the certificate and the key, for mutual TLS.

    Returns:
        Its port.
    """
    import grpc
    import grpc.aio

    async def take(requests: Any, _: Any) -> bytes:
        nbytes = checksum = 0
        async for chunk in requests:
            nbytes += len(chunk)
            # Enough to see that each chunk is the one that was sent, and far too little to take time.
            checksum = zlib.crc32(chunk[:64], checksum)
        return f"{nbytes} {checksum}".encode()

    async def start() -> int:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", 4 * CHUNK)])
        _, service, method = METHOD.split("/")
        handlers = {method: grpc.stream_unary_rpc_method_handler(take)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        if tls is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            ca, cert, key = _contents(tls)
            credentials = grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)
            port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        _kept().append(server)
        return int(port)

    return int(_run(start()))


def _contents(tls: Mapping[str, str]) -> list[bytes]:
    return [Path(tls[name]).read_bytes() for name in ("ca", "cert", "key")]


@functools.cache
def _link(port: int) -> Any:
    from fed.transport.grpc import GrpcLink

    async def connect() -> Any:
        link = GrpcLink("alice", "bob", Address("127.0.0.1", port))
        await link.connect(_hello("alice"), timeout_s=CALL_S)
        return link

    return _run(connect())


_channels: Final[dict[int, Any]] = {}


def _channel(port: int, tls: Mapping[str, str] | None) -> Any:
    import grpc
    import grpc.aio

    async def connect() -> Any:
        if tls is None:
            return grpc.aio.insecure_channel(f"127.0.0.1:{port}").stream_unary(METHOD)
        ca, cert, key = _contents(tls)
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        return grpc.aio.secure_channel(f"localhost:{port}", credentials).stream_unary(METHOD)

    if port not in _channels:
        _channels[port] = _run(connect())
    return _channels[port]


_sent: Final = [0]


def upload(port: int, nbytes: int) -> list[float]:
    """At the producer: seconds for one parcel over our link, and its length and checksum."""
    link, payload = _link(port), _payload(nbytes)
    _sent[0] += 1
    parcel = Parcel(ObjectId(0, _sent[0], 0), b"benchmark", (memoryview(payload),))
    began = time.perf_counter()
    verdict = _run(link.upload(parcel))
    took = time.perf_counter() - began
    if verdict is not Verdict.ADMIT:
        raise RuntimeError(f"the parcel was not taken: {verdict}")
    return [took, nbytes, zlib.crc32(payload)]


def stream_plain(port: int, nbytes: int, tls: Mapping[str, str] | None = None) -> float:
    """At the producer: seconds for the same bytes over a plain stream."""
    stream, payload = _channel(port, tls), _payload(nbytes)
    chunks = [payload[offset : offset + CHUNK] for offset in range(0, nbytes, CHUNK)]
    checksum = 0
    for chunk in chunks:
        checksum = zlib.crc32(chunk[:64], checksum)

    async def send() -> bytes:
        call = stream()
        for chunk in chunks:
            await call.write(chunk)
        await call.done_writing()
        return bytes(await call)

    began = time.perf_counter()
    answer = _run(send())
    took = time.perf_counter() - began
    if answer != f"{nbytes} {checksum}".encode():
        raise RuntimeError(f"{nbytes} bytes with checksum {checksum} arrived as {answer!r}")
    return took


def quick(lab: Lab) -> list[Case]:
    """256 MiB at a time."""
    return [case(lab, "W3 stream", 256 << 20, pairs=15)]


def full(lab: Lab) -> Outcome:
    """256 MiB at a time, 30 times."""
    pairs = case(lab, "W3 stream", 256 << 20, pairs=30).measure()
    ours, plain = spread([1 / pair.ours for pair in pairs]), spread([1 / pair.limit for pair in pairs])
    return Outcome(
        "W3 stream",
        "256 MiB over our link, process to process; time for a gigabyte",
        "a plain gRPC client stream of 1 MiB chunks between the same processes",
        (Measurement("W3 stream", pairs, TARGET),),
        (
            Reading("W3 stream, our rate", ours.median, "GB/s", note=f"{ours.low:.2f} to {ours.high:.2f}"),
            Reading("W3 stream, plain rate", plain.median, "GB/s", note=f"{plain.low:.2f} to {plain.high:.2f}"),
        ),
    )


def case(lab: Lab, key: str, nbytes: int, pairs: int, ports: Sequence[int] = ()) -> Case:
    """One parcel of this size in each block.

    Args:
        lab: Has the two processes.
        key: Names it.
        nbytes: A whole number of chunks.
        pairs: How many.
        ports: Where to reach our listener and the plain one, if not where they listen.
    """

    @functools.cache
    def listeners(consumer: Worker) -> Sequence[int]:
        return ports or [int(consumer.call(function)) for function in (listen, listen_plain)]

    def ours() -> float:
        took, *sent = lab.producer.call(upload, port=listeners(lab.consumer)[0], nbytes=nbytes)
        arrived = lab.consumer.call(check)
        if arrived != sent:
            raise RuntimeError(f"sent {sent}, arrived {arrived}")
        return float(took) / (nbytes / 1e9)

    def limit() -> float:
        return float(lab.producer.call(stream_plain, port=listeners(lab.consumer)[1], nbytes=nbytes)) / (nbytes / 1e9)

    return Case(key, ours, limit, pairs)
