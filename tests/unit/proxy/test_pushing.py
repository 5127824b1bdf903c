"""Small values on their way from the driver to the sender, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from fed.channel import ByLane, ByRole, Connection, Lane, Role
from fed.channel.memory import MemoryDriverEnd, MemoryProxyEnd
from fed.core.failure import Failure, Fault, Kind
from fed.object import ObjectId
from fed.proxy.deliveries import Delivery, Pushed, Undelivered
from fed.proxy.pushing import (
    PushClient,
    PushServer,
    SenderFailed,
    decode_answer,
    decode_push,
    encode_answer,
    encode_push,
)
from fed.serde.receipt import SmallValue
from tests.support.channels import Deaf
from tests.support.worlds import LIMIT_S, run

NUMBERS = st.integers(0, (1 << 64) - 1)
NAMES = st.text(min_size=1, max_size=8)
IDS = st.builds(ObjectId, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
DELIVERIES = st.builds(Delivery, IDS, st.lists(NAMES, max_size=3).map(tuple))
VALUES = st.builds(SmallValue, st.binary(), st.lists(st.binary(), max_size=3).map(tuple))
FAILURE = Failure("carol/x/1", Kind.TASK, "carol", "ValueError", "#1 f", 1, ("KeyError",), ("bob",), "d")
TEXTS = st.text(st.characters())
FAULTS = st.builds(
    Fault,
    st.sampled_from(Kind),
    NAMES,
    st.lists(NAMES, max_size=2).map(tuple),
    TEXTS,
    TEXTS,
    TEXTS,
    st.sampled_from([None, FAILURE]),
)


@given(number=NUMBERS, pushed=st.lists(st.tuples(DELIVERIES, VALUES), max_size=4))
def test_a_push_arrives_as_it_was_sent(number: int, pushed: list[tuple[Delivery, SmallValue]]) -> None:
    deliveries, values = [delivery for delivery, _ in pushed], [value for _, value in pushed]
    assert decode_push(encode_push(number, deliveries, values)) == (number, deliveries, values)


@given(
    number=NUMBERS,
    undelivered=st.lists(st.builds(Undelivered, IDS, NAMES, FAULTS), max_size=3),
    pending=st.lists(DELIVERIES, max_size=3),
)
def test_an_answer_arrives_as_it_was_sent(number: int, undelivered: list[Undelivered], pending: list[Delivery]) -> None:
    pushed = Pushed(undelivered, pending)
    assert decode_answer(encode_answer(number, pushed)) == (number, pushed)


def test_text_that_has_no_encoding_arrives_too() -> None:
    pushed = Pushed([Undelivered(ObjectId(0, 1, 0), "bob", Fault(Kind.DELIVERY, "E", message="\udcff"))], [])
    assert decode_answer(encode_answer(1, pushed)) == (1, pushed)
    number, failed = decode_answer(encode_answer(7, SenderFailed("\udcff")))
    assert (number, str(failed)) == (7, "\udcff")


class Noted(Connection):
    def __init__(self) -> None:
        super().__init__(Role.SENDER, Lane.DATA, "boot")
        self.sent: list[int] = []

    @override
    def send(self, *frames: bytes) -> None:
        self.sent += [decode_push(frame)[0] for frame in frames]

    @override
    def close(self) -> None:
        raise NotImplementedError


def pushing(client: PushClient, sequence: int) -> asyncio.Future[Pushed]:
    answer = client.push([Delivery(ObjectId(0, sequence, 0), ("bob",))], [SmallValue(b"", ())])
    return asyncio.wrap_future(answer)


DELIVERED = Pushed([], [])


def test_what_is_not_answered_is_said_again_to_every_later_life() -> None:
    async def scenario() -> None:
        client = PushClient()
        answers = [pushing(client, 0), pushing(client, 1)]
        first, second = Noted(), Noted()
        client.connected(first)
        answers.append(pushing(client, 2))
        assert first.sent == [0, 1, 2]
        client.received(first, [encode_answer(1, DELIVERED)])
        client.lost(first)
        answers.append(pushing(client, 3))
        client.connected(second)
        # The end of the one before may be told late.
        client.lost(first)
        answers.append(pushing(client, 4))
        assert (first.sent, second.sent) == ([0, 1, 2], [0, 2, 3, 4])
        # In any order; and what both lives have answered counts once.
        client.received(second, [encode_answer(number, DELIVERED) for number in (4, 3, 1, 0, 2, 2)])
        assert await asyncio.wait_for(asyncio.gather(*answers), LIMIT_S) == [DELIVERED] * 5
        third = Noted()
        client.connected(third)
        assert third.sent == []

    run(scenario())


def listening(client: PushClient) -> MemoryDriverEnd:
    driver = MemoryDriverEnd("alice")
    driver.start(ByRole({(Role.SENDER, Lane.DATA): client, (Role.SENDER, Lane.CONTROL): Deaf()}))
    return driver


class Sender:
    """Answers when a test says so."""

    def __init__(self, driver: MemoryDriverEnd) -> None:
        self.pushed: list[ObjectId] = []
        self.came = asyncio.Event()
        self.release = asyncio.Event()
        self._end = MemoryProxyEnd(driver, Role.SENDER)
        self._server = PushServer(self._end, self.push)
        self._end.start(ByLane({Lane.DATA: self._server, Lane.CONTROL: Deaf()}))

    async def close(self) -> None:
        await self._end.close()
        await self._server.close()

    async def push(self, deliveries: Sequence[Delivery], values: Sequence[SmallValue]) -> Pushed:
        self.pushed += [one.id for one in deliveries]
        self.came.set()
        await self.release.wait()
        if values[0].header == b"broken":
            raise ValueError("a defect")
        return Pushed([], list(deliveries))


def test_a_sender_that_is_replaced_leaves_its_pushes_to_the_next_one() -> None:
    async def scenario() -> None:
        client = PushClient()
        driver = listening(client)
        first = Sender(driver)
        answer = pushing(client, 1)
        await asyncio.wait_for(first.came.wait(), LIMIT_S)
        await first.close()
        second = Sender(driver)
        second.release.set()
        assert (await asyncio.wait_for(answer, LIMIT_S)).pending == [Delivery(ObjectId(0, 1, 0), ("bob",))]
        assert first.pushed == second.pushed == [ObjectId(0, 1, 0)]
        await second.close()
        await asyncio.to_thread(driver.close)

    run(scenario())


def test_a_push_that_a_sender_fails_at_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        client = PushClient()
        driver = listening(client)
        sender = Sender(driver)
        sender.release.set()
        answer = client.push([Delivery(ObjectId(0, 1, 0), ("bob",))], [SmallValue(b"broken", ())])
        with pytest.raises(SenderFailed, match="ValueError: a defect"):
            await asyncio.wait_for(asyncio.wrap_future(answer), LIMIT_S)
        await sender.close()
        await asyncio.to_thread(driver.close)

    run(scenario())
    assert "a push failed" in caplog.text
