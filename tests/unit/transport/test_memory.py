"""What is particular to the memory transport: several event loops, and the hooks for tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import pytest

from fed.transport.contract import (
    Ack,
    AddressInUse,
    Notice,
    NoticeKind,
    Parcel,
    PeerUnreachable,
    Receipt,
    Verdict,
)
from fed.transport.memory import MemoryNetwork
from tests.support.worlds import LIMIT_S, Recorder, content, hello, parcel, run

T = TypeVar("T")
READY = Notice(NoticeKind.READY, 0)


class Party:
    """One party in a thread and an event loop of its own."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.start(work).result(LIMIT_S)

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(LIMIT_S)
        self.loop.close()


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork()


async def made(handler_type: type[Recorder] = Recorder) -> Recorder:
    return handler_type()


def test_parties_in_threads_of_their_own_reach_one_another(network: MemoryNetwork) -> None:
    alice, bob = Party("alice"), Party("bob")
    try:
        handler = bob.do(made())
        listener = network.listener("bob")
        bob.do(listener.start(handler))
        link = network.link("alice", "bob")
        assert alice.do(link.connect(hello("alice"), timeout_s=LIMIT_S)) == hello("bob")
        sent = [parcel(number, bytes([number])) for number in range(50)]

        async def send_all() -> set[Ack]:
            acks: set[Ack] = set()
            for each in sent[:25]:
                await link.send([each])
            for each in sent[25:]:
                assert await link.upload(each) is Verdict.ADMIT
            await link.tell(READY, timeout_s=LIMIT_S)
            async for some in link.acks():
                acks.update(some)
                if len(acks) == len(sent):
                    break
            return acks

        assert alice.do(send_all()) == {Ack(each.id, Receipt.DELIVERED) for each in sent}
        assert [content(received) for _, received in handler.parcels] == [content(each) for each in sent]
        assert handler.notices == [("alice", READY)]

        async def read_to_the_end() -> str:
            with pytest.raises(PeerUnreachable) as caught:
                await link.acks().__anext__()
            return str(caught.value)

        reading = alice.start(read_to_the_end())
        network.cut("alice", "bob")
        assert "broke" in reading.result(LIMIT_S)
        alice.do(link.close())
        bob.do(listener.close())
    finally:
        alice.end()
        bob.end()


def test_a_party_whose_loop_has_ended_is_unreachable(network: MemoryNetwork) -> None:
    bob = Party("bob")
    listener = network.listener("bob")
    bob.do(listener.start(bob.do(made())))
    bob.end()

    async def scenario() -> None:
        with pytest.raises(PeerUnreachable, match="event loop of party 'bob' is closed"):
            await network.link("alice", "bob").connect(hello("alice"), timeout_s=LIMIT_S)

    run(scenario())


def test_a_party_whose_loop_is_busy_is_waited_for_in_vain(network: MemoryNetwork) -> None:
    bob = Party("bob")
    listener = network.listener("bob")
    bob.do(listener.start(bob.do(made())))
    busy = threading.Event()
    bob.loop.call_soon_threadsafe(busy.wait)

    async def scenario() -> None:
        link = network.link("alice", "bob")
        with pytest.raises(PeerUnreachable, match=r"did not answer within 0\.05 s"):
            await link.connect(hello("alice"), timeout_s=0.05)
        busy.set()
        await link.connect(hello("alice"), timeout_s=LIMIT_S)
        await link.close()

    try:
        run(scenario())
        bob.do(listener.close())
    finally:
        busy.set()
        bob.end()


def test_parties_share_no_memory(network: MemoryNetwork) -> None:
    async def scenario() -> None:
        handler = Recorder()
        listener = network.listener("bob")
        await listener.start(handler)
        link = network.link("alice", "bob")
        await link.connect(hello("alice"), timeout_s=LIMIT_S)
        value = bytearray(b"before")
        await link.send([Parcel(parcel(1).id, b"", (memoryview(value),))])
        await link.upload(Parcel(parcel(2).id, b"", (memoryview(value),)))
        value[:] = b"after!"
        await handler.until(lambda: len(handler.parcels) == 2)
        assert [bytes(received.buffers[0]) for _, received in handler.parcels] == [b"before"] * 2
        await link.close()
        await listener.close()

    run(scenario())


def test_what_is_held_is_let_go_in_order(network: MemoryNetwork) -> None:
    async def scenario() -> None:
        handler = Recorder()
        listener = network.listener("bob")
        await listener.start(handler)
        link = network.link("alice", "bob")
        await link.connect(hello("alice"), timeout_s=LIMIT_S)
        network.hold("alice", "bob")
        await link.send([parcel(1)])
        uploading = asyncio.ensure_future(link.upload(parcel(2)))
        await handler.until(lambda: bool(handler.offers))
        while network.held("alice", "bob") < 2:
            await asyncio.sleep(0)
        await link.send([parcel(3)])
        await link.tell(READY, timeout_s=LIMIT_S)
        assert network.held("alice", "bob") == 3
        assert handler.parcels == []
        network.release("alice", "bob")
        assert await uploading is Verdict.ADMIT
        assert [received.id.sequence for _, received in handler.parcels] == [1, 2, 3]
        await link.send([parcel(4)])
        await handler.until(lambda: len(handler.parcels) == 4)
        await link.close()
        await listener.close()

    run(scenario())


def test_what_was_held_when_the_network_was_cut_never_arrives(network: MemoryNetwork) -> None:
    async def scenario() -> None:
        handler = Recorder()
        listener = network.listener("bob")
        await listener.start(handler)
        link = network.link("alice", "bob")
        await link.connect(hello("alice"), timeout_s=LIMIT_S)
        network.hold("alice", "bob")
        await link.send([parcel(1)])
        network.cut("alice", "bob")
        with pytest.raises(PeerUnreachable):
            await link.send([parcel(2)])
        with pytest.raises(PeerUnreachable, match="is cut"):
            await link.connect(hello("alice"), timeout_s=LIMIT_S)
        network.heal("alice", "bob")
        await link.connect(hello("alice"), timeout_s=LIMIT_S)
        network.release("alice", "bob")
        await link.send([parcel(3)])
        await handler.until(lambda: bool(handler.parcels))
        assert [received.id.sequence for _, received in handler.parcels] == [3]
        await link.close()
        await listener.close()

    run(scenario())


def test_a_party_listens_once(network: MemoryNetwork) -> None:
    async def scenario() -> None:
        first = network.listener("bob")
        await first.start(Recorder())
        with pytest.raises(AddressInUse, match="party 'bob' listens already"):
            await network.listener("bob").start(Recorder())
        await first.close()
        second = network.listener("bob")
        await second.start(Recorder())
        await second.close()

    run(scenario())


def test_a_handler_that_raises_does_not_leave_its_peer_waiting(network: MemoryNetwork) -> None:
    class Broken(Recorder):
        def on_notice(self, peer: str, notice: Notice) -> asyncio.Future[None] | None:
            raise ZeroDivisionError

        def on_parcels(self, peer: str, parcels: Sequence[Parcel]) -> None:
            raise ZeroDivisionError

    async def scenario() -> None:
        reported: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
        listener = network.listener("bob")
        await listener.start(Broken())
        link = network.link("alice", "bob")
        await link.connect(hello("alice"), timeout_s=LIMIT_S)
        with pytest.raises(PeerUnreachable, match="handler failed"):
            await link.tell(READY, timeout_s=LIMIT_S)
        with pytest.raises(PeerUnreachable, match="handler failed"):
            await link.upload(parcel(1))
        assert [type(error.__cause__) for error in reported] == [ZeroDivisionError] * 2
        await link.close()
        await listener.close()

    run(scenario())


class Untouched(set[Any]):
    """Connections that nobody may look through."""

    def __iter__(self) -> Any:
        raise AssertionError("somebody looks through connections that have nothing to do with it")


def test_what_one_link_does_costs_nothing_for_the_connections_of_others(network: MemoryNetwork) -> None:
    """With a hundred parties there are ten thousand, and each is closed once."""

    async def scenario() -> None:
        listeners = {name: network.listener(name) for name in ("bob", "carol")}
        links = {name: network.link("alice", name) for name in listeners}
        for name, listener in listeners.items():
            await listener.start(Recorder(name))
            await links[name].connect(hello("alice"), timeout_s=LIMIT_S)
        network._connections["carol"] = Untouched(network._connections["carol"])
        await links["bob"].close()
        await listeners["bob"].close()
        network.cut("alice", "bob")
        # Hers is as it was.
        await links["carol"].tell(READY, timeout_s=LIMIT_S)
        network._connections["carol"] = set()
        await links["carol"].close()
        await listeners["carol"].close()

    run(scenario())
