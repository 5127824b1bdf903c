"""What a push asks for, and what becomes of it."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, TypeAlias

from fed.core.failure import Fault, Kind
from fed.object import ObjectId
from fed.serde.contract import EncodeError

__all__ = ["Delivery", "DeliveryFuture", "Pushed", "Undelivered", "refusal"]


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


def refusal(error: EncodeError) -> Fault:
    """What is wrong with a value that the codec refuses."""
    detail = f"a value of type {error.type_name} may not cross: {error.reason}"
    # The error's own text says where in the value it was, and so it stays a message, which only some may see.
    return Fault(Kind.UNSERIALIZABLE, error.type_name, detail=detail, message=str(error))
