"""The sender proxy: serializes an object once for each push, sends it to the parties that need it, awaits the receipts.

It keeps no state that matters: a pending `Sender.push` call *is* the outbox entry. It is repeated on a sender that has
taken the place of this one: everything goes out again, and the receivers drop what they already had.

A push ends early where something will not be delivered. It names what is pending then, whose receipts are kept, settled
or not, until the next push of it takes them up.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fed.core.failure import Failure, Fault, Kind
from fed.object import ObjectId
from fed.proxy.control import Snapshot
from fed.proxy.deliveries import Delivery, DeliveryFuture, Pushed, Undelivered, refusal
from fed.proxy.events import EventQueue
from fed.proxy.peer_session import JoinProblem, PeerSession, settled
from fed.serde.contract import Codec, EncodeError
from fed.serde.encode_cost import is_small
from fed.serde.receipt import SmallValue
from fed.transport.contract import Hello, Link, LinkStatistics, Notice, NoticeKind, Parcel

__all__ = ["Sender", "announce"]


def announce(make: Callable[[], Sender], notices: Mapping[str, Sequence[Notice]], timeout_s: float) -> None:
    """Greet and tell the peers who are up, with a sender that lives for no longer than this takes.

    Args:
        make: Makes the sender, on the event loop that it will live on.
        notices: What to tell, by peer.
        timeout_s: For greeting, and once more for telling.
    """

    async def tell() -> None:
        sender = make()
        try:
            await sender.connect(timeout_s)
            await asyncio.gather(*(sender.tell(peer, told, timeout_s) for peer, told in notices.items()))
        finally:
            await sender.close()

    # The thread of the caller may have an event loop already, as in a notebook.
    with concurrent.futures.ThreadPoolExecutor(1, "fed-announce") as thread:
        thread.submit(asyncio.run, tell()).result()


class Sender:
    """The sending end of one party.

    Attributes:
        events: What the driver is to be told.

    Args:
        hello: This party's greeting.
        links: The way out to each peer.
        codec: Values to bytes.
        small_object_bytes: Objects up to this size travel in batches.
        lease_s: How long this party may be silent before its peers give it up.
    """

    def __init__(
        self,
        hello: Hello,
        links: Mapping[str, Link],
        codec: Codec,
        *,
        small_object_bytes: int,
        lease_s: float = math.inf,
    ) -> None:
        self._hello = hello
        self._codec = codec
        self.events = EventQueue()
        self._snapshot: Snapshot | None = None
        # Whether the driver has begun to say goodbye.
        self._said_goodbye = False
        self._last_words: set[asyncio.Future[str]] = set()
        self._peers = {
            peer: PeerSession(link, hello, small_object_bytes, lease_s, self.events) for peer, link in links.items()
        }

    async def connect(self, timeout_s: float) -> list[JoinProblem]:
        """Greet every peer, waiting for those that are not up yet.

        Returns:
            Nothing if all are joined. Otherwise what stands in the way: as soon as one peer refuses for good, or
            everybody who is missing when the time is up. The others are greeted on meanwhile, because who is not
            greeted cannot be told that this party leaves [E33].
        """
        problems: list[JoinProblem] = []
        pending = {peer.begin_join(timeout_s) for peer in self._peers.values()}
        while pending and not any(problem.final for problem in problems):
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            problems += [problem for joining in done if (problem := _result(joining)) is not None]
        return problems

    async def push(self, deliveries: Sequence[Delivery], values: Sequence[Any]) -> Pushed:
        """Send values to the parties that need them. One that is a `SmallValue` was encoded before.

        Returns:
            When all is settled; or as soon as something is known to be undeliverable, so that nobody has to wait for
            the others to learn of it. Push what is pending again, with the same values: each object is encoded and
            sent once nevertheless.
        """
        watch = _Watch()
        receipts: list[list[DeliveryFuture]] = []
        try:
            for delivery, value in zip(deliveries, values, strict=True):
                # A large value takes a while to encode, and what is known already would wait for it.
                if watch.alarmed and not is_small(value):
                    break
                receipts.append(await self._queue(delivery, value))
                watch.add(receipts[-1])
            await watch.wait()
        finally:
            watch.close()
        undelivered: list[Undelivered] = []
        pending: list[Delivery] = []
        for delivery, group in zip(deliveries, receipts, strict=False):
            waiting = []
            for name, receipt in zip(delivery.consumers, group, strict=True):
                if not receipt.done():
                    waiting.append(name)
                    continue
                self._peers[name].taken_up(delivery.id, receipt)
                outcome = receipt.result()
                if outcome is not None:
                    undelivered.append(outcome)
            if waiting:
                pending.append(Delivery(delivery.id, tuple(waiting)))
        pending.extend(deliveries[len(receipts) :])
        return Pushed(undelivered, pending)

    async def _queue(self, delivery: Delivery, value: Any) -> list[DeliveryFuture]:
        """Queue an object for each of its consumers, unless it was before. Returns the receipts, in their order."""
        peers = [self._peers[name] for name in delivery.consumers]
        known = [receipt for peer in peers if (receipt := peer.receipt(delivery.id)) is not None]
        if len(known) == len(peers):
            return known
        encoded = await self._encode(delivery.id, value)
        # Asked anew, because a peer may have left, or the epoch ended, while a thread was encoding.
        if isinstance(encoded, Parcel):
            return [peer.put(encoded) for peer in peers]
        return [
            peer.receipt(delivery.id) or settled(Undelivered(delivery.id, peer.link.peer, encoded)) for peer in peers
        ]

    async def _encode(self, object_id: ObjectId, value: Any) -> Parcel | Fault:
        if type(value) is SmallValue:
            return Parcel(object_id, value.header, tuple([memoryview(buffer) for buffer in value.buffers]))
        try:
            if is_small(value):
                encoded = self._codec.encode(value)
            else:
                encoded = await asyncio.to_thread(self._codec.encode, value)
        except EncodeError as error:
            return refusal(error)
        return Parcel(object_id, encoded.header, encoded.buffers)

    async def tell(self, peer: str, notices: Sequence[Notice], timeout_s: float = math.inf) -> str:
        """Tell a peer something, in order, and again until it has taken it, never will, or the time is up.

        Returns:
            The empty text if it has taken everything, else why not.
        """
        self._said_goodbye |= any(notice.kind is NoticeKind.GOODBYE for notice in notices)
        return await self._peers[peer].tell(notices, timeout_s)

    def orphaned(self) -> None:
        """The driver has ended: say so to all in its place, unless it has said goodbye, or may be started anew.

        The runtime ends this process too, within a moment or within seconds. Where it is quicker, the lease tells.
        """
        job = self._snapshot
        if job is None or not job.begun or self._said_goodbye:
            return
        self._said_goodbye = True
        party, name = self._hello.party, f"{self._hello.party}/{self._hello.incarnation}/0"
        fault = Fault(Kind.PARTY_LOST, "PartyLostError", detail="its driver ended without a word")
        failure = Failure.of_fault(fault, error_id=name, party=party, task="", sequence=-1)
        goodbye = Notice(NoticeKind.GOODBYE, job.epoch, failure)
        # Kept here because the event loop holds them weakly.
        self._last_words = {asyncio.ensure_future(peer.tell([goodbye], math.inf)) for peer in self._peers.values()}

    def learn(self, snapshot: Snapshot) -> None:
        """Learn the state of the job.

        With an epoch that is over end its pushes, and nothing in them is undelivered. A peer that has left, because of
        a failure or because it had finished, acknowledges nothing more. If this sender has taken the place of one that
        was killed it greets everyone; what was being pushed the runtime and the driver push again.
        """
        self._snapshot = snapshot
        for name, peer in self._peers.items():
            peer.reset(snapshot.epoch)
            if snapshot.begun:
                peer.begin(snapshot.incarnations.get(name, ""))
            if name in snapshot.left:
                peer.forget(snapshot.left[name])
            if snapshot.greeted:
                peer.greet_again()

    def statistics(self) -> dict[str, LinkStatistics]:
        """Counts for each peer."""
        return {name: peer.link.statistics() for name, peer in self._peers.items()}

    async def close(self) -> None:
        """Close every link. Idempotent."""
        self.events.close()
        for words in self._last_words:
            words.cancel()
        await asyncio.gather(*(peer.close() for peer in self._peers.values()))
        await asyncio.gather(*self._last_words, return_exceptions=True)

    def validate(self) -> None:
        """Check the laws of the outboxes. Raises RuntimeError where one is broken."""
        for peer in self._peers.values():
            peer.outbox.validate()


class _Watch:
    """Waits for many receipts at once: until all are settled, or one of them tells that it is undelivered."""

    def __init__(self) -> None:
        self._unsettled: set[DeliveryFuture] = set()
        self._news = asyncio.Event()
        self.alarmed = False

    def add(self, receipts: Iterable[DeliveryFuture]) -> None:
        for receipt in receipts:
            if receipt.done():
                self.alarmed |= receipt.result() is not None
            else:
                self._unsettled.add(receipt)
                receipt.add_done_callback(self._on_settled)

    async def wait(self) -> None:
        while self._unsettled and not self.alarmed:
            self._news.clear()
            await self._news.wait()

    def close(self) -> None:
        for receipt in self._unsettled:
            receipt.remove_done_callback(self._on_settled)

    def _on_settled(self, receipt: DeliveryFuture) -> None:
        self._unsettled.discard(receipt)
        self.alarmed |= receipt.result() is not None
        if self.alarmed or not self._unsettled:
            self._news.set()


def _result(joining: asyncio.Task[JoinProblem | None]) -> JoinProblem | None:
    """What a greeting came to. One that was cancelled is of a peer that has left, or of a sender that is closed."""
    if joining.cancelled():
        return JoinProblem(joining.get_name(), "it is not greeted any more", final=False)
    return joining.result()
