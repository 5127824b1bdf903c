"""What is particular to gRPC: foreign errors, hostile callers, connections, and its manners on the terminal."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio
import pytest

from fed.config import Address, TLSConfig
from fed.object import ObjectId
from fed.transport import wire
from fed.transport.contract import (
    Ack,
    AddressInUse,
    Notice,
    NoticeKind,
    PeerRefused,
    PeerUnreachable,
    PeerUntrusted,
    Receipt,
    TransportError,
    Verdict,
)
from fed.transport.grpc import GrpcLink, GrpcListener
from fed.transport.grpc.calls import INCARNATION_KEY, PARTY_KEY, SERVICE, map_error, status_error
from fed.transport.v1 import fed_pb2 as pb
from fed.transport.wire import MAX_FRAME_BYTES, MalformedFrame, Offer
from tests.support.attackers import Raw, attacked, refused, unharmed
from tests.support.worlds import LIMIT_S, GrpcWorld, Recorder, content, free_address, hello, parcel, run

# Errors ----------------------------------------------------------------------------------------------------------

MEANING: dict[grpc.StatusCode, type[TransportError]] = {
    grpc.StatusCode.OK: PeerUnreachable,
    grpc.StatusCode.CANCELLED: PeerUnreachable,
    grpc.StatusCode.UNKNOWN: PeerUnreachable,
    grpc.StatusCode.INVALID_ARGUMENT: PeerRefused,
    grpc.StatusCode.DEADLINE_EXCEEDED: PeerUnreachable,
    grpc.StatusCode.NOT_FOUND: PeerRefused,
    grpc.StatusCode.ALREADY_EXISTS: PeerRefused,
    grpc.StatusCode.PERMISSION_DENIED: PeerUntrusted,
    grpc.StatusCode.UNAUTHENTICATED: PeerUntrusted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: PeerUnreachable,
    grpc.StatusCode.FAILED_PRECONDITION: PeerUnreachable,
    grpc.StatusCode.ABORTED: PeerUnreachable,
    grpc.StatusCode.OUT_OF_RANGE: PeerRefused,
    grpc.StatusCode.UNIMPLEMENTED: PeerRefused,
    grpc.StatusCode.INTERNAL: PeerUnreachable,
    grpc.StatusCode.UNAVAILABLE: PeerUnreachable,
    grpc.StatusCode.DATA_LOSS: PeerUnreachable,
}


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_every_status_has_a_meaning(code: grpc.StatusCode) -> None:
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "why")
    for mapped in (map_error(error, "party 'bob' at b:1"), status_error(code, "why", "party 'bob' at b:1")):
        assert type(mapped) is MEANING[code]
        assert str(mapped) == "party 'bob' at b:1: why"


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (grpc.RpcError(), PeerUnreachable),
        (grpc.aio.UsageError("finished"), PeerUnreachable),
        (grpc.aio.InternalError("core"), PeerUnreachable),
        (asyncio.InvalidStateError("RPC already finished."), PeerUnreachable),
        (asyncio.CancelledError(), PeerUnreachable),
        (ConnectionResetError(104, "reset"), PeerUnreachable),
        (MalformedFrame("unknown kind"), PeerRefused),
        (PeerUntrusted("as it is"), PeerUntrusted),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_other_error_of_a_call_has_a_meaning(error: BaseException, meaning: type[TransportError]) -> None:
    assert type(map_error(error, "party 'bob' at b:1")) is meaning


# Hostile callers -------------------------------------------------------------------------------------------------


def test_e44_a_name_in_the_greeting_that_the_certificate_does_not_prove(credentials: Mapping[str, TLSConfig]) -> None:
    async def scenario() -> None:
        async with attacked(credentials) as (world, raw):
            await refused(
                world,
                raw.greet(wire.encode_hello(hello("carol"))),
                grpc.StatusCode.UNAUTHENTICATED,
                "the certificate belongs to party 'alice', but the greeting comes from 'carol'",
            )
            assert world.handler.hellos == []
            await unharmed(world)

    run(scenario())


def test_e44_a_name_on_a_call_that_the_certificate_does_not_prove(credentials: Mapping[str, TLSConfig]) -> None:
    async def scenario() -> None:
        async with attacked(credentials) as (world, raw):
            await world.connected("carol")
            await raw.greet(wire.encode_hello(hello("alice")))
            forged = Raw(raw.channel, "carol")
            sentence = "the certificate belongs to party 'alice', but the call comes from 'carol'"
            (notice,) = wire.encode_notice(Notice(NoticeKind.GOODBYE, 0))
            for attempt in (forged.tell(notice), forged.exchange(), forged.upload([])):
                await refused(world, attempt, grpc.StatusCode.UNAUTHENTICATED, sentence)
            assert world.handler.notices == []
            assert len(world.handler.streams) == 1

    run(scenario())


@pytest.mark.parametrize(
    ("party", "incarnation"), [("alice", "second"), ("carol", "first"), ("", "first"), ("alice", ""), ("\udcff", "x")]
)
def test_e44_calls_without_a_greeting_are_out_of_turn(party: str, incarnation: str) -> None:
    async def scenario() -> None:
        async with attacked() as (world, raw):
            await raw.greet(wire.encode_hello(hello("alice")))
            raw.metadata = (
                (PARTY_KEY, party.encode("utf-8", "surrogateescape")),
                (INCARNATION_KEY, incarnation.encode()),
            )
            (notice,) = wire.encode_notice(Notice(NoticeKind.READY, 0))
            for attempt in (raw.tell(notice), raw.begin("Exchange"), raw.begin("Upload")):
                await refused(world, attempt, grpc.StatusCode.FAILED_PRECONDITION, "wants to be greeted first")
            assert (world.handler.notices, world.handler.parcels, world.handler.offers) == ([], [], [])

    run(scenario())


def test_a_party_that_is_not_one_of_the_jobs_is_refused() -> None:
    async def scenario() -> None:
        async with attacked() as (world, raw):
            answer = wire.decode_greeting(await raw.greet(wire.encode_hello(hello("mallory"))))
            assert answer == "party 'mallory' is not one of the job's: alice, bob, carol"
            assert world.listener.statistics().refused == 1

    run(scenario())


@pytest.mark.parametrize("frame", [b"", b"\xff\xff", pb.Hello(protocol=1).SerializeToString()])
def test_e44_malformed_greetings_are_refused(frame: bytes) -> None:
    async def scenario() -> None:
        async with attacked() as (world, raw):
            await refused(world, raw.greet(frame), grpc.StatusCode.INVALID_ARGUMENT, "")
            await unharmed(world)

    run(scenario())


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff",
        pb.Notice().SerializeToString(),
        b"\x08\x63",
        pb.Notice(kind=pb.NOTICE_KIND_FAILURE).SerializeToString(),
    ],
    ids=["noise", "nothing", "unknown-kind", "no-failure"],
)
def test_e44_malformed_notices_are_refused(frame: bytes) -> None:
    async def scenario() -> None:
        async with attacked() as (world, raw):
            await raw.greet(wire.encode_hello(hello("alice")))
            await refused(world, raw.tell(frame), grpc.StatusCode.INVALID_ARGUMENT, "")
            assert world.handler.notices == []
            await unharmed(world)

    run(scenario())


@pytest.mark.parametrize("frame", [b"\xff", pb.Parcels(parcels=[pb.Parcel()]).SerializeToString()])
def test_e44_malformed_parcels_end_the_stream(frame: bytes) -> None:
    async def scenario() -> None:
        async with attacked() as (world, raw):
            await raw.greet(wire.encode_hello(hello("alice")))
            await refused(world, raw.exchange(frame), grpc.StatusCode.INVALID_ARGUMENT, "")
            await unharmed(world)

    run(scenario())


ID = ObjectId(0, 9, 0)


@pytest.mark.parametrize(
    ("frames", "offered"),
    [
        ([], False),
        ([b"\xff"], False),
        ([pb.Offer(id=pb.ObjectId(), header_size=1, total=9).SerializeToString()], False),
        ([wire.encode_offer(Offer(ID, 4, (10,)))], True),
        ([wire.encode_offer(Offer(ID, 4, (10,))), bytes(13)], True),
        ([wire.encode_offer(Offer(ID, 4, (10,))), bytes(14), b""], True),
        ([wire.encode_offer(Offer(ID, 4, (10,))), bytes(15)], True),
        ([wire.encode_offer(Offer(ID, 4, (10,))), bytes(14), bytes(1)], True),
        ([wire.encode_offer(Offer(ID, 0, ())), bytes(1)], True),
    ],
    ids=["nothing", "noise", "sum", "no-chunk", "short", "empty", "long", "longer", "unexpected"],
)
def test_e44_uploads_that_lie_are_refused(frames: list[bytes], offered: bool) -> None:
    async def scenario() -> None:
        async with attacked() as (world, raw):
            await raw.greet(wire.encode_hello(hello("alice")))
            await refused(world, raw.upload(frames), grpc.StatusCode.INVALID_ARGUMENT, "")
            assert bool(world.handler.offers) == offered
            assert len(world.handler.broken) == len(world.handler.offers)
            assert world.handler.parcels == []
            await unharmed(world)

    run(scenario())


def test_e44_an_offer_of_more_than_there_is_costs_nothing() -> None:
    async def scenario() -> None:
        async with attacked() as (world, raw):
            await raw.greet(wire.encode_hello(hello("alice")))
            offer = wire.encode_offer(Offer(ID, 0, (wire.MAX_BYTES,)))
            await refused(world, raw.upload([offer]), grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")
            assert world.handler.broken == [("alice", ID)]
            await unharmed(world)

    run(scenario())


def test_e44_frames_over_the_limit_are_refused() -> None:
    large = bytes(MAX_FRAME_BYTES + 1)

    async def scenario() -> None:
        async with attacked() as (world, raw):
            await raw.greet(wire.encode_hello(hello("alice")))
            offer = wire.encode_offer(Offer(ID, 0, (len(large),)))
            for attempt in (raw.greet(large), raw.tell(large), raw.exchange(large), raw.upload([offer, large])):
                with pytest.raises(grpc.aio.AioRpcError):
                    await attempt
            await world.handler.until(lambda: world.handler.broken == [("alice", ID)])
            assert world.handler.parcels == []
            await unharmed(world)

    run(scenario())


def test_e44_unknown_methods_are_refused() -> None:
    async def scenario() -> None:
        async with attacked() as (world, raw):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw.channel.unary_unary(f"/{SERVICE}/Execute")(b"")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            await unharmed(world)

    run(scenario())


def test_e44_metadata_over_the_limit_is_refused() -> None:
    async def scenario() -> None:
        async with attacked() as (world, raw):
            raw.metadata = ((PARTY_KEY, bytes(100_000)), (INCARNATION_KEY, b"first"))
            with pytest.raises(grpc.aio.AioRpcError):
                await raw.tell(b"")
            await unharmed(world)

    run(scenario())


def test_an_offer_is_withdrawn_when_its_sender_dies() -> None:
    async def scenario() -> None:
        async with attacked() as (world, raw):
            await raw.greet(wire.encode_hello(hello("alice")))
            call = raw.channel.stream_unary(f"/{SERVICE}/Upload")(metadata=raw.metadata)
            await call.write(wire.encode_offer(Offer(ID, 0, (1000,))))
            await call.write(bytes(500))
            await world.handler.until(lambda: bool(world.handler.offers))
            call.cancel()
            await world.handler.until(lambda: world.handler.broken == [("alice", ID)])
            assert world.handler.parcels == []

    run(scenario())


def test_a_listener_that_answers_nonsense_is_refused() -> None:
    async def nonsense(request: bytes, context: Any) -> bytes:
        return b"\xff\xff"

    async def scenario() -> None:
        server = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(nonsense)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Greet": method}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        link = GrpcLink("alice", "bob", Address("127.0.0.1", port))
        try:
            with pytest.raises(PeerRefused, match="does not speak this protocol"):
                await link.connect(hello("alice"), timeout_s=LIMIT_S)
        finally:
            await link.close()
            await server.stop(None)

    run(scenario())


@pytest.mark.parametrize("chunk_bytes", [1, 1 << 30])
def test_chunks_of_any_size_arrive(chunk_bytes: int) -> None:
    async def scenario() -> None:
        async with GrpcWorld({}).opened() as world:
            assert isinstance(world, GrpcWorld)
            link = GrpcLink("alice", "bob", world.relay.address, chunk_bytes=chunk_bytes)
            world.links.append(link)
            await link.connect(hello("alice"), timeout_s=LIMIT_S)
            sent = parcel(1, bytes(range(100)) if chunk_bytes == 1 else bytes(20 << 20))
            assert await link.upload(sent) is Verdict.ADMIT
            assert [content(received) for _, received in world.handler.parcels] == [content(sent)]

    run(scenario())
    with pytest.raises(ValueError, match="at least 1"):
        GrpcLink("alice", "bob", free_address(), chunk_bytes=0)


# Connections -----------------------------------------------------------------------------------------------------


def test_control_and_data_do_not_share_a_connection(credentials: Mapping[str, TLSConfig]) -> None:
    async def scenario() -> None:
        async with GrpcWorld(credentials).opened() as world:
            assert isinstance(world, GrpcWorld)
            link = await world.connected()
            await link.send([parcel(1)])
            await link.tell(Notice(NoticeKind.READY, 0), timeout_s=LIMIT_S)
            assert world.relay.connections == 3, "one to prove the identity, one for control, one for data"

    run(scenario())


def test_a_handler_that_raises_does_not_leave_its_peer_waiting(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Recorder):
        def on_parcels(self, peer: str, parcels: object) -> None:
            raise ZeroDivisionError

    async def scenario() -> None:
        world = GrpcWorld({})
        world.handler = Broken()
        async with world.opened():
            link = await world.connected()
            await link.send([parcel(1)])
            with pytest.raises(PeerUnreachable):
                await link.acks().__anext__()
            with pytest.raises(PeerUnreachable):
                await link.upload(parcel(2))

    run(scenario())
    assert "the handler of parcels from 'alice' failed" in caplog.text


def test_acks_that_nobody_reads_do_not_pile_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fed.transport.grpc.listener.MAX_UNREAD_ACKS", 10)

    async def scenario() -> None:
        async with GrpcWorld({}).opened() as world:
            link = await world.connected()
            world.handler.confirms = False
            await link.send([parcel(number) for number in range(11)])
            await world.handler.until(lambda: len(world.handler.parcels) == 11)
            world.handler.acknowledge([Ack(received.id, Receipt.WANTED) for _, received in world.handler.parcels])
            with pytest.raises(PeerUnreachable, match="acknowledgements are not being read"):
                await link.acks().__anext__()

    run(scenario())


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_host_that_is_not_ours_cannot_be_listened_at(host: str) -> None:
    async def scenario() -> None:
        bind = Address(host, free_address().port)
        with pytest.raises(AddressInUse, match=f"cannot listen at {bind}: .* of this machine"):
            await GrpcListener("bob", bind).start(Recorder())

    run(scenario())


def test_what_is_not_closed_is_warned_of() -> None:
    async def scenario() -> None:
        listener = GrpcListener("bob", Address("127.0.0.1", 1), any_port=True)
        await listener.start(Recorder())
        link = GrpcLink("alice", "bob", listener.address)
        await link.connect(hello("alice"), timeout_s=LIMIT_S)
        with pytest.warns(ResourceWarning, match="the link to party 'bob' at .* was not closed"):
            link.__del__()
        with pytest.warns(ResourceWarning, match="the listener at .* was not closed"):
            listener.__del__()
        await link.close()
        await listener.close()

    run(scenario())


# Manners ---------------------------------------------------------------------------------------------------------


def test_nothing_reaches_the_terminal(credentials: Mapping[str, TLSConfig]) -> None:
    """Failed handshakes, taken ports and vanished peers are exceptions, and no lines on stderr."""
    alice, bob = credentials["alice"], credentials["bob"]
    script = f"""
    import asyncio, socket, ssl
    from pathlib import Path
    from fed.config import Address, TLSConfig
    from fed.transport.contract import TransportError
    from fed.transport.grpc import GrpcLink, GrpcListener
    from tests.support.worlds import Recorder, hello

    bob = TLSConfig(Path({str(bob.ca)!r}), Path({str(bob.cert)!r}), Path({str(bob.key)!r}))
    alice = TLSConfig(Path({str(alice.ca)!r}), Path({str(alice.cert)!r}), Path({str(alice.key)!r}))

    async def main():
        listener = GrpcListener("bob", Address("127.0.0.1", 1), bob, any_port=True)
        await listener.start(Recorder())
        for tls, party in ((None, "alice"), (alice, "carol"), (alice, "alice")):
            link = GrpcLink(party, "bob", listener.address, tls)
            try:
                await link.connect(hello(party), timeout_s=20)
            except TransportError as error:
                print(type(error).__name__)
            if party != "alice":
                await link.close()
        for rival in (GrpcListener("bob", listener.address, bob), GrpcListener("bob", listener.address)):
            try:
                await rival.start(Recorder())
            except TransportError as error:
                print(type(error).__name__)
        with socket.create_connection(("127.0.0.1", listener.address.port)) as noise:
            noise.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
            noise.recv(100)
        reading = asyncio.ensure_future(link.acks().__anext__())
        await listener.close()
        await asyncio.wait({{reading}})
        print(type(reading.exception()).__name__)
        await link.close()

    asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["PeerUntrusted", "PeerUntrusted", "AddressInUse", "AddressInUse", "PeerUnreachable"]
    assert done.stderr == ""


def test_on_an_idle_stream_a_small_object_goes_at_once_and_one_behind_another_waits() -> None:
    async def scenario() -> None:
        async with GrpcWorld({}).opened() as world:
            link = await world.connected()
            # Nothing between the two lets the stream write.
            assert (link.send_now([parcel(1)]), link.send_now([parcel(2)])) == (True, False)
            await world.handler.until(lambda: len(world.handler.parcels) == 1)
            assert link.send_now([parcel(3)])
            await world.handler.until(lambda: len(world.handler.parcels) == 2)

    run(scenario())
