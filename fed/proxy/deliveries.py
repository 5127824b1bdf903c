"""What a push asks for, and what becomes of it."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, TypeAlias

from fed.core.failure import Fault
from fed.object import ObjectId

__all__ = ["Delivery", "DeliveryFuture", "Pushed", "Undelivered"]


class Delivery(NamedTuple):
    """An object and the parties that need it."""

    id: ObjectId
    consumers: tuple[str, ...]


class Undelivered(NamedTuple):
    """An object that will not reach a party, and why."""

    id: ObjectId
    consumer: str
    fault: Fault


DeliveryFuture: TypeAlias = "asyncio.Future[Undelivered | None]"
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
