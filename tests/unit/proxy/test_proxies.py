"""Sender and receiver against one another over the transport in memory: nothing lost, nothing twice, in any order."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from fed.channel import Role
from fed.channel.memory import MemoryDriverEnd, MemoryProxyEnd
from fed.core import rendezvous
from fed.core.failure import Failure, Kind
from fed.core.idset import IdSet
from fed.core.liveness import RESTART_S, Liveness
from fed.core.rendezvous import Key
from fed.object import ObjectId
from fed.proxy.arriving import Arrived
from fed.proxy.control import Snapshot
from fed.proxy.deliveries import Delivery, Pushed
from fed.proxy.direct import DirectClients, serve_sender
from fed.proxy.events import MAX_BATCH, Batch, EventQueue, PeerEvent, PeerEventKind
from fed.proxy.greeting import disagreement
from fed.proxy.peer_session import TELL_S
from fed.proxy.receiver import ACK_S, NotHere, Receiver
from fed.proxy.sender import Sender
from fed.serde.contract import Encoded
from fed.serde.data import DataCodec
from fed.testing.clock import SkippingClock
from fed.transport.contract import (
    PROTOCOL_VERSION,
    Ack,
    AddressInUse,
    Hello,
    Notice,
    NoticeKind,
    NotNow,
    Parcel,
    PeerRefused,
    PeerUnreachable,
    PeerUntrusted,
    Receipt,
    Refusal,
    Verdict,
)
from fed.transport.memory import MemoryLink, MemoryNetwork
from tests.support.consuming import Consumer, Undecodable
from tests.support.runtimes import Deaf

FAILURE = Failure("alice/x/1", Kind.TASK, "alice", "ValueError", "#3 train", 3)
DONE = Pushed([], [])
OVER = Failure("bob/x/2", Kind.CANCELLED, "bob", "ResetError")
PARTIES = ("alice", "bob", "carol")

LIMIT_S = 600.0
"""How long anything may take, on a clock that skips waiting."""


def hello(party: str, **changes: Any) -> Hello:
    made = Hello(PROTOCOL_VERSION, "0.1.0", "job", party, f"life of {party}", PARTIES)
    return dataclasses.replace(made, **changes)


def known(of: str = "bob", **fields: Any) -> Snapshot:
    """What the driver of a party tells its proxies in a job that has begun."""
    incarnations = {name: f"life of {name}" for name in PARTIES if name != of}
    return Snapshot(0, True, True, incarnations, {})._replace(**fields)


def unknown(of: str = "bob") -> Snapshot:
    """What it tells them first: it has heard of nobody."""
    return known(of, greeted=False, begun=False, incarnations={})


async def batch_of(events: EventQueue) -> Batch:
    """What a proxy tells its driver, as soon as there is anything. It is not handled by that."""
    news = asyncio.Event()
    events.attach(news.set)
    while (batch := events.batch()) is None:
        news.clear()
        await asyncio.wait_for(news.wait(), LIMIT_S)
    return batch


async def handled(events: EventQueue) -> tuple[PeerEvent, ...]:
    """What a proxy tells its driver, as soon as there is anything, which handles it at once."""
    batch = await batch_of(events)
    events.handled(batch.number)
    return batch.events


class CountingCodec(DataCodec):
    encoded = 0

    def encode(self, value: Any) -> Encoded:
        self.encoded += 1
        return super().encode(value)


@dataclasses.dataclass
class Federation:
    """Three parties, each with its proxies, and with a driver that handles at once what it hears."""

    network: MemoryNetwork
    senders: dict[str, Sender]
    receivers: dict[str, Receiver]
    consumers: dict[str, Consumer]
    codec: CountingCodec
    heard: dict[str, list[PeerEvent]]
    changed: asyncio.Event

    def key(self, sequence: int, peer: str = "alice", epoch: int = 0) -> Key:
        return Key(peer, ObjectId(epoch, sequence, 0))

    def push(
        self, value: Any, sequence: int = 0, to: tuple[str, ...] = ("bob",), epoch: int = 0
    ) -> asyncio.Task[Pushed]:
        delivery = Delivery(ObjectId(epoch, sequence, 0), to)
        return asyncio.ensure_future(self.senders["alice"].push([delivery], [value]))

    def reset(self, epoch: int) -> None:
        for party in PARTIES:
            self.senders[party].learn(known(party, epoch=epoch))
            self.receivers[party].learn(known(party, epoch=epoch))

    def drive(self, party: str) -> None:
        """Handle at once what the receiver of a party tells its driver."""
        events = self.receivers[party].events

        def handle() -> None:
            while (batch := events.batch()) is not None:
                self.heard[party].extend(event for event in batch.events if event.kind is not PeerEventKind.GREETED)
                events.handled(batch.number)
            self.changed.set()

        events.attach(handle)
        handle()

    async def events(self, party: str, count: int = 1) -> list[PeerEvent]:
        """What the driver has heard since it was asked last, as soon as it is as much."""

        async def wait() -> None:
            while len(self.heard[party]) < count:
                self.changed.clear()
                await self.changed.wait()

        await asyncio.wait_for(wait(), LIMIT_S)
        events, self.heard[party] = self.heard[party], []
        return events

    async def receive(self, sequence: int = 0, party: str = "bob", epoch: int = 0) -> Any:
        key = self.key(sequence, epoch=epoch)
        (received,) = await asyncio.wait_for(self.consumers[party].receive(key), LIMIT_S)
        self.receivers[party].confirm([key])
        return received


@contextlib.asynccontextmanager
async def federation(
    *, begun: bool = True, drivers: bool = True, ping_lease_s: float = math.inf, **limits: Any
) -> AsyncIterator[Federation]:
    network, codec = MemoryNetwork(), CountingCodec()
    limits = {"max_stored_bytes": 10**6, **limits}
    receivers = {name: Receiver(hello(name), network.listener(name), codec, **limits) for name in PARTIES}
    for name, receiver in receivers.items():
        receiver.learn(unknown(name))
        await receiver.start()
    senders = {
        name: Sender(
            hello(name),
            {peer: network.link(name, peer) for peer in PARTIES if peer != name},
            codec,
            small_object_bytes=1000,
            lease_s=ping_lease_s,
        )
        for name in PARTIES
    }
    for sender in senders.values():
        assert await sender.connect(10) == []
    for receiver in receivers.values():
        assert {event.kind for event in await handled(receiver.events)} == {PeerEventKind.GREETED}
    if begun:
        for name in PARTIES:
            senders[name].learn(known(name))
            receivers[name].learn(known(name))
    consumers = {name: Consumer(receiver) for name, receiver in receivers.items()}
    fed = Federation(network, senders, receivers, consumers, codec, {name: [] for name in PARTIES}, asyncio.Event())
    for name in PARTIES if drivers else ():
        fed.drive(name)
    try:
        yield fed
    finally:
        for sender in senders.values():
            sender.validate()
            await sender.close()
        for receiver in receivers.values():
            receiver.validate()
            await receiver.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), LIMIT_S)

    # On a clock that skips waiting: a lease takes no time, and a machine that is busy cannot let one run out.
    with SkippingClock() as clock, contextlib.closing(clock.event_loop()) as loop:
        try:
            loop.run_until_complete(bounded())
        finally:
            loop.run_until_complete(end_tasks())


async def end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("value", [7, "x" * 50_000, np.arange(100_000)], ids=["small", "stream", "array"])
def test_a_push_ends_when_the_consumer_has_confirmed_and_not_before(value: Any) -> None:
    async def test() -> None:
        async with federation() as fed:
            pushing = fed.push(value)
            (received,) = await fed.consumers["bob"].receive(fed.key(0))
            assert np.array_equal(received, value)
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
            await fed.consumers["bob"].receive(fed.key(0))
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
            assert {one.fault.kind for one in undelivered} == {Kind.UNSERIALIZABLE}
            assert {one.fault.type_name for one in undelivered} == {"object"}
            for one in undelivered:
                why = one.fault.detail.removeprefix("a value of type object may not cross: ")
                assert one.fault.message == f"cannot encode object at the top of the value: {why}"

    run(test)


@pytest.mark.parametrize("nbytes", [900, 90_000], ids=["small", "stream"])
def test_what_is_larger_than_the_consumer_accepts_is_undelivered(nbytes: int) -> None:
    async def test() -> None:
        async with federation(max_object_bytes=500) as fed:
            (undelivered,) = (await fed.push(b"x" * nbytes)).undelivered
            assert undelivered.fault.detail == "it is larger than party 'bob' accepts (500 bytes)"
            assert undelivered.fault.message == ""

    run(test)


def test_bytes_that_do_not_decode_fail_their_object_and_no_other() -> None:
    async def test() -> None:
        async with federation() as fed:
            large = b"x" * 100_000
            pushing = fed.push(large, 1)
            while not fed.codec.encoded:
                await asyncio.sleep(0)
            fed.codec.encode = lambda value: Encoded(b"\xc1" * 100_000, ())  # type: ignore[method-assign]
            broken = fed.push(2, 2)
            good, bad = await fed.consumers["bob"].receive(fed.key(1), fed.key(2))
            assert good == large
            assert isinstance(bad, Undecodable)
            assert bad.fault.kind is Kind.DELIVERY
            assert bad.fault.detail == "object #2 from party 'alice' cannot be decoded"
            assert bad.fault.message
            fed.receivers["bob"].confirm([fed.key(1), fed.key(2)])
            await asyncio.gather(pushing, broken)

    run(test)


def test_what_is_small_is_not_decoded_on_its_way_and_what_is_large_is_taken() -> None:
    async def test() -> None:
        async with federation() as fed:
            small, large = b"x" * 1000, b"x" * 100_000
            pushing = [fed.push(small, 1), fed.push(large, 2)]
            bob = fed.consumers["bob"]
            assert await bob.receive(fed.key(1), fed.key(2)) == [small, large]
            told = {arrived.key: arrived for arrived in bob.arrived}
            assert told[fed.key(1)].small is not None
            assert told[fed.key(2)] == Arrived(fed.key(2))
            # Until it is confirmed it may be taken again.
            assert await fed.receivers["bob"].take(fed.key(2)) == (large, None)
            fed.receivers["bob"].confirm([fed.key(1), fed.key(2)])
            assert await asyncio.gather(*pushing) == [DONE, DONE]
            for key in (fed.key(1), fed.key(2)):
                with pytest.raises(NotHere, match="of party 'alice'"):
                    await fed.receivers["bob"].take(key)

    run(test)


def test_words_of_delivery_go_together_and_what_somebody_waits_for_at_once() -> None:
    async def test() -> None:
        async with federation(drivers=False, max_stored_bytes=0) as fed:
            bob, told = fed.receivers["bob"], list[list[Ack]]()
            bob.on_stream("alice", lambda acks: told.append(list(acks)))
            delivered = [Ack(fed.key(number).id, Receipt.DELIVERED) for number in range(3)]
            bob.confirm([fed.key(0)])
            bob.confirm([fed.key(1)])
            await settle()
            assert told == []
            await asyncio.sleep(ACK_S)
            assert told == [delivered[:2]]
            # What was deferred is wanted now, and goes with what waits, in order.
            bob.on_offer("alice", fed.key(7).id, 100, 0)
            told.clear()
            bob.confirm([fed.key(2)])
            bob.expect([fed.key(7)])
            assert told == [[delivered[2], Ack(fed.key(7).id, Receipt.WANTED)]]
            told.clear()
            for number in range(1000, 2000):
                bob.confirm([fed.key(number)])
            assert sum(map(len, told)) > 700
            # Of what waits when it closes its owner hears from nobody, and sends it again.
            await bob.close()
            await asyncio.sleep(ACK_S)
            assert sum(map(len, told)) < 1000

    run(test)


def test_the_driver_is_told_of_a_large_object_when_its_transfer_begins() -> None:
    async def test() -> None:
        async with federation() as fed:
            bob = fed.consumers["bob"]
            receiving = asyncio.ensure_future(bob.receive(fed.key(0)))
            await settle()
            assert fed.receivers["bob"].on_offer("alice", fed.key(0).id, 100_000, 0) is Verdict.ADMIT
            await settle()
            assert bob.arrived == [Arrived(fed.key(0))]
            # It breaks, comes again, and is told of once.
            fed.receivers["bob"].on_offer_broken("alice", fed.key(0).id)
            pushing = fed.push(b"x" * 100_000)
            assert await receiving == [b"x" * 100_000]
            assert bob.arrived == [Arrived(fed.key(0))]
            fed.receivers["bob"].confirm([fed.key(0)])
            assert await pushing == DONE

    run(test)


def test_a_large_object_that_is_given_up_on_its_way_is_not_waited_for() -> None:
    async def test() -> None:
        async with federation() as fed:
            bob, large = fed.receivers["bob"], b"x" * 100_000
            bob.expect([fed.key(3)])
            assert bob.on_offer("alice", fed.key(3).id, len(large), 0) is Verdict.ADMIT
            taking = asyncio.ensure_future(bob.take(fed.key(3)))
            notice = Notice(NoticeKind.FAILURE, 0, FAILURE, (fed.key(3).id,))
            assert await telling(fed, notice) == ""
            await settle()
            # The driver is told, and it is for the driver to say that it does not wait any more.
            assert await fed.events("bob") == list(told(notice))
            assert not taking.done()
            bob.confirm([fed.key(3)])
            with pytest.raises(NotHere):
                await taking
            assert bob._large == {}
            # That it comes after all changes nothing.
            assert await fed.push(large, 3) == DONE
            assert fed.consumers["bob"].arrived == [Arrived(fed.key(3))]

    run(test)


@pytest.mark.parametrize("value", [7, b"x" * 100_000], ids=["small", "stream"])
def test_what_is_waited_for_again_is_told_again(value: Any) -> None:
    """As when the channel broke: the driver says again what it has not got."""

    async def test() -> None:
        async with federation() as fed:
            pushing = fed.push(value)
            assert await fed.consumers["bob"].receive(fed.key(0)) == [value]
            assert await fed.consumers["bob"].receive(fed.key(0)) == [value]
            fed.receivers["bob"].restore(0, {"alice": ids(0)})
            assert await pushing == DONE
            assert fed.receivers["bob"].statistics().table.unconfirmed == 0

    run(test)


def test_what_is_said_not_to_come_is_awaited_until_the_driver_has_done_with_it() -> None:
    async def test() -> None:
        async with federation() as fed:
            bob = fed.receivers["bob"]
            bob.expect([fed.key(3)])
            notice = Notice(NoticeKind.FAILURE, 0, FAILURE, (ObjectId(0, 3, 0),))
            assert await fed.senders["alice"].tell("bob", [notice], 5) == ""
            assert await fed.events("bob") == [PeerEvent(PeerEventKind.NOTICE, "alice", notice=notice)]
            assert bob.statistics().table.awaited == 1
            bob.confirm([fed.key(3)])
            assert bob.statistics().table.awaited == 0
            # What comes after all its owner may forget, and nobody gets it.
            assert await fed.push(7, 3) == DONE
            assert fed.consumers["bob"].arrived == []

    run(test)


def test_what_a_peer_tells_comes_to_the_driver_in_the_order_in_which_it_was_told() -> None:
    async def test() -> None:
        async with federation(drivers=False) as fed:
            bob = fed.receivers["bob"]
            failures = [dataclasses.replace(FAILURE, error_id=f"alice/x/{number}") for number in range(MAX_BATCH + 1)]
            notices = [
                *[Notice(NoticeKind.FAILURE, 0, one, (ObjectId(0, 3, 0),)) for one in failures],
                Notice(NoticeKind.LATCHED, 0, FAILURE),
                Notice(NoticeKind.GOODBYE, 0, FAILURE),
            ]
            telling = asyncio.ensure_future(fed.senders["alice"].tell("bob", notices[:2]))
            heard = [*await handled(bob.events), *await handled(bob.events)]
            assert await telling == ""
            # Also of one that does not wait until it is answered, and when the driver is at a batch that is full.
            for notice in notices[2:]:
                bob.on_notice("alice", notice)
            while len(heard) < len(notices):
                heard += await handled(bob.events)
            assert heard == list(told(*notices))

    run(test)


@pytest.mark.parametrize("failure", [None, FAILURE], ids=["finished", "failed"])
def test_after_a_goodbye_waits_go_on_and_the_driver_judges(failure: Failure | None) -> None:
    async def test() -> None:
        async with federation() as fed:
            waiting = asyncio.ensure_future(fed.receive(0))
            goodbye = Notice(NoticeKind.GOODBYE, 0, failure, calls=7, digest=8)
            assert await fed.senders["alice"].tell("bob", [goodbye], 5) == ""
            assert await fed.events("bob") == [PeerEvent(PeerEventKind.NOTICE, "alice", notice=goodbye)]
            assert fed.receivers["bob"].statistics().table.awaited == 1
            pushing = fed.push(7)
            assert await waiting == 7
            assert await pushing == DONE

    run(test)


def test_what_had_arrived_before_a_goodbye_is_still_there() -> None:
    async def test() -> None:
        async with federation() as fed:
            pushing = fed.push(7)
            while not fed.receivers["bob"].statistics().table.stored:
                await asyncio.sleep(0)
            await fed.senders["alice"].tell("bob", [Notice(NoticeKind.GOODBYE, 0)], 5)
            assert await fed.receive(0) == 7
            assert await pushing == DONE

    run(test)


def test_pushes_to_a_peer_that_finished_count_as_taken_and_to_one_that_failed_do_not() -> None:
    async def test() -> None:
        async with federation() as fed:
            finished, failed = fed.push(1, 1, ("bob",)), fed.push(2, 2, ("carol",))
            await asyncio.sleep(0)
            fed.senders["alice"].learn(known("alice", left={"bob": None, "carol": FAILURE}))
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
            telling = asyncio.ensure_future(fed.senders["alice"].tell("bob", [Notice(NoticeKind.READY, 0)], 10))
            await asyncio.sleep(0)
            fed.network.heal("alice", "bob")
            assert await telling == ""
            assert await fed.events("bob") == [
                PeerEvent(PeerEventKind.NOTICE, "alice", notice=Notice(NoticeKind.READY, 0))
            ]

    run(test)


def test_a_peer_whose_driver_is_busy_for_long_is_told_on_and_its_link_does_not_count_as_broken() -> None:
    async def test() -> None:
        async with federation(drivers=False) as fed:
            bob = fed.receivers["bob"]
            telling = asyncio.ensure_future(fed.senders["alice"].tell("bob", [READY, LATCHED]))
            await asyncio.sleep(2.5 * TELL_S)
            # Told again, since a link says nothing of what was lost on it; the second one waits for its turn.
            assert await handled(bob.events) == told(READY, READY, READY)
            assert await handled(bob.events) == told(LATCHED)
            assert await telling == ""
            assert fed.senders["alice"].statistics()["bob"].connects == 1

    run(test)


def test_what_is_told_to_a_peer_that_goes_is_answered_when_it_is_given_up() -> None:
    async def test() -> None:
        async with federation() as fed:
            await fed.receivers["bob"].close()
            telling = asyncio.ensure_future(fed.senders["alice"].tell("bob", [READY]))
            await asyncio.sleep(10 * TELL_S)
            assert not telling.done()
            fed.senders["alice"].learn(known("alice", left={"bob": FAILURE}))
            assert await telling != ""

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


def test_e33_who_is_greeted_when_another_one_refuses_is_greeted_on_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with federation(begun=False, drivers=False) as fed:
            bob, carol = (fed.network.link("alice", peer) for peer in ("bob", "carol"))
            refused = asyncio.Event()

            async def refuse(*_: object, **__: object) -> Hello:
                raise PeerRefused("not with you")

            async def late(greeting: Hello, *, timeout_s: float, connect: Any = carol.connect) -> Any:
                await refused.wait()
                return await connect(greeting, timeout_s=timeout_s)

            monkeypatch.setattr(bob, "connect", refuse)
            monkeypatch.setattr(carol, "connect", late)
            sender = Sender(
                hello("alice", incarnation="another"), {"bob": bob, "carol": carol}, DataCodec(), small_object_bytes=10
            )
            assert [(problem.peer, problem.final) for problem in await sender.connect(60)] == [("bob", True)]
            telling = asyncio.ensure_future(sender.tell("carol", [Notice(NoticeKind.PING, 0)], 30))
            refused.set()
            assert await telling == ""
            await sender.close()

    run(test)


def test_who_is_not_greeted_any_more_is_not_joined() -> None:
    async def test() -> None:
        network = MemoryNetwork()
        sender = Sender(hello("alice"), {"bob": network.link("alice", "bob")}, DataCodec(), small_object_bytes=10)
        connecting = asyncio.ensure_future(sender.connect(60))
        await asyncio.sleep(0)
        await sender.close()
        (problem,) = await connecting
        assert (problem.peer, problem.final) == ("bob", False)

    run(test)


def test_a_driver_that_starts_anew_is_put_off_while_the_old_run_lasts() -> None:
    async def test() -> None:
        async with federation() as fed:
            await fed.senders["alice"].tell("bob", [Notice(NoticeKind.READY, 0)], 5)
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
        async with federation(begun=False, drivers=False) as fed:
            # Also one that was ready: the job begins when all are, and carol may not be.
            fed.receivers["bob"].on_notice("alice", READY)
            # Two that live would take the place of one another.
            await fed.senders["alice"].close()
            successor = Sender(
                hello("alice", incarnation="second life"),
                {"bob": fed.network.link("alice", "bob")},
                DataCodec(),
                small_object_bytes=10,
            )
            assert await successor.connect(5) == []
            assert await handled(fed.receivers["bob"].events) == (
                *told(READY),
                PeerEvent(PeerEventKind.GREETED, "alice", "second life"),
            )
            await successor.close()

    run(test)


def test_a_driver_that_starts_anew_before_the_job_began_is_greeted_like_its_predecessor() -> None:
    async def test() -> None:
        async with federation(begun=False) as fed:
            await fed.receivers["bob"].close()
            saying = telling(fed, READY)
            later = Receiver(
                hello("bob", incarnation="later"), fed.network.listener("bob"), fed.codec, max_stored_bytes=10**6
            )
            fed.receivers["bob"] = later
            later.learn(unknown())
            await later.start()
            fed.drive("bob")
            assert await saying == ""
            assert await fed.events("bob") == list(told(READY))
            assert fed.senders["alice"].events.batch() is None

    run(test)


def test_a_driver_that_has_greeted_anew_stays_when_its_predecessor_is_learned_late() -> None:
    """The party's own driver has not heard of it yet, and tells its receiver who had greeted before."""

    async def test() -> None:
        async with federation(begun=False, drivers=False) as fed:
            bob = fed.receivers["bob"]
            bob.on_hello("alice", hello("alice", incarnation="second life"))
            bob.learn(known())
            bob.on_hello("alice", hello("alice", incarnation="second life"))
            assert await handled(bob.events) == (PeerEvent(PeerEventKind.GREETED, "alice", "second life"),)
            with pytest.raises(NotNow, match="an earlier start of 'alice'"):
                bob.on_hello("alice", hello("alice"))

    run(test)


def test_e44_what_a_peer_tells_costs_no_more_than_a_limit_while_the_driver_is_busy() -> None:
    async def test() -> None:
        async with federation(begun=False, drivers=False) as fed:
            bob = fed.receivers["bob"]
            for calls in range(1000):
                for kind in (NoticeKind.PROGRESS, NoticeKind.ASK):
                    assert bob.on_notice("alice", Notice(kind, 0, calls=calls)) is None
                bob.on_hello("alice", hello("alice", incarnation=f"life {calls}"))
                with pytest.raises(Refusal):
                    bob.on_hello("alice", hello("alice", job="other", incarnation=f"life {calls}"))
                bob.on_notice("alice", READY)
            untaken = bob.on_notice("alice", READY)
            assert untaken is not None
            assert untaken.cancelled()
            # Another one's are taken.
            of_another = bob.on_notice("carol", READY)
            assert of_another is not None
            assert not of_another.cancelled()
            # That the driver is at a batch is not enough.
            assert len((await batch_of(bob.events)).events) == MAX_BATCH
            untaken = bob.on_notice("alice", READY)
            assert untaken is not None
            assert untaken.cancelled()
            heard: list[PeerEvent] = []
            while bob.events.batch() is not None:
                heard += await handled(bob.events)
            kinds = [event.notice.kind if event.notice is not None else event.kind for event in heard]
            assert kinds.count(NoticeKind.READY) == 64 + 1
            # Of the rest the newest one is there, in its place.
            assert len(kinds) == 64 + 1 + 4
            assert kinds[-5:] == [
                NoticeKind.PROGRESS,
                NoticeKind.ASK,
                PeerEventKind.GREETED,
                PeerEventKind.DISAGREED,
                NoticeKind.READY,
            ]
            assert [event.notice.calls for event in heard[-5:-3] if event.notice is not None] == [999, 999]
            # What the driver has handled makes room.
            taken = bob.on_notice("alice", READY)
            assert taken is not None
            assert not taken.cancelled()

    run(test)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": 3}, "incompatible protocol version: party 'bob' speaks 3"),
        ({"job": "other"}, "different job names: party 'bob' runs 'other', party 'alice' runs 'job'"),
        ({"parties": ("alice", "bob")}, "different parties: party 'alice' has 'carol', which party 'bob' lacks; give"),
        ({"parties": PARTIES[::-1]}, "different parties: the same names in another order, or twice; give all"),
        ({"types": ("m.T",)}, "different declared types: party 'bob' has 'm.T', which party 'alice' lacks"),
        ({"exceptions": ("E",)}, "different declared exceptions: party 'bob' has 'E', which party 'alice' lacks"),
        (
            {"types": tuple(f"m.T{number}" for number in range(7))},
            "has 'm.T0', 'm.T1', 'm.T2', 'm.T3', 'm.T4' and 2 more, which party 'alice' lacks; give all",
        ),
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
            (event,) = await fed.events("bob")
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
                    await asyncio.sleep(ACK_S)
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
            alice.learn(known("alice", left={"bob": FAILURE}))
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
            receiving = asyncio.ensure_future(fed.consumers["bob"].receive(key))
            while not carol._peers["bob"]._upload_again:
                await asyncio.sleep(0)
            link.gate.set()
            assert await receiving == ["x" * 1000]
            fed.receivers["bob"].confirm([key])
            assert await pushing == DONE
            await carol.close()

    run(test)


# Epochs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [7, b"x" * 100_000], ids=["small", "stream"])
def test_e23_a_reset_ends_pushes_and_waits_of_the_old_epoch_and_the_new_one_works(value: Any) -> None:
    async def test() -> None:
        async with federation() as fed:
            pushing = fed.push(value)
            fed.receivers["bob"].expect([fed.key(1)])
            fed.reset(1)
            assert await pushing == DONE
            assert fed.receivers["bob"].statistics().table.awaited == 0
            fed.codec.encoded = 0
            assert await fed.push(value, 5) == DONE
            assert fed.codec.encoded == 0
            new = fed.push(value, epoch=1)
            assert await fed.receive(epoch=1) == value
            assert await new == DONE
            fed.receivers["bob"].expect([fed.key(2)])
            assert fed.receivers["bob"].statistics().table.awaited == 0
            assert fed.senders["alice"]._peers["bob"]._receipts == {}

    run(test)


def test_e23_what_a_peer_still_sends_of_the_old_epoch_is_dropped_and_counted() -> None:
    async def test() -> None:
        async with federation() as fed:
            fed.receivers["bob"].learn(known(epoch=1))
            failed = Notice(NoticeKind.FAILURE, 0, FAILURE, (ObjectId(0, 3, 0),))
            stale = [failed, Notice(NoticeKind.LATCHED, 0, FAILURE), Notice(NoticeKind.PROGRESS, 0)]
            kept = [Notice(NoticeKind.READY, 0), Notice(NoticeKind.RESET, 1), Notice(NoticeKind.GOODBYE, 0)]
            assert await fed.senders["alice"].tell("bob", [*stale, *kept], 5) == ""
            events = await fed.events("bob", len(kept))
            assert events == [PeerEvent(PeerEventKind.NOTICE, "alice", notice=notice) for notice in kept]
            assert await fed.push(7) == DONE
            statistics = fed.receivers["bob"].statistics()
            assert (statistics.stale_notices, statistics.table.stale, statistics.table.stored) == (3, 1, 0)

    run(test)


def test_e23_what_the_driver_has_not_heard_yet_of_the_old_epoch_it_never_hears() -> None:
    async def test() -> None:
        async with federation(drivers=False) as fed:
            bob = fed.receivers["bob"]
            bob.on_notice("alice", Notice(NoticeKind.LATCHED, 0, FAILURE))
            bob.learn(known(epoch=1))
            assert bob.statistics().stale_notices == 1
            woken: list[int] = []
            bob.events.attach(lambda: woken.append(len(bob.events._waiting)))
            # The driver is to be told, and before it is what it was to be told is gone.
            bob.on_notice("alice", Notice(NoticeKind.PROGRESS, 1))
            bob.learn(known(epoch=2))
            assert woken == [1]
            assert bob.events.batch() is None
            bob.on_notice("alice", Notice(NoticeKind.RESET, 2))
            assert [event.notice for event in await handled(bob.events)] == [Notice(NoticeKind.RESET, 2)]

    run(test)


def test_e23_what_is_being_taken_when_its_epoch_ends_is_not_here_any_more() -> None:
    async def test() -> None:
        async with federation(drivers=False) as fed:
            bob = fed.receivers["bob"]
            bob.expect([fed.key(0)])
            assert bob.on_offer("alice", fed.key(0).id, 100_000, 0) is Verdict.ADMIT
            taking = asyncio.ensure_future(bob.take(fed.key(0)))
            await settle()
            bob.learn(known(epoch=1))
            with pytest.raises(NotHere):
                await taking
            assert bob._large == {}

    run(test)


def test_what_a_peer_that_is_ahead_tells_and_sends_is_there_after_the_reset() -> None:
    async def test() -> None:
        async with federation() as fed:
            pushing = fed.push(7, epoch=1)
            ahead = Notice(NoticeKind.FAILURE, 1, FAILURE, (ObjectId(1, 3, 0),))
            await fed.senders["alice"].tell("bob", [ahead], 5)
            assert await fed.events("bob") == [PeerEvent(PeerEventKind.NOTICE, "alice", notice=ahead)]
            fed.receivers["bob"].learn(known(epoch=1))
            assert await fed.receive(epoch=1) == 7
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


# What is told is told when the driver has it -----------------------------------------------------------------------


def telling(fed: Federation, *notices: Notice) -> asyncio.Task[str]:
    return asyncio.ensure_future(fed.senders["alice"].tell("bob", notices, 10))


async def settle() -> None:
    """Let everything happen that can happen without anybody waiting for a clock."""
    for _ in range(50):
        await asyncio.sleep(0)


READY = Notice(NoticeKind.READY, 0)
LATCHED = Notice(NoticeKind.LATCHED, 0, FAILURE)


def told(*notices: Notice) -> tuple[PeerEvent, ...]:
    return tuple(PeerEvent(PeerEventKind.NOTICE, "alice", notice=notice) for notice in notices)


def test_a_notice_is_answered_when_the_driver_has_handled_it_and_not_before() -> None:
    async def test() -> None:
        async with federation(drivers=False) as fed:
            bob, first = fed.receivers["bob"], telling(fed, READY)
            batch = await batch_of(bob.events)
            assert batch.events == told(READY)
            second = telling(fed, LATCHED)
            await settle()
            assert not first.done()
            # What has come meanwhile is in safe hands only with the next batch.
            bob.events.handled(batch.number)
            assert await first == ""
            following = await batch_of(bob.events)
            assert following.events == told(LATCHED)
            await settle()
            assert not second.done()
            bob.events.handled(following.number)
            assert await second == ""

    run(test)


def test_that_another_batch_was_handled_answers_nothing() -> None:
    async def test() -> None:
        async with federation(drivers=False) as fed:
            bob, first = fed.receivers["bob"], telling(fed, READY)
            batch = await batch_of(bob.events)
            for number in (0, batch.number - 1, batch.number + 1, 1000):
                bob.events.handled(number)
            await settle()
            assert not first.done()
            assert bob.events.batch() == batch
            bob.events.handled(batch.number)
            assert await first == ""

    run(test)


def test_what_the_receiver_is_told_renewably_is_answered_at_once() -> None:
    async def test() -> None:
        async with federation(drivers=False) as fed:
            journal = Notice(NoticeKind.JOURNAL, 0, texts=("alice: train(_)",))
            ping = Notice(NoticeKind.PING, 0)
            progress = Notice(NoticeKind.PROGRESS, 0, calls=7, digest=8)
            assert await telling(fed, progress, journal, ping) == ""
            assert await handled(fed.receivers["bob"].events) == told(progress, journal)

    run(test)


def test_a_notice_that_a_receiver_has_not_passed_on_when_it_closes_is_not_answered_as_taken() -> None:
    async def test() -> None:
        async with federation(drivers=False) as fed:
            first = asyncio.ensure_future(fed.senders["alice"].tell("bob", [READY], 0.3))
            bob = fed.receivers["bob"]
            assert (await batch_of(bob.events)).events == told(READY)
            waiting = bob.on_notice("alice", LATCHED)
            assert waiting is not None
            assert not waiting.done()
            await bob.close()
            assert waiting.cancelled()
            assert await first != ""
            late = bob.on_notice("alice", LATCHED)
            assert late is not None
            assert late.cancelled()

    run(test)


def test_e23_what_a_reset_drops_is_answered() -> None:
    async def test() -> None:
        async with federation(drivers=False) as fed:
            first = telling(fed, LATCHED)
            while not fed.receivers["bob"].events:
                await asyncio.sleep(0)
            fed.receivers["bob"].learn(known(epoch=1))
            assert await first == ""

    run(test)


# Leases -----------------------------------------------------------------------------------------------------------

LEASE_S = 15.0


def frames(bob: Receiver) -> list[Callable[[], object]]:
    """Whatever can come of alice."""
    return [
        lambda: bob.on_hello("alice", hello("alice")),
        lambda: bob.on_stream("alice", lambda acks: None),
        lambda: bob.on_parcels("alice", []),
        lambda: bob.on_offer("alice", ObjectId(0, 1, 0), 10**9, 0),
        lambda: bob.on_notice("alice", Notice(NoticeKind.PING, 0)),
        lambda: bob.on_notice("alice", Notice(NoticeKind.PROGRESS, 0)),
    ]


def test_e40_a_peer_that_is_silent_past_its_lease_is_lost_and_refused_from_then_on() -> None:
    async def test() -> None:
        async with federation(lease_s=LEASE_S) as fed:
            for sender in fed.senders.values():
                await sender.close()
            lost = [event for party in PARTIES for event in await fed.events(party, 2)]
            assert {event.kind for event in lost} == {PeerEventKind.LOST}
            assert sorted(event.peer for event in lost) == sorted(2 * PARTIES)
            assert all(LEASE_S <= event.silent_s < LEASE_S + 0.1 for event in lost)
            bob = fed.receivers["bob"]
            late = Sender(hello("alice"), {"bob": fed.network.link("alice", "bob")}, DataCodec(), small_object_bytes=10)
            (problem,) = await late.connect(5)
            assert problem.final
            assert "party 'bob' has given party 'alice' up" in problem.reason
            # What still comes on a connection that was open is not heard either.
            not_taken = bob.on_notice("alice", READY)
            assert not_taken is not None
            assert not_taken.cancelled()
            await late.close()
            assert fed.heard["bob"] == []

    run(test)


@pytest.mark.parametrize("which", range(6))
def test_any_frame_renews_the_lease(which: int) -> None:
    async def test() -> None:
        async with federation(lease_s=LEASE_S) as fed:
            frame = frames(fed.receivers["bob"])[which]
            for _ in range(8):
                await asyncio.sleep(LEASE_S / 4)
                frame()
            events = await fed.events("bob", 0)
            assert {event.peer for event in events if event.kind is PeerEventKind.LOST} == {"carol"}

    run(test)


@pytest.mark.parametrize("failure", [None, FAILURE], ids=["finished", "failed"])
def test_a_goodbye_ends_the_lease(failure: Failure | None) -> None:
    async def test() -> None:
        async with federation(lease_s=LEASE_S) as fed:
            goodbye = Notice(NoticeKind.GOODBYE, 0, failure)
            assert await telling(fed, goodbye) == ""
            await asyncio.sleep(2 * LEASE_S)
            events = await fed.events("bob", 2)
            assert [(event.kind, event.peer) for event in events] == [
                (PeerEventKind.NOTICE, "alice"),
                (PeerEventKind.LOST, "carol"),
            ]

    run(test)


def test_pings_keep_everybody_from_being_lost_while_nothing_is_said() -> None:
    async def test() -> None:
        async with federation(lease_s=LEASE_S, ping_lease_s=LEASE_S) as fed:
            await asyncio.sleep(3 * LEASE_S)
            assert not any(fed.heard.values())

    run(test)


def test_what_a_receiver_learns_is_no_sign_of_life_of_anybody() -> None:
    async def test() -> None:
        async with federation(lease_s=LEASE_S) as fed:
            for _ in range(8):
                await asyncio.sleep(LEASE_S / 4)
                fed.receivers["bob"].learn(known())
            assert {(event.kind, event.peer) for event in await fed.events("bob", 0)} == {
                (PeerEventKind.LOST, "alice"),
                (PeerEventKind.LOST, "carol"),
            }
            # Nor does it bring back who is lost.
            with pytest.raises(Refusal, match="has given party 'alice' up"):
                fed.receivers["bob"].on_hello("alice", hello("alice"))

    run(test)


# Proxies that were killed -----------------------------------------------------------------------------------------


async def replaced(fed: Federation, party: str, snapshot: Snapshot | None = None, **limits: Any) -> Receiver:
    """Another life of a receiver, in place of the one before. It listens when it has learned what the driver knows."""
    await fed.receivers[party].close()
    receiver = Receiver(hello(party), fed.network.listener(party), fed.codec, max_stored_bytes=10**6, **limits)
    fed.receivers[party] = receiver
    receiver.learn(snapshot or known(party))
    await receiver.start()
    return receiver


def ids(*sequences: int) -> IdSet:
    made = IdSet()
    for sequence in sequences:
        made.add(ObjectId(0, sequence, 0))
    return made


def test_a_receiver_that_lives_again_acknowledges_what_was_delivered_before() -> None:
    async def test() -> None:
        async with federation(drivers=False) as fed:
            pushing = fed.push(7)
            await fed.consumers["bob"].receive(fed.key(0))
            # Nobody has confirmed it to the first one: what was confirmed is gone with it.
            bob = await replaced(fed, "bob")
            bob.restore(0, {"alice": ids(0)})
            assert await pushing == DONE
            assert bob.statistics().table.stored == 0

    run(test)


def test_a_receiver_that_lives_again_knows_whom_it_had_joined() -> None:
    async def test() -> None:
        async with federation(drivers=False) as fed:
            bob = await replaced(fed, "bob")
            with pytest.raises(NotNow, match="an earlier start of 'alice'"):
                bob.on_hello("alice", hello("alice", incarnation="second life"))
            bob.on_hello("alice", hello("alice"))
            # The driver has heard of it before.
            assert bob.events.batch() is None

    run(test)


def test_e34_a_receiver_that_lives_again_before_the_job_began_does_not_miss_those_that_never_came() -> None:
    async def test() -> None:
        async with federation(drivers=False, begun=False, lease_s=LEASE_S) as fed:
            for sender in fed.senders.values():
                await sender.close()
            joining = known(begun=False, incarnations={"alice": "life of alice"})
            bob = await replaced(fed, "bob", joining, lease_s=LEASE_S)
            events = await handled(bob.events)
            assert [(event.kind, event.peer) for event in events] == [(PeerEventKind.LOST, "alice")]
            # Only who had come is missed.
            assert bob._liveness.due() is None

    run(test)


def test_e44_a_peer_that_fills_the_table_keeps_nobody_from_telling_and_no_other_from_sending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendezvous, "MAX_ENTRIES", 3)

    async def test() -> None:
        async with federation() as fed:
            waiting = asyncio.ensure_future(fed.receive(7))
            await settle()
            fed.push(0, 0), fed.push(1, 1)
            (undelivered,) = (await fed.push(2, 2)).undelivered
            assert "holds too many objects" in undelivered.fault.detail
            flood = tuple(ObjectId(0, number, 0) for number in range(100))
            assert await telling(fed, Notice(NoticeKind.FAILURE, 0, FAILURE, flood)) == ""
            # What is waited for, and what others send.
            pushing = fed.push(7, 7)
            assert await waiting == 7
            assert await pushing == DONE
            pushing = asyncio.ensure_future(fed.senders["carol"].push(deliveries(0), [8]))
            assert await fed.consumers["bob"].receive(fed.key(0, "carol")) == [8]
            fed.receivers["bob"].confirm([fed.key(0, "carol")])
            assert await pushing == DONE

    run(test)


def test_a_receiver_that_is_closed_while_it_waits_for_its_port_does_not_listen_after_that() -> None:
    async def test() -> None:
        async with federation(drivers=False) as fed:
            bob = Receiver(hello("bob"), fed.network.listener("bob"), fed.codec, max_stored_bytes=10**6)
            starting = asyncio.ensure_future(bob.start(patience_s=5))
            await settle()
            await bob.close()
            await fed.receivers["bob"].close()
            await starting
            later = Receiver(hello("bob"), fed.network.listener("bob"), fed.codec, max_stored_bytes=10**6)
            await later.start()
            fed.receivers["bob"] = later

    run(test)


def test_a_receiver_waits_for_its_port_to_be_free() -> None:
    async def test() -> None:
        async with federation(drivers=False) as fed:
            bob = Receiver(hello("bob"), fed.network.listener("bob"), fed.codec, max_stored_bytes=10**6)
            with pytest.raises(AddressInUse):
                await bob.start()
            starting = asyncio.ensure_future(bob.start(patience_s=5))
            await settle()
            await fed.receivers["bob"].close()
            await starting
            fed.receivers["bob"] = bob

    run(test)


def test_e41_a_receiver_that_lives_again_refuses_those_that_were_given_up() -> None:
    async def test() -> None:
        async with federation(drivers=False, lease_s=LEASE_S) as fed:
            lost = Failure("bob/x/3", Kind.PARTY_LOST, "carol", "PartyLostError")
            bob = await replaced(fed, "bob", known(left={"carol": lost, "alice": OVER}), lease_s=LEASE_S)
            with pytest.raises(Refusal, match="has given party 'carol' up"):
                bob.on_hello("carol", hello("carol"))
            bob.on_hello("alice", hello("alice"))

    run(test)


@pytest.mark.parametrize("failure", [None, OVER], ids=["finished", "failed"])
def test_a_receiver_that_lives_again_misses_those_that_it_never_heard_but_not_who_had_left(
    failure: Failure | None,
) -> None:
    async def test() -> None:
        async with federation(drivers=False, lease_s=LEASE_S) as fed:
            for sender in fed.senders.values():
                await sender.close()
            bob = await replaced(fed, "bob", known(left={"carol": failure}), lease_s=LEASE_S)
            # What is waited for of who has left is for the driver to judge.
            bob.expect([fed.key(0, "carol")])
            events = await handled(bob.events)
            assert [(event.kind, event.peer) for event in events] == [(PeerEventKind.LOST, "alice")]
            assert bob.statistics().table.awaited == 1
            await asyncio.sleep(2 * LEASE_S)
            assert bob.events.batch() is None

    run(test)


def successor(fed: Federation, **arguments: Any) -> Sender:
    links = {peer: fed.network.link("alice", peer) for peer in ("bob", "carol")}
    return Sender(hello("alice"), links, fed.codec, small_object_bytes=1000, **arguments)


@pytest.mark.parametrize("value", [7, b"x" * 100_000], ids=["small", "stream"])
def test_a_sender_that_lives_again_greets_by_itself_and_sends_what_is_pushed_again(value: Any) -> None:
    async def test() -> None:
        async with federation() as fed:
            fed.push(value)
            while not fed.receivers["bob"].statistics().table.stored:
                await asyncio.sleep(0)
            await fed.senders["alice"].close()
            fed.senders["alice"] = alice = successor(fed)
            alice.learn(known("alice"))
            pushing, saying = fed.push(value), telling(fed, READY)
            assert await fed.receive() == value
            assert await pushing == DONE
            assert await saying == ""
            assert alice.statistics()["carol"].connects == 1

    run(test)


def test_a_sender_that_lives_again_before_its_peer_does_goes_on_greeting() -> None:
    async def test() -> None:
        async with federation() as fed:
            await fed.senders["alice"].close()
            fed.network.cut("alice", "bob")
            fed.senders["alice"] = alice = successor(fed)
            alice.learn(known("alice"))
            pushing, saying = fed.push(7), telling(fed, READY)
            await asyncio.sleep(0.1)
            assert not saying.done()
            fed.network.heal("alice", "bob")
            assert await fed.receive() == 7
            assert await pushing == DONE
            assert await saying == ""

    run(test)


def test_a_sender_greets_nobody_by_itself_before_all_have_been_greeted() -> None:
    """Whoever has it join anew says so: the runtime repeats that, and it has a time by which it is to end."""

    async def test() -> None:
        async with federation(begun=False) as fed:
            await fed.senders["alice"].close()
            fed.senders["alice"] = alice = successor(fed)
            alice.learn(unknown("alice"))
            await asyncio.sleep(1)
            assert {one.connects for one in alice.statistics().values()} == {0}
            assert await alice.connect(10) == []

    run(test)


def test_a_sender_that_lives_again_greets_also_whom_nobody_has_heard_of() -> None:
    """It may have greeted a receiver that was killed before it had told anybody."""

    async def test() -> None:
        async with federation() as fed:
            await fed.senders["alice"].close()
            fed.senders["alice"] = alice = successor(fed)
            alice.learn(known("alice", incarnations={"bob": "life of bob"}))
            assert await alice.tell("carol", [READY]) == await alice.tell("bob", [READY]) == ""

    run(test)


def test_a_sender_that_learns_the_same_again_does_nothing_anew() -> None:
    async def test() -> None:
        async with federation() as fed:
            alice = fed.senders["alice"]
            pushing = fed.push(7)
            for _ in range(3):
                alice.learn(known("alice", left={"carol": FAILURE}))
            fed.network.cut("alice", "bob")
            for _ in range(3):
                alice.learn(known("alice", left={"carol": FAILURE}))
                await settle()
            fed.network.heal("alice", "bob")
            assert await fed.receive() == 7
            assert await pushing == DONE
            assert alice.statistics()["bob"].connects == 2
            assert alice.events.batch() is None

    run(test)


async def joined(fed: Federation, link: MemoryLink, lease_s: float) -> Sender:
    """A sender in place of alice's that has this link to bob, and has joined him."""
    await fed.senders["alice"].close()
    fed.senders["alice"] = alice = Sender(
        hello("alice"), {"bob": link}, fed.codec, small_object_bytes=1000, lease_s=lease_s
    )
    assert await alice.connect(60) == []
    return alice


class PingCounter(MemoryLink):
    pings: int = 0

    async def tell(self, notice: Notice, *, timeout_s: float) -> None:
        self.pings += notice.kind is NoticeKind.PING
        await super().tell(notice, timeout_s=timeout_s)


def test_a_sender_pings_some_times_within_a_lease_and_not_while_the_link_is_down() -> None:
    async def test() -> None:
        async with federation() as fed:
            link = PingCounter(fed.network, "alice", "bob")
            await joined(fed, link, lease_s=0.5)
            while link.pings < 3:
                await asyncio.sleep(0.01)
            fed.network.cut("alice", "bob")
            await asyncio.sleep(0.25)
            before = link.pings
            await asyncio.sleep(0.25)
            assert link.pings == before
            fed.network.heal("alice", "bob")
            while link.pings == before:
                await asyncio.sleep(0.01)
            assert fed.heard["bob"] == []

    run(test)


def test_with_a_long_lease_a_party_is_heard_within_the_time_that_evidence_leaves_it() -> None:
    async def test() -> None:
        async with federation() as fed:
            link = PingCounter(fed.network, "alice", "bob")
            await joined(fed, link, lease_s=1000)
            await asyncio.sleep(RESTART_S)
            assert link.pings >= 1

    run(test)


def test_a_sender_that_was_asked_to_greet_and_failed_does_not_greet_again_by_itself() -> None:
    async def test() -> None:
        async with federation(begun=False) as fed:
            await fed.senders["alice"].close()
            fed.network.cut("alice", "bob")
            link = MemoryLink(fed.network, "alice", "bob")
            fed.senders["alice"] = alice = Sender(hello("alice"), {"bob": link}, fed.codec, small_object_bytes=1000)
            (problem,) = await alice.connect(1)
            assert problem.peer == "bob"
            alice.learn(unknown("alice")._replace(greeted=True))
            fed.network.heal("alice", "bob")
            await asyncio.sleep(10)
            assert link.statistics().connects == 0

    run(test)


class LateLink(MemoryLink):
    """Answers pings late."""

    late_s = 0.0
    pings = 0

    async def tell(self, notice: Notice, *, timeout_s: float) -> None:
        await super().tell(notice, timeout_s=timeout_s)
        if notice.kind is NoticeKind.PING:
            await asyncio.sleep(min(self.late_s, timeout_s))
            if self.late_s > timeout_s:
                raise PeerUnreachable("it did not answer in time")
            self.pings += 1


@pytest.mark.parametrize(("late_s", "breaks"), [(0.6, False), (1.4, True)])
def test_a_link_is_broken_when_a_ping_is_not_answered_for_half_a_lease_and_not_before(
    late_s: float, breaks: bool
) -> None:
    async def test() -> None:
        async with federation() as fed:
            link = LateLink(fed.network, "alice", "bob")
            await joined(fed, link, lease_s=2.0)
            link.late_s = late_s
            while link.pings < 2 and link.statistics().connects == 1:
                await asyncio.sleep(0.01)
            assert (link.statistics().connects > 1) == breaks

    run(test)


class LossyLink(MemoryLink):
    """Loses greetings, as many as it is told to, and knows how long each might have taken."""

    lose = 0

    def __init__(self, network: MemoryNetwork, party: str, peer: str) -> None:
        super().__init__(network, party, peer)
        self.given: list[float] = []

    async def connect(self, hello: Hello, *, timeout_s: float) -> Hello:
        self.given.append(timeout_s)
        if len(self.given) in range(2, 2 + self.lose):
            raise PeerUnreachable("no answer")
        return await super().connect(hello, timeout_s=timeout_s)


@pytest.mark.parametrize(("lease_s", "times"), [(0.1, [0.5, 1, 2, 4]), (4, [2, 4, 8]), (100, [10])])
def test_e40_what_is_begun_while_the_network_is_cut_is_soon_begun_anew(
    monkeypatch: pytest.MonkeyPatch, lease_s: float, times: list[float]
) -> None:
    monkeypatch.setattr("fed.proxy.peer_session.FIRST_RETRY_S", 0.0)

    async def test() -> None:
        async with federation() as fed:
            link = LossyLink(fed.network, "alice", "bob")
            link.lose = len(times)
            await joined(fed, link, lease_s)
            push = fed.push("before")
            assert await fed.receive() == "before"
            assert await push == DONE
            fed.network.cut("alice", "bob")
            fed.network.heal("alice", "bob")
            push = fed.push("after", 1)
            assert await fed.receive(1) == "after"
            assert await push == DONE
            assert link.given[0] == 10
            assert link.given[1 : 1 + len(times)] == pytest.approx(times, rel=0.3)

    run(test)


def test_e41_a_party_that_was_given_up_and_is_still_connected_is_told_when_it_says_something() -> None:
    """Bob has heard nothing of alice, who has not been cut off for long enough to notice anything herself."""

    async def test() -> None:
        async with federation(lease_s=LEASE_S) as fed:
            lost = await fed.events("bob", 2)
            assert [event.kind for event in lost] == [PeerEventKind.LOST] * 2
            ping = Notice(NoticeKind.PING, 0)
            assert await fed.senders["alice"].tell("bob", [ping], 0.2) != ""
            (event,) = await handled(fed.senders["alice"].events)
            assert (event.kind, event.peer) == (PeerEventKind.REJECTED, "bob")
            assert "party 'bob' has given party 'alice' up" in event.reason

    run(test)


def test_e41_a_party_that_is_refused_after_it_had_joined_is_told_so() -> None:
    async def test() -> None:
        async with federation(lease_s=LEASE_S, ping_lease_s=LEASE_S) as fed:
            fed.network.cut("alice", "bob")
            lost = await fed.events("bob")
            assert [(event.kind, event.peer) for event in lost] == [(PeerEventKind.LOST, "alice")]
            fed.network.heal("alice", "bob")
            (event,) = await handled(fed.senders["alice"].events)
            assert (event.kind, event.peer) == (PeerEventKind.REJECTED, "bob")
            assert "has given party 'alice' up" in event.reason

    run(test)


def test_a_peer_that_has_finished_is_told_and_pinged_on_and_greeted_again() -> None:
    async def test() -> None:
        async with federation(lease_s=LEASE_S, ping_lease_s=LEASE_S) as fed:
            fed.senders["alice"].learn(known("alice", left={"bob": None}))
            await asyncio.sleep(2 * LEASE_S)
            # Bob waits for alice to finish, and his receiver is killed meanwhile.
            await fed.receivers["bob"].close()
            receiver = fed.receivers["bob"] = Receiver(
                hello("bob"), fed.network.listener("bob"), fed.codec, max_stored_bytes=10**6, lease_s=LEASE_S
            )
            goodbye = telling(fed, Notice(NoticeKind.GOODBYE, 0))
            await asyncio.sleep(0.1)
            receiver.learn(known())
            await receiver.start()
            fed.drive("bob")
            assert await goodbye == ""
            assert await fed.events("bob") == list(told(Notice(NoticeKind.GOODBYE, 0)))

    run(test)


def test_a_peer_that_has_finished_takes_nothing_more_and_may_fail_after_that() -> None:
    async def test() -> None:
        async with federation() as fed:
            alice = fed.senders["alice"]
            fed.network.hold("alice", "bob")
            uploading = fed.push(b"x" * 100_000)
            while not fed.network.held("alice", "bob"):
                await asyncio.sleep(0)
            alice.learn(known("alice", left={"bob": None}))
            assert await uploading == DONE
            assert await telling(fed, READY) == ""
            alice.learn(known("alice", left={"bob": FAILURE}))
            await fed.receivers["bob"].close()
            assert await asyncio.wait_for(telling(fed, READY), 1) != ""
            assert await fed.push(1, 1) == DONE

    run(test)


def test_where_a_party_that_has_finished_was_anybody_may_listen() -> None:
    async def test() -> None:
        async with federation(ping_lease_s=LEASE_S) as fed:
            alice = fed.senders["alice"]
            alice.learn(known("alice", left={"bob": None}))
            await settle()
            await fed.receivers["bob"].close()
            other = Receiver(hello("bob", job="other"), fed.network.listener("bob"), fed.codec, max_stored_bytes=10**6)
            fed.receivers["bob"] = other
            other.learn(unknown())
            await other.start()
            fed.drive("bob")
            assert {event.kind for event in await fed.events("bob", 2)} == {PeerEventKind.DISAGREED}
            await asyncio.sleep(0.1)
            assert alice.events.batch() is None

    run(test)


def test_e40_a_peer_whose_port_is_closed_is_missed_sooner_unless_it_is_heard() -> None:
    async def test() -> None:
        async with federation(lease_s=100, ping_lease_s=LEASE_S) as fed:
            # The time for a restart is shorter than any that is real.
            fed.receivers["alice"]._liveness = Liveness(["bob", "carol"], 100, restart_s=LEASE_S)
            for peer in ("bob", "carol"):
                fed.receivers["alice"].on_notice(peer, READY)
            await fed.events("alice", 2)
            await fed.receivers["bob"].close()
            await fed.senders["bob"].close()
            (event, *_) = await handled(fed.senders["alice"].events)
            assert (event.kind, event.peer) == (PeerEventKind.ABSENT, "bob")
            fed.receivers["alice"].suspect("bob")
            # Carol is doubted as well, but pings.
            fed.receivers["alice"].suspect("carol")
            (lost,) = await fed.events("alice")
            assert (lost.kind, lost.peer) == (PeerEventKind.LOST, "bob")
            assert lost.reason == "its port refused connections"

    run(test)


def test_e40_another_life_of_a_peer_is_quick_evidence_against_the_one_that_had_joined() -> None:
    async def test() -> None:
        async with federation(lease_s=100) as fed:
            bob = fed.receivers["bob"]
            bob._liveness = Liveness(["alice", "carol"], 100, restart_s=LEASE_S)
            bob.on_notice("alice", READY)
            link = fed.network.link("alice", "bob")
            again = Sender(hello("alice", incarnation="again"), {"bob": link}, fed.codec, small_object_bytes=10)
            (problem,) = await again.connect(2 * LEASE_S)
            assert problem.final
            assert "has given party 'alice' up" in problem.reason
            await again.close()
            first, lost = await fed.events("bob", 2)
            assert (first.notice, lost.kind, lost.peer) == (READY, PeerEventKind.LOST, "alice")
            assert lost.reason == "another driver greeted under its name"

    run(test)


def test_e40_a_sender_whose_driver_has_died_says_so_to_all_in_its_place() -> None:
    async def test() -> None:
        async with federation() as fed:
            fed.senders["alice"].learn(known("alice", epoch=3))
            for _ in range(2):
                fed.senders["alice"].orphaned()
            for peer in ("bob", "carol"):
                (event,) = await fed.events(peer)
                assert event.notice is not None
                assert (event.peer, event.notice.kind, event.notice.epoch) == ("alice", NoticeKind.GOODBYE, 3)
                failure = event.notice.failure
                assert failure is not None
                assert (failure.kind, failure.src_party, failure.hops) == (Kind.PARTY_LOST, "alice", ())
                assert failure.error_id == "alice/life of alice/0"
                assert failure.detail == "its driver ended without a word"

    run(test)


@pytest.mark.parametrize("before", ["the job has begun", "it knows anything", "it was told to say goodbye"])
def test_e40_a_sender_whose_driver_ends_when_nobody_misses_it_says_nothing(before: str) -> None:
    async def test() -> None:
        async with federation(begun=False) as fed:
            alice, told = fed.senders["alice"], 0
            if before == "the job has begun":
                # Another driver may take its place.
                alice.learn(unknown("alice"))
            elif before == "it was told to say goodbye":
                alice.learn(known("alice"))
                assert await alice.tell("bob", [Notice(NoticeKind.GOODBYE, 0)]) == ""
                told = 1
            alice.orphaned()
            # Told after whatever it may have said.
            for peer in ("bob", "carol"):
                assert await alice.tell(peer, [READY]) == ""
            assert [event.notice for event in await fed.events("bob", told + 1)][told:] == [READY]
            assert [event.notice for event in await fed.events("carol")] == [READY]

    run(test)


def test_what_is_meant_for_one_run_of_a_peer_is_not_heard_by_the_next() -> None:
    async def test() -> None:
        async with federation(ping_lease_s=LEASE_S) as fed:
            await fed.receivers["bob"].close()
            goodbye = telling(fed, Notice(NoticeKind.GOODBYE, 0))
            # Bob's next run listens at the same address, and has not been greeted by anybody yet.
            later = Receiver(
                hello("bob", incarnation="later"), fed.network.listener("bob"), fed.codec, max_stored_bytes=10**6
            )
            fed.receivers["bob"] = later
            later.learn(unknown())
            await later.start()
            fed.drive("bob")
            event = PeerEvent(PeerEventKind.ABSENT, "bob")
            while event.kind is PeerEventKind.ABSENT:
                *_, event = await handled(fed.senders["alice"].events)
            assert (event.kind, event.peer) == (PeerEventKind.REJECTED, "bob")
            assert "was started anew after party 'alice' had joined it" in event.reason
            assert await goodbye != ""
            assert fed.heard["bob"] == []

    run(test)


class Renewing(MemoryLink):
    """Whose credentials are being renewed when it connects for the second time."""

    attempts = 0

    async def connect(self, hello: Hello, *, timeout_s: float) -> Hello:
        self.attempts += 1
        if self.attempts == 2:
            raise PeerUntrusted("the certificate and its key do not match")
        return await super().connect(hello, timeout_s=timeout_s)


def test_a_peer_that_cannot_be_proven_for_a_moment_is_not_lost_by_that() -> None:
    async def test() -> None:
        async with federation() as fed:
            link = Renewing(fed.network, "alice", "bob")
            alice = await joined(fed, link, lease_s=1)
            fed.network.cut("alice", "bob")
            fed.network.heal("alice", "bob")
            assert await alice.tell("bob", [READY], 10) == ""
            assert link.attempts == 3
            assert alice.events.batch() is None

    run(test)


class Stubborn(MemoryLink):
    """Loses a cancellation on its way, as `asyncio.wait_for` may."""

    entered = False

    async def connect(self, hello: Hello, *, timeout_s: float) -> Hello:
        self.entered = True
        try:
            return await super().connect(hello, timeout_s=timeout_s)
        except asyncio.CancelledError:
            raise PeerUnreachable("this was a cancellation") from None


@pytest.mark.parametrize("again", [False, True], ids=["joining", "joining again"])
def test_a_sender_closes_although_a_cancellation_is_lost(again: bool) -> None:
    async def test() -> None:
        async with federation() as fed:
            link = Stubborn(fed.network, "alice", "bob")
            alice = Sender(hello("alice"), {"bob": link}, fed.codec, small_object_bytes=10)
            fed.network.hold("alice", "bob")
            joining: asyncio.Future[Any] = asyncio.ensure_future(asyncio.sleep(0))
            if again:
                alice.learn(known("alice"))
            else:
                joining = asyncio.ensure_future(alice.connect(60))
            while not link.entered:
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            closing = asyncio.ensure_future(alice.close())
            await asyncio.wait_for(asyncio.shield(closing), 2)
            joining.cancel()
            await asyncio.gather(joining, return_exceptions=True)

    # In real time: the two senders of alice take the link from one another without ever waiting.
    asyncio.run(test())


class Forgetful(MemoryLink):
    """Takes no notice, and loses a cancellation on its way, as `asyncio.wait_for` may."""

    async def tell(self, notice: Notice, *, timeout_s: float) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        raise PeerUnreachable("this was a cancellation")


def test_a_sender_that_is_told_to_tell_for_ever_ends_with_its_channel_and_answers_nothing() -> None:
    async def test() -> None:
        async with federation() as fed:
            alice = await joined(fed, Forgetful(fed.network, "alice", "bob"), lease_s=math.inf)
            driver, clients = MemoryDriverEnd("alice"), DirectClients()
            clients.start(driver)
            for client in (clients.sender, clients.receiver):
                client.listen(Deaf())
            server = serve_sender(MemoryProxyEnd(driver, Role.SENDER), alice)
            telling = clients.sender.send("bob", [READY])
            await server.reach(LIMIT_S)
            await settle()
            # Its first cancellation is lost, and the peer may still take it.
            await asyncio.wait_for(server.close(), LIMIT_S)
            await asyncio.to_thread(driver.close)
            assert not telling.done()

    asyncio.run(asyncio.wait_for(test(), 20))
