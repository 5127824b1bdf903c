"""One suite for all transports: what `fed.transport.contract` promises, each keeps.

Whoever imports all of it has the tests, and adds the fixture ``make_world``.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from fed.core.failure import Failure, Kind
from fed.core.stall import PartyStatus, Wait
from fed.object import ObjectId
from fed.transport.contract import (
    Ack,
    Notice,
    NoticeKind,
    NotNow,
    Parcel,
    PeerRefused,
    PeerUnreachable,
    Receipt,
    Refusal,
    Verdict,
)
from tests.support.worlds import LIMIT_S, World, content, hello, parcel, run

MakeWorld = Callable[[], World]
READY = Notice(NoticeKind.READY, 0)
LARGE = 4 << 20


def failure(number: int = 0) -> Failure:
    return Failure(f"alice/first/{number}", Kind.TASK, "alice", "ValueError", "#3 train", 3, ("KeyError",), ("carol",))


async def next_of(acks: AsyncIterator[Sequence[Ack]]) -> Sequence[Ack]:
    return await acks.__anext__()


async def collect(acks: AsyncIterator[Sequence[Ack]], count: int) -> list[Ack]:
    collected: list[Ack] = []
    while len(collected) < count:
        collected.extend(await asyncio.wait_for(next_of(acks), LIMIT_S))
    return collected


async def ends_unreachable(waiting: asyncio.Future[Any]) -> None:
    with pytest.raises(PeerUnreachable):
        await asyncio.wait_for(waiting, LIMIT_S)


# Greeting --------------------------------------------------------------------------------------------------------


def test_a_greeting_is_answered_and_opens_the_stream(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            welcome = await world.link().connect(hello("alice"), timeout_s=LIMIT_S)
            assert welcome == hello("bob")
            assert world.handler.hellos == [("alice", hello("alice"))]
            assert [peer for peer, _ in world.handler.streams] == ["alice"]

    run(scenario())


def test_a_refusal_arrives_word_for_word_and_does_not_stick(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = world.link()
            world.handler.refusal = Refusal("job 'census' is not 'élection'")
            with pytest.raises(PeerRefused, match="job 'census' is not 'élection'"):
                await link.connect(hello("alice"), timeout_s=LIMIT_S)
            with pytest.raises(PeerUnreachable):
                await link.send([parcel(1)])
            assert world.handler.streams == []
            assert world.listener.statistics().refused == 1
            world.handler.refusal = None
            await link.connect(hello("alice"), timeout_s=LIMIT_S)
            await link.tell(READY, timeout_s=LIMIT_S)

    run(scenario())


def test_a_greeting_that_is_put_off_can_be_tried_again(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = world.link()
            world.handler.refusal = NotNow("party 'bob' is still saying goodbye to your earlier life")
            with pytest.raises(PeerUnreachable, match="still saying goodbye"):
                await link.connect(hello("alice"), timeout_s=LIMIT_S)
            assert world.handler.streams == []
            assert world.listener.statistics() == (0, 0, 0, 0)
            world.handler.refusal = None
            await link.connect(hello("alice"), timeout_s=LIMIT_S)

    run(scenario())


def test_another_protocol_is_refused(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            with pytest.raises(PeerRefused, match="speaks protocol 2, but 'alice' speaks 7"):
                await world.link().connect(hello("alice", protocol=7), timeout_s=LIMIT_S)
            assert world.handler.hellos == []

    run(scenario())


def test_another_party_at_the_address_is_noticed(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            world.handler.party = "carol"
            with pytest.raises(PeerRefused, match=r"party 'carol' answered .* where 'bob' should be"):
                await world.link().connect(hello("alice"), timeout_s=LIMIT_S)

    run(scenario())


def test_a_link_greets_in_its_own_name_only(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            with pytest.raises(ValueError, match="belongs to party 'alice'"):
                await world.link().connect(hello("carol"), timeout_s=LIMIT_S)

    run(scenario())


def test_a_listener_refuses_its_own_name(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            with pytest.raises(PeerRefused, match="calls itself 'bob' too"):
                await world.link("bob").connect(hello("bob"), timeout_s=LIMIT_S)

    run(scenario())


def test_nobody_there(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            await world.listener.close()
            with pytest.raises(PeerUnreachable, match="bob"):
                await world.link().connect(hello("alice"), timeout_s=LIMIT_S)

    run(scenario())


def test_nothing_can_be_said_before_a_greeting(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = world.link()
            with pytest.raises(PeerUnreachable):
                await link.send([parcel(1)])
            with pytest.raises(PeerUnreachable):
                await link.upload(parcel(1))
            with pytest.raises(PeerUnreachable):
                await link.tell(READY, timeout_s=LIMIT_S)
            with pytest.raises(PeerUnreachable):
                await next_of(link.acks())

    run(scenario())


# Parcels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        parcel(1),
        parcel(1, header=b""),
        parcel(1, b"one"),
        parcel(1, b"", b"two", b""),
        Parcel(ObjectId(4_000_000_000, 1 << 62, 7), b"\x00\xff", (memoryview(b"abc"),)),
    ],
)
def test_a_small_parcel_arrives_as_it_was(make_world: MakeWorld, sent: Parcel) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            await link.send([sent])
            await world.handler.until(lambda: len(world.handler.parcels) == 1)
            ((peer, received),) = world.handler.parcels
            assert peer == "alice"
            assert content(received) == content(sent)
            assert all(buffer.readonly for buffer in received.buffers)
            assert await collect(link.acks(), 1) == [Ack(sent.id, Receipt.DELIVERED)]

    run(scenario())


def test_many_sends_at_once_all_arrive(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            sent = [parcel(number, bytes(number % 7)) for number in range(600)]
            random.Random(1).shuffle(sent)
            await asyncio.gather(*(link.send(sent[at : at + 6]) for at in range(0, len(sent), 6)))
            await world.handler.until(lambda: len(world.handler.parcels) == len(sent))
            arrived = {received.id: content(received) for _, received in world.handler.parcels}
            assert arrived == {each.id: content(each) for each in sent}
            acks = await collect(link.acks(), len(sent))
            assert {ack.id for ack in acks} == {each.id for each in sent}

    run(scenario())


def test_what_goes_at_once_goes_whole_and_the_rest_is_left_to_send(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = world.link()
            assert not link.send_now([parcel(0)])
            await link.connect(hello("alice"), timeout_s=LIMIT_S)
            sent = 0
            for number in range(200):
                sent += link.send_now([parcel(2 * number, b"x" * number), parcel(2 * number + 1)])
                if number % 3 == 0:
                    await asyncio.sleep(0)
            assert not link.send_now([parcel(0), parcel(1, b"x" * (3 << 20))])
            await link.send([parcel(1000)])
            await world.handler.until(lambda: len(world.handler.parcels) == 2 * sent + 1)
            names = [received.id.sequence for _, received in world.handler.parcels]
            assert names == sorted(names)
            assert len(set(names)) == len(names)
            await link.close()
            assert not link.send_now([parcel(0)])

    run(scenario())


def test_a_batch_larger_than_a_frame_arrives(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            sent = [parcel(number, bytes([number]) * 300_000) for number in range(20)]
            sent.append(parcel(20, bytes(9 << 20)))
            await link.send(sent)
            await world.handler.until(lambda: len(world.handler.parcels) == len(sent))
            arrived = {received.id: content(received) for _, received in world.handler.parcels}
            assert arrived == {each.id: content(each) for each in sent}

    run(scenario())


def test_a_cancelled_send_leaves_the_stream_whole(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            sending = asyncio.ensure_future(link.send([parcel(1, bytes(100_000))]))
            await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait({sending})
            await link.send([parcel(2)])
            await world.handler.until(lambda: any(received.id.sequence == 2 for _, received in world.handler.parcels))

    run(scenario())


@pytest.mark.parametrize(
    "sizes",
    [[LARGE], [0, 1, 63, 64, 65, 3_000_017, 0, 1 << 20, 0], [7] * 3000, [0, 0], []],
    ids=["one", "ragged", "many", "empty", "none"],
)
@pytest.mark.parametrize("header_size", [0, 11, 1_500_000])
def test_a_large_parcel_arrives_as_it_was(make_world: MakeWorld, sizes: list[int], header_size: int) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            noise = random.Random(len(sizes))
            sent = parcel(1, *(noise.randbytes(size) for size in sizes), header=noise.randbytes(header_size))
            assert await asyncio.wait_for(link.upload(sent), LIMIT_S) is Verdict.ADMIT
            assert world.handler.offers == [("alice", sent.id, sent.nbytes)]
            ((peer, received),) = world.handler.parcels
            assert peer == "alice"
            assert content(received) == content(sent)
            assert isinstance(received.header, bytes)
            assert all(buffer.readonly and buffer.format == "B" for buffer in received.buffers)
            assert world.handler.broken == []
            assert await collect(link.acks(), 1) == [Ack(sent.id, Receipt.DELIVERED)]

    run(scenario())


def test_a_parcel_of_typed_memory_arrives(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            numbers = memoryview(bytes(range(240))).cast("Q")
            await link.upload(Parcel(ObjectId(0, 1, 0), b"", (numbers,)))
            await link.send([Parcel(ObjectId(0, 2, 0), b"", (numbers,))])
            await world.handler.until(lambda: len(world.handler.parcels) == 2)
            assert [bytes(received.buffers[0]) for _, received in world.handler.parcels] == [numbers.tobytes()] * 2

    run(scenario())


def test_uploads_at_once_all_arrive(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            sent = [parcel(number, bytes([number]) * 700_001) for number in range(12)]
            await asyncio.gather(*(link.upload(each) for each in sent))
            arrived = {received.id: content(received) for _, received in world.handler.parcels}
            assert arrived == {each.id: content(each) for each in sent}

    run(scenario())


def test_a_declined_upload_is_not_read(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            world.handler.verdict = Verdict.DECLINE
            sent = parcel(1, bytes(LARGE))
            assert await asyncio.wait_for(link.upload(sent), LIMIT_S) is Verdict.DECLINE
            assert world.handler.parcels == []
            assert world.handler.broken == []
            world.handler.acknowledge([Ack(sent.id, Receipt.DEFERRED)])
            assert await collect(link.acks(), 1) == [Ack(sent.id, Receipt.DEFERRED)]
            assert link.statistics().parcels_sent == 0
            world.handler.verdict = Verdict.ADMIT
            assert await asyncio.wait_for(link.upload(sent), LIMIT_S) is Verdict.ADMIT

    run(scenario())


def test_a_declined_upload_ends_even_if_nothing_more_gets_through(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            world.handler.verdict = Verdict.DECLINE
            world.stall()
            verdict = await asyncio.wait_for(link.upload(parcel(1, bytes(LARGE))), LIMIT_S)
            assert verdict is Verdict.DECLINE

    run(scenario())


# Acknowledgements ------------------------------------------------------------------------------------------------


def test_acks_arrive_in_order_and_whole(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            sent = [Ack(ObjectId(1, number, 2), receipt) for number in range(200) for receipt in Receipt]
            sent.append(Ack(ObjectId(1, 1, 1), Receipt.TOO_LARGE, 1 << 40))
            for at in range(0, len(sent), 7):
                world.handler.acknowledge(sent[at : at + 7])
            assert await collect(link.acks(), len(sent)) == sent

    run(scenario())


def test_acks_after_the_stream_are_lost_without_harm(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            _, old = world.handler.streams[0]
            await link.connect(hello("alice"), timeout_s=LIMIT_S)
            old([Ack(ObjectId(0, 1, 0), Receipt.DELIVERED)])
            world.handler.acknowledge([Ack(ObjectId(0, 2, 0), Receipt.DELIVERED)])
            assert await collect(link.acks(), 1) == [Ack(ObjectId(0, 2, 0), Receipt.DELIVERED)]

    run(scenario())


def test_a_cancelled_reader_of_acks_leaves_the_stream_whole(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            reading = asyncio.ensure_future(next_of(link.acks()))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait({reading})
            await link.send([parcel(1)])
            assert await collect(link.acks(), 1) == [Ack(ObjectId(0, 1, 0), Receipt.DELIVERED)]

    run(scenario())


# Notices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "notice",
    [
        READY,
        Notice(NoticeKind.PING, 0),
        Notice(NoticeKind.ASK, 3, calls=7),
        Notice(
            NoticeKind.STANDING,
            3,
            calls=7,
            standing=PartyStatus(9, True, 2, 1, 4, ("#3 train",), (Wait("fed.get", "#3 train", "bob"),)),
        ),
        Notice(NoticeKind.GOODBYE, 3),
        Notice(NoticeKind.GOODBYE, 3, calls=7, digest=(1 << 64) - 1),
        Notice(NoticeKind.GOODBYE, 3, failure()),
        Notice(NoticeKind.LATCHED, 3, failure()),
        Notice(NoticeKind.PROGRESS, 3, calls=7, digest=8),
        Notice(NoticeKind.JOURNAL, 3, calls=7, texts=("alice: train(_)", "bob: merge(_)")),
        Notice(NoticeKind.RESET, 3, calls=7, digest=8),
        Notice(NoticeKind.FAILURE, 3, failure(), tuple(ObjectId(3, number, 0, number) for number in range(1000))),
    ],
)
def test_a_notice_has_arrived_when_telling_returns(make_world: MakeWorld, notice: Notice) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            await link.tell(notice, timeout_s=LIMIT_S)
            assert world.handler.notices == [("alice", notice)]

    run(scenario())


def test_a_notice_is_answered_when_it_is_in_safe_hands(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            world.handler.taken = asyncio.get_running_loop().create_future()
            telling = asyncio.ensure_future(link.tell(READY, timeout_s=LIMIT_S))
            await world.handler.until(lambda: bool(world.handler.notices))
            with pytest.raises(PeerUnreachable):
                await link.tell(READY, timeout_s=0.1)
            assert not telling.done()
            # Parcels do not wait for it.
            await link.send([parcel(1)])
            await world.handler.until(lambda: bool(world.handler.parcels))
            if world.handler.taken.cancelled():
                world.handler.taken = None
            else:
                world.handler.taken.set_result(None)
            await telling

    run(scenario())


def test_a_ping_does_not_wait_for_a_peer_that_is_slow_to_take_a_notice(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            slow = world.handler.taken = asyncio.get_running_loop().create_future()
            telling = asyncio.ensure_future(link.tell(READY, timeout_s=LIMIT_S))
            await world.handler.until(lambda: bool(world.handler.notices))
            world.handler.taken = None
            await link.tell(Notice(NoticeKind.PING, 0), timeout_s=LIMIT_S / 2)
            assert not telling.done()
            slow.set_result(None)
            await telling

    run(scenario())


def test_a_notice_that_nobody_will_take_is_not_answered_as_taken(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            world.handler.taken = asyncio.get_running_loop().create_future()
            world.handler.taken.cancel()
            await ends_unreachable(asyncio.ensure_future(link.tell(READY, timeout_s=2 * LIMIT_S)))
            # What comes after it may be.
            world.handler.taken = None
            await link.tell(READY, timeout_s=LIMIT_S)

    run(scenario())


def test_a_notice_that_is_not_in_safe_hands_when_the_listener_closes_is_not_answered(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            world.handler.taken = asyncio.get_running_loop().create_future()
            telling = asyncio.ensure_future(link.tell(READY, timeout_s=LIMIT_S))
            await world.handler.until(lambda: bool(world.handler.notices))
            world.handler.taken.cancel()
            await world.listener.close()
            await ends_unreachable(telling)

    run(scenario())


def test_a_notice_that_is_too_long_comes_as_several_in_order_and_with_its_texts_cut(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            texts = ("x" * 1000, *("call" for _ in range(5000)))
            long = Notice(NoticeKind.JOURNAL, 3, calls=7, texts=texts)
            short = Notice(NoticeKind.PROGRESS, 3)
            await asyncio.gather(*(link.tell(notice, timeout_s=LIMIT_S) for notice in (long, short)))
            told = [notice for _, notice in world.handler.notices]
            assert [(notice.calls, len(notice.texts)) for notice in told] == [(7, 4096), (4103, 905), (0, 0)]
            assert told[0].texts[:2] == ("x" * 256, "call")

    run(scenario())


@pytest.mark.parametrize(
    "notice",
    [
        Notice(NoticeKind.FAILURE, 0, failure()),
        Notice(NoticeKind.LATCHED, 0),
        Notice(NoticeKind.READY, 0, calls=1),
        Notice(NoticeKind.READY, -1),
    ],
)
def test_a_notice_that_makes_no_sense_is_not_told(make_world: MakeWorld, notice: Notice) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            with pytest.raises(ValueError):
                await link.tell(notice, timeout_s=LIMIT_S)
            await link.tell(READY, timeout_s=LIMIT_S)
            assert world.handler.notices == [("alice", READY)]

    run(scenario())


def test_a_parcel_that_cannot_be_carried_is_not_sent_and_breaks_nothing(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            good, bad = parcel(1), parcel(2)._replace(id=ObjectId(0, 0, -1))
            with pytest.raises(ValueError):
                await link.send([good, bad])
            with pytest.raises(ValueError):
                await link.upload(bad)
            await link.send([good])
            await world.handler.until(lambda: bool(world.handler.parcels))
            assert [received.id for _, received in world.handler.parcels] == [good.id]

    run(scenario())


def test_notices_keep_their_order(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            sent = [Notice(NoticeKind.LATCHED, 0, failure(number)) for number in range(60)]
            await asyncio.gather(*(link.tell(notice, timeout_s=LIMIT_S) for notice in sent))
            assert [notice for _, notice in world.handler.notices] == sent

    run(scenario())


def test_e03_a_notice_passes_a_stalled_upload(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            world.stall()
            uploading = asyncio.ensure_future(link.upload(parcel(1, bytes(64 << 20))))
            await world.handler.until(lambda: bool(world.handler.offers))
            await world.stalled()
            await link.tell(Notice(NoticeKind.LATCHED, 0, failure()), timeout_s=LIMIT_S)
            assert len(world.handler.notices) == 1
            assert world.handler.parcels == []
            assert not uploading.done()
            world.flow()
            assert await asyncio.wait_for(uploading, LIMIT_S) is Verdict.ADMIT
            assert len(world.handler.parcels) == 1

    run(scenario())


# Breaks ----------------------------------------------------------------------------------------------------------


def test_an_upload_cut_midway_is_withdrawn_at_both_ends(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            acks = asyncio.ensure_future(next_of(link.acks()))
            world.stall()
            sent = parcel(1, bytes(LARGE))
            uploading = asyncio.ensure_future(link.upload(sent))
            await world.handler.until(lambda: bool(world.handler.offers))
            await world.stalled()
            world.cut()
            await ends_unreachable(uploading)
            await ends_unreachable(acks)
            await world.handler.until(lambda: bool(world.handler.broken))
            assert world.handler.broken == [("alice", sent.id)]
            assert world.handler.parcels == []
            with pytest.raises(PeerUnreachable):
                await link.tell(READY, timeout_s=LIMIT_S)
            with pytest.raises(PeerUnreachable):
                await link.connect(hello("alice"), timeout_s=LIMIT_S)
            world.flow()
            world.heal()
            await link.connect(hello("alice"), timeout_s=LIMIT_S)
            assert await asyncio.wait_for(link.upload(sent), LIMIT_S) is Verdict.ADMIT
            assert [content(received) for _, received in world.handler.parcels] == [content(sent)]
            assert world.handler.broken == [("alice", sent.id)]

    run(scenario())


def test_a_cancelled_upload_is_withdrawn_and_the_link_goes_on(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            world.stall()
            sent = parcel(1, bytes(LARGE))
            uploading = asyncio.ensure_future(link.upload(sent))
            await world.handler.until(lambda: bool(world.handler.offers))
            await world.stalled()
            uploading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await uploading
            world.flow()
            await world.handler.until(lambda: bool(world.handler.broken))
            assert world.handler.broken == [("alice", sent.id)]
            await link.send([parcel(2)])
            assert await collect(link.acks(), 1) == [Ack(ObjectId(0, 2, 0), Receipt.DELIVERED)]
            assert [received.id.sequence for _, received in world.handler.parcels] == [2]

    run(scenario())


def test_a_restarted_listener_is_greeted_again(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            acks = asyncio.ensure_future(next_of(link.acks()))
            await world.listener.close()
            await ends_unreachable(acks)
            with pytest.raises(PeerUnreachable):
                await link.send([parcel(1)])
            await world.listen()
            with pytest.raises(PeerUnreachable):
                await link.tell(READY, timeout_s=LIMIT_S)
            assert await link.connect(hello("alice"), timeout_s=LIMIT_S) == hello("bob")
            await link.send([parcel(1)])
            await link.tell(READY, timeout_s=LIMIT_S)
            assert await collect(link.acks(), 1) == [Ack(ObjectId(0, 1, 0), Receipt.DELIVERED)]
            assert link.statistics().connects == 2

    run(scenario())


def test_a_closing_listener_withdraws_what_is_on_its_way(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            world.stall()
            uploading = asyncio.ensure_future(link.upload(parcel(1, bytes(LARGE))))
            await world.handler.until(lambda: bool(world.handler.offers))
            await world.stalled()
            await world.listener.close()
            assert world.handler.broken == [("alice", ObjectId(0, 1, 0))]
            await world.listener.close()
            world.flow()
            await ends_unreachable(uploading)

    run(scenario())


def test_a_newer_life_of_a_party_takes_the_place_of_the_older(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            old = await world.connected(incarnation="first")
            acks = asyncio.ensure_future(next_of(old.acks()))
            new = await world.connected(incarnation="second")
            await ends_unreachable(acks)
            with pytest.raises(PeerUnreachable):
                await old.tell(READY, timeout_s=LIMIT_S)
            with pytest.raises(PeerUnreachable):
                await old.upload(parcel(1))
            await new.tell(READY, timeout_s=LIMIT_S)
            await new.send([parcel(2)])
            assert await collect(new.acks(), 1) == [Ack(ObjectId(0, 2, 0), Receipt.DELIVERED)]
            assert [peer for peer, _ in world.handler.notices] == ["alice"]

    run(scenario())


def test_two_parties_do_not_disturb_one_another(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            alice, carol = await world.connected("alice"), await world.connected("carol")
            await alice.close()
            await carol.send([parcel(1)])
            await carol.tell(READY, timeout_s=LIMIT_S)
            assert await collect(carol.acks(), 1) == [Ack(ObjectId(0, 1, 0), Receipt.DELIVERED)]
            assert [peer for peer, _ in world.handler.parcels] == ["carol"]

    run(scenario())


# The end ---------------------------------------------------------------------------------------------------------


def test_closing_a_link_ends_whatever_waits(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            reading = asyncio.ensure_future(next_of(link.acks()))
            world.stall()
            uploading = asyncio.ensure_future(link.upload(parcel(1, bytes(LARGE))))
            await world.handler.until(lambda: bool(world.handler.offers))
            await world.stalled()
            await link.close()
            await ends_unreachable(uploading)
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(reading, LIMIT_S)
            await link.close()
            with pytest.raises(PeerUnreachable):
                await link.send([parcel(1)])
            with pytest.raises(PeerUnreachable):
                await link.tell(READY, timeout_s=LIMIT_S)
            with pytest.raises(PeerUnreachable):
                await link.connect(hello("alice"), timeout_s=LIMIT_S)
            world.flow()
            await world.handler.until(lambda: bool(world.handler.broken))

    run(scenario())


def test_what_was_never_opened_can_be_closed(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = world.link()
            await link.close()
            await link.close()

    run(scenario())


def test_statistics_count_objects_and_bytes(make_world: MakeWorld) -> None:
    async def scenario() -> None:
        async with make_world().opened() as world:
            link = await world.connected()
            assert link.statistics() == (0, 0, 1)
            await link.send([parcel(1, b"12345"), parcel(2)])
            await link.upload(parcel(3, bytes(LARGE)))
            await world.handler.until(lambda: len(world.handler.parcels) == 3)
            nbytes = 4 + 5 + 4 + 4 + LARGE
            assert link.statistics() == (3, nbytes, 1)
            assert world.listener.statistics() == (3, nbytes, 1, 0)

    run(scenario())
