"""A driver's side of a receiver, without a channel: it waits for objects and takes what is large."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from fed.core.failure import Fault
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
        """The values of objects, each as soon as it is there."""
        for key in keys:
            self._waiting[key] = asyncio.get_running_loop().create_future()
        self._receiver.expect(keys)
        return [await self._value(await self._waiting[key]) for key in keys]

    async def _value(self, arrived: Arrived) -> Any:
        if arrived.small is not None:
            return SmallCodec().read(arrived.small)
        value, fault = await self._receiver.take(arrived.key)
        return value if fault is None else Undecodable(fault)

    def _deliver(self, arrivals: Sequence[Arrived]) -> None:
        for one in arrivals:
            self.arrived.append(one)
            waiting = self._waiting.get(one.key)
            if waiting is not None and not waiting.done():
                waiting.set_result(one)
