"""Sender and receiver against one another over the transport in memory: nothing lost, nothing twice, in any order."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from fed.core.failure import Failure, Kind, Poison
from fed.core.rendezvous import Key
from fed.object import ObjectId
from fed.proxy.greeting import disagreement
from fed.proxy.receiver import PeerEvent, PeerEventKind, Receiver
from fed.proxy.sender import Delivery, Pushed, Sender
from fed.serde.contract import DecodeError, Encoded
from fed.serde.data import DataCodec
from fed.transport.contract import PROTOCOL_VERSION, Hello, Notice, NoticeKind, Parcel, Verdict
from fed.transport.memory import MemoryLink, MemoryNetwork

FAILURE = Failure("alice/x/1", Kind.TASK, "alice", "ValueError", "#3 train", 3)
DONE = Pushed([], [])
OVER = Failure("bob/x/2", Kind.CANCELLED, "bob", "ResetError")
PARTIES = ("alice", "bob", "carol")


def hello(party: str, **changes: Any) -> Hello:
    made = Hello(PROTOCOL_VERSION, "0.1.0", "job", party, f"life of {party}", PARTIES)
    return dataclasses.replace(made, **changes)


class CountingCodec(DataCodec):
    encoded = 0

    def encode(self, value: Any) -> Encoded:
        self.encoded += 1
        return super().encode(value)


@dataclasses.dataclass
class Federation:
    """Three parties, each with its proxies."""

    network: MemoryNetwork
    senders: dict[str, Sender]
    receivers: dict[str, Receiver]
    codec: CountingCodec

    def key(self, sequence: int, peer: str = "alice", epoch: int = 0) -> Key:
        return Key(peer, ObjectId(epoch, sequence, 0))

    def push(
        self, value: Any, sequence: int = 0, to: tuple[str, ...] = ("bob",), epoch: int = 0
    ) -> asyncio.Task[Pushed]:
        delivery = Delivery(ObjectId(epoch, sequence, 0), to)
        return asyncio.ensure_future(self.senders["alice"].push([delivery], [value]))

    def reset(self, epoch: int) -> None:
        for sender in self.senders.values():
            sender.reset(epoch)
        for receiver in self.receivers.values():
            receiver.reset(epoch, OVER)

    async def receive(self, sequence: int = 0, party: str = "bob", epoch: int = 0) -> Any:
        key = self.key(sequence, epoch=epoch)
        received = await asyncio.wait_for(self.receivers[party].receive([key]), 10)
        self.receivers[party].confirm([key])
        return received.values[0]


@contextlib.asynccontextmanager
async def federation(**limits: Any) -> AsyncIterator[Federation]:
    network, codec = MemoryNetwork(), CountingCodec()
    limits = {"max_stored_bytes": 10**6, **limits}
    receivers = {name: Receiver(hello(name), network.listener(name), codec, **limits) for name in PARTIES}
    for receiver in receivers.values():
        await receiver.start()
    senders = {
        name: Sender(
            hello(name),
            {peer: network.link(name, peer) for peer in PARTIES if peer != name},
            codec,
            small_object_bytes=1000,
        )
        for name in PARTIES
    }
    for sender in senders.values():
        assert await sender.connect(10) == []
    try:
        yield Federation(network, senders, receivers, codec)
    finally:
        for sender in senders.values():
            sender.validate()
            await sender.close()
        for receiver in receivers.values():
            receiver.validate()
            await receiver.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), 20)

    asyncio.run(bounded())


@pytest.mark.parametrize("value", [7, "x" * 50_000, np.arange(100_000)], ids=["small", "stream", "array"])
def test_a_push_ends_when_the_consumer_has_confirmed_and_not_before(value: Any) -> None:
    async def test() -> None:
        async with federation() as fed:
            pushing = fed.push(value)
            received = await fed.receivers["bob"].receive([fed.key(0)])
            assert np.array_equal(received.values[0], value)
            assert not pushing.done()
            fed.receivers["bob"].confirm([fed.key(0)])
            assert await pushing == DONE

    run(test)


def test_an_object_for_several_parties_is_serialized_once() -> None:
    async def test() -> None:
        async with federation() as fed:
            pushing = fed.push([1, 2], to=("bob", "carol"))
            assert [await fed.receive(0, "bob"), await fed.receive(0, "carol")] == [[1, 2], [1, 2]]
            assert await pushing == DONE
            assert fed.codec.encoded == 1

    run(test)


def test_what_arrives_before_it_is_asked_for_waits() -> None:
    async def test() -> None:
        async with federation() as fed:
            first, second = fed.push(1, 1), fed.push(2, 2)
            assert [await fed.receive(2), await fed.receive(1)] == [2, 1]
            assert [await first, await second] == [DONE, DONE]

    run(test)


@pytest.mark.parametrize("value", [7, b"x" * 100_000], ids=["small", "stream"])
def test_what_finds_no_room_stays_with_its_owner_until_it_is_wanted(value: Any) -> None:
    async def test() -> None:
        async with federation(max_stored_bytes=0) as fed:
            pushing = [fed.push(value, number) for number in range(5)]
            for number in (4, 0, 3, 1, 2):
                assert await fed.receive(number) == value
            assert await asyncio.gather(*pushing) == [DONE] * 5
            assert fed.receivers["bob"].statistics().table.stored_bytes == 0

    run(test)


@pytest.mark.parametrize("value", [7, b"x" * 100_000], ids=["small", "stream"])
def test_a_cut_connection_loses_nothing_and_doubles_nothing(value: Any) -> None:
    async def test() -> None:
        async with federation() as fed:
            pushing = []
            for number in range(10):
                pushing.append(fed.push(value, number))
                if number % 3 == 1:
                    await asyncio.sleep(0)
                    fed.network.cut("alice", "bob")
                    fed.network.heal("alice", "bob")
            assert [await fed.receive(number) for number in range(10)] == [value] * 10
            assert await asyncio.gather(*pushing) == [DONE] * 10
            assert fed.receivers["bob"].statistics().table.delivered == 10

    run(test)


def test_a_lost_acknowledgement_is_given_again() -> None:
    async def test() -> None:
        async with federation() as fed:
            pushing = fed.push(7)
            await fed.receivers["bob"].receive([fed.key(0)])
            fed.network.cut("alice", "bob")
            fed.receivers["bob"].confirm([fed.key(0)])
            fed.network.heal("alice", "bob")
            assert await pushing == DONE
            assert fed.receivers["bob"].statistics().table.delivered == 1

    run(test)


def test_what_cannot_be_encoded_is_undelivered_with_its_type_and_the_rest_goes() -> None:
    async def test() -> None:
        async with federation() as fed:
            deliveries = [Delivery(ObjectId(0, 0, 0), ("bob", "carol")), Delivery(ObjectId(0, 1, 0), ("bob",))]
            pushing = asyncio.ensure_future(fed.senders["alice"].push(deliveries, [object(), 1]))
            assert await fed.receive(1) == 1
            undelivered, pending = await pushing
            assert await fed.senders["alice"].push(pending, [1] * len(pending)) == DONE
            assert [(one.id.sequence, one.consumer) for one in undelivered] == [(0, "bob"), (0, "carol")]
            assert {one.fault.kind for one in undelivered} == {Kind.DELIVERY}
            assert {one.fault.type_name for one in undelivered} == {"object"}

    run(test)


@pytest.mark.parametrize("nbytes", [900, 90_000], ids=["small", "stream"])
def test_what_is_larger_than_the_consumer_accepts_is_undelivered(nbytes: int) -> None:
    async def test() -> None:
        async with federation(max_object_bytes=500) as fed:
            (undelivered,) = (await fed.push(b"x" * nbytes)).undelivered
            assert undelivered.fault.detail == "it is larger than party 'bob' accepts (500 bytes)"
            assert undelivered.fault.message == ""

    run(test)


def test_bytes_that_do_not_decode_poison_their_object_and_no_other() -> None:
    async def test() -> None:
        async with federation() as fed:
            pushing = fed.push(1, 1)
            while not fed.codec.encoded:
                await asyncio.sleep(0)
            fed.codec.encode = lambda value: Encoded(b"\xc1", ())  # type: ignore[method-assign]
            broken = fed.push(2, 2)
            received = await fed.receivers["bob"].receive([fed.key(1), fed.key(2)])
            assert received.values[0] == 1
            assert isinstance(received.values[1], Poison)
            assert received.failures[0] is None
            failure = received.failures[1]
            assert failure == received.values[1].failure
            assert failure is not None
            assert failure.detail == "object #2 from party 'alice' cannot be decoded"
            assert failure.message
            assert await fed.receivers["bob"].events() == [
                PeerEvent(PeerEventKind.FAILURE, "bob", failure=failure, epoch=0)
            ]
            fed.receivers["bob"].confirm([fed.key(1), fed.key(2)])
            await asyncio.gather(pushing, broken)

    run(test)


def test_a_told_failure_ends_the_wait_for_its_objects_and_reaches_the_driver() -> None:
    async def test() -> None:
        async with federation() as fed:
            waiting = asyncio.ensure_future(fed.receive(3))
            notice = Notice(NoticeKind.FAILURE, 0, FAILURE, (ObjectId(0, 3, 0),))
            assert await fed.senders["alice"].tell({"bob": [notice]}, 5) == {}
            assert await waiting == Poison(FAILURE)
            assert await fed.receivers["bob"].events() == [PeerEvent(PeerEventKind.NOTICE, "alice", notice)]

    run(test)


def test_a_failure_that_was_told_before_the_goodbye_is_not_overtaken_by_it() -> None:
    async def test() -> None:
        async with federation() as fed:
            told, left = (asyncio.ensure_future(fed.receive(number)) for number in (3, 4))
            await asyncio.sleep(0)
            later = dataclasses.replace(FAILURE, error_id="alice/x/2")
            notices = [
                Notice(NoticeKind.FAILURE, 0, FAILURE, (ObjectId(0, 3, 0),)),
                Notice(NoticeKind.GOODBYE, 0, later),
            ]
            assert await fed.senders["alice"].tell({"bob": notices}, 5) == {}
            assert await told == Poison(FAILURE)
            assert await left == Poison(later)
            assert await fed.receive(5) == Poison(later)

    run(test)


def test_after_a_goodbye_without_a_failure_waits_go_on_and_the_driver_judges() -> None:
    async def test() -> None:
        async with federation() as fed:
            waiting = asyncio.ensure_future(fed.receive(0))
            goodbye = Notice(NoticeKind.GOODBYE, 0, calls=7, digest=8)
            assert await fed.senders["alice"].tell({"bob": [goodbye]}, 5) == {}
            assert await fed.receivers["bob"].events() == [PeerEvent(PeerEventKind.NOTICE, "alice", goodbye)]
            assert fed.receivers["bob"].statistics().table.awaited == 1
            pushing = fed.push(7)
            assert await waiting == 7
            assert await pushing == DONE

    run(test)


def test_a_goodbye_because_of_a_failure_ends_waits_with_that_failure() -> None:
    async def test() -> None:
        async with federation() as fed:
            waiting = asyncio.ensure_future(fed.receive(3))
            await asyncio.sleep(0)
            await fed.senders["alice"].tell({"bob": [Notice(NoticeKind.GOODBYE, 0, FAILURE)]}, 5)
            assert await waiting == Poison(FAILURE)

    run(test)


def test_what_had_arrived_before_a_goodbye_is_still_there() -> None:
    async def test() -> None:
        async with federation() as fed:
            pushing = fed.push(7)
            while not fed.receivers["bob"].statistics().table.stored:
                await asyncio.sleep(0)
            await fed.senders["alice"].tell({"bob": [Notice(NoticeKind.GOODBYE, 0)]}, 5)
            assert await fed.receive(0) == 7
            assert await pushing == DONE

    run(test)


def test_e30_an_abort_that_comes_late_changes_nothing_and_one_that_comes_early_begins_its_epoch() -> None:
    async def test() -> None:
        async with federation() as fed:
            bob = fed.receivers["bob"]
            bob.reset(1, OVER)
            waiting = asyncio.ensure_future(fed.receive(1, epoch=1))
            while not bob.statistics().table.awaited:
                await asyncio.sleep(0)
            bob.abort(0, FAILURE)
            assert bob.statistics().table.awaited == 1
            bob.abort(2, FAILURE)
            assert await waiting == Poison(FAILURE)
            bob.reset(2, OVER)
            assert await fed.receive(1, epoch=2) == Poison(FAILURE)

    run(test)


def test_an_abort_ends_every_wait() -> None:
    async def test() -> None:
        async with federation() as fed:
            waiting = [asyncio.ensure_future(fed.receive(number)) for number in range(3)]
            await asyncio.sleep(0)
            fed.receivers["bob"].abort(0, FAILURE)
            assert await asyncio.gather(*waiting) == [Poison(FAILURE)] * 3
            assert await fed.receive(9) == Poison(FAILURE)

    run(test)


def test_pushes_to_a_peer_that_finished_count_as_taken_and_to_one_that_failed_do_not() -> None:
    async def test() -> None:
        async with federation() as fed:
            finished, failed = fed.push(1, 1, ("bob",)), fed.push(2, 2, ("carol",))
            await asyncio.sleep(0)
            fed.senders["alice"].forget("bob", None)
            fed.senders["alice"].forget("carol", FAILURE)
            assert await finished == DONE
            (undelivered,) = (await failed).undelivered
            assert (undelivered.consumer, undelivered.fault.inherited) == ("carol", FAILURE)
            assert await fed.push(3, 3, ("bob",)) == DONE
            fed.codec.encoded = 0
            await fed.push(3, 4, ("bob", "carol"))
            assert fed.codec.encoded == 0

    run(test)


def test_notices_to_a_peer_that_is_cut_off_arrive_when_it_is_back() -> None:
    async def test() -> None:
        async with federation() as fed:
            fed.network.cut("alice", "bob")
            telling = asyncio.ensure_future(fed.senders["alice"].tell({"bob": [Notice(NoticeKind.READY, 0)]}, 10))
            await asyncio.sleep(0)
            fed.network.heal("alice", "bob")
            assert await telling == {}
            assert await fed.receivers["bob"].events() == [
                PeerEvent(PeerEventKind.NOTICE, "alice", Notice(NoticeKind.READY, 0))
            ]

    run(test)


def test_a_peer_that_never_answers_is_named_with_the_last_thing_heard() -> None:
    async def test() -> None:
        network = MemoryNetwork()
        sender = Sender(hello("alice"), {"bob": network.link("alice", "bob")}, DataCodec(), small_object_bytes=10)
        (problem,) = await sender.connect(0.2)
        assert (problem.peer, problem.final) == ("bob", False)
        assert "does not listen" in problem.reason
        await sender.close()

    run(test)


def test_a_driver_that_starts_anew_is_put_off_while_the_old_run_lasts() -> None:
    async def test() -> None:
        async with federation() as fed:
            await fed.senders["alice"].tell({"bob": [Notice(NoticeKind.READY, 0)]}, 5)
            successor = Sender(
                hello("alice", incarnation="second life"),
                {"bob": fed.network.link("alice", "bob")},
                DataCodec(),
                small_object_bytes=10,
            )
            (problem,) = await successor.connect(0.2)
            assert not problem.final
            assert "an earlier start of 'alice'" in problem.reason
            await successor.close()

    run(test)


def test_a_driver_that_starts_anew_before_the_job_began_takes_its_predecessors_place() -> None:
    async def test() -> None:
        async with federation() as fed:
            successor = Sender(
                hello("alice", incarnation="second life"),
                {"bob": fed.network.link("alice", "bob")},
                DataCodec(),
                small_object_bytes=10,
            )
            assert await successor.connect(5) == []
            await successor.close()

    run(test)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": 2}, "incompatible protocol version: party 'bob' speaks 2"),
        ({"job": "other"}, "different job names: party 'bob' runs 'other', party 'alice' runs 'job'"),
        ({"parties": ("alice", "bob")}, "different parties: party 'bob' has alice, bob, party 'alice' has alice, bob"),
        ({"types": ("m.T",)}, "different declared types: party 'bob' has m.T, party 'alice' has none"),
        ({"exceptions": ("E",)}, "different declared exceptions: party 'bob' has E, party 'alice' has none"),
    ],
)
def test_what_parties_disagree_on_is_named_with_both_sides(change: dict[str, Any], words: str) -> None:
    sentence = disagreement(hello("alice"), hello("bob", **change))
    assert sentence is not None
    assert words in sentence


def test_parties_that_agree() -> None:
    assert disagreement(hello("alice"), hello("bob", version="9.9", incarnation="y")) is None


def test_a_disagreement_is_refused_and_told_to_the_driver() -> None:
    async def test() -> None:
        async with federation() as fed:
            stranger = Sender(
                hello("alice", job="other"),
                {"bob": fed.network.link("alice", "bob")},
                DataCodec(),
                small_object_bytes=10,
            )
            (problem,) = await stranger.connect(5)
            assert problem.final
            assert "different job names" in problem.reason
            (event,) = await fed.receivers["bob"].events()
            assert (event.kind, event.peer) == (PeerEventKind.DISAGREED, "alice")
            assert "different job names" in event.reason
            await stranger.close()

    run(test)


# A push that ends early -------------------------------------------------------------------------------------------


def deliveries(*sequences: int, to: tuple[str, ...] = ("bob",)) -> list[Delivery]:
    return [Delivery(ObjectId(0, sequence, 0), to) for sequence in sequences]


def test_e04_a_push_tells_what_is_undeliverable_while_the_rest_is_on_its_way() -> None:
    async def test() -> None:
        async with federation(max_object_bytes=500) as fed:
            fed.network.hold("alice", "carol")
            both = Delivery(ObjectId(0, 0, 0), ("bob", "carol"))
            pushed = await fed.senders["alice"].push([both, *deliveries(1, 2)], [1, b"x" * 900, 3])
            assert [(one.id.sequence, one.consumer) for one in pushed.undelivered] == [(1, "bob")]
            assert pushed.pending == [both, *deliveries(2)]
            assert [await fed.receive(0), await fed.receive(2)] == [1, 3]
            again = asyncio.ensure_future(fed.senders["alice"].push(pushed.pending, [1, 3]))
            fed.network.release("alice", "carol")
            assert await fed.receive(0, "carol") == 1
            assert await again == DONE

    run(test)


@pytest.mark.parametrize("settled", [False, True], ids=["on its way", "settled meanwhile"])
def test_what_is_pending_is_neither_encoded_nor_sent_again(settled: bool) -> None:
    async def test() -> None:
        async with federation() as fed:
            alice = fed.senders["alice"]
            pushed = await alice.push(deliveries(0, 1), [1, object()])
            assert pushed.pending == deliveries(0)
            fed.codec.encoded = 0
            if settled:
                assert await fed.receive(0) == 1
                while len(alice._peers["bob"].outbox):
                    await asyncio.sleep(0)
            again = asyncio.ensure_future(alice.push(pushed.pending, [1]))
            if not settled:
                assert await fed.receive(0) == 1
            assert await again == DONE
            assert fed.codec.encoded == 0
            assert alice.statistics()["bob"].parcels_sent == 1
            assert fed.receivers["bob"].statistics().table.duplicates == 0

    run(test)


def test_a_refusal_that_comes_between_two_pushes_is_told_by_the_second() -> None:
    async def test() -> None:
        async with federation() as fed:
            alice = fed.senders["alice"]
            pushed = await alice.push(deliveries(0, 1), [1, object()])
            alice.forget("bob", FAILURE)
            (undelivered,) = (await alice.push(pushed.pending, [1])).undelivered
            assert (undelivered.id.sequence, undelivered.fault.inherited) == (0, FAILURE)

    run(test)


def test_what_is_undeliverable_is_told_before_a_large_value_is_encoded() -> None:
    async def test() -> None:
        async with federation() as fed:
            large = "x" * 100_000
            pushed = await fed.senders["alice"].push(deliveries(0, 1, 2), [object(), large, 3])
            assert [one.id.sequence for one in pushed.undelivered] == [0]
            assert pushed.pending == deliveries(1, 2)
            assert fed.codec.encoded == 1
            again = asyncio.ensure_future(fed.senders["alice"].push(pushed.pending, [large, 3]))
            assert [await fed.receive(1), await fed.receive(2)] == [large, 3]
            assert await again == DONE

    run(test)


def test_one_parcel_that_cannot_be_carried_spares_the_others_of_its_batch() -> None:
    async def test() -> None:
        async with federation() as fed:
            bad = Delivery(ObjectId(0, 1, -1), ("bob",))
            pushed = await fed.senders["alice"].push([*deliveries(0), bad, *deliveries(2)], [1, 2, 3])
            (undelivered,) = pushed.undelivered
            assert undelivered.id == bad.id
            assert undelivered.fault.detail == "slot of an object is out of range: -1"
            assert [await fed.receive(0), await fed.receive(2)] == [1, 3]
            again = await fed.senders["alice"].push(pushed.pending, [1] * len(pushed.pending))
            assert again == DONE

    run(test)


class LateVerdicts(MemoryLink):
    """Hears of a declined upload only when the gate opens, though the receipts have told of it before."""

    gate: asyncio.Event

    async def upload(self, parcel: Parcel) -> Verdict:
        verdict = await super().upload(parcel)
        if verdict is Verdict.DECLINE:
            await self.gate.wait()
        return verdict


def test_a_large_object_that_is_asked_for_before_its_refused_offer_has_ended_goes_out() -> None:
    async def test() -> None:
        async with federation(max_stored_bytes=0) as fed:
            await fed.senders["carol"].close()
            link = LateVerdicts(fed.network, "carol", "bob")
            link.gate = asyncio.Event()
            carol = Sender(hello("carol"), {"bob": link}, fed.codec, small_object_bytes=10)
            assert await carol.connect(5) == []
            pushing = asyncio.ensure_future(carol.push(deliveries(0), ["x" * 1000]))
            while not fed.receivers["bob"].statistics().table.deferred:
                await asyncio.sleep(0)
            key = fed.key(0, "carol")
            receiving = asyncio.ensure_future(fed.receivers["bob"].receive([key]))
            while not carol._peers["bob"]._upload_again:
                await asyncio.sleep(0)
            link.gate.set()
            assert (await receiving).values == ("x" * 1000,)
            fed.receivers["bob"].confirm([key])
            assert await pushing == DONE
            await carol.close()

    run(test)


# Epochs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [7, b"x" * 100_000], ids=["small", "stream"])
def test_e23_a_reset_ends_pushes_and_waits_of_the_old_epoch_and_the_new_one_works(value: Any) -> None:
    async def test() -> None:
        async with federation() as fed:
            pushing, waiting = fed.push(value), asyncio.ensure_future(fed.receive(1))
            while not fed.receivers["bob"].statistics().table.awaited:
                await asyncio.sleep(0)
            fed.receivers["bob"].abort(0, FAILURE)
            fed.reset(1)
            assert await pushing == DONE
            assert await waiting == Poison(FAILURE)
            fed.codec.encoded = 0
            assert await fed.push(value, 5) == DONE
            assert fed.codec.encoded == 0
            new = fed.push(value, epoch=1)
            assert await fed.receive(epoch=1) == value
            assert await new == DONE
            assert await fed.receive(2) == Poison(OVER)
            assert fed.senders["alice"]._peers["bob"]._receipts == {}

    run(test)


def test_e23_what_a_peer_still_sends_of_the_old_epoch_is_dropped_and_counted() -> None:
    async def test() -> None:
        async with federation() as fed:
            fed.receivers["bob"].reset(1, OVER)
            failed = Notice(NoticeKind.FAILURE, 0, FAILURE, (ObjectId(0, 3, 0),))
            stale = [failed, Notice(NoticeKind.LATCHED, 0, FAILURE), Notice(NoticeKind.PROGRESS, 0)]
            kept = [Notice(NoticeKind.READY, 0), Notice(NoticeKind.RESET, 1), Notice(NoticeKind.GOODBYE, 0)]
            assert await fed.senders["alice"].tell({"bob": [*stale, *kept]}, 5) == {}
            events = await fed.receivers["bob"].events()
            assert events == [PeerEvent(PeerEventKind.NOTICE, "alice", notice) for notice in kept]
            assert await fed.push(7) == DONE
            statistics = fed.receivers["bob"].statistics()
            assert (statistics.stale_notices, statistics.table.stale, statistics.table.stored) == (3, 1, 0)

    run(test)


def test_e23_what_the_driver_has_not_heard_yet_of_the_old_epoch_it_never_hears() -> None:
    async def test() -> None:
        async with federation() as fed:
            fed.codec.encode = lambda value: Encoded(b"\xc1", ())  # type: ignore[method-assign]
            fed.push(2, 2)
            await fed.receive(2)
            bob = fed.receivers["bob"]
            bob.on_notice("alice", Notice(NoticeKind.LATCHED, 0, FAILURE))
            bob.reset(1, OVER)
            assert bob.statistics().stale_notices == 1
            listening = asyncio.ensure_future(bob.events())
            await asyncio.sleep(0)
            # The listener is woken, and before it runs what it was woken for is gone.
            bob.on_notice("alice", Notice(NoticeKind.PROGRESS, 1))
            bob.reset(2, OVER)
            await asyncio.sleep(0)
            assert not listening.done()
            bob.on_notice("alice", Notice(NoticeKind.RESET, 2))
            assert [event.notice for event in await listening] == [Notice(NoticeKind.RESET, 2)]

    run(test)


def test_e23_what_fails_to_decode_after_its_epoch_is_no_news() -> None:
    async def test() -> None:
        async with federation() as fed:
            started, gate = threading.Event(), threading.Event()

            def decode(header: bytes, buffers: Any) -> Any:
                started.set()
                gate.wait(10)
                raise DecodeError("not what it was said to be")

            fed.codec.decode = decode  # type: ignore[method-assign]
            fed.codec.encode = lambda value: Encoded(bytes(100_000), ())  # type: ignore[method-assign]
            fed.push(0)
            bob = fed.receivers["bob"]
            receiving = asyncio.ensure_future(fed.receive())
            await asyncio.to_thread(started.wait, 10)
            bob.reset(1, OVER)
            gate.set()
            assert isinstance(await receiving, Poison)
            bob.on_notice("alice", Notice(NoticeKind.RESET, 1))
            assert [event.kind for event in await bob.events()] == [PeerEventKind.NOTICE]

    run(test)


def test_what_a_peer_that_is_ahead_tells_and_sends_is_there_after_the_reset() -> None:
    async def test() -> None:
        async with federation() as fed:
            pushing = fed.push(7, epoch=1)
            ahead = Notice(NoticeKind.FAILURE, 1, FAILURE, (ObjectId(1, 3, 0),))
            await fed.senders["alice"].tell({"bob": [ahead]}, 5)
            assert await fed.receivers["bob"].events() == [PeerEvent(PeerEventKind.NOTICE, "alice", ahead)]
            fed.receivers["bob"].abort(0, OVER)
            fed.receivers["bob"].reset(1, OVER)
            assert await fed.receive(epoch=1) == 7
            assert await fed.receive(3, epoch=1) == Poison(FAILURE)
            assert await pushing == DONE

    run(test)


def test_a_reset_gives_way_to_uploads_of_the_new_epoch() -> None:
    async def test() -> None:
        async with federation() as fed:
            fed.network.hold("alice", "bob")
            large = b"x" * 100_000
            old = [fed.push(large, number) for number in range(2)]
            while fed.network.held("alice", "bob") < 2:
                await asyncio.sleep(0)
            fed.reset(1)
            assert await asyncio.gather(*old) == [DONE, DONE]
            new = fed.push(large, epoch=1)
            while fed.network.held("alice", "bob") < 3:
                await asyncio.sleep(0)
            fed.network.release("alice", "bob")
            assert await fed.receive(epoch=1) == large
            assert await new == DONE

    run(test)
