"""A driver's side of a receiver, without a channel: it waits for objects and takes what is large."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from fed.core.failure import Failure, Fault
from fed.core.rendezvous import Key
from fed.proxy.arriving import Arrived
from fed.proxy.receiver import Receiver
from fed.serde.receipt import SmallCodec

__all__ = ["Consumer", "Undecodable"]


class Undecodable(NamedTuple):
    """Stands for an object that cannot be decoded."""

    fault: Fault


class Consumer:
    """Waits at a receiver as a driver does. It confirms nothing by itself.

    Args:
        receiver: Where.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._waiting: dict[Key, asyncio.Future[Arrived]] = {}
        self.arrived: list[Arrived] = []
        receiver.attach(self._deliver)

    async def receive(self, *keys: Key) -> list[Any]:
        """The values of objects, each as soon as it is there; in place of one that fails its failure."""
        for key in keys:
            self._waiting[key] = asyncio.get_running_loop().create_future()
        self._receiver.expect(keys)
        return [await self._value(await self._waiting[key]) for key in keys]

    async def _value(self, arrived: Arrived) -> Any:
        if arrived.failure is not None:
            return arrived.failure
        if arrived.small is not None:
            return SmallCodec().read(arrived.small)
        taking = asyncio.ensure_future(self._receiver.take(arrived.key))
        # It may fail while it is being taken.
        self._waiting[arrived.key] = failing = asyncio.get_running_loop().create_future()
        await asyncio.wait([taking, failing], return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            taking.cancel()
            return failing.result().failure
        value, fault = await taking
        return value if fault is None else Undecodable(fault)

    def _deliver(self, arrivals: Sequence[Arrived]) -> None:
        for one in arrivals:
            self.arrived.append(one)
            waiting = self._waiting.get(one.key)
            if waiting is not None and not waiting.done():
                waiting.set_result(one)


def failure_of(received: Any) -> Failure:
    """The failure that was received in place of a value."""
    if not isinstance(received, Failure):
        raise TypeError(f"{received!r} is no failure")
    return received
