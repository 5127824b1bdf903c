"""The sender proxy: serializes an object once for each push, sends it to the parties that need it, awaits the receipts.

It keeps no state that matters: a pending `Sender.push` call *is* the outbox entry. It is repeated on a sender that has
taken the place of this one: everything goes out again, and the receivers drop what they already had.

A push ends early where something will not be delivered. It names what is pending then, whose receipts are kept, settled
or not, until the next push of it takes them up.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from fed.core.failure import Failure, Fault, Kind
from fed.core.liveness import RESTART_S
from fed.core.outbox import Outbox
from fed.object import ObjectId
from fed.proxy.control import Snapshot
from fed.proxy.events import EventQueue, PeerEvent, PeerEventKind
from fed.serde.contract import Codec, EncodeError
from fed.serde.encode_cost import is_small
from fed.serde.receipt import SmallValue
from fed.transport.contract import (
    Hello,
    Link,
    LinkStatistics,
    Notice,
    NoticeKind,
    Parcel,
    PeerAbsent,
    PeerRefused,
    PeerUnreachable,
    PeerUntrusted,
    Receipt,
    TransportError,
    Verdict,
)

__all__ = [
    "Delivery",
    "JoinProblem",
    "Pushed",
    "Sender",
    "Undelivered",
    "announce",
]

_T = TypeVar("_T")

logger = logging.getLogger("fed.sender")

REJECTED: Final = "it refuses a party that had joined it"
"""What everybody is told of a peer that will have nothing more to do with this party."""

BATCH_BYTES: Final = 256 * 1024
"""Small objects that are ready together go out in frames of up to this size."""

UPLOADS_PER_PEER: Final = 2
"""Streams to one peer at once: one fills the link, the second keeps it filled while the first one ends."""

PINGS_PER_LEASE: Final = 5
"""How often a party that has nothing to say is heard within a lease: some of them may be lost, or late."""

PING_S: Final = RESTART_S / 2
"""How often it is heard at least: where something says that it may be gone, it has `RESTART_S` to be heard."""

UNANSWERED_LEASES: Final = 0.5
"""How long a ping may go unanswered, in leases, until the link counts as broken. A busy machine answers late, and
greetings by everyone would keep it busier still; but a connection that has silently gone must be made anew before the
lease has run out."""

TELL_S: Final = 30.0
"""How long a peer may take to answer what it was told, until it is told again: its driver may be busy."""

FIRST_RETRY_S: Final = 0.05
LAST_RETRY_S: Final = 1.0
CONNECT_ATTEMPT_S: Final = 10.0
FIRST_REJOIN_S: Final = 0.5
"""How long the first attempt after a link broke may take at least. It may take half the lease, and each further one
twice as long as the one before. So what was begun while the network was cut is begun anew before the lease has run out;
but not so soon that where packets are lost every now and then no greeting would ever come to its end."""


class Delivery(NamedTuple):
    """An object and the parties that need it."""

    id: ObjectId
    consumers: tuple[str, ...]


class Undelivered(NamedTuple):
    """An object that will not reach a party, and why."""

    id: ObjectId
    consumer: str
    fault: Fault


_Receipt: TypeAlias = "asyncio.Future[Undelivered | None]"
"""What becomes of one object at one consumer: None once it is there."""


class Pushed(NamedTuple):
    """What is known of the objects of a push. Those that are named nowhere here are where they were to go.

    Attributes:
        undelivered: Those that will not get there.
        pending: Those that are still on their way, each with the consumers that it is on its way to; none unless
            something is undelivered.
    """

    undelivered: list[Undelivered]
    pending: list[Delivery]


class JoinProblem(NamedTuple):
    """Why a peer could not be joined.

    Attributes:
        peer: Which.
        reason: The last thing heard of it, as a sentence.
        final: Whether trying for longer could not have helped.
    """

    peer: str
    reason: str
    final: bool


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
        self._codec = codec
        self.events = EventQueue()
        self._peers = {
            peer: _Peer(link, hello, small_object_bytes, lease_s, self.events) for peer, link in links.items()
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
        receipts: list[list[_Receipt]] = []
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

    async def _queue(self, delivery: Delivery, value: Any) -> list[_Receipt]:
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
            peer.receipt(delivery.id) or _settled(Undelivered(delivery.id, peer.link.peer, encoded)) for peer in peers
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
            # The text says what in the value it was, and so it stays a message, which only some may see.
            return Fault(Kind.DELIVERY, error.type_name, message=str(error))
        return Parcel(object_id, encoded.header, encoded.buffers)

    async def tell(self, peer: str, notices: Sequence[Notice], timeout_s: float = math.inf) -> str:
        """Tell a peer something, in order, and again until it has taken it, never will, or the time is up.

        Returns:
            The empty text if it has taken everything, else why not.
        """
        return await self._peers[peer].tell(notices, timeout_s)

    def learn(self, snapshot: Snapshot) -> None:
        """Learn the state of the job.

        With an epoch that is over end its pushes, and nothing in them is undelivered. A peer that has left, because of
        a failure or because it had finished, acknowledges nothing more. If this sender has taken the place of one that
        was killed it greets everyone; what was being pushed the runtime and the driver push again.
        """
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
        await asyncio.gather(*(peer.close() for peer in self._peers.values()))

    def validate(self) -> None:
        """Check the laws of the outboxes. Raises RuntimeError where one is broken."""
        for peer in self._peers.values():
            peer.outbox.validate()


class _Watch:
    """Waits for many receipts at once: until all are settled, or one of them tells that it is undelivered."""

    def __init__(self) -> None:
        self._unsettled: set[_Receipt] = set()
        self._news = asyncio.Event()
        self.alarmed = False

    def add(self, receipts: Iterable[_Receipt]) -> None:
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

    def _on_settled(self, receipt: _Receipt) -> None:
        self._unsettled.discard(receipt)
        self.alarmed |= receipt.result() is not None
        if self.alarmed or not self._unsettled:
            self._news.set()


def _result(joining: asyncio.Task[JoinProblem | None]) -> JoinProblem | None:
    """What a greeting came to. One that was cancelled is of a peer that has left, or of a sender that is closed."""
    if joining.cancelled():
        return JoinProblem(joining.get_name(), "it is not greeted any more", final=False)
    return joining.result()


class _Peer:
    """One peer as the sender sees it: its link, its outbox, and whether the link is up."""

    def __init__(
        self,
        link: Link,
        hello: Hello,
        small_object_bytes: int,
        lease_s: float,
        events: EventQueue,
    ) -> None:
        self._ping_s = min(lease_s / PINGS_PER_LEASE, PING_S) if lease_s < math.inf else math.inf
        self._unanswered_s = lease_s * UNANSWERED_LEASES
        self._first_rejoin_s = min(max(lease_s / 2, FIRST_REJOIN_S), CONNECT_ATTEMPT_S)
        self._attempt_s = CONNECT_ATTEMPT_S
        self._events = events
        self._pinging = False
        self.link = link
        self.outbox: Outbox[Parcel] = Outbox()
        self._hello = hello
        self._small = small_object_bytes
        # Of each object that was put, until a push has taken up how it ended.
        self._receipts: dict[ObjectId, _Receipt] = {}
        self._epoch = 0
        self._connected = asyncio.Event()
        self._greeting = asyncio.Lock()
        self._flushing = False
        # It will acknowledge nothing more; and nothing is to be said to it any more.
        self._left = False
        self._gone = False
        self._closed = False
        self._reason: Fault | None = None
        # Whether it has answered a greeting, of this sender or of one whose place this has taken.
        self._joined = False
        # Whether the driver has asked this sender to greet it.
        self._asked = False
        # The life of its driver that the job has begun with; empty before that.
        self._expected = ""
        self._uploads = asyncio.Semaphore(UPLOADS_PER_PEER)
        self._uploading: dict[ObjectId, asyncio.Task[None]] = {}
        self._upload_again: set[ObjectId] = set()
        # Tasks are kept here because the event loop holds them weakly.
        self._tasks: set[asyncio.Task[Any]] = set()
        self._joining: set[asyncio.Task[JoinProblem | None]] = set()
        self._reading: asyncio.Task[None] | None = None

    def is_over(self) -> bool:
        """Whether this is closed. What loops has to look, because a cancellation may be lost on its way.

        Before Python 3.12 `asyncio.wait_for` swallows one that comes when what it waits for has just ended.
        """
        return self._closed

    def begin_join(self, timeout_s: float) -> asyncio.Task[JoinProblem | None]:
        """Have this peer greeted until it is joined, has refused, or the time is up."""
        self._asked = True
        joining = self._spawn(self.join(timeout_s))
        joining.set_name(self.link.peer)
        self._joining.add(joining)
        joining.add_done_callback(self._joining.discard)
        return joining

    async def join(self, timeout_s: float) -> JoinProblem | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        retry_s = FIRST_RETRY_S
        while not self.is_over():
            left_s = deadline - loop.time()
            hello = dataclasses.replace(self._hello, expects=self._expected)
            try:
                # One at a time: each connection takes the place of the one before.
                async with self._greeting:
                    if not self._connected.is_set():
                        await self.link.connect(hello, timeout_s=max(0.1, min(left_s, self._attempt_s)))
                        if not self.is_over():
                            self._joined = True
                            self._up()
            except (PeerUnreachable, PeerUntrusted) as error:
                if isinstance(error, PeerUntrusted) and not self._joined:
                    return JoinProblem(self.link.peer, str(error), final=True)
                # Of one that had joined it may be the moment in which a certificate is renewed, there or here. Whether
                # it comes back is for the lease to say.
                if isinstance(error, PeerAbsent) and self._expected and not self._left:
                    self._events.add(PeerEvent(PeerEventKind.ABSENT, self.link.peer), renews=True)
                self._attempt_s = min(2 * self._attempt_s, CONNECT_ATTEMPT_S)
                if loop.time() + retry_s >= deadline:
                    return JoinProblem(self.link.peer, str(error), final=False)
                # Nobody can tell us that the other machine is up now, but trying.
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, LAST_RETRY_S)
            except PeerRefused as error:
                return JoinProblem(self.link.peer, str(error), final=True)
            else:
                if self.is_over():
                    break
                return None
        return JoinProblem(self.link.peer, "the sender is closed", final=False)

    def begin(self, incarnation: str) -> None:
        self._expected = incarnation

    def greet_again(self) -> None:
        """The sender in whose place this is was asked to greet it, if this one was not."""
        if not self._asked:
            self._asked = self._joined = True
            if not self._gone and not self._closed:
                self._spawn(self._rejoin())

    def receipt(self, object_id: ObjectId) -> _Receipt | None:
        """The receipt of an object that was put before or need not be put at all, None of any other."""
        known = self._receipts.get(object_id)
        if known is None and (self._left or object_id.epoch < self._epoch):
            return _settled(self._without_receipt(object_id))
        return known

    def put(self, parcel: Parcel) -> _Receipt:
        """Queue a parcel, once. Its receipt resolves to None, or to the reason why there will be none."""
        known = self.receipt(parcel.id)
        if known is not None:
            return known
        receipt: _Receipt = asyncio.get_running_loop().create_future()
        self._receipts[parcel.id] = receipt
        self.outbox.put(parcel.id, parcel, parcel.nbytes)
        self.flush()
        return receipt

    def taken_up(self, object_id: ObjectId, receipt: _Receipt) -> None:
        """A push tells how this ended, so nobody else has to."""
        if self._receipts.get(object_id) is receipt:
            del self._receipts[object_id]

    def reset(self, epoch: int) -> None:
        self._epoch = max(self._epoch, epoch)
        self.outbox.reset(epoch)
        for object_id in [object_id for object_id in self._receipts if object_id.epoch < epoch]:
            self._settle(object_id, None)
            del self._receipts[object_id]
        # They would hold up those of the new epoch.
        for object_id in [object_id for object_id in self._uploading if object_id.epoch < epoch]:
            self._uploading.pop(object_id).cancel()

    def flush(self) -> None:
        """Send what is queued, unless somebody is at it, who then sends this too."""
        if not self._flushing and not self._closed and self._connected.is_set():
            self._flushing = True
            self._spawn(self._send_queued())

    async def tell(self, notices: Sequence[Notice], timeout_s: float) -> str:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        retry_s = FIRST_RETRY_S
        waiting = collections.deque(notices)
        while waiting:
            began = loop.time()
            within_s = min(deadline - began, TELL_S)
            if within_s <= 0:
                return f"party {self.link.peer!r} did not take a notice within {timeout_s:g} s"
            try:
                await self.link.tell(waiting[0], timeout_s=within_s)
                waiting.popleft()
            except (PeerRefused, PeerUntrusted) as error:
                return str(error)
            except PeerUnreachable as error:
                # One that never answered will not now, if nobody greets it any more.
                hopeless = self._gone or self._closed or not (self._joined or self._joining)
                if hopeless or loop.time() + retry_s >= deadline:
                    return str(error)
                if self._connected.is_set() and loop.time() < began + within_s:
                    self._down()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._connected.wait(), retry_s)
                retry_s = min(retry_s * 2, LAST_RETRY_S)
        return ""

    def forget(self, failure: Failure | None) -> None:
        if failure is not None:
            self._forget(Fault(failure.kind, failure.type_name, inherited=failure))
        else:
            # It has finished and waits for us to finish as well: it must hear that we are there, and that we leave.
            self._take_leave(None)

    def _take_leave(self, reason: Fault | None) -> None:
        if self._left:
            return
        self._left, self._reason = True, reason
        for object_id in list(self._receipts):
            self._settle(object_id, self._without_receipt(object_id))
        for upload in list(self._uploading.values()):
            upload.cancel()

    def _forget(self, reason: Fault) -> None:
        if self._gone:
            return
        self._take_leave(reason)
        self._gone = True
        self._connected.clear()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    async def close(self) -> None:
        self._closed = True
        # Whoever still waits for a receipt or for the link waits in vain, and nobody wants to hear of it any more.
        for object_id in list(self._receipts):
            self._settle(object_id, None)
        self._connected.set()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await self.link.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _up(self) -> None:
        self.outbox.reconnected()
        self._connected.set()
        if self._reading is not None:
            self._reading.cancel()
        self._reading = self._spawn(self._read_receipts())
        if not self._pinging and self._ping_s < math.inf:
            self._pinging = True
            self._spawn(self._ping())
        self.flush()

    def _down(self) -> None:
        """The link broke: greet again until it is up, unless somebody is at it."""
        if self._connected.is_set() and not self._gone and not self._closed:
            self._connected.clear()
            self._attempt_s = self._first_rejoin_s
            self._spawn(self._rejoin())

    async def _rejoin(self) -> None:
        level = logging.WARNING
        while not self.is_over():
            problem = await self.join(CONNECT_ATTEMPT_S)
            if problem is None:
                return
            if problem.final:
                # It had joined, and will have nothing more to do with us: no use to go on asking. Where one that has
                # finished was, anybody may listen by now.
                if not self._left:
                    self._events.add(PeerEvent(PeerEventKind.REJECTED, self.link.peer, reason=problem.reason))
                # The reason is the peer's text, or names what is this party's own: no detail, which everybody is told.
                self._forget(Fault(Kind.PARTY_LOST, "PartyLostError", detail=REJECTED, message=problem.reason))
                return
            if self._left:
                level = logging.DEBUG
            logger.log(level, "party %r cannot be reached, trying on: %s", self.link.peer, problem.reason)
            level = logging.DEBUG

    async def _ping(self) -> None:
        """Be heard: the lease runs out in silence, and there may be nothing to say."""
        ping = Notice(NoticeKind.PING, 0)
        while not self.is_over():
            await asyncio.sleep(self._ping_s)
            if not self._connected.is_set():
                continue
            try:
                await self.link.tell(ping, timeout_s=self._unanswered_s)
            except PeerUnreachable:
                self._down()
            except (PeerRefused, PeerUntrusted) as error:
                logger.debug("party %r refuses to be pinged: %s", self.link.peer, error)

    async def _send_queued(self) -> None:
        try:
            while self._connected.is_set():
                batch = self.outbox.take(BATCH_BYTES)
                if not batch:
                    break
                small = [item.payload for item in batch if item.nbytes <= self._small]
                for item in batch:
                    if item.nbytes > self._small:
                        self._start_upload(item.payload)
                if small:
                    await self._send(small)
        except PeerUnreachable:
            self._down()
        finally:
            self._flushing = False

    async def _send(self, parcels: Sequence[Parcel]) -> None:
        try:
            await self.link.send(parcels)
        except (PeerRefused, PeerUntrusted) as error:
            for parcel in parcels:
                self._refused(parcel.id, message=str(error))
        except ValueError as error:
            if len(parcels) == 1:
                self._refused(parcels[0].id, detail=str(error))
                return
            # One of them cannot be carried. Which one shows when each goes by itself.
            for parcel in parcels:
                await self._send([parcel])

    def _start_upload(self, parcel: Parcel) -> None:
        # It may be queued while it is at it: after a reconnect, or because it was asked for after it was declined,
        # which the receipts may tell before the upload itself does.
        if parcel.id in self._uploading:
            self._upload_again.add(parcel.id)
        else:
            self._uploading[parcel.id] = self._spawn(self._upload(parcel))

    async def _upload(self, parcel: Parcel) -> None:
        try:
            await self._upload_in_turn(parcel)
            while parcel.id in self._upload_again:
                await self._upload_in_turn(parcel)
        finally:
            self._uploading.pop(parcel.id, None)
            self._upload_again.discard(parcel.id)

    async def _upload_in_turn(self, parcel: Parcel) -> None:
        async with self._uploads:
            self._upload_again.discard(parcel.id)
            if parcel.id not in self.outbox:
                return
            try:
                # A declined offer is followed by an acknowledgement that says why, and so is an accepted one.
                verdict = await self.link.upload(parcel)
            except PeerUnreachable:
                self._down()
                return
            except (PeerRefused, PeerUntrusted) as error:
                self._refused(parcel.id, message=str(error))
                return
            except ValueError as error:
                self._refused(parcel.id, detail=str(error))
                return
            logger.debug("upload of %s to %r: %s", parcel.id, self.link.peer, Verdict(verdict).name)

    async def _read_receipts(self) -> None:
        try:
            async for acks in self.link.acks():
                flush = False
                for ack in acks:
                    if ack.receipt is Receipt.DELIVERED:
                        self._settle(ack.id, None)
                    elif ack.receipt is Receipt.DEFERRED:
                        self.outbox.deferred(ack.id)
                    elif ack.receipt is Receipt.WANTED:
                        flush = self.outbox.wanted(ack.id) or flush
                    elif ack.receipt is Receipt.TOO_LARGE:
                        limit = f"party {self.link.peer!r} accepts ({ack.limit} bytes)"
                        self._refused(ack.id, detail=f"it is larger than {limit}")
                    else:
                        holds = "holds too many objects that nobody has asked for"
                        self._refused(ack.id, detail=f"party {self.link.peer!r} {holds}")
                if flush:
                    self.flush()
        except TransportError:
            self._down()

    def _refused(self, object_id: ObjectId, *, detail: str = "", message: str = "") -> None:
        """The object will never be taken: sending it again would not help."""
        fault = Fault(Kind.DELIVERY, "DeliveryError", detail=detail, message=message)
        self._settle(object_id, Undelivered(object_id, self.link.peer, fault))

    def _without_receipt(self, object_id: ObjectId) -> Undelivered | None:
        """How a push ends that the peer will not acknowledge: one that had finished had all that it needed."""
        if self._reason is None or object_id.epoch < self._epoch:
            return None
        return Undelivered(object_id, self.link.peer, self._reason)

    def _settle(self, object_id: ObjectId, outcome: Undelivered | None) -> None:
        self.outbox.finished(object_id)
        receipt = self._receipts.get(object_id)
        if receipt is not None and not receipt.done():
            receipt.set_result(outcome)

    def _spawn(self, coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task of the sender for %r failed", self.link.peer, exc_info=task.exception())


def _settled(outcome: Undelivered | None) -> _Receipt:
    receipt: _Receipt = asyncio.get_running_loop().create_future()
    receipt.set_result(outcome)
    return receipt
