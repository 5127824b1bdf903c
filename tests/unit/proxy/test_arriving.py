"""Objects of peers on their way from the receiver to its driver."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from fed.channel import ByLane, ByRole, Connection, Lane, Role
from fed.channel.memory import MemoryDriverEnd, MemoryProxyEnd
from fed.core.idset import IdSet
from fed.core.rendezvous import Key
from fed.object import ObjectId
from fed.proxy import arriving
from fed.proxy.arriving import (
    ArrivalClient,
    ArrivalServer,
    Arrived,
    decode_arrived,
    decode_has,
    decode_keys,
    encode_arrived,
    encode_has,
    encode_keys,
)
from fed.serde.receipt import SmallValue
from tests.support.channels import Deaf
from tests.support.worlds import LIMIT_S, run

NUMBERS = st.integers(0, (1 << 64) - 1)
NAMES = st.text(min_size=1, max_size=8)
KEYS = st.builds(Key, NAMES, st.builds(ObjectId, NUMBERS, NUMBERS, NUMBERS, NUMBERS))
ARRIVED = st.one_of(
    KEYS.map(Arrived),
    st.builds(Arrived, KEYS, st.builds(SmallValue, st.binary(), st.lists(st.binary(), max_size=3).map(tuple))),
)
SMALL = SmallValue(b"7", ())


def key(sequence: int, slot: int = 0, epoch: int = 0) -> Key:
    return Key("alice", ObjectId(epoch, sequence, slot))


@given(st.lists(ARRIVED, max_size=4))
def test_what_arrives_is_told_as_it_is(arrived: list[Arrived]) -> None:
    assert [one for frame in encode_arrived(arrived) for one in decode_arrived(frame)] == arrived


@given(st.lists(KEYS, max_size=4))
def test_names_are_told_as_they_are(keys: list[Key]) -> None:
    kind, *told = msgpack.unpackb(encode_keys(arriving._Kind.CONFIRM, keys), use_list=False)
    assert (kind, decode_keys(told)) == (arriving._Kind.CONFIRM, keys)


def test_what_the_driver_has_is_told_as_it_is() -> None:
    ids = IdSet()
    for one in (key(7), key(9, 1), key(9, 200)):
        ids.add(one.id)
    _, *told = msgpack.unpackb(encode_has(3, {"alice": ids}), use_list=False)
    epoch, has = decode_has(told)
    assert epoch == 3
    assert [one.id in has["alice"] for one in (key(7), key(9, 1), key(9, 200), key(8))] == [True] * 3 + [False]


class Noted(Connection):
    """Reads what the driver says."""

    def __init__(self) -> None:
        super().__init__(Role.RECEIVER, Lane.DATA, "boot")
        self.said: list[tuple[str, list[Key]]] = []
        self.has: list[Key] = []
        # How much of what was said may wait for what is said next.
        self.may_wait = 0

    @override
    def send_soon(self, *frames: bytes) -> None:
        self.may_wait += len(frames)
        self.send(*frames)

    @override
    def send(self, *frames: bytes) -> None:
        for frame in frames:
            kind, *told = msgpack.unpackb(frame, use_list=False)
            if kind == arriving._Kind.HAS:
                _, has = decode_has(told)
                self.has += [key(sequence) for sequence in range(10) if key(sequence).id in has.get("alice", IdSet())]
            else:
                self.said.append((arriving._Kind(kind).name, decode_keys(told)))

    @override
    def close(self) -> None:
        raise NotImplementedError


def test_what_has_not_come_is_asked_for_in_every_later_life_and_what_has_is_not() -> None:
    client, delivered = ArrivalClient(), list[Arrived]()
    client.listen(delivered.extend)
    client.expect([key(0), key(1)])
    first, second, third = Noted(), Noted(), Noted()
    client.connected(first)
    client.expect([key(2), key(3)])
    assert first.said == [("EXPECT", [key(0), key(1)]), ("EXPECT", [key(2), key(3)])]
    came = [Arrived(key(1), SMALL), Arrived(key(2))]
    client.received(first, encode_arrived(came))
    assert delivered == came
    # A small one is here with that; a large one has to be taken first.
    assert (first.said[2:], first.may_wait) == ([("CONFIRM", [key(1)])], 1)
    client.lost(first)
    client.connected(second)
    client.lost(first)
    assert (second.has, second.said) == ([key(1)], [("EXPECT", [key(0), key(2), key(3)])])
    client.confirm([key(2)])
    assert second.said[1:] == [("CONFIRM", [key(2)])]
    # What nobody waits for any more is not handed over twice, but its owner may not have heard of it.
    client.received(second, encode_arrived(came))
    assert delivered == came
    assert second.said[2:] == [("CONFIRM", [key(1), key(2)])]
    client.connected(third)
    assert (third.has, third.said) == ([key(1), key(2)], [("EXPECT", [key(0), key(3)])])


def test_e12_what_the_driver_has_done_with_is_not_handed_over_and_every_later_life_hears_of_it() -> None:
    client, delivered = ArrivalClient(), list[Arrived]()
    client.listen(delivered.extend)
    first, second, third = Noted(), Noted(), Noted()
    client.expect([key(0), key(1), key(2)])
    client.connected(first)
    client.confirm([key(0)])
    assert first.said[1:] == [("CONFIRM", [key(0)])]
    client.received(first, encode_arrived([Arrived(key(0), SMALL), Arrived(key(1), SMALL)]))
    assert delivered == [Arrived(key(1), SMALL)]
    assert first.said[2:] == [("CONFIRM", [key(0), key(1)])]
    client.lost(first)
    # Nobody hears of it now.
    client.confirm([key(2)])
    client.connected(second)
    assert (second.has, second.said) == ([key(0), key(1), key(2)], [])
    client.received(second, encode_arrived([Arrived(key(2))]))
    assert delivered == [Arrived(key(1), SMALL)]
    assert second.said == [("CONFIRM", [key(2)])]
    # Another thread may have done with one before it is asked for: then it is not.
    client.confirm([key(4)])
    client.expect([key(4), key(5)])
    assert second.said[1:] == [("CONFIRM", [key(4)]), ("EXPECT", [key(5)])]
    client.connected(third)
    assert (third.has, third.said) == ([key(0), key(1), key(2), key(4)], [("EXPECT", [key(5)])])


def test_e23_with_an_epoch_ends_what_was_waited_for_in_it() -> None:
    client, delivered = ArrivalClient(), list[Arrived]()
    client.listen(delivered.extend)
    connection = Noted()
    client.expect([key(0), key(1)])
    client.reset(1)
    client.expect([key(0, epoch=2)])
    client.reset(1)
    client.connected(connection)
    assert (connection.has, connection.said) == ([], [("EXPECT", [key(0, epoch=2)])])
    client.received(connection, encode_arrived([Arrived(key(0), SMALL)]))
    client.confirm([key(1)])
    assert delivered == []
    later = Noted()
    client.connected(later)
    assert later.has == []


def test_many_names_travel_in_several_frames(monkeypatch: Any) -> None:
    monkeypatch.setattr(arriving, "KEYS_PER_FRAME", 2)
    client, connection = ArrivalClient(), Noted()
    client.expect([key(number) for number in range(5)])
    client.connected(connection)
    assert [len(keys) for _, keys in connection.said] == [2, 2, 1]


def test_however_much_arrives_at_once_no_frame_is_large() -> None:
    values = [Arrived(key(number), SmallValue(bytes(60_000), (b"x",))) for number in range(100)]
    frames = encode_arrived(values)
    assert [one for frame in frames for one in decode_arrived(frame)] == values
    assert max(map(len, frames)) < 2 * arriving.FRAME_BYTES
    large = [Arrived(key(number)) for number in range(100_000)]
    frames = encode_arrived(large)
    assert [one for frame in frames for one in decode_arrived(frame)] == large
    assert len(frames) > 1
    assert max(map(len, frames)) < 2 * arriving.FRAME_BYTES


class Told:
    """A receiver that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.came = asyncio.Event()

    def expect(self, keys: Iterable[Key]) -> None:
        self.told.append(("expect", list(keys)))
        self.came.set()

    def confirm(self, keys: Iterable[Key]) -> None:
        self.told.append(("confirm", list(keys)))
        self.came.set()

    def restore(self, epoch: int, delivered: Mapping[str, IdSet]) -> None:
        self.told.append(("restore", epoch, {peer: len(ids) for peer, ids in delivered.items()}))


class Receiver:
    """Serves what a test has it told."""

    def __init__(self, driver: MemoryDriverEnd) -> None:
        self.waiting = Told()
        self._end = MemoryProxyEnd(driver, Role.RECEIVER)
        self.server = ArrivalServer(self._end, self.waiting)
        self._end.start(ByLane({Lane.DATA: self.server, Lane.CONTROL: Deaf()}))

    async def hears(self) -> None:
        await asyncio.wait_for(self.waiting.came.wait(), LIMIT_S)
        self.waiting.came.clear()

    async def close(self) -> None:
        await self._end.close()
        await self.server.close()


def test_a_receiver_that_is_replaced_leaves_what_is_waited_for_to_the_next_one() -> None:
    async def scenario() -> None:
        driver, client = MemoryDriverEnd("bob"), ArrivalClient()
        loop, delivered = asyncio.get_running_loop(), asyncio.Queue[Sequence[Arrived]]()

        def deliver(arrived: Sequence[Arrived]) -> None:
            loop.call_soon_threadsafe(delivered.put_nowait, arrived)

        client.listen(deliver)
        driver.start(ByRole({(Role.RECEIVER, Lane.DATA): client, (Role.RECEIVER, Lane.CONTROL): Deaf()}))
        client.expect([key(0), key(1), key(2)])
        first = Receiver(driver)
        await first.hears()
        first.server.deliver([Arrived(key(0), SMALL)])
        assert await asyncio.wait_for(delivered.get(), LIMIT_S) == [Arrived(key(0), SMALL)]
        await first.hears()
        client.confirm([key(2)])
        await first.hears()
        assert first.waiting.told == [
            ("restore", 0, {}),
            ("expect", [key(0), key(1), key(2)]),
            ("confirm", [key(0)]),
            ("confirm", [key(2)]),
        ]
        await first.close()
        # In vain, and no harm.
        first.server.deliver([Arrived(key(1), SMALL)])
        second = Receiver(driver)
        await second.hears()
        assert second.waiting.told == [("restore", 0, {"alice": 2}), ("expect", [key(1)])]
        await second.close()
        await asyncio.to_thread(driver.close)

    run(scenario())
