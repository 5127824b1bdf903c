"""A set of object ids of one epoch that costs about a bit for each call.

Both ends of a delivery remember for a whole epoch what has been delivered. An object for itself takes a few hundred
bytes; the calls are numbered, and so are their results, so a bit will do.
"""

from __future__ import annotations

from collections.abc import Sequence

from fed.object import ObjectId

__all__ = ["IdSet"]


class IdSet:
    """Ids of one epoch and one owner. Ids that differ in their stamp alone are taken for the same."""

    __slots__ = ("_bits", "_count", "_slots")

    def __init__(self) -> None:
        # One bit for the first result of each call, which is the only one of most; the others' bits by call.
        self._bits = bytearray()
        self._slots: dict[int, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, object_id: ObjectId) -> bool:
        if object_id.slot:
            return bool(self._slots.get(object_id.sequence, 0) >> object_id.slot & 1)
        place, bit = divmod(object_id.sequence, 8)
        return place < len(self._bits) and bool(self._bits[place] >> bit & 1)

    def add(self, object_id: ObjectId) -> None:
        """Put an id in. Only for ids of this program's own calls: the memory grows with the largest number."""
        if object_id in self:
            return
        self._count += 1
        if object_id.slot:
            self._slots[object_id.sequence] = self._slots.get(object_id.sequence, 0) | 1 << object_id.slot
            return
        place, bit = divmod(object_id.sequence, 8)
        if place >= len(self._bits):
            self._bits.extend(bytes(max(place + 1, 2 * len(self._bits)) - len(self._bits)))
        self._bits[place] |= 1 << bit

    def update(self, other: IdSet) -> None:
        """Put in all that another one holds."""
        size = max(len(self._bits), len(other._bits))
        bits = int.from_bytes(self._bits, "little") | int.from_bytes(other._bits, "little")
        self._bits = bytearray(bits.to_bytes(size, "little"))
        for sequence, slots in other._slots.items():
            self._slots[sequence] = self._slots.get(sequence, 0) | slots
        self._count = bits.bit_count() + sum(slots.bit_count() for slots in self._slots.values())

    def dump(self) -> tuple[bytes, tuple[tuple[int, bytes], ...]]:
        """Itself as plain data, for `load`."""
        slots = tuple(
            (sequence, bits.to_bytes((bits.bit_length() + 7) // 8, "little")) for sequence, bits in self._slots.items()
        )
        return bytes(self._bits), slots

    @classmethod
    def load(cls, dumped: tuple[bytes, Sequence[tuple[int, bytes]]]) -> IdSet:
        """One with the ids of the one that was dumped."""
        ids = cls()
        bits, slots = dumped
        ids._bits = bytearray(bits)
        ids._slots = {sequence: int.from_bytes(mask, "little") for sequence, mask in slots}
        ids._count = _bit_count(bits) + sum(mask.bit_count() for mask in ids._slots.values())
        return ids


def _bit_count(bits: bytes) -> int:
    return int.from_bytes(bits, "little").bit_count()
