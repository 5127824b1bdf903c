"""Callers of a listener that say whatever they like."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from fed.config import TLSConfig
from fed.transport import wire
from fed.transport.contract import Notice, NoticeKind, Verdict
from fed.transport.grpc.calls import INCARNATION_KEY, PARTY_KEY, SERVICE
from tests.support.worlds import LIMIT_S, GrpcWorld, parcel


class Raw:
    """A caller that says whatever it likes."""

    def __init__(self, channel: Any, party: str = "alice", incarnation: str = "first") -> None:
        self.channel = channel
        self.metadata = ((PARTY_KEY, party.encode()), (INCARNATION_KEY, incarnation.encode()))

    async def greet(self, frame: bytes) -> bytes:
        answer: bytes = await self.channel.unary_unary(f"/{SERVICE}/Greet")(frame, timeout=LIMIT_S)
        return answer

    async def tell(self, frame: bytes) -> None:
        await self.channel.unary_unary(f"/{SERVICE}/Tell")(frame, metadata=self.metadata, timeout=LIMIT_S)

    async def exchange(self, *frames: bytes) -> None:
        call = self.channel.stream_stream(f"/{SERVICE}/Exchange")(iter(frames), metadata=self.metadata, timeout=LIMIT_S)
        while await call.read() is not grpc.aio.EOF:
            pass

    async def begin(self, method: str) -> None:
        """A call that says nothing, for what is refused unread: a caller that is writing just then gets no status."""
        call = self.channel.stream_stream(f"/{SERVICE}/{method}")(metadata=self.metadata, timeout=LIMIT_S)
        while await call.read() is not grpc.aio.EOF:
            pass

    async def upload(self, frames: Iterable[bytes]) -> Verdict:
        method = self.channel.stream_unary(f"/{SERVICE}/Upload")
        return wire.decode_result(await method(iter(frames), metadata=self.metadata, timeout=LIMIT_S))


@asynccontextmanager
async def attacked(
    credentials: Mapping[str, TLSConfig] | None = None, party: str = "alice"
) -> AsyncIterator[tuple[GrpcWorld, Raw]]:
    """A world in which a party is a raw caller; with credentials, one that proves to be that party."""
    async with GrpcWorld(credentials or {}).opened() as world:
        assert isinstance(world, GrpcWorld)
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        target = str(world.listener.address)
        if credentials is None:
            channel = grpc.aio.insecure_channel(target, options)
        else:
            tls = credentials[party]
            secrets = grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.key.read_bytes(), tls.cert.read_bytes())
            channel = grpc.aio.secure_channel(target, secrets, [*options, ("grpc.ssl_target_name_override", "bob")])
        try:
            yield world, Raw(channel, party)
        finally:
            await channel.close()


async def refused(world: GrpcWorld, attempt: Any, code: grpc.StatusCode, details: str, count: int = 1) -> None:
    before = world.listener.statistics().refused
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await attempt
    assert caught.value.code() is code
    assert details in str(caught.value.details())
    assert world.listener.statistics().refused == before + count


async def unharmed(world: GrpcWorld) -> None:
    carol = await world.connected("carol")
    await carol.send([parcel(1)])
    await carol.upload(parcel(2, bytes(100_000)))
    await carol.tell(Notice(NoticeKind.READY, 0), timeout_s=LIMIT_S)
    await world.handler.until(lambda: len(world.handler.parcels) >= 2)
    assert {peer for peer, _ in world.handler.parcels} == {"carol"}
