"""What both ends of a call must agree on: names, limits, gRPC's options, and what its errors come to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import grpc
import grpc.aio

from fed.text import cut, plain
from fed.transport.contract import PeerRefused, PeerUnreachable, PeerUntrusted, TransportError
from fed.transport.wire import MAX_FRAME_BYTES, MalformedFrame

__all__ = [
    "CALL_ERRORS",
    "CHANNEL_OPTIONS",
    "INCARNATION_KEY",
    "PARTY_KEY",
    "SERVER_OPTIONS",
    "SERVICE",
    "map_error",
    "status_error",
]

SERVICE: Final = "fed.v1.Transport"
PARTY_KEY: Final = "fed-party-bin"
INCARNATION_KEY: Final = "fed-incarnation-bin"
"""Metadata of every call but Greet. The suffix makes them binary to gRPC, so any name may be in them."""

_COMMON_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    # gRPC refuses what is larger before it is held.
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", MAX_FRAME_BYTES),
    # A peer whose machine vanished sends no FIN. Pings notice within half a minute, and they keep a mapping alive in
    # firewalls between sites, which commonly forget silent connections after a minute or more.
    ("grpc.keepalive_time_ms", 10_000),
    # Long enough for a ping to pass what lies in the buffers of a slow line.
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Of the algorithms only the one that leaves everything as it is: a compressed frame of 1 MB may be one of 1 GB,
    # and some releases unpack it before they look at its size.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.per_message_decompression", 0),
)
SERVER_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    *_COMMON_OPTIONS,
    # With it two listeners could share a port in silence, each getting half of the connections.
    ("grpc.so_reuseport", 0),
    # Peers ping as above; the defaults would take that for an attack and hang up.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    # A peer has at most a handful of calls under way on each of its two connections. More queue at the caller.
    ("grpc.max_concurrent_streams", 32),
    # Whoever connects and shows no certificate is not waited for: each takes a descriptor.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Between two parties there is a ping every few seconds, so this only ends connections that nobody uses.
    ("grpc.max_connection_idle_ms", 300_000),
)
CHANNEL_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
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

MAX_DETAILS_BYTES: Final = 2048
"""Of what the other end says of a status."""

_ERRORS: Final[Mapping[Any, type[TransportError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: PeerRefused,
    grpc.StatusCode.NOT_FOUND: PeerRefused,
    grpc.StatusCode.ALREADY_EXISTS: PeerRefused,
    grpc.StatusCode.OUT_OF_RANGE: PeerRefused,
    grpc.StatusCode.UNIMPLEMENTED: PeerRefused,
    grpc.StatusCode.UNAUTHENTICATED: PeerUntrusted,
    grpc.StatusCode.PERMISSION_DENIED: PeerUntrusted,
}
"""What a status means after which trying again will not help. Every other one is a `PeerUnreachable`."""

CALL_ERRORS: Final = (
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
        return status_error(error.code(), error.details(), where)
    if isinstance(error, MalformedFrame):
        return PeerRefused(f"{where} does not speak this protocol: {error}")
    if isinstance(error, asyncio.CancelledError):
        return PeerUnreachable(f"{where}: the connection was closed")
    return PeerUnreachable(f"{where}: the connection broke ({str(error) or type(error).__name__})")


def status_error(code: Any, details: str | None, where: str) -> TransportError:
    """The error of this transport that the status of an ended call comes to.

    Args:
        code: A `grpc.StatusCode`.
        details: What the other end, or gRPC, says about it.
        where: Names the peer and its address, to begin a sentence with.
    """
    said, _ = cut(plain(details or ""), MAX_DETAILS_BYTES)
    return _ERRORS.get(code, PeerUnreachable)(f"{where}: {said or code.name}")
