from __future__ import annotations

import datetime
import decimal
import enum
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed.serde.contract import DecodeError, EncodeError
from fed.serde.tree import MAX_DEPTH
from tests.support.values import CODEC, Frozen, roundtrip

pd: Any = pytest.importorskip("pandas", reason="pandas is not installed")

from hypothesis.extra import pandas as hpd  # noqa: E402


class Label(enum.Enum):
    A = 1


INDEXES = [
    pd.RangeIndex(5, 20, 3, name="r"),
    pd.RangeIndex(0),
    pd.Index([1, 2, 3], name=("a", 1)),
    pd.Index(["a", None, "b"]),
    pd.Index(["a", 1, (2, 3), None, float("nan")], dtype=object),
    pd.Index([(1, 2), (3, 4)], tupleize_cols=False),
    pd.Index([True, False]),
    pd.Index([]),
    pd.Index([1.5], dtype="float32"),
    pd.Index(pd.array([1, None], dtype="Int64")),
    pd.MultiIndex.from_product([[1, 2], ["a", "b"]], names=["x", None]),
    pd.MultiIndex.from_arrays([[1, None], pd.to_datetime(["2020", None])]),
    pd.MultiIndex.from_arrays([["a", "a"], [1, 1]])[:1],
    pd.date_range("2020", periods=3),
    pd.date_range("2020", periods=3, tz="Europe/Paris", freq="MS"),
    pd.date_range("2020", periods=3, tz=datetime.timezone.utc),
    pd.DatetimeIndex(["2020", "2021-03-03", None]),
    pd.timedelta_range("1h", periods=3),
    pd.period_range("2020", periods=3, freq="M"),
    pd.PeriodIndex(["2020Q1", None], freq="Q-JAN"),
    pd.interval_range(0, 3, closed="left"),
    pd.interval_range(pd.Timestamp("2020"), periods=2),
    pd.CategoricalIndex(["a", "b", "a", None], ordered=True, categories=["b", "a", "z"]),
]


@pytest.mark.parametrize("index", INDEXES, ids=lambda index: f"{type(index).__name__}-{index.dtype}")
def test_an_index_arrives_as_it_was(index: Any) -> None:
    arrived = roundtrip(index)
    assert type(arrived) is type(index)
    pd.testing.assert_index_equal(arrived, index, exact=True)
    assert arrived.dtype == index.dtype
    assert arrived.names == index.names
    assert getattr(arrived, "freq", None) == getattr(index, "freq", None)


SERIES = [
    pd.Series([1, 2, 3], name="x"),
    pd.Series([1.5, np.nan], index=["a", "b"]),
    pd.Series([1, 2], index=["same", "same"]),
    pd.Series(["a", None, "ü"]),
    pd.Series(["a", "b"], dtype=object),
    pd.Series(["a", None, 1, 2.5, (1, 2), [1], pd.NA, decimal.Decimal(1), datetime.date.min], dtype=object),
    pd.Series([pd.NaT, pd.Timestamp("2020", tz="UTC"), pd.Timedelta("1h")], dtype=object),
    pd.Series([1, None], dtype="Int8"),
    pd.Series([2**64 - 1, None], dtype="UInt64"),
    pd.Series([True, None], dtype="boolean"),
    pd.Series([1.5, None], dtype="Float32"),
    pd.Series(["a", None], dtype="string[python]"),
    pd.Series(["a", "b"], dtype="category"),
    pd.Series(pd.Categorical([3, 1, None], categories=[1, 2, 3], ordered=True)),
    pd.Series(pd.to_datetime(["2020", None])),
    pd.Series(np.array(["2020"], "M8[s]")),
    pd.Series(pd.to_datetime(["2020-07-01", None]).tz_localize("Europe/Paris")),
    pd.Series(pd.to_timedelta([1, 2], unit="s")),
    pd.Series(pd.period_range("2020", periods=3, freq="D")),
    pd.Series(pd.interval_range(0, 3)),
    pd.Series([], dtype=float),
    pd.Series([1 + 2j]),
    pd.Series(np.array([1, 2], ">i4")),
    pd.Series(np.arange(10)[::2]),
]


@pytest.mark.parametrize("series", SERIES, ids=lambda series: str(series.dtype))
def test_a_series_arrives_as_it_was(series: Any) -> None:
    series.attrs = {"unit": ("m", 1)}
    arrived = roundtrip([series])[0]
    pd.testing.assert_series_equal(arrived, series, check_freq=True, check_flags=True)
    assert arrived.dtype == series.dtype
    assert type(arrived.array) is type(series.array)
    assert arrived.attrs == series.attrs
    assert list(map(type, arrived)) == list(map(type, series))


def test_nothing_and_no_number_stay_apart_in_arrows_memory() -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    chunks = pa.chunked_array([pa.array([1.5, float("nan"), None]), pa.array([2.5])])
    arrived = roundtrip(pd.Series(pd.arrays.ArrowExtensionArray(chunks)))
    assert repr(arrived.array.__arrow_array__().to_pylist()) == "[1.5, nan, None, 2.5]"


def test_arrow_backed_columns_arrive_as_they_were() -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    for dtype in ("string[pyarrow]", "int64[pyarrow]", pd.ArrowDtype(pa.list_(pa.int8()))):
        values = [[1], None] if isinstance(dtype, pd.ArrowDtype) else ["1", None] if "string" in dtype else [1, None]
        series = pd.Series(values, dtype=dtype)
        arrived = roundtrip(series)
        pd.testing.assert_series_equal(arrived, series)
        assert arrived.dtype == series.dtype


FRAMES = [
    pd.DataFrame(),
    pd.DataFrame(index=[1, 2, 3]),
    pd.DataFrame(columns=["a", "b"]),
    pd.DataFrame({"a": [1, 2], "b": ["x", None], 3: [1.5, np.nan], "t": [pd.Timestamp(0)] * 2}, index=["u", "u"]),
    pd.DataFrame([[1, "a"], [2, "b"]], columns=["same", "same"]),
    pd.DataFrame(np.arange(15.0).reshape(5, 3)),
    pd.DataFrame(np.asfortranarray(np.arange(15.0).reshape(5, 3)), index=pd.date_range("2020", periods=5)),
    pd.DataFrame({"o": pd.Series(["a", "b"], dtype=object)}),
    pd.DataFrame({("a", 1): [1], ("b", 2): [2]}),
    pd.DataFrame({"t": pd.date_range("2020", periods=2, tz="UTC")}).set_flags(allows_duplicate_labels=False),
    pd.DataFrame({"a": [1]}).rename_axis(index="i", columns="c"),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: f"{frame.shape}-{list(frame.columns)}"[:40])
def test_a_frame_arrives_as_it_was(frame: Any) -> None:
    frame.attrs = {"source": [1, (2,)]}
    arrived = roundtrip({"frame": frame})["frame"]
    pd.testing.assert_frame_equal(
        arrived, frame, check_freq=True, check_flags=True, check_column_type=True, check_index_type=True
    )
    assert arrived.dtypes.tolist() == frame.dtypes.tolist()
    assert arrived.attrs == frame.attrs
    assert type(arrived.columns) is type(frame.columns)


@settings(max_examples=40)
@given(
    hpd.data_frames(
        [
            hpd.column("i", dtype=np.int16),
            hpd.column("f", dtype=float),
            hpd.column("b", dtype=bool),
            hpd.column("t", dtype=np.dtype("M8[ns]")),
            hpd.column("o", elements=st.one_of(st.none(), st.text(max_size=3), st.integers()), dtype=object),
        ]
    )
)
def test_any_frame_arrives_as_it_was(frame: Any) -> None:
    pd.testing.assert_frame_equal(roundtrip(frame), frame)


def test_numpy_columns_are_views_of_the_buffers_and_read_only() -> None:
    series = pd.Series(np.arange(5000.0), name="x")
    encoded = CODEC.encode(series)
    assert np.shares_memory(np.asarray(encoded.buffers[0]), series.to_numpy())
    arrived = CODEC.decode(*encoded)
    assert np.shares_memory(arrived.to_numpy(), series.to_numpy())
    assert not arrived.to_numpy().flags.writeable
    assert (arrived + 1)[0] == 1


def test_what_a_mask_hides_does_not_leave() -> None:
    hidden = pd.arrays.IntegerArray(np.array([1, 0xAB]), np.array([False, True]))
    encoded = CODEC.encode(pd.Series(hidden))
    assert all(0xAB not in bytes(buffer) for buffer in encoded.buffers)


@pytest.mark.parametrize(
    "scalar",
    [
        pd.Timestamp("2020-01-01"),
        pd.Timestamp("2020-10-25 00:30", tz="UTC").tz_convert("Europe/Paris"),
        pd.Timestamp(1, unit="ns"),
        pd.Timestamp("2020-01-01", tz=datetime.timezone.utc).as_unit("s"),
        pd.Timedelta("1h"),
        pd.Timedelta(-1, unit="ns"),
        pd.NaT,
        pd.NA,
    ],
    ids=repr,
)
def test_scalars_keep_type_unit_and_zone(scalar: Any) -> None:
    arrived = roundtrip([scalar])[0]
    assert type(arrived) is type(scalar)
    assert repr(arrived) == repr(scalar)
    assert getattr(arrived, "unit", None) == getattr(scalar, "unit", None)


Table = type("Table", (pd.DataFrame,), {})


@pytest.mark.parametrize(
    ("value", "where", "why"),
    [
        (pd.DataFrame({"a": [1], "b": [object()]}), "['b'][0]", "plain data only"),
        (pd.Series([1], index=[object()]), ".index[0]", "plain data only"),
        (pd.Series([Label.A], name="x"), "[0]", "fed.init(types=[Label])"),
        (pd.Series([1], name=Label.A), ".name", "fed.init(types=[Label])"),
        (pd.DataFrame([[1]], columns=[Label.A]), ".columns[0]", "fed.init(types=[Label])"),
        (pd.MultiIndex.from_arrays([[1], [Label.A]]), ".levels[0]", "fed.init(types=[Label])"),
        (pd.Series(pd.arrays.SparseArray([0, 1])), "", "send value.sparse.to_dense()"),
        (pd.Series([1]).array, "", "send value.to_numpy()"),
        (Table({"a": [1]}), "", "convert it with pandas.DataFrame(...)"),
        (
            pd.date_range("2020-01-01", periods=2, freq=pd.offsets.CustomBusinessDay(holidays=["2020-01-02"])),
            "",
            "set freq to None",
        ),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_what_is_refused_has_a_place_in_the_frame(value: Any, where: str, why: str) -> None:
    with pytest.raises(EncodeError) as caught:
        CODEC.encode([value])
    assert caught.value.where == f"[0]{where}"
    assert why in str(caught.value)


def test_an_array_of_objects_arrives_as_it_was() -> None:
    array = pd.Series(["a", 1], dtype=object).array
    arrived = roundtrip(array)
    assert type(arrived) is type(array)
    assert list(arrived) == ["a", 1]


@pytest.mark.parametrize(
    "value",
    [
        pd.Series([1, None], dtype="Int64"),
        pd.Series([True], dtype="boolean").array,
        pd.DataFrame({"a": ["x"], "b": [(1,)]}),
        pd.MultiIndex.from_arrays([["a"], [1]]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_deep_enough_to_be_sent_is_not_too_deep_to_be_received(value: Any) -> None:
    refused = 0
    for _ in range(MAX_DEPTH):
        value = [value]
        try:
            encoded = CODEC.encode(value)
        except EncodeError:
            refused += 1
        else:
            CODEC.decode(*encoded)
    assert 0 < refused < 10


def test_declared_types_cross_in_columns() -> None:
    series = pd.Series([Frozen(1), None])
    assert roundtrip(series).tolist() == [Frozen(1), None]


@settings(max_examples=300)
@given(st.sampled_from([*INDEXES, *SERIES, *FRAMES]), st.data())
def test_mutated_encodings_are_values_or_refused(value: Any, data: st.DataObject) -> None:
    encoded = CODEC.encode(value)
    header = bytearray(encoded.header)
    place: int = data.draw(st.integers(0, len(header) - 1))
    header[place : place + 1] = data.draw(st.binary(max_size=2))
    buffers = [bytes(buffer) for buffer in encoded.buffers]
    change: bool = data.draw(st.booleans())
    if buffers and change:
        index = data.draw(st.integers(0, len(buffers) - 1))
        buffers[index] = data.draw(st.binary(max_size=16))
    try:
        CODEC.decode(bytes(header), [memoryview(buffer) for buffer in buffers])
    except DecodeError:
        pass
