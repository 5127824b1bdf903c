"""What a peer can make a listener keep, parse and wait for; each test is an attack that once worked."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import socket
import time
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from fed.config import TLSConfig
from fed.core.rendezvous import ENTRY_BYTES, Key, Rendezvous
from fed.object import ObjectId
from fed.transport import wire
from fed.transport.blocks import Blocks
from fed.transport.certificates import Authority, write_credentials
from fed.transport.chunks import Assembly
from fed.transport.contract import Notice, NoticeKind, Parcel, PeerUnreachable
from fed.transport.fields import check_fields
from fed.transport.grpc import calls, listener
from fed.transport.grpc.calls import SERVICE
from fed.transport.v1 import fed_pb2 as pb
from fed.transport.wire import MalformedFrame, Offer
from tests.support.attackers import attacked, unharmed
from tests.support.worlds import LIMIT_S, content, hello, parcel, run

MIB = 1 << 20
ID = ObjectId(0, 9, 0)


# Frames


def read(frame: bytes, decode: Any) -> tuple[float, int]:
    """Refuse a frame. Returns the seconds of processor time and the bytes of memory that it took."""
    began = time.thread_time()
    # By its size or by a count, and not after it was parsed.
    with pytest.raises(MalformedFrame, match=r"over the limit of|more than \d+ fields"):
        decode(frame)
    took_s = time.thread_time() - began
    tracemalloc.start()
    with pytest.raises(MalformedFrame):
        decode(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return took_s, peak


@pytest.mark.parametrize(
    ("frame", "decode"),
    [
        (b"\x0a\x00" * (2 * MIB), wire.decode_parcels),
        (b"\x0a" + b"\xfc\xff\xff\x01" + b"\x1a\x00" * (2 * MIB - 2), wire.decode_parcels),
        (b"\x0a\x00" * (2 * MIB), wire.decode_acks),
        (b"\x22\x00" * (2 * MIB), wire.decode_notice),
        (b"\x3a\x00" * (2 * MIB), wire.decode_notice),
        (b"\x1a" + b"\xfc\xff\xff\x01" + b"\x3a\x00" * (2 * MIB - 2), wire.decode_notice),
        (b"\x1a" + b"\xfb\xff\xff\x01" + b"\x00" * (4 * MIB - 5), wire.decode_offer),
        (b"\x18\x00" * (2 * MIB), wire.decode_offer),
        (b"\x32\x00" * (8 * MIB), wire.decode_hello),
        (b"\x0a\x00" * (8 * MIB), wire.decode_greeting),
    ],
    ids=["parcels", "buffers", "acks", "objects", "texts", "causes", "packed", "sizes", "names", "answers"],
)
def test_a_frame_full_of_empty_things_costs_next_to_nothing(frame: bytes, decode: Any) -> None:
    took_s, peak = read(frame, decode)
    assert took_s < 3
    assert peak < 12 * MIB


def test_fields_are_counted_as_protobuf_counts_them() -> None:
    chance = random.Random(1)
    for _ in range(300):
        parcels = [
            pb.Parcel(
                id=pb.ObjectId(
                    epoch=chance.randrange(3), sequence=chance.randrange(1 << 60), stamp=chance.getrandbits(64)
                ),
                header=chance.randbytes(chance.randrange(300)),
                buffers=[chance.randbytes(chance.randrange(4)) for _ in range(chance.randrange(9))],
            )
            for _ in range(chance.randrange(9))
        ]
        count = sum(
            1 + 1 + len(parcel.id.ListFields()) + bool(parcel.header) + len(parcel.buffers) for parcel in parcels
        )
        frame = pb.Parcels(parcels=parcels).SerializeToString()
        check_fields(frame, pb.Parcels.DESCRIPTOR, count)
        if count:
            with pytest.raises(MalformedFrame):
                check_fields(frame, pb.Parcels.DESCRIPTOR, count - 1)
    sizes = [chance.randrange(1 << 62) for _ in range(1000)]
    offer = pb.Offer(header_size=1, buffer_sizes=sizes).SerializeToString()
    check_fields(offer, pb.Offer.DESCRIPTOR, 1002)
    with pytest.raises(MalformedFrame):
        check_fields(offer, pb.Offer.DESCRIPTOR, 1001)


def test_bytes_that_are_no_message_are_no_endless_count() -> None:
    chance = random.Random(2)
    for _ in range(2000):
        try:
            check_fields(chance.randbytes(chance.randrange(200)), pb.Notice.DESCRIPTOR, 100)
        except MalformedFrame:
            pass
    for frame in (b"\x0b", b"\x0a\x05ab", b"\x80" * 11, b"\x09\x00", b"\x0a"):
        with pytest.raises(MalformedFrame):
            check_fields(frame, pb.Notice.DESCRIPTOR, 100)


def test_the_fullest_frames_that_are_written_are_read() -> None:
    ids = [ObjectId(0xFFFFFFFF, wire.MAX_SEQUENCE - n, 0xFFFFFFFF, (1 << 64) - 1) for n in range(wire.MAX_PARCELS)]
    per = wire.MAX_FRAME_BUFFERS // len(ids)
    parcels = [Parcel(object_id, b"h", (memoryview(b"b"),) * per) for object_id in ids]
    assert len(wire.decode_parcels(wire.encode_parcels(parcels))) == len(parcels)
    most = Parcel(ID, b"", (memoryview(b""),) * wire.MAX_FRAME_BUFFERS)
    assert len(wire.decode_parcels(wire.encode_parcels([most]))[0].buffers) == wire.MAX_FRAME_BUFFERS
    for too_many in ([*parcels, parcel(1)], [most, parcel(1, b"x")]):
        with pytest.raises(MalformedFrame):
            wire.encode_parcels(too_many)
    offer = Offer(ID, 1, (1 << 40,) * wire.MAX_BUFFERS)
    assert wire.decode_offer(wire.encode_offer(offer)) == offer


def test_a_greeting_that_declares_too_much_is_not_sent() -> None:
    with pytest.raises(MalformedFrame, match="declare fewer types"):
        wire.encode_hello(
            dataclasses.replace(hello("alice"), types=tuple(f"module.{number:0300}" for number in range(300)))
        )


# What is kept


def test_what_is_kept_is_charged_for_its_buffers_too() -> None:
    frame = wire.encode_parcels([Parcel(ID, b"", (memoryview(b""),) * wire.MAX_FRAME_BUFFERS)])
    # What is made once for all frames is no part of this one.
    wire.decode_parcels(frame)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    (kept,) = wire.decode_parcels(frame)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    # A kilobyte for what else the process does meanwhile.
    assert grown <= kept.nbytes + kept.overhead + ENTRY_BYTES + 1024
    table: Rendezvous[Parcel] = Rendezvous(kept.overhead + ENTRY_BYTES + 10)
    assert table.arrived(Key("alice", ID), kept, kept.nbytes, kept.overhead).reply is None
    assert table.statistics().stored_bytes == kept.overhead + ENTRY_BYTES
    table.validate()
    offer = Offer(ID, 0, (0,) * wire.MAX_FRAME_BUFFERS)
    assert offer.overhead == kept.overhead
    assert not table.offered(Key("alice", ObjectId(0, 10, 0)), 0, offer.overhead).admitted


def test_an_upload_that_has_only_begun_is_small() -> None:
    offers = [wire.encode_offer(Offer(ObjectId(0, n, 0), 0, (1,) * wire.MAX_BUFFERS)) for n in range(8)]
    tracemalloc.start()
    begun = [Assembly(wire.decode_offer(offer), Blocks()) for offer in offers]
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # The sizes, as a tuple of numbers; the block is memory that nobody has touched.
    assert grown / len(begun) < 9 * wire.MAX_BUFFERS


# Calls


async def never_ends(raw: Any, method: str, *frames: bytes) -> Any:
    """A call whose stream is left open after these frames."""
    call = raw.channel.stream_unary(f"/{SERVICE}/{method}")(metadata=raw.metadata, timeout=LIMIT_S)
    for frame in frames:
        await call.write(frame)
    return call


def test_who_is_not_in_the_job_is_turned_away_before_anything_is_read(
    authority: Authority, credentials: Mapping[str, TLSConfig], tmp_path: Path
) -> None:
    strangers = write_credentials(tmp_path, ["mallory"], authority=authority)

    async def scenario() -> None:
        async with attacked({**credentials, **strangers}, "mallory") as (world, raw):
            # Not even whether it is a greeting is looked at.
            answer = wire.decode_greeting(await raw.greet(b"\xff" * MIB))
            assert answer == "party 'mallory' is not one of the job's: alice, bob, carol"
            # Nor is its end waited for.
            call = await never_ends(raw, "Greet")
            assert "mallory" in str(wire.decode_greeting(await call))
            await unharmed(world)

    run(scenario())


def test_a_greeting_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "GREETING_S", 0.2)

    async def scenario() -> None:
        async with attacked() as (world, raw):
            begun = [await never_ends(raw, "Greet") for _ in range(listener.MAX_GREETINGS)]
            for call in begun:
                with pytest.raises(grpc.aio.AioRpcError, match=r"not whole after 0\.2 s"):
                    await call
            await unharmed(world)

    run(scenario())


def test_uploads_of_one_peer_take_turns_and_end_with_its_stream() -> None:
    offers = [wire.encode_offer(Offer(ObjectId(0, number, 0), 0, (10,))) for number in range(10)]

    async def scenario() -> None:
        async with attacked() as (world, raw):
            await raw.greet(wire.encode_hello(hello("alice")))
            begun = [await never_ends(raw, "Upload", offer) for offer in offers]
            await world.handler.until(lambda: len(world.handler.offers) == 4)
            await unharmed(world)
            assert len(world.handler.offers) == 4 + 1
            # Alice connects anew. What her old connection has begun is in nobody's way.
            alice = await world.connected("alice")
            await world.handler.until(lambda: len(world.handler.broken) == 4)
            await alice.upload(parcel(7, bytes(100_000)))
            assert content(world.handler.parcels[-1][1]) == content(parcel(7, bytes(100_000)))
            # None waits for an answer that never comes.
            assert {await call.code() for call in begun} == {grpc.StatusCode.ABORTED}

    run(scenario())


def test_there_are_not_too_many_calls_of_one_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_CALLS", 6)

    async def scenario() -> None:
        async with attacked() as (world, raw):
            await raw.greet(wire.encode_hello(hello("alice")))
            begun = [await never_ends(raw, "Tell") for _ in range(6)]
            # In the order in which they came, which is not that in which they were made.
            more = await never_ends(raw, "Tell")
            done, _ = await asyncio.wait(
                {asyncio.ensure_future(call.code()) for call in (*begun, more)}, return_when=asyncio.FIRST_COMPLETED
            )
            assert [task.result() for task in done] == [grpc.StatusCode.RESOURCE_EXHAUSTED]
            await unharmed(world)
            for call in begun:
                call.cancel()

    run(scenario())


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_what_is_compressed_is_refused_before_it_is_unpacked(algorithm: grpc.Compression) -> None:
    # Good, and shorter when it is compressed, without which gRPC would not do it.
    greeting = wire.encode_hello(dataclasses.replace(hello("alice"), types=("module.Type",) * 100))

    async def scenario() -> None:
        async with attacked() as (world, raw):
            with pytest.raises(grpc.aio.AioRpcError):
                await raw.channel.unary_unary(f"/{SERVICE}/Greet")(greeting, compression=algorithm, timeout=LIMIT_S)
            assert world.handler.hellos == []
            await raw.greet(greeting)
            await unharmed(world)

    run(scenario())


def test_who_connects_and_says_nothing_is_not_waited_for(
    credentials: Mapping[str, TLSConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dict(calls.SERVER_OPTIONS)["grpc.server_handshake_timeout_ms"] <= 10_000
    sooner = list({**dict(calls.SERVER_OPTIONS), "grpc.server_handshake_timeout_ms": 300}.items())
    monkeypatch.setattr(listener, "SERVER_OPTIONS", sooner)

    async def scenario() -> None:
        async with attacked(credentials) as (world, _):
            with socket.create_connection(("127.0.0.1", world.listener.address.port)) as silent:
                silent.settimeout(LIMIT_S)
                assert await asyncio.to_thread(silent.recv, 1) == b""
            await unharmed(world)

    run(scenario())


def test_a_link_sends_what_fits_a_frame_and_uploads_the_rest() -> None:
    async def scenario() -> None:
        async with attacked() as (world, _):
            alice = await world.connected("alice")
            few = [parcel(number) for number in range(2 * wire.MAX_PARCELS + 1)]
            many = Parcel(ObjectId(0, 10_000, 0), b"", (memoryview(b"x"),) * (wire.MAX_FRAME_BUFFERS + 1))
            full = [
                Parcel(ObjectId(0, 20_000 + n, 0), b"", (memoryview(b"x"),) * (wire.MAX_FRAME_BUFFERS // 2 + 1))
                for n in range(3)
            ]
            await alice.send([*few, many, *full])
            await alice.tell(Notice(NoticeKind.READY, 0), timeout_s=LIMIT_S)
            await world.handler.until(lambda: len(world.handler.parcels) == len(few) + 4)
            assert [offer[1] for offer in world.handler.offers] == [many.id]
            too_many = Parcel(ID, b"", (memoryview(b""),) * (wire.MAX_BUFFERS + 1))
            with pytest.raises((ValueError, PeerUnreachable), match="buffers"):
                await alice.upload(too_many)

    run(scenario())
