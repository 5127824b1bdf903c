"""The receiver proxy: the listener's handler, the rendezvous of arriving objects, and the ear for notices.

It decodes nothing that is small: the driver gets that as it came. A value that is large is decoded here, since from
here it goes into this party's object store, of which the driver gets a reference (`Receiver.take`). What peers tell it
passes on in order, and judges nothing of it but who may say so: an object that will not come fails in the driver.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fed.core.failure import Fault, ForgedFailure, Kind
from fed.core.idset import IdSet
from fed.core.liveness import Health, Liveness
from fed.core.rendezvous import Arrival, Key, Rendezvous, Reply, Statistics
from fed.errors import ConfigError
from fed.object import ObjectId
from fed.proxy.arriving import LARGE_BYTES, Arrived, Deliver
from fed.proxy.control import Snapshot
from fed.proxy.events import EventQueue, PeerEvent, PeerEventKind
from fed.proxy.greeting import disagreement
from fed.serde.contract import Codec, DecodeError
from fed.serde.receipt import SmallValue
from fed.transport.contract import (
    Ack,
    AddressInUse,
    Hello,
    Listener,
    Notice,
    NoticeKind,
    NotNow,
    Parcel,
    Receipt,
    Refusal,
    Verdict,
)

__all__ = ["NotHere", "Receiver", "ReceiverStatistics"]

logger = logging.getLogger("fed.receiver")

LISTEN_RETRY_S: Final = 0.25
"""How soon another attempt is made where the port is not free yet."""

MAX_UNACKNOWLEDGED: Final = 64
"""Notices of one peer that the driver has not handled yet. A sender tells them one by one, so beyond a few that were
told again nobody honest has as many."""

ACK_S: Final = 0.02
"""How long the word that an object was delivered may wait for others to go with it: nobody waits for it but a party
that leaves, and to send one takes both machines as long as to send an object."""

MAX_LATE_ACKS: Final = 256
"""How many words to one peer wait at most."""

_OF_THE_PROCESS: Final = frozenset({NoticeKind.READY, NoticeKind.GOODBYE})
"""Notices about a peer's process, which lives through the epochs: they are never out of date."""

_RENEWED: Final = frozenset({NoticeKind.PROGRESS, NoticeKind.JOURNAL, NoticeKind.ASK, NoticeKind.STANDING})
"""Notices that are told anew as long as they matter: one that is lost is missed by nobody."""

_RECEIPTS: Final = {
    Reply.DELIVERED: Receipt.DELIVERED,
    Reply.DEFERRED: Receipt.DEFERRED,
    Reply.WANTED: Receipt.WANTED,
    Reply.REFUSED: Receipt.TOO_LARGE,
    Reply.CROWDED: Receipt.CROWDED,
}


class ReceiverStatistics(NamedTuple):
    """Counts for operators and tests.

    Attributes:
        table: Of the objects.
        stale_notices: Notices dropped because they belong to an earlier epoch.
    """

    table: Statistics
    stale_notices: int


class NotHere(Exception):
    """An object is not here to be taken: this receiver has taken the place of the one that told of it, say."""


class Receiver:
    """The receiving end of one party.

    Attributes:
        events: What the driver is to be told.

    Args:
        hello: This party's greeting.
        listener: Where peers come in.
        codec: Bytes to large values.
        max_stored_bytes: Limit for objects that nobody waits for yet.
        max_object_bytes: Objects beyond this are refused. None: no limit.
        lease_s: How long a peer may be silent, in seconds.
    """

    def __init__(
        self,
        hello: Hello,
        listener: Listener,
        codec: Codec,
        *,
        max_stored_bytes: int,
        max_object_bytes: int | None = None,
        lease_s: float = math.inf,
    ) -> None:
        self._hello = hello
        self._listener = listener
        self._codec = codec
        self._max_object_bytes = max_object_bytes
        self._table: Rendezvous[Parcel] = Rendezvous(max_stored_bytes, max_object_bytes)
        self._deliver_all: Deliver = _drop
        # What the driver is to be told at the end of this turn of the event loop.
        self._arrived: list[Arrived] = []
        # Of what it was told that it is large: the object, when it is here; None if it will not come.
        self._large: dict[Key, asyncio.Future[Parcel | None]] = {}
        self._acks: dict[str, Callable[[Sequence[Ack]], None]] = {}
        self._late_acks: dict[str, list[Ack]] = {}
        self._ack_timer: asyncio.TimerHandle | None = None
        self.events = EventQueue()
        self._closed = False
        self._incarnations: dict[str, str] = {}
        # Of whom a forged record has been logged, which is said once.
        self._forgers: set[str] = set()
        self._begun = False
        self._epoch = 0
        self._stale_notices = 0
        self._liveness = Liveness([peer for peer in hello.parties if peer != hello.party], lease_s)
        self._alarm: asyncio.TimerHandle | None = None

    async def start(self, patience_s: float = 0.0) -> None:
        """Listen.

        Args:
            patience_s: How long to try where the port is not free, or a certificate is just being renewed.

        Raises:
            AddressInUse: The port cannot be bound.
            ConfigError: This party's credentials are wrong.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while not self._closed:
            try:
                await self._listener.start(self)
            except (AddressInUse, ConfigError):
                if loop.time() >= deadline:
                    raise
                # Nobody tells us that the port is free but trying.
                await asyncio.sleep(LISTEN_RETRY_S)
            else:
                return

    async def close(self) -> None:
        """Stop listening; the port is free when this returns. Idempotent."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        if self._ack_timer is not None:
            self._ack_timer.cancel()
        self.events.close()
        for key in list(self._large):
            self._forget_large(key)
        await self._listener.close()

    def attach(self, deliver: Deliver) -> None:
        """Hand what arrives to the driver by this."""
        self._deliver_all = deliver

    def expect(self, keys: Iterable[Key]) -> None:
        """The driver waits for objects. What it waits for already it has not got."""
        for key in keys:
            if key in self._large:
                self._deliver(Arrived(key))
                continue
            self._carry_out(key, self._table.awaited(key))

    async def take(self, key: Key) -> tuple[Any, Fault | None]:
        """The value of an object that the driver was told is large, as soon as it is here.

        Returns:
            It, or why it cannot be decoded.

        Raises:
            NotHere: There is no such object, or not any more.
        """
        large = self._large.get(key)
        # Not cancelled with this call: there may be another one.
        parcel = None if large is None else await asyncio.shield(large)
        if parcel is None:
            raise NotHere(f"object {key.id} of party {key.peer!r}")
        try:
            return await asyncio.to_thread(self._codec.decode, parcel.header, parcel.buffers), None
        except DecodeError as error:
            # The error's own text describes the peer's bytes, so it stays a message, which only some may see.
            detail = f"object {key.id} from party {key.peer!r} cannot be decoded"
            return None, Fault(Kind.DELIVERY, type(error).__name__, detail=detail, message=str(error))

    def learn(self, snapshot: Snapshot) -> None:
        """Learn the state of the job.

        With an epoch that is over ends what is left of it, and what still comes of it is dropped. When the job has
        begun a driver of a peer that is started anew cannot take its predecessor's place any more.

        A receiver that has taken the place of one that was killed learns by the first one whom this party has joined,
        given up or seen leave, and must not listen before that. Objects come again because their owners send again
        what was not acknowledged.
        """
        self._begin(snapshot.epoch)
        self._table.reset(snapshot.epoch)
        self._begun |= snapshot.begun
        now = asyncio.get_running_loop().time()
        for peer, incarnation in snapshot.incarnations.items():
            # Before the job has begun a later one may have greeted, which the driver has not heard of yet.
            self._incarnations.setdefault(peer, incarnation)
            if self._liveness.health(peer) is not Health.AWAITED:
                continue
            # Whoever falls silent from here on is missed, also if this life never hears of it.
            self._liveness.heard(peer, now)
            if peer in snapshot.left:
                reason = snapshot.left[peer]
                if reason is not None and reason.kind is Kind.PARTY_LOST:
                    self._liveness.lost(peer)
                else:
                    self._liveness.left(peer)
        self._set_alarm()

    def suspect(self, peer: str, evidence: str = "its port refused connections") -> None:
        """Something says that a peer may be gone: it has little time left to be heard."""
        self._liveness.evidence(peer, asyncio.get_running_loop().time(), evidence)
        self._set_alarm()

    def confirm(self, keys: Iterable[Key]) -> None:
        """Acknowledge objects: the driver has them, or has done with them."""
        by_peer: dict[str, list[Ack]] = {}
        for key in keys:
            self._forget_large(key)
            if self._table.confirmed(key).reply is not None:
                by_peer.setdefault(key.peer, []).append(Ack(key.id, Receipt.DELIVERED))
        for peer, acks in by_peer.items():
            self._acknowledge(peer, acks)

    def restore(self, epoch: int, delivered: Mapping[str, IdSet]) -> None:
        """Learn in which epoch the driver is, and what it has of it, by owner."""
        self._begin(epoch)
        for key in self._table.restore(epoch, delivered):
            self._forget_large(key)
            self._acknowledge(key.peer, [Ack(key.id, Receipt.DELIVERED)])

    def _begin(self, epoch: int) -> None:
        if epoch <= self._epoch:
            return
        self._epoch = epoch
        for key in [key for key in self._large if key.id.epoch < epoch]:
            self._forget_large(key)
        self._stale_notices += self.events.drop(self._is_stale)

    def unclaimed(self) -> dict[str, int]:
        """How many objects of each peer nobody has asked for."""
        return self._table.unclaimed()

    def statistics(self) -> ReceiverStatistics:
        """Counts so far."""
        return ReceiverStatistics(self._table.statistics(), self._stale_notices)

    def validate(self) -> None:
        """Check the laws of the table and of the leases. Raises RuntimeError where one is broken."""
        self._table.validate()
        self._liveness.validate()

    # What follows is called by the listener (`fed.transport.contract.Handler`).

    def on_hello(self, peer: str, hello: Hello) -> Hello:
        """Accept or refuse a greeting; the driver is told of a refusal, since its own join will fail by it."""
        if self._liveness.health(peer) is Health.LOST:
            raise Refusal(
                f"party {self._hello.party!r} has given party {peer!r} up: it had heard nothing of it for longer than "
                "the lease"
            )
        if hello.expects not in ("", self._hello.incarnation):
            # It may be about to say goodbye to the run before this one.
            raise Refusal(f"party {self._hello.party!r} was started anew after party {peer!r} had joined it")
        other = self._incarnations.get(peer) != hello.incarnation
        # A driver that was started anew before the job had begun simply takes its predecessor's place. One that has
        # gone on to its next job, under whatever name, waits until this one is over here too.
        if other and (self._closed or self._begun):
            # The one that we know has probably gone; or two run at the same time by mistake.
            self.suspect(peer, "another driver greeted under its name")
            raise NotNow(f"party {self._hello.party!r} is still in the run that an earlier start of {peer!r} joined")
        reason = disagreement(self._hello, hello)
        if reason is not None:
            self.events.add(PeerEvent(PeerEventKind.DISAGREED, peer, reason=reason), renews=True)
            raise Refusal(reason)
        if other:
            self._table.started_anew(peer)
            self._incarnations[peer] = hello.incarnation
            self.events.add(PeerEvent(PeerEventKind.GREETED, peer, hello.incarnation), renews=True)
        self._heard(peer)
        return self._hello

    def on_stream(self, peer: str, send_acks: Callable[[Sequence[Ack]], None]) -> None:
        """Send this peer's acknowledgements there from now on."""
        self._heard(peer)
        self._acks[peer] = send_acks

    def on_parcels(self, peer: str, parcels: Sequence[Parcel]) -> None:
        """Take in objects that arrived whole."""
        self._heard(peer)
        for parcel in parcels:
            key = Key(peer, parcel.id)
            self._carry_out(key, self._table.arrived(key, parcel, parcel.nbytes, parcel.overhead))

    def on_offer(self, peer: str, object_id: ObjectId, nbytes: int, overhead: int) -> Verdict:
        """Decide whether a large object may come."""
        self._heard(peer)
        key = Key(peer, object_id)
        arrival = self._table.offered(key, nbytes, overhead)
        if arrival.admitted and nbytes + overhead > LARGE_BYTES and self._table.is_awaited(key):
            # It takes a while to come, and the driver a while to ask for it.
            self._announce_large(key)
        self._carry_out(key, arrival)
        return Verdict.ADMIT if arrival.admitted else Verdict.DECLINE

    def on_offer_broken(self, peer: str, object_id: ObjectId) -> None:
        """Give back the room of an object that broke off."""
        self._table.offer_broken(Key(peer, object_id))

    def on_notice(self, peer: str, notice: Notice) -> asyncio.Future[None] | None:
        """Take in what a peer tells, and pass it on to the driver.

        What speaks for a party that it does not come from is dropped. What will never come stays in the table until the
        driver has done with it: it may be on its way, and whether a peer left too early is for the driver to judge.
        """
        self._heard(peer)
        if notice.failure is not None:
            try:
                believed = notice.failure.told_by(peer, self._hello.parties)
            except ForgedFailure as error:
                if peer not in self._forgers:
                    self._forgers.add(peer)
                    logger.error("party %r told a failure that nobody believes: %s", peer, error)
                return None
            notice = dataclasses.replace(notice, failure=believed)
        if self._liveness.health(peer) is Health.LOST:
            # A connection from before may have outlived the silence. Who is not believed any more is to find that out:
            # it will greet again, and be told [E41].
            return _not_taken()
        if notice.kind is NoticeKind.PING:
            return None
        if self._is_stale(notice):
            self._stale_notices += 1
            return None
        if notice.kind not in _RENEWED and self._is_full(peer):
            return _not_taken()
        if notice.kind is NoticeKind.GOODBYE:
            self._liveness.left(peer)
        event = PeerEvent(PeerEventKind.NOTICE, peer, notice=notice)
        if notice.kind in _RENEWED:
            self.events.add(event, renews=True)
            return None
        # Told to nobody but this process, it would be lost with it; so its peer keeps it until the driver has it.
        return self.events.add_acknowledged(event)

    def _is_full(self, peer: str) -> bool:
        """Whether nothing more of a peer can be passed on to the driver now."""
        return self._closed or self.events.unacknowledged(peer) >= MAX_UNACKNOWLEDGED

    def _heard(self, peer: str) -> None:
        """A frame of a peer has come, whatever is in it: it is there."""
        now = asyncio.get_running_loop().time()
        change = self._liveness.heard(peer, now)
        if change is not None:
            logger.info("party %r is heard again, after %.1f s", peer, change.silent_s)
        if self._alarm is None:
            self._set_alarm()

    def _set_alarm(self) -> None:
        due = self._liveness.due()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if due is not None and due < math.inf and not self._closed:
            self._alarm = asyncio.get_running_loop().call_at(due, self._look_at_leases)

    def _look_at_leases(self) -> None:
        for change in self._liveness.tick(asyncio.get_running_loop().time()):
            if change.health is Health.LOST:
                lost = PeerEvent(PeerEventKind.LOST, change.peer, reason=change.evidence, silent_s=change.silent_s)
                self.events.add(lost)
            else:
                logger.info("nothing was heard of party %r for %.1f s", change.peer, change.silent_s)
        self._set_alarm()

    def _is_stale(self, notice: Notice) -> bool:
        return notice.epoch < self._epoch and notice.kind not in _OF_THE_PROCESS

    def _carry_out(self, key: Key, arrival: Arrival[Parcel]) -> None:
        parcel = arrival.payload
        if parcel is not None:
            if parcel.nbytes + parcel.overhead > LARGE_BYTES or key in self._large:
                self._announce_large(key).set_result(parcel)
            else:
                self._deliver(Arrived(key, SmallValue(parcel.header, tuple(map(bytes, parcel.buffers)))))
        if arrival.reply is not None:
            limit = self._max_object_bytes or 0 if arrival.reply is Reply.REFUSED else 0
            self._acknowledge(key.peer, [Ack(key.id, _RECEIPTS[arrival.reply], limit)])

    def _announce_large(self, key: Key) -> asyncio.Future[Parcel | None]:
        """Have the driver take an object that is here, or on its way."""
        large = self._large.get(key)
        if large is None:
            large = self._large[key] = asyncio.get_running_loop().create_future()
            self._deliver(Arrived(key))
        return large

    def _forget_large(self, key: Key) -> None:
        large = self._large.pop(key, None)
        if large is not None and not large.done():
            large.set_result(None)

    def _deliver(self, arrived: Arrived) -> None:
        if not self._arrived:
            # With all that comes at the same time.
            asyncio.get_running_loop().call_soon(self._deliver_now)
        self._arrived.append(arrived)

    def _deliver_now(self) -> None:
        arrived, self._arrived = self._arrived, []
        self._deliver_all(arrived)

    def _acknowledge(self, peer: str, acks: Sequence[Ack]) -> None:
        late = self._late_acks.setdefault(peer, [])
        late += acks
        if len(late) > MAX_LATE_ACKS or any(ack.receipt is not Receipt.DELIVERED for ack in acks):
            self._send_acks(peer)
        elif self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(ACK_S, self._send_late_acks)

    def _send_late_acks(self) -> None:
        self._ack_timer = None
        for peer in list(self._late_acks):
            self._send_acks(peer)

    def _send_acks(self, peer: str) -> None:
        acks = self._late_acks.pop(peer)
        send = self._acks.get(peer)
        # Without a stream nothing is lost: the peer sends again what was not acknowledged, and is answered then.
        if send is not None:
            send(acks)


def _drop(arrived: Sequence[Arrived]) -> None:
    """Nobody is told before a driver is attached."""


def _not_taken() -> asyncio.Future[None]:
    """The answer to a notice that nobody will take."""
    refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    refused.cancel()
    return refused
