"""Whether a value is quick to encode, found out without encoding it."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import sys
import uuid
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

__all__ = ["MAX_COPIED_BYTES", "MAX_ITEMS", "is_small"]


MAX_ITEMS: Final = 256
"""Most items, containers included, that a small value has."""

MAX_COPIED_BYTES: Final = 1 << 16
"""Most bytes of a small value that have to be copied. Bytes and arrays that go out as they lie count for nothing."""


def is_small(value: Any) -> bool:
    """Whether encoding a value is quick enough to do on an event loop.

    A guess for codec ``data``, on the safe side: False for what it does not know. It looks at no more than `MAX_ITEMS`
    items and never at what an array holds, so it is itself bounded in time.
    """
    leaves = MAX_ITEMS
    room = MAX_COPIED_BYTES
    pending: list[Any] = [value]
    while pending:
        leaves -= 1
        if leaves < 0:
            return False
        item = pending.pop()
        kind = type(item)
        if kind in _FREE:
            continue
        inside: Iterable[Any] = ()
        if kind is str or kind is int:
            # A character takes four bytes at most, and what counts here is the order of magnitude.
            room -= len(item) if kind is str else item.bit_length() // 8
        elif kind in _CONTAINERS or (issubclass(kind, tuple) and hasattr(kind, "_fields")):
            inside = item
        elif kind is dict:
            inside = (part for pair in item.items() for part in pair)
        elif kind is datetime.datetime or kind is datetime.time:
            # The first zone of the IANA database that is encoded makes for reading all their names.
            inside = (item.tzinfo,)
        elif issubclass(kind, enum.Enum):
            continue
        elif dataclasses.is_dataclass(kind):
            inside = (getattr(item, field.name, None) for field in dataclasses.fields(kind))
        else:
            copied = _array_bytes_copied(item)
            if copied is None:
                return False
            room -= copied
        if room < 0:
            return False
        # One more than are left is enough to see that there are too many.
        pending += islice(inside, leaves - len(pending) + 1)
    return True


_FREE = frozenset(
    {
        type(None),
        bool,
        float,
        complex,
        bytes,
        bytearray,
        datetime.date,
        datetime.timedelta,
        datetime.timezone,
        uuid.UUID,
    }
)
_CONTAINERS = frozenset({list, tuple, set, frozenset})


def _array_bytes_copied(value: Any) -> int | None:
    """Bytes that have to be copied to encode an array or numpy scalar, None for anything else."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if type(value) is numpy.ndarray:
            if value.dtype.char in "OT":
                # Of items, about which only a walk would tell.
                return None
            from fed.serde.arrays import sends_own_memory

            return 0 if sends_own_memory(value) else int(value.nbytes)
        if isinstance(value, numpy.generic):
            return int(value.nbytes)
    torch = sys.modules.get("torch")
    if torch is not None and type(value) is getattr(torch, "Tensor", None):
        return 0 if value.is_contiguous() else value.numel() * value.element_size()
    return None
