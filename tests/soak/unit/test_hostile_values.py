"""Encodings of all kinds of values, changed at random: each is a value or a `DecodeError`, and soon."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import pathlib
import random
import time
import uuid
import warnings
import zoneinfo
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from fed.serde.contract import DecodeError, Encoded, EncodeError
from tests.support.changing import changed
from tests.support.profile import SEED, times
from tests.support.values import CODEC, Access, Colour, Plain

COUNT = times(4_000, 40_000, 1_000_000)
PARTS = 4
LIMIT_S = 5.0
"""Of processor time, for a value of some hundred bytes."""

VALUES: Final[list[Any]] = [
    [None, True, 1, -(1 << 70), 1.5, "text", b"bytes", [[], {}], {"key": [1, {2: 3}]}, {1 << 70: 1}],
    [(1, (2,)), {1, 2}, frozenset({"a"}), {(1, 2): 3}, collections.deque([1], 3), collections.Counter("ab")],
    [collections.OrderedDict(a=1), collections.defaultdict(int, a=1), range(3), slice(1, None, 2), 1j],
    [decimal.Decimal("1.50"), fractions.Fraction(1, 3), uuid.UUID(int=7), pathlib.PurePosixPath("/a/b")],
    [datetime.datetime(2020, 1, 2, 3, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")), datetime.date(2020, 1, 1)],
    [datetime.time(1, tzinfo=datetime.timezone.utc), datetime.timedelta(1, 2, 3)],
    [Plain(1, [2]), Colour.RED, Access.READ],
    [bytes(20_000), bytearray(20_000), [0.5] * 1024],
    np.arange(6).reshape(2, 3),
    np.zeros(3, [("a", "<i4"), ("b", [("c", ">f8", (2,))]), ("d", "U3")]),
    [np.float32(1), np.datetime64("2020", "D"), np.str_("x"), np.zeros((), [("a", "u1")])[()]],
    np.zeros(2, [("x", "<i8"), ("y", "<U1")]).view(np.recarray),
    pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": pd.DatetimeIndex(["2020", "NaT"])}),
    pd.Series([1, None], dtype="Int64", name="n"),
    pd.Series(pd.Categorical(["a", "b"], ordered=True)),
    pd.DataFrame({"t": pd.date_range("2020", periods=2, tz="Europe/Berlin")}),
    pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["x", None]),
    pd.Series([1], index=pd.period_range("2020", periods=1, freq="M")),
    pd.Series(pd.interval_range(0, 2)),
    [pd.Timestamp("2020", tz="UTC"), pd.Timedelta(1), pd.NaT, pd.NA, pd.date_range("2020", periods=3, freq="D")],
    pa.table({"a": [1, None], "b": ["x", "y"], "c": [[1], [2, 3]], "d": pa.array(["u", "u"]).dictionary_encode()}),
    pa.chunked_array([[1], [2]]),
    pd.Series([1], dtype=pd.ArrowDtype(pa.timestamp("ns", tz="UTC"))),
]
CORPUS: Final = [CODEC.encode(value) for value in VALUES]


def hostile(chance: random.Random) -> Encoded:
    """One of the corpus, changed."""
    header, buffers = chance.choice(CORPUS)
    pieces = [bytes(buffer) for buffer in buffers]
    if not pieces or chance.random() < 0.7:
        header = changed(chance, header, chance.choice(CORPUS).header)
    if pieces and chance.random() < 0.5:
        place = chance.randrange(len(pieces))
        pieces[place] = changed(chance, pieces[place], pieces[place])
    if chance.random() < 0.05:
        pieces = pieces[1:] if pieces and chance.random() < 0.5 else [*pieces, b""]
    return Encoded(header, tuple(map(memoryview, pieces)))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_what_was_changed_is_a_value_or_an_error_and_takes_no_time(part: int) -> None:
    taken = refused = 0
    slowest = 0.0
    with warnings.catch_warnings():
        # What numpy and pandas think of such values is not the point.
        warnings.simplefilter("ignore")
        for seed in range(part * COUNT // PARTS, (part + 1) * COUNT // PARTS):
            encoded = hostile(random.Random(SEED * COUNT + seed))
            began = time.thread_time()
            try:
                value: Any = CODEC.decode(*encoded)
            except DecodeError:
                refused += 1
                value = None
            else:
                taken += 1
            took_s = time.thread_time() - began
            assert took_s < LIMIT_S, f"seed {seed}: {took_s:.1f} s"
            slowest = max(slowest, took_s)
            try:
                # Which reads every byte of it.
                CODEC.encode(value)
            except EncodeError:
                pass
    print(f"{taken} taken, {refused} refused, the slowest {slowest * 1e3:.0f} ms")
    assert min(taken, refused) > COUNT // PARTS // 20, (taken, refused)
