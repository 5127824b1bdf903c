"""What a driver and its proxies say to one another apart from data."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from fed.channel import MAX_FRAME_BYTES, ByLane, ByRole, ChannelError, Connection, Lane, ProxyEnd, Role
from fed.channel.memory import MemoryDriverEnd, MemoryProxyEnd
from fed.core.failure import MAX_HOPS, Failure, Kind
from fed.core.notice import Notice, NoticeKind
from fed.object import ObjectId
from fed.proxy import control
from fed.proxy.control import (
    ControlClient,
    ControlServer,
    Snapshot,
    decode_events,
    decode_send,
    decode_snapshot,
    encode_events,
    encode_send,
    encode_snapshot,
)
from fed.proxy.events import MAX_BATCH, Batch, EventQueue, PeerEvent, PeerEventKind
from fed.transport import wire
from tests.support.channels import Deaf, Watched
from tests.support.notices import epochs, failures, names, notices, numbers
from tests.support.worlds import LIMIT_S, run

# Any text that Python can hold, lone surrogates included.
TEXTS = st.text(st.characters(), max_size=20)
SNAPSHOTS = st.builds(
    Snapshot,
    epochs,
    st.booleans(),
    st.booleans(),
    st.dictionaries(names, names, max_size=3),
    st.dictionaries(names, st.none() | failures, max_size=3),
)
EVENTS = st.builds(
    PeerEvent,
    st.sampled_from(PeerEventKind),
    names,
    names | st.just(""),
    st.none() | notices,
    TEXTS,
    st.floats(0, allow_nan=False),
)
FAILURE = Failure("carol/x/1", Kind.TASK, "carol", "ValueError", "#1 f", 1, ("KeyError",), ("bob",), "d", "m", "t")
READY = Notice(NoticeKind.READY, 0)
START = Snapshot(0, False, False, {}, {})


def of(what: str) -> PeerEvent:
    return PeerEvent(PeerEventKind.GREETED, "bob", what)


def told(frame: bytes) -> tuple[str, Sequence[Any]]:
    kind, *rest = control._read(frame)
    return control._Kind(kind).name, rest


def acknowledged(number: int, reason: str = "") -> bytes:
    return control._frame(control._Kind.ACKNOWLEDGED, number, reason)


# Frames


@given(SNAPSHOTS)
def test_the_state_of_the_job_is_told_as_it_is(snapshot: Snapshot) -> None:
    kind, rest = told(encode_snapshot(snapshot))
    assert (kind, decode_snapshot(rest)) == ("SNAPSHOT", snapshot)


@given(numbers, names, st.lists(notices, max_size=3))
def test_what_a_peer_is_to_be_told_arrives_as_it_was_said(number: int, peer: str, said: list[Notice]) -> None:
    kind, rest = told(encode_send(number, peer, said))
    assert (kind, decode_send(rest)) == ("SEND", (number, peer, said))


@given(numbers, st.lists(EVENTS, max_size=3).map(tuple))
def test_events_arrive_as_they_were_told(number: int, events: tuple[PeerEvent, ...]) -> None:
    kind, rest = told(encode_events(Batch(number, events)))
    assert (kind, decode_events(rest)) == ("EVENTS", Batch(number, events))


def test_each_kind_of_event_and_of_notice_arrives_as_it_was_told() -> None:
    failed = Notice(NoticeKind.FAILURE, 3, FAILURE, (ObjectId(3, 1, 0), ObjectId(3, 2, 1)))
    events = (
        PeerEvent(PeerEventKind.GREETED, "bob", "a life"),
        PeerEvent(PeerEventKind.NOTICE, "bob", notice=failed),
        *(
            PeerEvent(kind, "bob", reason="it \udcff refuses")
            for kind in (PeerEventKind.DISAGREED, PeerEventKind.REJECTED)
        ),
        PeerEvent(PeerEventKind.LOST, "bob", silent_s=7.25),
        PeerEvent(PeerEventKind.ABSENT, "bob"),
    )
    assert {event.kind for event in events} == set(PeerEventKind)
    _, rest = told(encode_events(Batch(6, events)))
    assert decode_events(rest) == Batch(6, events)


def test_what_names_more_objects_than_a_notice_may_is_told_in_several() -> None:
    ids = tuple(ObjectId(0, number, 0) for number in range(wire.MAX_NOTICE_OBJECTS + 1))
    _, rest = told(encode_send(0, "bob", [Notice(NoticeKind.FAILURE, 0, FAILURE, ids), READY]))
    _, _, (first, second, last) = decode_send(rest)
    assert (first.objects + second.objects, last) == (ids, READY)


def test_as_many_events_as_travel_together_fit_into_a_frame_whatever_they_are() -> None:
    longest = Failure(
        "p" * 128, Kind.TASK, "p" * 128, "e" * 128, "t" * 128, 1, ("c" * 128,) * 8, ("h" * 128,) * MAX_HOPS, "d" * 448
    )
    most = (1 << 32) - 1
    ids = (ObjectId(most, (1 << 63) - 1, most, (1 << 64) - 1),) * wire.MAX_NOTICE_OBJECTS
    largest = [
        Notice(NoticeKind.FAILURE, most, longest, ids),
        Notice(NoticeKind.JOURNAL, most, calls=1, texts=("t" * wire.MAX_TEXT_BYTES,) * wire.MAX_NOTICE_TEXTS),
    ]
    for notice in largest:
        event = PeerEvent(PeerEventKind.NOTICE, "p" * 128, notice=notice)
        assert len(encode_events(Batch(1, (event,) * MAX_BATCH))) < MAX_FRAME_BYTES


# The driver's end by itself


class Noted(Connection):
    """Reads what the driver says."""

    def __init__(self, boot_id: str = "boot") -> None:
        super().__init__(Role.SENDER, Lane.CONTROL, boot_id)
        self.said: list[object] = []

    @override
    def send(self, *frames: bytes) -> None:
        for frame in frames:
            kind, rest = told(frame)
            if kind == "SNAPSHOT":
                self.said.append(decode_snapshot(rest))
            elif kind == "SEND":
                number, peer, said = decode_send(rest)
                assert said == [READY]
                self.said.append((number, peer))
            else:
                self.said.append((kind, *rest))

    @override
    def close(self) -> None:
        raise NotImplementedError


class Listening:
    """Notes what a proxy says."""

    def __init__(self) -> None:
        self.happened: list[object] = []

    def handle(self, events: Sequence[PeerEvent]) -> None:
        self.happened += events

    def lives_again(self) -> None:
        self.happened.append("lives again")


def test_each_connection_begins_with_the_last_snapshot_and_with_what_was_not_answered_in_order() -> None:
    client = ControlClient()
    client.listen(Listening())
    first, second, third = Noted(), Noted(), Noted()
    answers = [client.send("bob", [READY])]
    client.connected(first)
    answers += [client.send("carol", [READY]), client.send("bob", [READY])]
    client.publish(START._replace(greeted=True))
    assert first.said == [START, (0, "bob"), (1, "carol"), (2, "bob"), START._replace(greeted=True)]
    client.received(first, [acknowledged(1, "it is closed")])
    client.lost(first)
    answers.append(client.send("dave", [READY]))
    client.publish(START._replace(epoch=1))
    client.publish(START._replace(epoch=2))
    client.connected(second)
    # The end of the one before may be told late.
    client.lost(first)
    assert second.said == [START._replace(epoch=2), (0, "bob"), (2, "bob"), (3, "dave")]
    answers.append(client.send("bob", [READY]))
    client.suspect("carol")
    assert second.said[4:] == [(4, "bob"), ("SUSPECT", "carol")]
    client.received(second, [acknowledged(number) for number in (4, 0, 3, 2)])
    assert [answer.result(0) for answer in answers] == ["", "it is closed", "", "", ""]
    client.connected(third)
    assert third.said == [START._replace(epoch=2)]
    assert len(first.said) == 5


def test_an_answer_of_an_earlier_life_to_what_was_answered_since_is_ignored() -> None:
    client = ControlClient()
    client.listen(Listening())
    first, second = Noted("first"), Noted("second")
    client.connected(first)
    answer, other = client.send("bob", [READY]), client.send("bob", [READY])
    client.connected(second)
    client.received(second, [acknowledged(0, "it refuses")])
    client.received(first, [acknowledged(0), acknowledged(7), acknowledged(1)])
    assert (answer.result(0), other.result(0)) == ("it refuses", "")


def test_a_proxy_is_not_told_a_suspicion_that_came_up_while_it_was_away() -> None:
    client = ControlClient()
    client.listen(Listening())
    connection = Noted()
    client.suspect("bob")
    client.connected(connection)
    assert connection.said == [START]


def test_events_that_come_twice_are_handled_once_and_answered_twice_until_another_life_begins_its_numbers_anew() -> (
    None
):
    client, listening = ControlClient(), Listening()
    client.listen(listening)
    batches = [encode_events(Batch(number, (of(str(number)),))) for number in (3, 5)]
    first, same, other = Noted("first"), Noted("first"), Noted("other")
    client.connected(first)
    client.received(first, [batches[0]])
    client.lost(first)
    client.connected(same)
    client.received(same, [batches[0], batches[1]])
    assert same.said == [START, ("HANDLED", 3), ("HANDLED", 5)]
    assert listening.happened == [of("3"), of("5")]
    client.lost(same)
    client.connected(other)
    client.received(other, [batches[0]])
    client.received(other, [batches[0]])
    assert other.said == [START, ("HANDLED", 3), ("HANDLED", 3)]
    assert listening.happened == [of("3"), of("5"), "lives again", of("3")]


def test_who_lives_again_is_told_of_the_job_before_anybody_hears_of_it() -> None:
    client = ControlClient()

    class Asking(Listening):
        @override
        def lives_again(self) -> None:
            self.happened += second.said

    listening = Asking()
    client.listen(listening)
    first, second = Noted("first"), Noted("second")
    client.connected(first)
    client.send("bob", [READY])
    assert listening.happened == []
    client.lost(first)
    client.connected(second)
    assert listening.happened == [START, (0, "bob")]


def test_events_are_not_answered_before_they_are_in_safe_hands() -> None:
    client, connection = ControlClient(), Noted()

    class Looking(Listening):
        @override
        def handle(self, events: Sequence[PeerEvent]) -> None:
            self.happened += connection.said

    listening = Looking()
    client.listen(listening)
    client.connected(connection)
    client.received(connection, [encode_events(Batch(1, (of("a life"),)))])
    assert listening.happened == [START]
    assert connection.said == [START, ("HANDLED", 1)]


# Both ends


class Driver(Watched):
    """A driver's end, and what its proxies tell it."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self.client = ControlClient()
        self.end = MemoryDriverEnd("alice")
        self._proxies: list[Proxy] = []
        self.connections: list[Connection] = []
        self.begun = 0
        self.handled: list[list[PeerEvent]] = []
        self.lives = 0
        # On these of its connections, from 1 on, what comes is lost.
        self.deaf_on: set[int] = set()
        # While this is not set it is busy with a batch.
        self.ready = threading.Event()
        self.ready.set()
        self.end.start(ByRole({(Role.SENDER, Lane.DATA): Deaf(), (Role.SENDER, Lane.CONTROL): self}))

    def changed(self) -> None:
        self._loop.call_soon_threadsafe(self._changed.set)

    def connected(self, connection: Connection) -> None:
        self.connections.append(connection)
        self.client.connected(connection)
        self.begun += 1
        self.changed()

    def received(self, connection: Connection, frames: Sequence[bytes]) -> None:
        if len(self.connections) not in self.deaf_on:
            self.client.received(connection, frames)

    def lost(self, connection: Connection) -> None:
        self.client.lost(connection)
        self.changed()

    def handle(self, events: Sequence[PeerEvent]) -> None:
        self.handled.append(list(events))
        self.changed()
        self.ready.wait(LIMIT_S)

    def lives_again(self) -> None:
        self.lives += 1
        self.changed()

    async def until_connected(self, count: int) -> None:
        await self.until(lambda: self.begun == count)
        await self.until_said()

    async def until_said(self) -> None:
        """Wait until whatever was said to a proxy has come there."""
        arrived = asyncio.Event()
        self._loop.call_soon_threadsafe(arrived.set)
        await asyncio.wait_for(arrived.wait(), LIMIT_S)

    def break_connection(self) -> None:
        self.connections[-1].close()

    def proxy(self, boot_id: str | None = None) -> Proxy:
        proxy = Proxy(self, boot_id)
        self._proxies.append(proxy)
        return proxy

    async def __aenter__(self) -> Driver:
        return self

    async def __aexit__(self, *raised: object) -> None:
        self.ready.set()
        for proxy in self._proxies:
            await proxy.close()
        await asyncio.to_thread(self.end.close)


class Tapped(MemoryProxyEnd):
    """Notes the kinds of what the proxy says."""

    def __init__(self, driver: Driver, boot_id: str | None, changed: asyncio.Event) -> None:
        super().__init__(driver.end, Role.SENDER, boot_id)
        self.said: list[str] = []
        self._changed = changed

    @override
    def send(self, lane: Lane, *frames: bytes) -> None:
        self.said += [told(frame)[0] for frame in frames]
        self._changed.set()
        super().send(lane, *frames)


class Proxy(Watched):
    """A sender's end, and what its driver tells it."""

    def __init__(self, driver: Driver, boot_id: str | None = None) -> None:
        super().__init__()
        self.events = EventQueue()
        self.end = Tapped(driver, boot_id, self._changed)
        self.server = ControlServer(self.end, self.events, self.learn, send=self.send, suspect=self.suspect)
        # The kinds of what comes on each connection; on some of these, from 1 on, it is lost.
        self.heard: list[list[str]] = []
        self.deaf_on: set[int] = set()
        self.learned: list[Snapshot] = []
        self.sent: list[tuple[str, list[Notice]]] = []
        self.suspected: list[str] = []
        self.answered = asyncio.Event()
        self.reason: str | Exception = ""
        self.end.start(ByLane({Lane.DATA: Deaf(), Lane.CONTROL: self}))

    def connected(self, lane: Lane) -> None:
        self.heard.append([])
        self.server.connected(lane)

    def received(self, lane: Lane, frames: Sequence[bytes]) -> None:
        self.heard[-1] += [told(frame)[0] for frame in frames]
        if len(self.heard) not in self.deaf_on:
            self.server.received(lane, frames)
        self._changed.set()

    def lost(self, lane: Lane) -> None:
        self.server.lost(lane)

    def learn(self, snapshot: Snapshot) -> None:
        self.learned.append(snapshot)

    def suspect(self, peer: str) -> None:
        self.suspected.append(peer)

    async def send(self, peer: str, said: Sequence[Notice]) -> str:
        self.sent.append((peer, list(said)))
        self._changed.set()
        await self.answered.wait()
        if isinstance(self.reason, Exception):
            raise self.reason
        return self.reason

    async def close(self) -> None:
        """End it, as by a kill. Idempotent."""
        self.events.close()
        await self.end.close()
        await self.server.close()


def test_a_proxy_hears_nothing_before_somebody_listens_and_then_the_snapshot_and_what_was_said_before() -> None:
    async def scenario() -> None:
        async with Driver() as driver:
            proxy = driver.proxy()
            proxy.events.add(of("a life"))
            await driver.until_connected(1)
            driver.client.publish(START._replace(greeted=True))
            answer = driver.client.send("bob", [READY])
            driver.client.suspect("carol")
            await driver.until_said()
            assert proxy.heard == [[]]
            assert proxy.end.said == []
            with pytest.raises(ChannelError, match=r"could not reach its driver within 0\.001 s"):
                await proxy.server.reach(0.001)
            driver.client.listen(driver)
            await proxy.server.reach(math.inf)
            await proxy.until(lambda: bool(proxy.sent))
            assert proxy.heard[0][:2] == ["SNAPSHOT", "SEND"]
            assert proxy.learned == [START._replace(greeted=True)]
            assert (proxy.sent, proxy.suspected) == ([("bob", [READY])], [])
            await driver.until(lambda: bool(driver.handled))
            assert driver.handled == [[of("a life")]]
            proxy.answered.set()
            assert await asyncio.wait_for(asyncio.wrap_future(answer), LIMIT_S) == ""

    run(scenario())


def test_what_is_being_told_to_a_peer_when_a_connection_breaks_is_not_begun_again_and_is_answered_on_the_next() -> None:
    async def scenario() -> None:
        async with Driver() as driver:
            driver.client.listen(driver)
            proxy = driver.proxy()
            answers = [driver.client.send(peer, [READY]) for peer in ("bob", "carol")]
            await proxy.until(lambda: len(proxy.sent) == 2)
            driver.break_connection()
            await driver.until_connected(2)
            await proxy.until(lambda: len(proxy.heard[-1]) == 3)
            assert proxy.heard[-1] == ["SNAPSHOT", "SEND", "SEND"]
            # Nothing of it is done twice, however long it takes.
            assert proxy.server._tasks.keys() == {0, 1}
            assert [peer for peer, _ in proxy.sent] == ["bob", "carol"]
            proxy.answered.set()
            assert await asyncio.wait_for(asyncio.gather(*map(asyncio.wrap_future, answers)), LIMIT_S) == ["", ""]
            assert [peer for peer, _ in proxy.sent] == ["bob", "carol"]
            driver.break_connection()
            await driver.until_connected(3)
            await proxy.until(lambda: len(proxy.heard) == 3 and bool(proxy.heard[-1]))
            assert proxy.heard[-1] == ["SNAPSHOT"]
            assert proxy.server._tasks == {}

    run(scenario())


def test_a_peer_is_told_again_when_the_word_that_it_was_told_is_lost() -> None:
    async def scenario() -> None:
        async with Driver() as driver:
            driver.client.listen(driver)
            proxy = driver.proxy()
            proxy.answered.set()
            proxy.reason = "it \udcff refuses"
            driver.deaf_on = {1}
            answer = driver.client.send("bob", [READY])
            await proxy.until(lambda: proxy.end.said == ["ACKNOWLEDGED"])
            driver.break_connection()
            assert await asyncio.wait_for(asyncio.wrap_future(answer), LIMIT_S) == "it \udcff refuses"
            assert proxy.sent == [("bob", [READY])] * 2
            assert proxy.end.said == ["ACKNOWLEDGED"] * 2

    run(scenario())


def test_what_a_proxy_was_telling_when_it_was_killed_the_next_one_tells() -> None:
    async def scenario() -> None:
        async with Driver() as driver:
            driver.client.listen(driver)
            first = driver.proxy()
            answer = driver.client.send("bob", [READY])
            await first.until(lambda: bool(first.sent))
            await first.close()
            assert first.server._tasks == {}
            second = driver.proxy()
            second.answered.set()
            assert await asyncio.wait_for(asyncio.wrap_future(answer), LIMIT_S) == ""
            assert second.sent == [("bob", [READY])]

    run(scenario())


def test_what_a_proxy_fails_at_is_answered_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with Driver() as driver:
            driver.client.listen(driver)
            proxy = driver.proxy()
            proxy.reason = ValueError("a defect")
            proxy.answered.set()
            answer = driver.client.send("bob", [READY])
            assert await asyncio.wait_for(asyncio.wrap_future(answer), LIMIT_S) == "ValueError: a defect"

    run(scenario())
    assert "a peer could not be told" in caplog.text


def test_a_proxy_is_told_of_suspicions_and_of_each_state_of_the_job_in_order() -> None:
    async def scenario() -> None:
        async with Driver() as driver:
            driver.client.listen(driver)
            proxy = driver.proxy()
            await proxy.server.reach(LIMIT_S)
            for epoch in (1, 2):
                driver.client.publish(START._replace(epoch=epoch))
                driver.client.suspect("bob")
            await proxy.until(lambda: len(proxy.suspected) == 2)
            assert proxy.learned == [START, START._replace(epoch=1), START._replace(epoch=2)]
            assert proxy.heard == [["SNAPSHOT", "SNAPSHOT", "SUSPECT", "SNAPSHOT", "SUSPECT"]]
            assert proxy.suspected == ["bob", "bob"]

    run(scenario())


def test_one_batch_of_events_is_under_way_at_a_time() -> None:
    async def scenario() -> None:
        async with Driver() as driver:
            driver.client.listen(driver)
            proxy = driver.proxy()
            await proxy.server.reach(LIMIT_S)
            driver.ready.clear()
            proxy.events.add(of("first"))
            await driver.until(lambda: len(driver.handled) == 1)
            later = [of(str(number)) for number in range(MAX_BATCH + 1)]
            for event in later:
                proxy.events.add(event)
            driver.client.publish(START._replace(epoch=1))
            await proxy.until(lambda: len(proxy.learned) == 2)
            assert proxy.end.said == ["EVENTS"]
            driver.ready.set()
            await driver.until(lambda: len(driver.handled) == 3)
            assert driver.handled == [[of("first")], later[:MAX_BATCH], later[MAX_BATCH:]]
            assert proxy.end.said == ["EVENTS"] * 3

    run(scenario())


def test_events_are_told_again_and_handled_once_when_the_word_that_they_were_handled_is_lost() -> None:
    async def scenario() -> None:
        async with Driver() as driver:
            driver.client.listen(driver)
            proxy = driver.proxy()
            await proxy.server.reach(LIMIT_S)
            proxy.deaf_on = {1}
            acknowledged = [proxy.events.add_acknowledged(of("first"))]
            await proxy.until(lambda: proxy.heard[-1] == ["SNAPSHOT", "HANDLED"])
            acknowledged.append(proxy.events.add_acknowledged(of("second")))
            assert [answer.done() for answer in acknowledged] == [False, False]
            driver.break_connection()
            await asyncio.wait_for(asyncio.gather(*acknowledged), LIMIT_S)
            assert driver.handled == [[of("first")], [of("second")]]
            assert proxy.heard == [["SNAPSHOT", "HANDLED"], ["SNAPSHOT", "HANDLED", "HANDLED"]]
            assert proxy.end.said == ["EVENTS"] * 3
            assert driver.lives == 0

    run(scenario())


def test_no_event_is_told_on_a_connection_before_the_proxy_knows_the_state_of_the_job() -> None:
    async def scenario() -> None:
        async with Driver() as driver:
            driver.client.listen(driver)
            proxy = driver.proxy()
            await proxy.server.reach(LIMIT_S)
            # What the driver begins the next connection with is lost, and then the connection too.
            proxy.deaf_on = {2}
            driver.break_connection()
            await driver.until_connected(2)
            proxy.events.add(of("a life"))
            await driver.until_said()
            assert proxy.end.said == []
            driver.break_connection()
            await driver.until(lambda: bool(driver.handled))
            assert driver.handled == [[of("a life")]]

    run(scenario())


def test_another_life_of_a_proxy_begins_its_numbers_anew_and_is_announced_once() -> None:
    async def scenario() -> None:
        async with Driver() as driver:
            driver.client.listen(driver)
            first = driver.proxy("first")
            for number in range(3):
                await asyncio.wait_for(first.events.add_acknowledged(of(str(number))), LIMIT_S)
            driver.break_connection()
            await driver.until_connected(2)
            assert driver.lives == 0
            unhandled = first.events.add_acknowledged(of("is lost"))
            await first.close()
            assert unhandled.cancelled()
            second = driver.proxy("second")
            await second.server.reach(LIMIT_S)
            await asyncio.wait_for(second.events.add_acknowledged(of("of another life")), LIMIT_S)
            assert [event for events in driver.handled for event in events if event != of("is lost")] == [
                *[of(str(number)) for number in range(3)],
                of("of another life"),
            ]
            driver.break_connection()
            await driver.until_connected(4)
            assert [one.boot_id for one in driver.connections] == ["first", "first", "second", "second"]
            assert driver.lives == 1

    run(scenario())


def test_a_proxy_that_takes_nothing_from_its_driver_but_the_state_of_the_job_ignores_the_rest() -> None:
    async def scenario() -> None:
        async with Driver() as driver:
            driver.client.listen(driver)
            proxy = driver.proxy()
            proxy.server = ControlServer(proxy.end, proxy.events, proxy.learn)
            await proxy.server.reach(LIMIT_S)
            driver.client.suspect("bob")
            answer = driver.client.send("bob", [READY])
            driver.client.publish(START._replace(epoch=1))
            await proxy.until(lambda: len(proxy.learned) == 2)
            await driver.until_said()
            assert (proxy.sent, proxy.suspected, proxy.end.said) == ([], [], [])
            assert not answer.done()

    run(scenario())


class Parting(ProxyEnd):
    """Loses its connection with the first answer, and has another one before anything else happens."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.server: ControlServer | None = None

    @override
    def start(self, handler: object) -> None:
        raise NotImplementedError

    @override
    def send(self, lane: Lane, *frames: bytes) -> None:
        self.said += [control._read(frame) for frame in frames]
        server, self.server = self.server, None
        if server is not None:
            server.lost(lane)
            server.received(lane, [encode_snapshot(START), encode_send(1, "bob", [READY])])

    @override
    async def close(self) -> None:
        raise NotImplementedError


def test_what_is_asked_again_in_the_moment_in_which_its_answer_is_lost_is_answered() -> None:
    async def scenario() -> None:
        async def send(peer: str, _: Sequence[Notice]) -> str:
            return f"{peer} refuses it"

        end = Parting()
        end.server = server = ControlServer(end, EventQueue(), lambda _: None, send=send)
        server.received(Lane.CONTROL, [encode_snapshot(START), encode_send(1, "bob", [READY])])
        for _ in range(10):
            await asyncio.sleep(0)
        assert end.said == [(control._Kind.ACKNOWLEDGED, 1, "bob refuses it")] * 2

    run(scenario())


def test_who_waits_for_the_driver_of_a_proxy_that_is_closed_waits_no_longer() -> None:
    async def scenario() -> None:
        async with Driver() as driver:
            proxy = driver.proxy()
            waiting = asyncio.ensure_future(proxy.server.reach(math.inf))
            await asyncio.sleep(0)
            await proxy.server.close()
            with pytest.raises(ChannelError, match="the proxy is closed"):
                await asyncio.wait_for(waiting, LIMIT_S)

    run(scenario())
