"""Small values on their way from a driver to its sender, over the direct channel, and what becomes of them.

The driver's end keeps what has not been answered, and says it again on each new connection: it is the outbox. What is
sent twice by that, since an answer was lost, its consumer takes once.

Frames are msgpack. Both ends are this party's own and have proven it; but what a proxy says has been near what peers
say, so it is data and nothing else.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import msgpack

from fed.channel import Connection, Lane, ProxyEnd
from fed.core.failure import Fault, Kind
from fed.object import ObjectId
from fed.proxy.deliveries import Delivery, Pushed, Undelivered
from fed.serde.receipt import SmallValue
from fed.transport import wire

__all__ = ["PushClient", "PushServer", "SenderFailed"]

logger = logging.getLogger("fed.sender")

Push = Callable[[Sequence[Delivery], Sequence[SmallValue]], Awaitable[Pushed]]


class SenderFailed(Exception):
    """The sender could not take a push. Its text says why."""


class _Pushing(NamedTuple):
    """A push that has not been answered."""

    frame: bytes
    answer: concurrent.futures.Future[Pushed]


class PushClient:
    """The driver's end. Handles the connections of lane DATA of the sender."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        # Guards the rest.
        self._lock = threading.Lock()
        self._pushing: dict[int, _Pushing] = {}
        self._connection: Connection | None = None

    def push(self, deliveries: Sequence[Delivery], values: Sequence[SmallValue]) -> concurrent.futures.Future[Pushed]:
        """Have values sent, each to its consumers. Never blocks.

        Returns:
            What resolves as `fed.proxy.sender.Sender.push` does.
        """
        number = next(self._numbers)
        pushing = _Pushing(encode_push(number, deliveries, values), concurrent.futures.Future())
        with self._lock:
            self._pushing[number] = pushing
            if self._connection is not None:
                self._connection.send(pushing.frame)
        return pushing.answer

    def connected(self, connection: Connection) -> None:
        """See `fed.channel.DriverHandler`."""
        with self._lock:
            self._connection = connection
            connection.send(*[pushing.frame for pushing in self._pushing.values()])

    def received(self, connection: Connection, frames: Sequence[bytes]) -> None:
        """See `fed.channel.DriverHandler`."""
        for frame in frames:
            number, answer = decode_answer(frame)
            with self._lock:
                pushing = self._pushing.pop(number, None)
            # An earlier life of the sender may have answered too.
            if pushing is None:
                continue
            if isinstance(answer, Pushed):
                pushing.answer.set_result(answer)
            else:
                pushing.answer.set_exception(answer)

    def lost(self, connection: Connection) -> None:
        """See `fed.channel.DriverHandler`."""
        with self._lock:
            if self._connection is connection:
                self._connection = None


class PushServer:
    """The sender's end. Handles lane DATA of its channel.

    Args:
        end: The channel.
        push: What sends; `fed.proxy.sender.Sender.push`.
    """

    def __init__(self, end: ProxyEnd, push: Push) -> None:
        self._end = end
        self._push = push
        # Kept here because the event loop holds tasks weakly.
        self._tasks: set[asyncio.Task[None]] = set()
        # What the driver is to be answered at the end of this turn of the event loop.
        self._answers: list[bytes] = []

    def connected(self, lane: Lane) -> None:
        """See `fed.channel.ProxyHandler`."""

    def received(self, lane: Lane, frames: Sequence[bytes]) -> None:
        """See `fed.channel.ProxyHandler`."""
        for frame in frames:
            task = asyncio.ensure_future(self._serve(*decode_push(frame)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def lost(self, lane: Lane) -> None:
        """See `fed.channel.ProxyHandler`."""

    async def close(self) -> None:
        """End the pushes that are under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, number: int, deliveries: Sequence[Delivery], values: Sequence[SmallValue]) -> None:
        try:
            answer = encode_answer(number, await self._push(deliveries, values))
        except Exception as error:
            logger.exception("a push failed")
            answer = encode_answer(number, SenderFailed(f"{type(error).__name__}: {error}"))
        if not self._answers:
            # With all that are there at the same time.
            asyncio.get_running_loop().call_soon(self._send_answers)
        self._answers.append(answer)

    def _send_answers(self) -> None:
        answers, self._answers = self._answers, []
        self._end.send(Lane.DATA, *answers)


def encode_push(number: int, deliveries: Sequence[Delivery], values: Sequence[SmallValue]) -> bytes:
    """A push as a frame."""
    pushed = [
        (tuple(object_id), consumers, *value) for (object_id, consumers), value in zip(deliveries, values, strict=True)
    ]
    frame: bytes = msgpack.packb((number, pushed))
    return frame


def decode_push(frame: bytes) -> tuple[int, list[Delivery], list[SmallValue]]:
    """Read what `encode_push` wrote."""
    number, pushed = msgpack.unpackb(frame, use_list=False)
    deliveries = [Delivery(ObjectId(*object_id), consumers) for object_id, consumers, _, _ in pushed]
    return number, deliveries, [SmallValue(header, buffers) for _, _, header, buffers in pushed]


def encode_answer(number: int, answer: Pushed | SenderFailed) -> bytes:
    """What became of a push as a frame."""
    told: tuple[Any, ...] = (number,)
    if isinstance(answer, SenderFailed):
        told = (number, str(answer))
    elif answer.undelivered or answer.pending:
        undelivered = [(tuple(object_id), consumer, _fault(fault)) for object_id, consumer, fault in answer.undelivered]
        told = (number, undelivered, [(tuple(delivery.id), delivery.consumers) for delivery in answer.pending])
    # Messages are of users, and may have what no encoding has.
    frame: bytes = msgpack.packb(told, unicode_errors="surrogatepass")
    return frame


def decode_answer(frame: bytes) -> tuple[int, Pushed | SenderFailed]:
    """Read what `encode_answer` wrote."""
    number, *told = msgpack.unpackb(frame, use_list=False, unicode_errors="surrogatepass")
    if len(told) == 1:
        return number, SenderFailed(told[0])
    undelivered, pending = told or ((), ())
    return number, Pushed(
        [Undelivered(ObjectId(*object_id), consumer, _read_fault(fault)) for object_id, consumer, fault in undelivered],
        [Delivery(ObjectId(*object_id), consumers) for object_id, consumers in pending],
    )


def _fault(fault: Fault) -> tuple[Any, ...]:
    inherited = None if fault.inherited is None else wire.encode_failure(fault.inherited)
    texts = (fault.detail, fault.message, fault.traceback)
    return (fault.kind.value, fault.type_name, fault.cause_types, *texts, inherited)


def _read_fault(told: tuple[Any, ...]) -> Fault:
    kind, type_name, cause_types, detail, message, traceback, inherited = told
    failure = None if inherited is None else wire.decode_failure(inherited)
    return Fault(Kind(kind), type_name, cause_types, detail, message, traceback, failure)
