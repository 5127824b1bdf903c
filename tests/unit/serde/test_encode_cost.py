from __future__ import annotations

import datetime
import time
import zoneinfo
from typing import Any

import numpy as np
import pytest

from fed.serde.encode_cost import MAX_COPIED_BYTES, MAX_ITEMS, is_small
from tests.support.values import Colour, Pair, Plain

HUGE = np.zeros((2000, 2000))


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        2**64,
        1.5,
        "short",
        b"x" * 10**6,
        bytearray(10**6),
        HUGE,
        HUGE.T,
        HUGE[:5, ::2],
        np.float32(1),
        [1.0] * 255,
        {"loss": 0.5, "weights": [HUGE, HUGE], "shape": (1, 2)},
        {1, 2},
        Plain(HUGE, [1]),
        Pair(HUGE, 1),
        [],
        Colour.RED,
        {"at": datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_takes_microseconds_is_small(value: Any) -> None:
    assert is_small(value)


@pytest.mark.parametrize(
    "value",
    [
        [1.0] * 256,
        list(range(10**6)),
        {i: i for i in range(128)},
        [[[0] * 100] * 100] * 100,
        "x" * 70_000,
        ["x" * 30_000] * 3,
        {"x" * 70_000: 1},
        1 << 8 * 70_000,
        HUGE[:, ::2],
        [HUGE[:5, ::2]] * 10,
        np.zeros(10_000, np.longdouble),
        object(),
        [object()],
        datetime.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
        Plain(object()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_takes_longer_or_is_not_known_is_not(value: Any) -> None:
    assert not is_small(value)


def test_the_limits() -> None:
    assert is_small([1] * (MAX_ITEMS - 1))
    assert not is_small([1] * MAX_ITEMS)
    assert is_small("x" * MAX_COPIED_BYTES)
    assert not is_small("x" * (MAX_COPIED_BYTES + 1))


def test_it_does_not_look_at_all_of_a_large_value() -> None:
    looked_at = 0

    class Counting(Pair):
        def __iter__(self) -> Any:
            nonlocal looked_at
            for _ in range(10**9):
                looked_at += 1
                yield 1

    assert not is_small(Counting(1))
    assert looked_at <= 257

    cycle: list[Any] = []
    cycle.append(cycle)
    assert not is_small(cycle)


def test_it_takes_no_longer_for_more() -> None:
    def seconds(value: Any) -> float:
        start = time.perf_counter()
        is_small(value)
        return time.perf_counter() - start

    many = [[i] for i in range(10**5)]
    # A thousand items in ten milliseconds would already be slow: a hundred thousand would take more.
    assert min(seconds(many) for _ in range(5)) < 0.01
