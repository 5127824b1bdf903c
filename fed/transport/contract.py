"""What a transport is: bytes and notices between parties, each end knowing for certain who the other one is.

A *link* is this party's way out to one peer; a *listener* is where all peers come in. Two implementations keep
this contract and share one conformance suite: `fed.transport.grpc` and `fed.transport.memory`.

Guarantees:

- Identity: the party that a handler is told comes from the peer's certificate (or, without TLS, from its
  greeting), never from a frame.
- A parcel is given to the handler whole or not at all, any number of times (the sender resends what was not
  acknowledged), in any order. The handler drops duplicates.
- Notices travel apart from parcels: a parcel that is stalled does not delay them. One link's notices arrive in
  the order in which they were told.
- Nothing received is interpreted beyond its framing: values stay bytes here.
- Every error of the library beneath is mapped, at this boundary, to one of the classes below.

All methods belong to one asyncio event loop, the one that `Listener.start` or `Link.connect` ran on.
"""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import enum
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, NamedTuple, Protocol

from fed.core.notice import Notice, NoticeKind
from fed.object import ObjectId

__all__ = [
    "BUFFER_BYTES",
    "MAX_GREETING_BYTES",
    "PROTOCOL_VERSION",
    "Ack",
    "AddressInUse",
    "Handler",
    "Hello",
    "Link",
    "LinkStatistics",
    "Listener",
    "ListenerStatistics",
    "NotNow",
    "Notice",
    "NoticeKind",
    "Parcel",
    "PeerAbsent",
    "PeerRefused",
    "PeerUnreachable",
    "PeerUntrusted",
    "Receipt",
    "Refusal",
    "TransportError",
    "Verdict",
]

PROTOCOL_VERSION: Final = 2
"""Raised whenever two releases could misunderstand one another. Equal in every party of a job."""
MAX_GREETING_BYTES: Final = 64 << 10
"""Of a greeting, and of the answer to one. Whoever has a certificate may send one."""


class TransportError(Exception):
    """Base of what a transport raises."""


class PeerUnreachable(TransportError):
    """Nobody answered, or the connection broke. Trying again may help; nothing sent since is known to have arrived."""


class PeerAbsent(PeerUnreachable):
    """The peer's machine answers, and says that nobody listens there: its receiver is down, or its party is gone."""


class PeerRefused(TransportError):
    """The peer answered and said no: another job, another protocol. Trying again will not help."""


class PeerUntrusted(TransportError):
    """A certificate did not prove what it must, at this end or at the other. Trying again will not help."""


class AddressInUse(TransportError):
    """The listener's port is taken, or its host is not one of this machine's."""


class Refusal(Exception):
    """Raised by a handler to refuse a greeting; its text reaches the peer as `PeerRefused`."""


class NotNow(Exception):
    """Raised by a handler to put off a greeting; the peer sees `PeerUnreachable` and tries again."""


@dataclasses.dataclass(frozen=True)
class Hello:
    """How two parties greet one another, each telling what must agree before anything else is said.

    Attributes:
        protocol: `PROTOCOL_VERSION` of the one who greets.
        version: Its release of this library, for messages only.
        job: Name of the job.
        party: Its name; the listener checks it against the certificate.
        incarnation: One life of its driver process.
        parties: All parties of the job as it knows them, sorted.
        types: Names of the declared types, sorted.
        exceptions: Names of the declared exceptions, sorted.
        expects: The incarnation of the one who is greeted that had been joined before; empty at first. What is meant
            for one run must not be heard by the next, which may listen at the same address a moment later.
    """

    protocol: int
    version: str
    job: str
    party: str
    incarnation: str
    parties: tuple[str, ...]
    types: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()
    expects: str = ""


BUFFER_BYTES: Final = 320
"""What it takes to keep a buffer, besides its bytes: measured, a view of an empty one and of what it is a view of."""


class Parcel(NamedTuple):
    """One object on its way: its name, the codec's small header, and the buffers that the header refers to."""

    id: ObjectId
    header: bytes
    buffers: tuple[memoryview, ...]

    @property
    def nbytes(self) -> int:
        """Size of header and buffers together, in bytes."""
        return len(self.header) + sum(buffer.nbytes for buffer in self.buffers)

    @property
    def overhead(self) -> int:
        """What it takes besides to keep it, in bytes."""
        return BUFFER_BYTES * len(self.buffers)


class Receipt(enum.Enum):
    """What became of a parcel at its consumer."""

    DELIVERED = "DELIVERED"
    """In the hands of the consumer's driver: the sender may forget it."""
    DEFERRED = "DEFERRED"
    """Not kept, for lack of room while nobody waits for it: the sender keeps it until it is WANTED."""
    WANTED = "WANTED"
    """Somebody waits for it now: send it again."""
    TOO_LARGE = "TOO_LARGE"
    """Will never be accepted: the consumer takes no object of more bytes than `Ack.limit`."""
    CROWDED = "CROWDED"
    """Will never be accepted: the consumer holds too many objects that nobody there has asked for."""


class Ack(NamedTuple):
    """A receipt for one object. It has no text: what a sender says of a refusal is its own sentence.

    Attributes:
        id: The object's name.
        receipt: What became of it.
        limit: For TOO_LARGE: how many bytes one may have.
    """

    id: ObjectId
    receipt: Receipt
    limit: int = 0


class Verdict(enum.Enum):
    """A handler's answer to the offer of a large parcel, before any of it is read."""

    ADMIT = "ADMIT"
    """Send it."""
    DECLINE = "DECLINE"
    """Do not: an `Ack` that says why is on its way."""


class Handler(Protocol):
    """What a listener calls, on its event loop. No method may block; none may raise, but `on_hello`."""

    def on_hello(self, peer: str, hello: Hello) -> Hello:
        """A peer greets. Return this party's own greeting.

        Raises:
            Refusal: With a sentence that names what differs.
            NotNow: With a sentence that says what stands in the way for the moment.
        """
        ...

    def on_stream(self, peer: str, send_acks: Callable[[Sequence[Ack]], None]) -> None:
        """A peer's data stream opened: from now on its acknowledgements go to `send_acks`, which never blocks.

        Acknowledgements handed to the stream before are lost; the peer resends what they were for.
        """
        ...

    def on_parcels(self, peer: str, parcels: Sequence[Parcel]) -> None:
        """Objects arrived whole. The handler owns their memory from now on."""
        ...

    def on_offer(self, peer: str, object_id: ObjectId, nbytes: int, overhead: int) -> Verdict:
        """A large object is offered, of so many bytes and what it takes besides.

        After ADMIT comes `on_parcels` with it, or `on_offer_broken`.
        """
        ...

    def on_offer_broken(self, peer: str, object_id: ObjectId) -> None:
        """The stream of an admitted object broke before its end; what had arrived is gone."""
        ...

    def on_notice(self, peer: str, notice: Notice) -> asyncio.Future[None] | None:
        """A notice arrived.

        Returns:
            What resolves when it is safe, until when the peer is not told that it was taken; None if it is. Cancelled
            if it never will be: to the peer that is a connection that broke.
        """
        ...


class LinkStatistics(NamedTuple):
    """Counts since the link was made.

    Attributes:
        parcels_sent: Objects sent, those sent again counted again.
        bytes_sent: Their size, headers included, framing excluded.
        connects: Successful greetings.
    """

    parcels_sent: int
    bytes_sent: int
    connects: int


class Link(abc.ABC):
    """This party's way out to one peer."""

    @property
    @abc.abstractmethod
    def peer(self) -> str:
        """The party at the other end."""

    @abc.abstractmethod
    async def connect(self, hello: Hello, *, timeout_s: float) -> Hello:
        """Prove identity both ways, greet, and open the data stream. Again after a break.

        Returns:
            The peer's greeting.

        Raises:
            PeerUnreachable: Nobody answered within the timeout, or the peer put the greeting off.
            PeerRefused: The peer refused the greeting.
            PeerUntrusted: A certificate does not prove what it must.
            ValueError: The greeting is not this party's, or a field of it is too long to be carried.
        """

    @abc.abstractmethod
    async def send(self, parcels: Sequence[Parcel]) -> None:
        """Send small objects in as few frames as they fit. Returns when they are handed on to be transmitted.

        One that is too large for any frame is uploaded instead. Cancelling does not break the stream; the parcels
        may be sent nevertheless.

        Raises:
            PeerUnreachable: The connection broke.
            ValueError: A parcel cannot be carried: it has too many buffers, or its name is out of range.
        """

    def send_now(self, parcels: Sequence[Parcel]) -> bool:
        """Send small objects as `send` does, if that can be done without waiting. Returns whether it was.

        Raises:
            ValueError: As in `send`.
        """
        return False

    @abc.abstractmethod
    async def upload(self, parcel: Parcel) -> Verdict:
        """Stream one large object. Returns when it has arrived whole, or was declined.

        Raises:
            PeerUnreachable: The connection broke.
            PeerRefused: The peer does not understand what this party sends. Trying again will not help.
            ValueError: The parcel cannot be carried: it has too many buffers, or its name is out of range.
        """

    @abc.abstractmethod
    def acks(self) -> AsyncIterator[Sequence[Ack]]:
        """Acknowledgements of the stream that the last `connect` opened, as they come. For one reader at a time.

        Raises:
            PeerUnreachable: That stream broke. It never just ends, except after `close`.
            PeerRefused: The peer does not understand what this party sends. Trying again will not help.
        """

    @abc.abstractmethod
    async def tell(self, notice: Notice, *, timeout_s: float) -> None:
        """Tell the peer something. Returns when its handler has taken it.

        Raises:
            PeerUnreachable: It is not known to have arrived within the timeout.
            PeerRefused: The peer does not understand what this party sends. Trying again will not help.
            ValueError: It makes no sense: a field is set that its kind does not have, one is missing that it must have,
                or a number is out of range.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Close both connections. Idempotent; every pending call ends with PeerUnreachable."""

    @abc.abstractmethod
    def statistics(self) -> LinkStatistics:
        """Counts so far."""


class ListenerStatistics(NamedTuple):
    """Counts since the listener was made.

    Attributes:
        parcels_received: Objects handed to the handler, those sent again counted again.
        bytes_received: Their size, headers included, framing excluded.
        greetings: Greetings accepted.
        refused: Greetings, frames, uploads and calls that were refused as untrusted, malformed or out of turn.
    """

    parcels_received: int
    bytes_received: int
    greetings: int
    refused: int


class Listener(abc.ABC):
    """Where all peers come in."""

    @abc.abstractmethod
    async def start(self, handler: Handler) -> None:
        """Listen, and hand what comes to `handler`.

        Raises:
            AddressInUse: The port cannot be bound.
            fed.errors.ConfigError: This party's own credentials do not prove its name.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Stop, and free the port before returning. Idempotent."""

    @abc.abstractmethod
    def statistics(self) -> ListenerStatistics:
        """Counts so far."""
