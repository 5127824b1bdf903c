"""Small results in bytes, made where they were computed: what a party is to send is then in its driver's hands.

A *receipt* comes with the results of each task. It costs what encoding costs, which somebody has to pay if the result
crosses; where it does not, that is lost, and so it is made of what is quick to encode only.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgpack

from fed.config import DeclaredType
from fed.serde.data import DataCodec
from fed.serde.encode_cost import is_small

__all__ = ["MAX_BYTES", "Receipt", "SmallCodec", "SmallValue", "read_receipt"]

MAX_BYTES: Final = 1 << 16
"""Of one receipt. Ray brings what is larger by way of its object store, where the results are anyway."""


class SmallValue(NamedTuple):
    """A value in bytes, as `fed.serde.contract.Encoded`, which may be passed between processes.

    Attributes:
        header: As there.
        buffers: Copies of those there.
    """

    header: bytes
    buffers: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """The same as one piece, which Ray passes on as it is: anything else it pickles."""
        data: bytes = msgpack.packb(self)
        return data

    @classmethod
    def of_bytes(cls, data: bytes) -> SmallValue:
        """Read what `to_bytes` wrote."""
        return cls(*msgpack.unpackb(data, use_list=False))


Receipt: TypeAlias = tuple[SmallValue | None, ...] | None
"""What a task's end tells of each result: the value, or nothing if it is large or refused. None if of none."""


class SmallCodec:
    """Writes receipts, and reads what is in those of peers. Can be passed to other processes.

    Args:
        types: The declared types of the job.
        max_bytes: The size of the largest value that is small; of what is over `MAX_BYTES` there is no receipt, and
            with 0 of nothing.
    """

    def __init__(self, types: Sequence[DeclaredType] = (), max_bytes: int = 0) -> None:
        self._types = tuple(types)
        self._max_bytes = max_bytes

    def without_receipts(self) -> SmallCodec:
        """The same for results that may still change when they are written down."""
        return SmallCodec(self._types)

    def write(self, results: Sequence[Any]) -> bytes:
        """The receipt of these results, in bytes. Total: what cannot be encoded is told when somebody needs it."""
        room = min(self._max_bytes, MAX_BYTES)
        if not room:
            return b""
        receipt: list[SmallValue | None] = []
        for value in results:
            small = self._small(value, room)
            room -= 0 if small is None else len(small.header) + sum(map(len, small.buffers))
            receipt.append(small)
        if not any(receipt):
            return b""
        data: bytes = msgpack.packb(receipt)
        return data

    def read(self, small: SmallValue) -> Any:
        """The value.

        Raises:
            DecodeError: As `DataCodec.decode`.
        """
        return _codec(self._types).decode(small.header, [memoryview(buffer) for buffer in small.buffers])

    def check(self, value: Any) -> None:
        """Find out whether a value of any size can be written.

        Raises:
            EncodeError: As `DataCodec.encode`.
        """
        _codec(self._types).encode(value)

    def _small(self, value: Any, room: int) -> SmallValue | None:
        try:
            if not is_small(value):
                return None
            encoded = _codec(self._types).encode(value)
            if encoded.nbytes > room:
                return None
            return SmallValue(encoded.header, tuple([bytes(buffer) for buffer in encoded.buffers]))
        # Whatever a value of the user's may raise that looks like what it is not.
        except Exception:  # noqa: BLE001
            return None


def read_receipt(data: bytes) -> Receipt:
    """Read what `SmallCodec.write` wrote."""
    if not data:
        return None
    return tuple([small and SmallValue(*small) for small in msgpack.unpackb(data, use_list=False)])


@functools.lru_cache(maxsize=8)
def _codec(types: tuple[DeclaredType, ...]) -> DataCodec:
    """One for each process and job."""
    return DataCodec(types)
