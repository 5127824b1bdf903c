"""No view of a decoded array reaches a byte outside its buffer: random dtypes, most of them hostile."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

import msgpack
import numpy as np
import pytest

from fed.serde.contract import DecodeError
from fed.serde.tags import Tag
from tests.support.profile import SEED, times
from tests.support.values import CODEC

COUNT = times(4_000, 40_000, 1_000_000)
CHUNK = 1_000
ITEMS = 3

SIMPLE: Final = (
    "|b1",
    "|u1",
    "<i4",
    ">f8",
    "<c16",
    "|S3",
    "<U2",
    "|V5",
    "|S0",
    "<M8[ns]",
    "<m8[7s]",
    "|V0",
    "<q",
    "<i2",
)
ODD: Final = (
    -1,
    -4,
    1 << 31,
    (1 << 31) - 1,
    (1 << 31) - 4,
    1 << 32,
    (1 << 32) - 4,
    (1 << 62) - 1,
    1 << 63,
    (1 << 64) - 1,
)


def size_of(description: Any) -> int:
    """What a dtype claims to be, with numpy's help for the simple ones only."""
    if type(description) is str:
        return np.dtype(description).itemsize
    if description[0] == "fields":
        return int(description[1])
    size = size_of(description[1])
    for count in description[2:]:
        size *= count
    return size


def description(chance: random.Random, depth: int = 3) -> Any:
    """A dtype as it is on the wire; many of its numbers are wrong by little, or by much."""
    kind = chance.random()
    if not depth or kind < 0.4:
        return chance.choice(SIMPLE)
    if kind < 0.6:
        shape = [odd(chance, chance.randrange(4)) for _ in range(chance.randrange(1, 3))]
        return ["shape", description(chance, depth - 1), *shape]
    fields: list[Any] = []
    end = 0
    for number in range(chance.randrange(4)):
        part = description(chance, depth - 1)
        at = end if chance.random() < 0.7 else chance.randrange(end + 1)
        fields.append([f"f{number}", part, odd(chance, at), *([f"t{number}"] if chance.random() < 0.1 else [])])
        end = max(end, min(at + size_of(part), 1 << 20))
    return ["fields", odd(chance, end + chance.randrange(3)), chance.random() < 0.2, chance.random() < 0.2, *fields]


def odd(chance: random.Random, right: int) -> int:
    """The right number, mostly."""
    kind = chance.random()
    if kind > 0.95:
        right = chance.choice(ODD)
    elif kind > 0.85:
        right += chance.choice((-1, 1, 4))
    return min(right, ODD[-1])


def views(array: Any) -> Iterator[Any]:
    """The array and every view of its fields, at every depth."""
    yield array
    for name in array.dtype.names or ():
        yield from views(array[name])


def bounds(array: Any) -> tuple[int, int]:
    """The first byte that an array can reach, and the one behind the last."""
    interface = array.__array_interface__
    low = high = interface["data"][0]
    if 0 in array.shape or not array.dtype.itemsize:
        return low, low
    for count, stride in zip(array.shape, array.strides, strict=True):
        span = (count - 1) * stride
        low, high = low + min(span, 0), high + max(span, 0)
    return low, high + array.dtype.itemsize


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(0, COUNT, max(COUNT // 4, CHUNK)))
def test_every_view_of_an_array_lies_in_its_buffer(first: int) -> None:
    taken = refused = 0
    for seed in range(first, first + COUNT // 4):
        chance = random.Random(SEED * COUNT + seed)
        dtype = description(chance)
        size = size_of(dtype)
        if not 0 <= ITEMS * size <= 1 << 16:
            size = 16
        buffer = np.zeros(ITEMS * size, np.uint8)
        header = msgpack.packb([msgpack.ExtType(Tag.NUMPY_ARRAY, b""), dtype, "C", False, ITEMS])
        try:
            array = CODEC.decode(header, [buffer.data])
        except DecodeError:
            refused += 1
            continue
        taken += 1
        low, high = bounds(buffer)
        for view in views(array):
            first_byte, behind = bounds(view)
            if behind > first_byte:
                assert low <= first_byte <= behind <= high, f"seed {seed}: {dtype}"
    # Neither may be the rule.
    assert min(taken, refused) > COUNT // 40, (taken, refused)
