"""What a codec is: a value to a small header and zero-copy buffers, and back.

Guarantees:

- ``decode(encode(value))`` equals the value and has its type, at every depth.
- Encoding copies no buffer that is already contiguous; decoding copies none at all: arrays are read-only views.
- Decoding bytes from anywhere runs no code that they name and imports nothing (codec ``data``).
- What a codec cannot carry is an `EncodeError` that names the type, where in the value it sits, and the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

__all__ = ["Codec", "DecodeError", "EncodeError", "Encoded"]


class EncodeError(Exception):
    """The value cannot cross.

    Attributes:
        type_name: Name of the class that no codec rule covers; safe to tell a peer.
        reason: What is wrong with it and the way out. It says nothing of the value, so every party may read it.
        where: Path from the root of the value to the culprit, for example ``[3]['weights']``. It may hold the
            user's keys, so it stays in this party.
    """

    def __init__(self, message: str, type_name: str, where: str, reason: str) -> None:
        super().__init__(message, type_name, where, reason)
        self.type_name = type_name
        self.reason = reason
        self.where = where

    def __str__(self) -> str:
        return str(self.args[0])


class DecodeError(Exception):
    """The bytes are not what this codec writes, or name a type that was not declared here."""


class Encoded(NamedTuple):
    """A value in bytes.

    Attributes:
        header: The tree, the small leaves and the description of each buffer.
        buffers: Contiguous one-dimensional byte views (``format == "B"``) into the value's own memory.
    """

    header: bytes
    buffers: tuple[memoryview, ...]

    @property
    def nbytes(self) -> int:
        """Size of header and buffers together, in bytes."""
        return len(self.header) + sum(buffer.nbytes for buffer in self.buffers)


class Codec(Protocol):
    """Value to bytes and back. Stateless and safe to call from any thread."""

    def encode(self, value: Any) -> Encoded:
        """Describe a value in a header and buffers.

        Raises:
            EncodeError: Something in it cannot cross.
        """
        ...

    def decode(self, header: bytes, buffers: Sequence[memoryview]) -> Any:
        """Rebuild the value.

        Args:
            header: As made by `encode`.
            buffers: As made by `encode`, in the same order; the value refers to them from now on.

        Raises:
            DecodeError: The bytes are malformed.
        """
        ...
