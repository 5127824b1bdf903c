"""Sender and receiver against one another over the transport in memory: nothing lost, nothing twice, in any order."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from fed.core.failure import Failure, Kind, Poison
from fed.core.rendezvous import Key
from fed.object import ObjectId
from fed.proxy.greeting import disagreement
from fed.proxy.receiver import PeerEvent, PeerEventKind, Receiver
from fed.proxy.sender import Delivery, Sender
from fed.serde.contract import Encoded
from fed.serde.data import DataCodec
from fed.transport.contract import PROTOCOL_VERSION, Hello, Notice, NoticeKind
from fed.transport.memory import MemoryNetwork

FAILURE = Failure("alice/x/1", Kind.TASK, "alice", "ValueError", "#3 train", 3)
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

    def key(self, sequence: int, peer: str = "alice") -> Key:
        return Key(peer, ObjectId(0, sequence, 0))

    def push(self, value: Any, sequence: int = 0, to: tuple[str, ...] = ("bob",)) -> asyncio.Task[Any]:
        delivery = Delivery(ObjectId(0, sequence, 0), to)
        return asyncio.ensure_future(self.senders["alice"].push([delivery], [value]))

    async def receive(self, sequence: int = 0, party: str = "bob") -> Any:
        key = self.key(sequence)
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
            assert await pushing == []

    run(test)


def test_an_object_for_several_parties_is_serialized_once() -> None:
    async def test() -> None:
        async with federation() as fed:
            pushing = fed.push([1, 2], to=("bob", "carol"))
            assert [await fed.receive(0, "bob"), await fed.receive(0, "carol")] == [[1, 2], [1, 2]]
            assert await pushing == []
            assert fed.codec.encoded == 1

    run(test)


def test_what_arrives_before_it_is_asked_for_waits() -> None:
    async def test() -> None:
        async with federation() as fed:
            first, second = fed.push(1, 1), fed.push(2, 2)
            assert [await fed.receive(2), await fed.receive(1)] == [2, 1]
            assert [await first, await second] == [[], []]

    run(test)


@pytest.mark.parametrize("value", [7, b"x" * 100_000], ids=["small", "stream"])
def test_what_finds_no_room_stays_with_its_owner_until_it_is_wanted(value: Any) -> None:
    async def test() -> None:
        async with federation(max_stored_bytes=0) as fed:
            pushing = [fed.push(value, number) for number in range(5)]
            for number in (4, 0, 3, 1, 2):
                assert await fed.receive(number) == value
            assert await asyncio.gather(*pushing) == [[]] * 5
            assert fed.receivers["bob"].statistics().stored_bytes == 0

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
            assert await asyncio.gather(*pushing) == [[]] * 10
            assert fed.receivers["bob"].statistics().delivered == 10

    run(test)


def test_a_lost_acknowledgement_is_given_again() -> None:
    async def test() -> None:
        async with federation() as fed:
            pushing = fed.push(7)
            await fed.receivers["bob"].receive([fed.key(0)])
            fed.network.cut("alice", "bob")
            fed.receivers["bob"].confirm([fed.key(0)])
            fed.network.heal("alice", "bob")
            assert await pushing == []
            assert fed.receivers["bob"].statistics().delivered == 1

    run(test)


def test_what_cannot_be_encoded_is_undelivered_with_its_type_and_the_rest_goes() -> None:
    async def test() -> None:
        async with federation() as fed:
            deliveries = [Delivery(ObjectId(0, 0, 0), ("bob", "carol")), Delivery(ObjectId(0, 1, 0), ("bob",))]
            pushing = asyncio.ensure_future(fed.senders["alice"].push(deliveries, [object(), 1]))
            assert await fed.receive(1) == 1
            undelivered = await pushing
            assert [(one.id.sequence, one.consumer) for one in undelivered] == [(0, "bob"), (0, "carol")]
            assert {one.fault.kind for one in undelivered} == {Kind.DELIVERY}
            assert {one.fault.type_name for one in undelivered} == {"object"}

    run(test)


@pytest.mark.parametrize("nbytes", [900, 90_000], ids=["small", "stream"])
def test_what_is_larger_than_the_consumer_accepts_is_undelivered(nbytes: int) -> None:
    async def test() -> None:
        async with federation(max_object_bytes=500) as fed:
            (undelivered,) = await fed.push(b"x" * nbytes)
            assert "larger than party 'bob' accepts (500 bytes)" in undelivered.fault.message

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
            assert received.failures[1] == received.values[1].failure
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
            assert await fed.receivers["bob"].events() == [PeerEvent(PeerEventKind.FAILURE, "alice", FAILURE)]

    run(test)


def test_a_failure_that_was_told_before_the_goodbye_is_not_overtaken_by_it() -> None:
    async def test() -> None:
        async with federation() as fed:
            told, left = (asyncio.ensure_future(fed.receive(number)) for number in (3, 4))
            await asyncio.sleep(0)
            notices = [Notice(NoticeKind.FAILURE, 0, FAILURE, (ObjectId(0, 3, 0),)), Notice(NoticeKind.GOODBYE, 0)]
            assert await fed.senders["alice"].tell({"bob": notices}, 5) == {}
            assert await told == Poison(FAILURE)
            gone = await left
            assert (gone.failure.kind, gone.failure.src_party) == (Kind.PARTY_LEFT, "alice")
            assert (await fed.receive(5)).failure.kind is Kind.PARTY_LEFT

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
            while not fed.receivers["bob"].statistics().stored:
                await asyncio.sleep(0)
            await fed.senders["alice"].tell({"bob": [Notice(NoticeKind.GOODBYE, 0)]}, 5)
            assert await fed.receive(0) == 7
            assert await pushing == []

    run(test)


def test_an_abort_ends_every_wait() -> None:
    async def test() -> None:
        async with federation() as fed:
            waiting = [asyncio.ensure_future(fed.receive(number)) for number in range(3)]
            await asyncio.sleep(0)
            fed.receivers["bob"].abort(FAILURE)
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
            assert await finished == []
            (undelivered,) = await failed
            assert (undelivered.consumer, undelivered.fault.inherited) == ("carol", FAILURE)
            assert await fed.push(3, 3, ("bob",)) == []

    run(test)


def test_notices_to_a_peer_that_is_cut_off_arrive_when_it_is_back() -> None:
    async def test() -> None:
        async with federation() as fed:
            fed.network.cut("alice", "bob")
            telling = asyncio.ensure_future(fed.senders["alice"].tell({"bob": [Notice(NoticeKind.READY, 0)]}, 10))
            await asyncio.sleep(0)
            fed.network.heal("alice", "bob")
            assert await telling == {}
            assert await fed.receivers["bob"].events() == [PeerEvent(PeerEventKind.READY, "alice")]

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
