"""Bytes with a few changes of the kind that overflows something."""

from __future__ import annotations

import random
from typing import Final

NUMBERS: Final = [
    (value & ((1 << 64) - 1)).to_bytes(8, order)[-width if order == "big" else 0 : None if order == "big" else width]
    for value in (0, 1, 2, 127, 128, 255, 1 << 14, (1 << 31) - 4, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 62, -1, -4)
    for width in (1, 2, 4, 8)
    for order in ("big", "little")
]
"""What is likely to overflow something, in every form."""


def changed(chance: random.Random, raw: bytes, others: bytes) -> bytes:
    """The same bytes with a few changes."""
    given = bytearray(raw)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(given) + 1)
        kind = chance.random()
        if kind < 0.35:
            given[at : at + 1] = bytes([chance.randrange(256)])
        elif kind < 0.65:
            number = chance.choice(NUMBERS)
            given[at : at + len(number)] = number
        elif kind < 0.75:
            del given[at : at + chance.randrange(1, 9)]
        elif kind < 0.9:
            start = chance.randrange(len(others) + 1)
            given[at:at] = others[start : start + chance.randrange(1, 40)]
        else:
            del given[at:]
    return bytes(given)
