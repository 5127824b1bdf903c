"""One peer as the sender sees it: greeted until it is joined, sent to, pinged, greeted again when the link broke.

What was put is kept until it is acknowledged: a link that comes up again is sent all of it, and the receiver drops what
it has.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import logging
import math
from collections.abc import Coroutine, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from fed.core.failure import Failure, Fault, Kind
from fed.core.liveness import RESTART_S
from fed.core.outbox import Outbox
from fed.object import ObjectId
from fed.proxy.deliveries import DeliveryFuture, Undelivered
from fed.proxy.events import EventQueue, PeerEvent, PeerEventKind
from fed.transport.contract import (
    Hello,
    Link,
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

__all__ = ["REJECTED", "JoinProblem", "PeerSession", "settled"]

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


class PeerSession:
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
        self._receipts: dict[ObjectId, DeliveryFuture] = {}
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
        """Greet this peer until it has answered, has refused, or the time is up. Returns None if it is joined."""
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
        """The job has begun with this life of the peer's driver: another one is not greeted in its place."""
        self._expected = incarnation

    def greet_again(self) -> None:
        """The sender in whose place this is was asked to greet it, if this one was not."""
        if not self._asked:
            self._asked = self._joined = True
            if not self._gone and not self._closed:
                self._spawn(self._rejoin())

    def receipt(self, object_id: ObjectId) -> DeliveryFuture | None:
        """The receipt of an object that was put before or need not be put at all, None of any other."""
        known = self._receipts.get(object_id)
        if known is None and (self._left or object_id.epoch < self._epoch):
            return settled(self._without_receipt(object_id))
        return known

    def put(self, parcel: Parcel) -> DeliveryFuture:
        """Queue a parcel, once. Its receipt resolves to None, or to the reason why there will be none."""
        known = self.receipt(parcel.id)
        if known is not None:
            return known
        receipt: DeliveryFuture = asyncio.get_running_loop().create_future()
        self._receipts[parcel.id] = receipt
        self.outbox.put(parcel.id, parcel, parcel.nbytes)
        self.flush()
        return receipt

    def taken_up(self, object_id: ObjectId, receipt: DeliveryFuture) -> None:
        """A push tells how this ended, so nobody else has to."""
        if self._receipts.get(object_id) is receipt:
            del self._receipts[object_id]

    def reset(self, epoch: int) -> None:
        """An epoch begins: what is left of earlier ones is over, and nothing of it is undelivered."""
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
        if self._flushing or self._closed or not self._connected.is_set():
            return
        while (small := self._take_small()) is not None:
            # What goes at once needs no task.
            if small and not self._send_now(small):
                self._flushing = True
                self._spawn(self._send_queued(small))
                return

    async def tell(self, notices: Sequence[Notice], timeout_s: float) -> str:
        """See `fed.proxy.sender.Sender.tell`."""
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
        """The peer acknowledges nothing more: because of a failure, or because its program has ended."""
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
        """End all that is under way, and the link. Idempotent."""
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
        # For those who look for it: people are told when the party is lost, in one line.
        level = logging.INFO
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

    def _take_small(self) -> list[Parcel] | None:
        """The small ones of the next objects, of which the large ones are uploaded; None if nothing is queued."""
        batch = self.outbox.take(BATCH_BYTES)
        for item in batch:
            if item.nbytes > self._small:
                self._start_upload(item.payload)
        return [item.payload for item in batch if item.nbytes <= self._small] if batch else None

    def _send_now(self, parcels: Sequence[Parcel]) -> bool:
        try:
            return self.link.send_now(parcels)
        except ValueError:
            # Which one it is that cannot be carried, `_send` finds.
            return False

    async def _send_queued(self, taken: list[Parcel]) -> None:
        """Send what was taken, and then all that is queued."""
        small: list[Parcel] | None = taken
        try:
            while small is not None:
                if small:
                    await self._send(small)
                small = self._take_small() if self._connected.is_set() else None
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


def settled(outcome: Undelivered | None) -> DeliveryFuture:
    """What has ended so already."""
    receipt: DeliveryFuture = asyncio.get_running_loop().create_future()
    receipt.set_result(outcome)
    return receipt
