from __future__ import annotations

import datetime
import decimal
from typing import Any

import pytest

from fed.serde.contract import DecodeError, EncodeError
from tests.support.values import CODEC, roundtrip

pl: Any = pytest.importorskip("polars", reason="polars is not installed: make test-matrix tests it")

FRAMES = [
    pl.DataFrame(),
    pl.DataFrame({"a": [1, None], "b": [1.5, float("nan")], "s": ["x", None], "t": [True, None]}),
    pl.DataFrame({"": [1], "a": [2]}),
    pl.DataFrame({"a": []}, schema={"a": pl.Float32}),
    pl.DataFrame({"d": [datetime.date(2020, 1, 1)], "t": [datetime.datetime(2020, 1, 1)], "e": [datetime.time(1)]}),
    pl.DataFrame({"z": [datetime.datetime(2020, 1, 1)]}).with_columns(pl.col("z").dt.replace_time_zone("Europe/Paris")),
    pl.DataFrame({"l": [[1], []], "u": [{"x": 1}, {"x": None}], "n": [None, None]}),
    pl.DataFrame({"d": [decimal.Decimal("1.50")], "r": [datetime.timedelta(1)], "b": [b"x"]}),
    pl.DataFrame({"c": ["a", "b"]}, schema={"c": pl.Categorical}),
    pl.DataFrame({"a": [1, 2, 3], "s": ["x", "y", "z"]})[1:],
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: f"{frame.columns}")
def test_a_frame_arrives_as_it_was(frame: Any) -> None:
    arrived = roundtrip([frame])[0]
    assert type(arrived) is pl.DataFrame
    assert arrived.schema == frame.schema
    assert arrived.equals(frame)


@pytest.mark.parametrize("series", [pl.Series("a", [1, None]), pl.Series(["x"]), pl.Series("e", [], dtype=pl.Int8)])
def test_a_series_arrives_as_it_was(series: Any) -> None:
    arrived = roundtrip(series)
    assert type(arrived) is pl.Series
    assert (arrived.name, arrived.dtype) == (series.name, series.dtype)
    assert arrived.equals(series)


def test_what_a_slice_leaves_out_does_not_leave() -> None:
    encoded = CODEC.encode(pl.DataFrame({"s": ["shown", "hidden text, and long"]})[:1])
    assert all(b"hidden" not in bytes(buffer) for buffer in encoded.buffers)


def test_objects_are_refused() -> None:
    frame = pl.DataFrame({"o": [object()]}, schema={"o": pl.Object})
    with pytest.raises(EncodeError, match=r"its column 'o' holds Python objects; send value.to_dicts"):
        CODEC.encode([frame])


def test_a_type_that_arrow_does_not_know_is_refused() -> None:
    frame = pl.DataFrame({"i": pl.Series([1], dtype=pl.Int128)})
    with pytest.raises(EncodeError, match=r"a column has no form in Arrow: .*; cast it to another dtype"):
        CODEC.encode(frame)
    assert roundtrip(frame.cast(pl.Int64)).equals(frame.cast(pl.Int64))


def test_a_type_that_polars_does_not_know_is_refused() -> None:
    pa: Any = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import msgpack

    from fed.serde.tags import Tag

    for array in (
        pa.array([pa.MonthDayNano([1, 1, 1])]),
        pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])]),
    ):
        arrow = CODEC.encode(pa.table({"x": array}))
        tree = [msgpack.ExtType(Tag.POLARS, b""), False, msgpack.unpackb(arrow.header)]
        with pytest.raises(DecodeError):
            CODEC.decode(msgpack.packb(tree), arrow.buffers)
