"""What each fault does to a link and a proxy, held against the contract that it must keep."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import pytest

from fed.core.failure import Failure, Kind
from fed.core.rendezvous import Key
from fed.object import ObjectId
from fed.proxy.arriving import Arrived
from fed.proxy.control import Snapshot
from fed.proxy.deliveries import Delivery
from fed.proxy.events import PeerEvent, PeerEventKind
from fed.proxy.receiver import Receiver
from fed.proxy.sender import Sender
from fed.runtime.contract import ActorBody, Call, Outcome, Proxies, Ref, TaskBody
from fed.runtime.local import LocalRuntime
from fed.serde.data import DataCodec
from fed.serde.receipt import SmallCodec
from fed.testing import FaultPlan
from fed.testing.links import FaultyLink
from fed.transport.contract import (
    Ack,
    Link,
    Notice,
    NoticeKind,
    Parcel,
    PeerAbsent,
    PeerRefused,
    PeerUnreachable,
)
from fed.transport.memory import MemoryNetwork
from tests.support import transports
from tests.support.eventually import eventually
from tests.support.runtimes import begin, ending
from tests.support.worlds import LIMIT_S, PARTIES, MemoryWorld, content, hello, parcel, run

READY = Notice(NoticeKind.READY, 0)
FAILED = Failure("alice/x/1", Kind.TASK, "alice", "ValueError", "#3 train", 3)
FAILURE = Notice(NoticeKind.FAILURE, 0, FAILED, (ObjectId(0, 3, 0),))


class FaultyWorld(MemoryWorld):
    """Parties in memory, all of whose links are wrapped."""

    def __init__(self, plan: FaultPlan | None = None) -> None:
        super().__init__()
        self.plan = plan or FaultPlan()
        self.run = self.plan.begin(PARTIES)
        self.killed: list[str] = []
        self._closing: set[asyncio.Future[None]] = set()
        self.run.kill["alice", "sender"] = lambda: self.killed.append("sender of alice")
        self.run.kill["bob", "receiver"] = self._kill_receiver

    def _kill_receiver(self) -> None:
        self.killed.append("receiver of bob")
        self._closing.add(asyncio.ensure_future(self.listener.close()))

    def make_link(self, party: str) -> Link:
        return FaultyLink(super().make_link(party), self.run, party)

    async def arrived(self, *sequences: int) -> None:
        """Wait until exactly these have arrived, in this order."""
        await self.handler.until(lambda: len(self.sequences) >= len(sequences))
        assert self.sequences == list(sequences)

    @property
    def sequences(self) -> list[int]:
        return [received.id.sequence for _, received in self.handler.parcels]

    def break_network(self) -> None:
        self._network.cut("alice", "bob")

    async def close_network(self) -> None:
        self.run.end()
        await asyncio.gather(*self._closing)


def conformance_tests() -> list[Callable[..., None]]:
    found = [test for name, test in vars(transports).items() if name.startswith("test_")]
    return [test for test in found if list(inspect.signature(test).parameters) == ["make_world"]]


@pytest.mark.parametrize("test", conformance_tests(), ids=lambda test: str(test.__name__))
def test_a_wrapped_transport_without_faults_keeps_the_contract(test: Callable[..., None]) -> None:
    test(FaultyWorld)


Scenario = Callable[[FaultyWorld, Link], Coroutine[Any, Any, None]]


def play(plan: FaultPlan, scenario: Scenario) -> FaultyWorld:
    """Run a scenario of alice, who is connected to bob."""
    worlds: list[FaultyWorld] = []

    async def opened() -> None:
        world = FaultyWorld(plan)
        worlds.append(world)
        async with world.opened():
            await scenario(world, await world.connected())

    run(opened())
    return worlds[0]


# A parcel on its way, by both ways of sending; and what that does to those around it


async def by_send(link: Link, *parcels: Parcel) -> None:
    await link.send(parcels)


async def by_upload(link: Link, *parcels: Parcel) -> None:
    await asyncio.gather(*(link.upload(parcel) for parcel in parcels))


ways = pytest.mark.parametrize("give", [by_send, by_upload])
places = pytest.mark.parametrize("place", ["send", "receive"])
Give = Callable[..., Coroutine[Any, Any, None]]


def at(plan: FaultPlan, place: Any, call: int | None = 1, nth: int | None = None) -> Any:
    """The fault that hits what goes from alice to bob, at either end."""
    party, peer = ("alice", "bob") if place == "send" else ("bob", "alice")
    return plan.at(place, party=party, peer=peer, call=call, nth=nth)


@ways
@places
def test_a_duplicate_arrives_twice(place: str, give: Give) -> None:
    plan = FaultPlan()
    at(plan, place).duplicate()

    async def scenario(world: FaultyWorld, link: Link) -> None:
        await give(link, parcel(1, b"body"))
        await world.arrived(1, 1)
        assert {content(received) for _, received in world.handler.parcels} == {content(parcel(1, b"body"))}

    play(plan, scenario)
    assert [injection.action for injection in plan.injected] == ["duplicate"]


@ways
def test_each_copy_of_a_duplicate_suffers_by_itself_at_the_other_end(give: Give) -> None:
    plan = FaultPlan()
    at(plan, "send").duplicate()
    at(plan, "receive", nth=2).corrupt()

    async def scenario(world: FaultyWorld, link: Link) -> None:
        await give(link, parcel(1, b"body"))
        await world.arrived(1, 1)
        first, second = (content(received) for _, received in world.handler.parcels)
        assert first == content(parcel(1, b"body")) != second

    play(plan, scenario)
    assert [str(injection) for injection in plan.injected] == [
        "alice: send duplicate (peer bob, call 1)",
        "bob: receive corrupt (peer alice, call 1)",
    ]


@ways
@places
def test_what_is_reordered_comes_after_the_next(place: str, give: Give) -> None:
    plan = FaultPlan()
    at(plan, place).reorder()

    async def scenario(world: FaultyWorld, link: Link) -> None:
        await give(link, parcel(1), parcel(2))
        await world.arrived(2, 1)

    play(plan, scenario)


@ways
@places
def test_what_is_reordered_comes_also_where_there_is_no_next(place: str, give: Give) -> None:
    plan = FaultPlan()
    at(plan, place).reorder()

    async def scenario(world: FaultyWorld, link: Link) -> None:
        await give(link, parcel(1))
        await world.arrived(1)

    play(plan, scenario)


@places
def test_what_is_delayed_is_overtaken(place: str) -> None:
    plan = FaultPlan()
    at(plan, place).delay(until="gate")

    async def scenario(world: FaultyWorld, link: Link) -> None:
        await link.send([parcel(1), parcel(2)])
        await link.send([parcel(3)])
        await world.arrived(2, 3)
        plan.release("gate")
        await world.arrived(2, 3, 1)

    play(plan, scenario)


@places
def test_a_delay_in_seconds_ends_by_itself(place: str) -> None:
    plan = FaultPlan()
    at(plan, place).delay(0.01)

    async def scenario(world: FaultyWorld, link: Link) -> None:
        await link.send([parcel(1), parcel(2)])
        await world.arrived(2, 1)

    play(plan, scenario)


@ways
@places
def test_what_hangs_holds_up_all_that_is_behind_it_but_no_notice(place: str, give: Give) -> None:
    plan = FaultPlan()
    at(plan, place).hang(until="gate")

    async def scenario(world: FaultyWorld, link: Link) -> None:
        giving = [asyncio.ensure_future(give(link, parcel(number))) for number in (1, 2, 3)]
        await asyncio.to_thread(plan.wait_until_reached, "gate")
        await link.tell(READY, timeout_s=LIMIT_S)
        assert world.handler.notices == [("alice", READY)]
        assert world.sequences == []
        plan.release("gate")
        await asyncio.gather(*giving)
        await world.arrived(1, 2, 3)

    play(plan, scenario)


@pytest.mark.parametrize(("place", "other"), [("send", "send"), ("receive", "receive"), ("receive", "send")])
def test_two_that_hang_keep_the_order(place: str, other: str) -> None:
    plan = FaultPlan()
    at(plan, place, call=1).hang(until="first")
    at(plan, other, call=2).hang(until="second")

    async def scenario(world: FaultyWorld, link: Link) -> None:
        sending = asyncio.ensure_future(link.send([parcel(number) for number in (1, 2, 3)]))
        await asyncio.to_thread(plan.wait_until_reached, "first")
        plan.release("first")
        await asyncio.to_thread(plan.wait_until_reached, "second")
        await world.arrived(1)
        plan.release("second")
        await sending
        await world.arrived(1, 2, 3)

    play(plan, scenario)


@ways
@places
def test_what_is_corrupted_arrives_changed(place: str, give: Give) -> None:
    plan = FaultPlan()
    at(plan, place).corrupt()

    async def scenario(world: FaultyWorld, link: Link) -> None:
        sent = parcel(1, b"body")
        await give(link, sent)
        await world.arrived(1)
        [(_, received)] = world.handler.parcels
        assert received.id == sent.id
        assert received.header != sent.header
        assert len(received.header) == len(sent.header)
        assert [bytes(buffer) for buffer in received.buffers] == [bytes([ord("b") ^ 0xFF]) + b"ody"]
        assert content(sent) == content(parcel(1, b"body"))

    play(plan, scenario)


@ways
@places
def test_what_is_dropped_breaks_the_connection_and_does_not_arrive(place: str, give: Give) -> None:
    plan = FaultPlan()
    at(plan, place, call=None, nth=2).drop()

    async def scenario(world: FaultyWorld, link: Link) -> None:
        acks = link.acks()
        await give(link, parcel(1))
        await anext_of(acks)
        with pytest.raises(PeerUnreachable):
            await give(link, parcel(2))
        with pytest.raises(PeerUnreachable):
            await give(link, parcel(3))
        with pytest.raises(PeerUnreachable):
            await link.tell(READY, timeout_s=LIMIT_S)
        with pytest.raises(PeerUnreachable):
            await anext_of(acks)
        # Nothing keeps room for it.
        assert 2 not in {object_id.sequence for _, object_id, _ in world.handler.offers}
        await link.connect(hello("alice"), timeout_s=LIMIT_S)
        await give(link, parcel(2))
        await world.arrived(1, 2)

    play(plan, scenario)


@pytest.mark.parametrize("steps", range(5))
def test_a_reader_that_is_cancelled_as_the_connection_breaks_leaves_no_error_unread(steps: int) -> None:
    plan = FaultPlan()
    plan.at("send", party="alice", peer="carol").drop()
    complaints: list[Any] = []

    async def scenario(world: FaultyWorld, link: Link) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        acks = link.acks()
        reading = asyncio.ensure_future(anext_of(acks))
        await asyncio.sleep(0.01)
        world.break_network()
        for _ in range(steps):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        del reading, acks
        gc.collect()
        await asyncio.sleep(0)

    play(plan, scenario)
    gc.collect()
    assert complaints == []


@places
def test_what_was_delayed_is_lost_with_its_connection(place: str) -> None:
    plan = FaultPlan()
    at(plan, place, call=1).delay(until="gate")
    at(plan, place, call=2).drop()

    async def scenario(world: FaultyWorld, link: Link) -> None:
        await link.send([parcel(1)])
        with pytest.raises(PeerUnreachable):
            await link.send([parcel(2)])
        await link.connect(hello("alice"), timeout_s=LIMIT_S)
        plan.release("gate")
        await link.send([parcel(3)])
        await world.arrived(3)

    play(plan, scenario)


@places
def test_a_delayed_parcel_that_cannot_be_sent_breaks_the_link(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = FaultPlan()
    at(plan, place).delay(until="gate")

    async def unreachable(parcels: Sequence[Parcel]) -> None:
        raise PeerUnreachable("gone")

    async def scenario(world: FaultyWorld, link: Link) -> None:
        assert isinstance(link, FaultyLink)
        acks = link.acks()
        await link.send([parcel(1)])
        monkeypatch.setattr(link._inner, "send", unreachable)
        plan.release("gate")
        with pytest.raises(PeerUnreachable):
            await anext_of(acks)

    play(plan, scenario)


@ways
def test_a_sender_is_killed_while_it_sends(give: Give) -> None:
    plan = FaultPlan()
    at(plan, "send").kill()

    async def scenario(world: FaultyWorld, link: Link) -> None:
        with pytest.raises(PeerUnreachable):
            await give(link, parcel(1))
        with pytest.raises(PeerUnreachable):
            await link.connect(hello("alice"), timeout_s=LIMIT_S)
        assert world.sequences == []

    assert play(plan, scenario).killed == ["sender of alice"]


@ways
def test_a_receiver_is_killed_by_an_arrival_and_takes_in_nothing_more(give: Give) -> None:
    plan = FaultPlan()
    at(plan, "receive", call=2).kill()

    async def scenario(world: FaultyWorld, link: Link) -> None:
        await give(link, parcel(1))
        with pytest.raises(PeerUnreachable):
            await give(link, parcel(2), parcel(3))
        # Not even one that says nothing new was taken.
        with pytest.raises(PeerUnreachable):
            await link.tell(READY, timeout_s=LIMIT_S)
        with pytest.raises(PeerUnreachable):
            await link.connect(hello("alice"), timeout_s=LIMIT_S)
        assert world.sequences == [1]
        assert world.handler.notices == []

    assert play(plan, scenario).killed == ["receiver of bob"]


# Notices


def test_a_notice_is_told_twice() -> None:
    plan = FaultPlan()
    plan.at("broadcast", party="alice", kind="FAILURE").duplicate()

    async def scenario(world: FaultyWorld, link: Link) -> None:
        for notice in (READY, FAILURE):
            await link.tell(notice, timeout_s=LIMIT_S)
        assert [notice for _, notice in world.handler.notices] == [READY, FAILURE, FAILURE]

    play(plan, scenario)


def test_a_notice_is_chosen_by_the_call_that_failed() -> None:
    plan = FaultPlan()
    plan.at("broadcast", call=3, nth=1).drop()

    async def scenario(world: FaultyWorld, link: Link) -> None:
        await link.tell(READY, timeout_s=LIMIT_S)
        with pytest.raises(PeerUnreachable):
            await link.tell(FAILURE, timeout_s=LIMIT_S)
        with pytest.raises(PeerUnreachable):
            await link.send([parcel(1)])
        await link.connect(hello("alice"), timeout_s=LIMIT_S)
        await link.tell(FAILURE, timeout_s=LIMIT_S)
        assert [notice for _, notice in world.handler.notices] == [READY, FAILURE]

    play(plan, scenario)


def test_a_notice_that_hangs_holds_up_the_ones_behind_it_and_no_parcel() -> None:
    plan = FaultPlan()
    plan.at("broadcast", kind="FAILURE").hang(until="gate")

    async def scenario(world: FaultyWorld, link: Link) -> None:
        telling = [asyncio.ensure_future(link.tell(notice, timeout_s=LIMIT_S)) for notice in (FAILURE, READY)]
        await asyncio.to_thread(plan.wait_until_reached, "gate")
        await link.send([parcel(1)])
        await world.arrived(1)
        assert world.handler.notices == []
        plan.release()
        await asyncio.gather(*telling)
        assert [notice for _, notice in world.handler.notices] == [FAILURE, READY]

    play(plan, scenario)


def test_a_notice_that_is_delayed_is_overtaken() -> None:
    plan = FaultPlan()
    plan.at("broadcast", kind="FAILURE").delay(until="gate")

    async def scenario(world: FaultyWorld, link: Link) -> None:
        telling = asyncio.ensure_future(link.tell(FAILURE, timeout_s=LIMIT_S))
        await asyncio.to_thread(plan.wait_until_reached, "gate")
        await link.tell(READY, timeout_s=LIMIT_S)
        plan.release()
        await telling
        assert [notice for _, notice in world.handler.notices] == [READY, FAILURE]

    play(plan, scenario)


def test_a_notice_that_hangs_for_longer_than_its_time_is_not_known_to_have_arrived() -> None:
    plan = FaultPlan()
    plan.at("broadcast").hang()

    async def scenario(world: FaultyWorld, link: Link) -> None:
        with pytest.raises(PeerUnreachable, match="did not answer within"):
            await link.tell(READY, timeout_s=0.01)
        assert world.handler.notices == []

    play(plan, scenario)


def test_a_sender_is_killed_while_it_tells() -> None:
    plan = FaultPlan()
    plan.at("broadcast").kill()

    async def scenario(world: FaultyWorld, link: Link) -> None:
        with pytest.raises(PeerUnreachable):
            await link.tell(READY, timeout_s=LIMIT_S)

    assert play(plan, scenario).killed == ["sender of alice"]


# Greetings


def greet(plan: FaultPlan, scenario: Scenario) -> FaultyWorld:
    """Run a scenario of alice, who has not greeted bob yet."""
    worlds: list[FaultyWorld] = []

    async def opened() -> None:
        world = FaultyWorld(plan)
        worlds.append(world)
        async with world.opened():
            await scenario(world, world.link())

    run(opened())
    return worlds[0]


def test_a_greeting_is_lost_and_the_next_one_is_not() -> None:
    plan = FaultPlan()
    plan.at("connect", party="alice", peer="bob", nth=1).drop()

    async def scenario(world: FaultyWorld, link: Link) -> None:
        with pytest.raises(PeerUnreachable):
            await link.connect(hello("alice"), timeout_s=LIMIT_S)
        assert world.handler.hellos == []
        await link.connect(hello("alice"), timeout_s=LIMIT_S)

    greet(plan, scenario)


def test_a_greeting_is_refused() -> None:
    plan = FaultPlan()
    plan.at("connect").raises(PeerRefused("not today"))

    async def scenario(world: FaultyWorld, link: Link) -> None:
        with pytest.raises(PeerRefused, match="not today"):
            await link.connect(hello("alice"), timeout_s=LIMIT_S)

    greet(plan, scenario)


def test_a_greeting_hangs_no_longer_than_its_time() -> None:
    plan = FaultPlan()
    plan.at("connect", nth=1).hang()
    plan.at("connect", nth=2).delay(0.01)

    async def scenario(world: FaultyWorld, link: Link) -> None:
        with pytest.raises(PeerUnreachable, match="did not answer within"):
            await link.connect(hello("alice"), timeout_s=0.01)
        await link.connect(hello("alice"), timeout_s=LIMIT_S)

    greet(plan, scenario)


def test_a_sender_is_killed_while_it_greets() -> None:
    plan = FaultPlan()
    plan.at("connect").kill()

    async def scenario(world: FaultyWorld, link: Link) -> None:
        with pytest.raises(PeerUnreachable):
            await link.connect(hello("alice"), timeout_s=LIMIT_S)

    assert greet(plan, scenario).killed == ["sender of alice"]


@places
def test_the_end_of_the_simulation_lets_go_of_what_hangs(place: str) -> None:
    plan = FaultPlan()
    at(plan, place).hang(until="gate")

    async def scenario(world: FaultyWorld, link: Link) -> None:
        sending = asyncio.ensure_future(link.send([parcel(1)]))
        await asyncio.to_thread(plan.wait_until_reached, "gate")
        world.run.end()
        await asyncio.wait({sending})
        assert world.sequences == []

    play(plan, scenario)


# Proxies that are killed


class Heard:
    """Notes what the proxies of one party say to its driver (`fed.proxy.control.Listener`)."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self.events: list[PeerEvent] = []
        self.restarts = 0
        # The driver is not busy.
        self.handles = threading.Event()
        self.handles.set()

    def handle(self, events: Sequence[PeerEvent]) -> None:
        with self._changed:
            self.events.extend(events)
            self._changed.notify_all()
        self.handles.wait(LIMIT_S)

    def lives_again(self) -> None:
        with self._changed:
            self.restarts += 1
            self._changed.notify_all()

    @property
    def notices(self) -> list[Notice]:
        return [event.notice for event in self.events if event.notice is not None]


class Pair:
    """The runtimes of alice and bob, joined."""

    def __init__(self) -> None:
        self.network = network = MemoryNetwork()
        codec = DataCodec()
        self.made: list[str] = []
        self.changed = threading.Condition()
        self.heard = {party: Heard(self.changed) for party in ("alice", "bob")}
        self.arrived: dict[Key, Arrived] = {}

        def runtime(party: str, peer: str) -> LocalRuntime:
            def sender() -> Sender:
                self.made.append(f"sender of {party}")
                return Sender(hello(party), {peer: network.link(party, peer)}, codec, small_object_bytes=1000)

            def receiver() -> Receiver:
                self.made.append(f"receiver of {party}")
                return Receiver(hello(party), network.listener(party), codec, max_stored_bytes=10**6)

            return LocalRuntime(party, sender, receiver)

        self.runtimes = {"alice": runtime("alice", "bob"), "bob": runtime("bob", "alice")}
        self.proxies: dict[str, Proxies] = {party: runtime.start() for party, runtime in self.runtimes.items()}
        for party, proxies in self.proxies.items():
            proxies.direct.arrivals.listen(self.note)
            begin(proxies, self.heard[party])
            assert self.end(party, proxies.started()).value is None

    def __enter__(self) -> Pair:
        for party in self.runtimes:
            assert self.end(party, self.proxies[party].connect(LIMIT_S)).value == []
        for party, proxies in self.proxies.items():
            self.until(lambda heard=self.heard[party]: heard.events)  # type: ignore[misc]
            (event,) = self.heard[party].events
            assert event.kind is PeerEventKind.GREETED
            proxies.direct.publish(Snapshot(0, True, False, {event.peer: event.incarnation}, {}))
        self.made.clear()
        return self

    def until(self, holds: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, LIMIT_S)

    def note(self, arrivals: Sequence[Arrived]) -> None:
        with self.changed:
            self.arrived.update({arrived.key: arrived for arrived in arrivals})
            self.changed.notify_all()

    def received(self, party: str, key: Key) -> Any:
        """The value of an object that is expected, in that party's hands."""
        while True:
            self.until(lambda: key in self.arrived)
            arrived = self.arrived.pop(key)
            if arrived.small is not None:
                return SmallCodec().read(arrived.small)
            taken = self.proxies[party].take(key)
            outcome = self.end(party, taken.done)
            # It was told by a receiver that was killed since, and is told again by the next one.
            if outcome.fault is None or outcome.fault.kind is not Kind.OBJECT_LOST:
                assert outcome == Outcome(None, None, None)
                self.proxies[party].direct.arrivals.confirm([key])
                (value,) = self.runtimes[party].fetch(taken.results)
                return value

    def restart_receiver(self, party: str) -> None:
        """Kill it, and wait until the one in its place listens."""
        assert self.end(party, self.runtimes[party].restart_receiver()).fault is None

    def __exit__(self, *_: object) -> None:
        for party, runtime in self.runtimes.items():
            for closed in self.proxies[party].close():
                assert self.end(party, closed).fault is None
            runtime.close()

    def end(self, party: str, ref: Ref) -> Outcome:
        """How a reference ends."""
        ended = threading.Event()
        outcomes: list[Outcome] = []

        def note(outcome: Outcome) -> None:
            outcomes.append(outcome)
            ended.set()

        self.runtimes[party].watch(ref, note)
        assert ended.wait(LIMIT_S)
        return outcomes[0]

    def value(self, party: str, value: Any) -> Ref:
        return self.runtimes[party].submit(TaskBody(lambda: value, "value", {}), Call(())).results[0]


def test_a_receiver_does_not_listen_before_its_driver_has_said_what_it_knows() -> None:
    network, codec = MemoryNetwork(), DataCodec()
    runtime = LocalRuntime(
        "bob",
        lambda: Sender(hello("bob"), {}, codec, small_object_bytes=1000),
        lambda: Receiver(hello("bob"), network.listener("bob"), codec, max_stored_bytes=10**6),
    )
    proxies = runtime.start()
    started = proxies.started()
    # What it was asked after that it has answered.
    assert ending(runtime, proxies.unclaimed()).value == {}

    async def greet() -> None:
        link = network.link("alice", "bob")
        with pytest.raises(PeerAbsent):
            await link.connect(hello("alice"), timeout_s=LIMIT_S)
        begin(proxies)
        assert (await asyncio.to_thread(ending, runtime, started)).value is None
        await link.connect(hello("alice"), timeout_s=LIMIT_S)
        await link.close()

    run(greet())
    for closed in proxies.close():
        assert ending(runtime, closed).fault is None
    runtime.close()


KEY = Key("alice", ObjectId(0, 1, 0))
DELIVERIES = [Delivery(KEY.id, ("bob",))]


@pytest.mark.parametrize("value", [7, b"x" * 100_000], ids=["small", "large"])
def test_a_receiver_that_is_killed_is_followed_by_one_that_gets_what_was_waited_for(value: Any) -> None:
    with Pair() as pair:
        pair.proxies["bob"].direct.arrivals.expect([KEY])
        pair.restart_receiver("bob")
        pushing = pair.proxies["alice"].push(DELIVERIES, [pair.value("alice", value)])
        assert pair.received("bob", KEY) == value
        assert pair.made == ["receiver of bob"]
        assert pair.end("alice", pushing).fault is None


@pytest.mark.parametrize("value", [7, b"x" * 100_000], ids=["small", "large"])
def test_a_receiver_that_is_killed_again_and_again_loses_nothing(value: Any) -> None:
    with Pair() as pair:
        pushing = []
        keys = [Key("alice", ObjectId(0, number, 0)) for number in range(20)]
        for number, key in enumerate(keys):
            pair.proxies["bob"].direct.arrivals.expect([key])
            made = pair.value("alice", (number, value))
            pushing.append(pair.proxies["alice"].push([Delivery(key.id, ("bob",))], [made]))
            if number % 5 == 0:
                pair.runtimes["bob"].restart_receiver()
        pair.restart_receiver("bob")
        for number, key in enumerate(keys):
            assert pair.received("bob", key) == (number, value)
        for done in pushing:
            assert pair.end("alice", done).fault is None


def test_a_sender_that_is_killed_is_followed_by_one_that_has_its_pending_calls() -> None:
    with Pair() as pair:
        pushing = pair.proxies["alice"].push(DELIVERIES, [pair.value("alice", 7)])
        assert pair.end("alice", pair.runtimes["alice"].restart_sender()).fault is None
        # The greeting had ended, so nobody repeats it: the new one greets by itself.
        pair.proxies["bob"].direct.arrivals.expect([KEY])
        assert pair.received("bob", KEY) == 7
        assert pair.end("alice", pushing).fault is None
        assert pair.made == ["sender of alice"]


def test_what_hears_of_events_hears_also_of_those_that_come_to_the_next_receiver() -> None:
    with Pair() as pair:
        pair.restart_receiver("bob")
        assert pair.proxies["alice"].direct.sender.send("bob", [READY]).result(LIMIT_S) == ""
        # It may have been told again, where the link broke before it was answered.
        assert set(pair.heard["bob"].notices) == {READY}
        assert (pair.heard["bob"].restarts, pair.heard["alice"].restarts) == (1, 0)


def test_what_was_told_to_a_receiver_that_is_killed_is_told_to_the_next_one() -> None:
    with Pair() as pair:
        heard = pair.heard["bob"]
        # It has come to the driver, which is not done with it when the receiver is killed.
        heard.handles.clear()
        telling = pair.proxies["alice"].direct.sender.send("bob", [READY, FAILURE])
        pair.until(lambda: heard.notices)
        restarted = pair.runtimes["bob"].restart_receiver()
        # The connection to the next one begins on the thread that the driver keeps busy.
        assert eventually(lambda: len(pair.made) > 0)
        heard.handles.set()
        assert pair.end("bob", restarted).fault is None
        assert telling.result(LIMIT_S) == ""
        assert heard.notices == [READY, READY, FAILURE]


def test_what_was_to_be_told_by_a_sender_that_is_killed_the_next_one_tells() -> None:
    with Pair() as pair:
        pair.network.cut("alice", "bob")
        telling = pair.proxies["alice"].direct.sender.send("bob", [READY, FAILURE])
        assert pair.end("alice", pair.runtimes["alice"].restart_sender()).fault is None
        pair.until(lambda: pair.heard["alice"].restarts)
        assert not telling.done()
        pair.network.heal("alice", "bob")
        assert telling.result(LIMIT_S) == ""
        assert pair.heard["bob"].notices == [READY, FAILURE]


def test_proxies_that_are_closed_are_not_started_anew() -> None:
    pair = Pair()
    with pair:
        pair.proxies["bob"].direct.arrivals.expect([KEY])
    for party, runtime in pair.runtimes.items():
        assert pair.end(party, runtime.restart_sender()) == Outcome(None, None, None)
        assert pair.end(party, runtime.restart_receiver()) == Outcome(None, None, None)
    assert pair.made == []


def test_a_restart_while_the_proxies_close_does_not_keep_them() -> None:
    with Pair() as pair:
        pair.proxies["bob"].direct.arrivals.expect([KEY])
        for _ in range(3):
            pair.runtimes["bob"].restart_receiver()
            pair.runtimes["alice"].restart_sender()


async def anext_of(acks: AsyncIterator[Sequence[Ack]]) -> Sequence[Ack]:
    return await asyncio.wait_for(acks.__anext__(), LIMIT_S)


class Adder:
    async def add(self, number: int) -> int:
        return number + 1


def test_every_call_of_an_actor_with_coroutines_ends_that_meets_its_end() -> None:
    with Pair() as pair:
        runtime = pair.runtimes["alice"]
        for _ in range(50):
            actor, created = runtime.create(ActorBody(Adder, "Adder", {}), Call(()))
            assert pair.end("alice", created).fault is None
            runtime.kill(actor)
            for done in [runtime.call(actor, "add", Call((1,)), {}).done for _ in range(20)]:
                outcome = pair.end("alice", done)
                assert outcome.fault is not None
                assert outcome.fault.kind is Kind.ACTOR_DIED
