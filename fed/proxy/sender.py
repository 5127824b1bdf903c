"""The sender proxy: serializes an object once, sends it to each party that needs it, and waits for the receipts.

It keeps no state that matters: a pending `Sender.push` call *is* the outbox entry. Where Ray repeats the call on a
restarted actor, everything goes out again and the receivers drop what they already had.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from fed.core.failure import Failure, Fault, Kind
from fed.core.outbox import Outbox
from fed.object import ObjectId
from fed.serde.contract import Codec, EncodeError
from fed.serde.smallness import is_small
from fed.transport.contract import (
    Hello,
    Link,
    LinkStatistics,
    Notice,
    Parcel,
    PeerRefused,
    PeerUnreachable,
    PeerUntrusted,
    Receipt,
    TransportError,
    Verdict,
)

__all__ = ["Delivery", "JoinProblem", "Sender", "Undelivered"]

logger = logging.getLogger("fed.sender")

BATCH_BYTES: Final = 256 * 1024
"""Small objects that are ready together go out in frames of up to this size."""

UPLOADS_PER_PEER: Final = 2
"""Streams to one peer at once: one fills the link, the second keeps it filled while the first one ends."""

FIRST_RETRY_S: Final = 0.05
LAST_RETRY_S: Final = 1.0
CONNECT_ATTEMPT_S: Final = 10.0


class Delivery(NamedTuple):
    """An object and the parties that need it."""

    id: ObjectId
    consumers: tuple[str, ...]


class Undelivered(NamedTuple):
    """An object that will not reach a party, and why."""

    id: ObjectId
    consumer: str
    fault: Fault


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


class Sender:
    """The sending end of one party.

    Args:
        hello: This party's greeting.
        links: The way out to each peer.
        codec: Values to bytes.
        small_object_bytes: Objects up to this size travel in batches.
    """

    def __init__(self, hello: Hello, links: Mapping[str, Link], codec: Codec, *, small_object_bytes: int) -> None:
        self._codec = codec
        self._peers = {peer: _Peer(link, hello, small_object_bytes) for peer, link in links.items()}

    async def connect(self, timeout_s: float) -> list[JoinProblem]:
        """Greet every peer, waiting for those that are not up yet.

        Returns:
            Nothing if all are joined. Otherwise what stands in the way: as soon as one peer refuses for good, or
            everybody who is missing when the time is up.
        """
        attempts = [asyncio.ensure_future(peer.join(timeout_s)) for peer in self._peers.values()]
        problems: list[JoinProblem] = []
        try:
            for attempt in asyncio.as_completed(attempts):
                problem = await attempt
                if problem is not None:
                    problems.append(problem)
                    if problem.final:
                        break
        finally:
            for attempt in attempts:
                attempt.cancel()
            await asyncio.gather(*attempts, return_exceptions=True)
        return problems

    async def push(self, deliveries: Sequence[Delivery], values: Sequence[Any]) -> list[Undelivered]:
        """Send values to the parties that need them.

        Returns:
            When each was acknowledged, or will never be: the latter ones, with the reason.
        """
        undelivered: list[Undelivered] = []
        receipts: list[asyncio.Future[Undelivered | None]] = []
        touched: dict[str, _Peer] = {}
        for delivery, value in zip(deliveries, values, strict=True):
            try:
                if is_small(value):
                    encoded = self._codec.encode(value)
                else:
                    encoded = await asyncio.to_thread(self._codec.encode, value)
            except EncodeError as error:
                fault = Fault(Kind.DELIVERY, error.type_name, message=str(error))
                undelivered.extend(Undelivered(delivery.id, name, fault) for name in delivery.consumers)
                continue
            parcel = Parcel(delivery.id, encoded.header, encoded.buffers)
            for name in delivery.consumers:
                receipts.append(self._peers[name].put(parcel))
                touched[name] = self._peers[name]
        for peer in touched.values():
            peer.flush()
        for receipt in receipts:
            problem = await receipt
            if problem is not None:
                undelivered.append(problem)
        return undelivered

    async def tell(self, notices: Mapping[str, Sequence[Notice]], timeout_s: float) -> dict[str, str]:
        """Tell peers something, trying again until each has taken it or the time is up.

        Returns:
            For each peer that did not take everything: why.
        """
        names = list(notices)
        outcomes = await asyncio.gather(*(self._peers[name].tell(notices[name], timeout_s) for name in names))
        return {name: outcome for name, outcome in zip(names, outcomes, strict=True) if outcome}

    def forget(self, peer: str, failure: Failure | None) -> None:
        """A peer has left, because of a failure or because it had finished: it will acknowledge nothing more."""
        self._peers[peer].forget(failure)

    def statistics(self) -> dict[str, LinkStatistics]:
        """Counts for each peer."""
        return {name: peer.link.statistics() for name, peer in self._peers.items()}

    async def close(self) -> None:
        """Close every link. Idempotent."""
        await asyncio.gather(*(peer.close() for peer in self._peers.values()))

    def validate(self) -> None:
        """Check the laws of the outboxes. Raises RuntimeError where one is broken."""
        for peer in self._peers.values():
            peer.outbox.validate()


class _Peer:
    """One peer as the sender sees it: its link, its outbox, and whether the link is up."""

    def __init__(self, link: Link, hello: Hello, small_object_bytes: int) -> None:
        self.link = link
        self.outbox: Outbox[Parcel] = Outbox()
        self._hello = hello
        self._small = small_object_bytes
        self._receipts: dict[ObjectId, asyncio.Future[Undelivered | None]] = {}
        self._connected = asyncio.Event()
        self._flushing = False
        self._left = False
        self._closed = False
        self._reason: Fault | None = None
        self._incarnation: str | None = None
        self._uploads = asyncio.Semaphore(UPLOADS_PER_PEER)
        self._uploading: set[ObjectId] = set()
        # Tasks are kept here because the event loop holds them weakly.
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading: asyncio.Task[None] | None = None

    async def join(self, timeout_s: float) -> JoinProblem | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        retry_s = FIRST_RETRY_S
        while True:
            left_s = deadline - loop.time()
            try:
                welcome = await self.link.connect(self._hello, timeout_s=max(0.1, min(left_s, CONNECT_ATTEMPT_S)))
            except PeerUnreachable as error:
                if loop.time() + retry_s >= deadline:
                    return JoinProblem(self.link.peer, str(error), final=False)
                # Nobody can tell us that the other machine is up now, but trying.
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, LAST_RETRY_S)
            except (PeerRefused, PeerUntrusted) as error:
                return JoinProblem(self.link.peer, str(error), final=True)
            else:
                if self._incarnation not in (None, welcome.incarnation):
                    # The party that knew what it had taken is gone, and its successor is in another run.
                    message = f"party {self.link.peer!r} was started anew"
                    self._forget(Fault(Kind.PARTY_LOST, "PartyLostError", message=message))
                    return None
                self._incarnation = welcome.incarnation
                self._up()
                return None

    def put(self, parcel: Parcel) -> asyncio.Future[Undelivered | None]:
        """Queue a parcel. Its receipt resolves to None, or to the reason why there will be none."""
        known = self._receipts.get(parcel.id)
        if known is not None:
            return known
        receipt: asyncio.Future[Undelivered | None] = asyncio.get_running_loop().create_future()
        if self._left:
            receipt.set_result(self._without_receipt(parcel.id))
            return receipt
        self._receipts[parcel.id] = receipt
        self.outbox.put(parcel.id, parcel, parcel.nbytes)
        return receipt

    def flush(self) -> None:
        """Send what is queued, unless somebody is at it, who then sends this too."""
        if not self._flushing and not self._closed and self._connected.is_set():
            self._flushing = True
            self._spawn(self._send_queued())

    async def tell(self, notices: Sequence[Notice], timeout_s: float) -> str | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        retry_s = FIRST_RETRY_S
        waiting = collections.deque(notices)
        while waiting:
            left_s = deadline - loop.time()
            if left_s <= 0:
                return f"party {self.link.peer!r} did not take a notice within {timeout_s:g} s"
            try:
                await self.link.tell(waiting[0], timeout_s=left_s)
                waiting.popleft()
            except (PeerRefused, PeerUntrusted) as error:
                return str(error)
            except PeerUnreachable as error:
                # One that never answered will not now, since nobody greets it any more.
                hopeless = self._left or self._closed or self._incarnation is None
                if hopeless or loop.time() + retry_s >= deadline:
                    return str(error)
                if self._connected.is_set():
                    self._down()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._connected.wait(), retry_s)
                retry_s = min(retry_s * 2, LAST_RETRY_S)
        return None

    def forget(self, failure: Failure | None) -> None:
        self._forget(None if failure is None else Fault(failure.kind, failure.type_name, inherited=failure))

    def _forget(self, reason: Fault | None) -> None:
        if self._left:
            return
        self._left, self._reason = True, reason
        for object_id in list(self._receipts):
            self._settle(object_id, self._without_receipt(object_id))
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
        self.flush()

    def _down(self) -> None:
        """The link broke: greet again until it is up, unless somebody is at it."""
        if self._connected.is_set() and not self._left and not self._closed:
            self._connected.clear()
            self._spawn(self._rejoin())

    async def _rejoin(self) -> None:
        while True:
            problem = await self.join(CONNECT_ATTEMPT_S)
            if problem is None:
                return
            logger.warning("party %r cannot be reached, trying on: %s", self.link.peer, problem.reason)
            if problem.final:
                await asyncio.sleep(LAST_RETRY_S)

    async def _send_queued(self) -> None:
        try:
            while self._connected.is_set():
                batch = self.outbox.take(BATCH_BYTES)
                if not batch:
                    break
                small = [item.payload for item in batch if item.nbytes <= self._small]
                for item in batch:
                    if item.nbytes > self._small:
                        self._spawn(self._upload(item.payload))
                if small:
                    await self._send(small)
        except PeerUnreachable:
            self._down()
        finally:
            self._flushing = False

    async def _send(self, parcels: Sequence[Parcel]) -> None:
        try:
            await self.link.send(parcels)
        except (PeerRefused, PeerUntrusted, ValueError) as error:
            for parcel in parcels:
                self._refused(parcel.id, str(error))

    async def _upload(self, parcel: Parcel) -> None:
        # After a reconnect it may be queued again while the old task still waits for its turn.
        if parcel.id in self._uploading:
            return
        self._uploading.add(parcel.id)
        try:
            await self._upload_in_turn(parcel)
        finally:
            self._uploading.discard(parcel.id)

    async def _upload_in_turn(self, parcel: Parcel) -> None:
        async with self._uploads:
            if parcel.id not in self.outbox:
                return
            try:
                # A declined offer is followed by an acknowledgement that says why, and so is an accepted one.
                verdict = await self.link.upload(parcel)
            except PeerUnreachable:
                self._down()
                return
            except (PeerRefused, PeerUntrusted, ValueError) as error:
                self._refused(parcel.id, str(error))
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
                    else:
                        self._refused(ack.id, ack.reason)
                if flush:
                    self.flush()
        except TransportError:
            self._down()

    def _refused(self, object_id: ObjectId, reason: str) -> None:
        """The object will never be taken: sending it again would not help."""
        fault = Fault(Kind.DELIVERY, "DeliveryError", message=reason)
        self._settle(object_id, Undelivered(object_id, self.link.peer, fault))

    def _without_receipt(self, object_id: ObjectId) -> Undelivered | None:
        """The outcome of a push to a peer that left: one that had finished had all that it needed."""
        return None if self._reason is None else Undelivered(object_id, self.link.peer, self._reason)

    def _settle(self, object_id: ObjectId, outcome: Undelivered | None) -> None:
        self.outbox.finished(object_id)
        receipt = self._receipts.pop(object_id, None)
        if receipt is not None and not receipt.done():
            receipt.set_result(outcome)

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task of the sender for %r failed", self.link.peer, exc_info=task.exception())
