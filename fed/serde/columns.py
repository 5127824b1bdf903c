"""How codec ``data`` carries the columns of pandas: its extension arrays. Importing this module imports pandas.

What travels describes the values. How a column keeps them is a hint, which the receiver takes as far as its own
packages go: texts are texts whether they lie in Python's memory or in Arrow's, whatever stands for a missing one, and
in a pandas that has no dtype for them they are objects. Arrow's numbers and texts are nullable columns where there is
no pyarrow.
"""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pandas as pd

from fed.serde import zones
from fed.serde.builtin import expect
from fed.serde.contract import DecodeError
from fed.serde.labels import check_frequency, check_labels, refuse_unsorted
from fed.serde.tags import Tag
from fed.serde.tree import Reader, ReadRule, Refused, Writer, head

__all__ = [
    "READ_RULES",
    "column",
    "expect_array",
    "expect_column",
    "expect_instance",
    "expect_unit",
    "expect_zone",
    "named_zone",
    "nowhere",
    "read_kinds",
    "write_array",
]


def nowhere(index: int) -> str:
    """The place of a part that has no name for a user."""
    return ""


def read_kinds(what: str, rules: dict[str, Callable[..., Any]]) -> ReadRule:
    """The rule for what begins with its kind: ``rules[kind](reader, *parts)``."""

    def read(reader: Reader, args: list[Any], room: int) -> Any:
        kind, *parts = reader.items(args, room)
        if type(kind) is not str or kind not in rules:
            raise DecodeError(f"{what} is of an unknown kind")
        return rules[kind](reader, *parts)

    return read


def expect_instance(cls: Any, value: Any) -> Any:
    """The value, which must be of a class; else a `DecodeError`."""
    if not isinstance(value, cls):
        raise DecodeError(f"a {type(value).__name__} stands where a {cls.__name__} should")
    return value


def expect_array(value: Any, kinds: str) -> Any:
    """The value, which must be a numpy array of one dimension and a dtype of these kinds; else a `DecodeError`."""
    if type(value) is not np.ndarray or value.ndim != 1 or value.dtype.kind not in kinds:
        raise DecodeError("something else stands where an array should")
    return value


def expect_column(value: Any) -> Any:
    """The value, which must be what `column` makes; else a `DecodeError`."""
    if not isinstance(value, (np.ndarray, pd.api.extensions.ExtensionArray)) or value.ndim != 1:
        raise DecodeError("something else stands where a column should")
    return value


def column(values: Any) -> Any:
    """The values of a series or an index: numpy memory, or an extension array."""
    if isinstance(values.dtype, np.dtype) and values.dtype.kind != "O":
        return values.to_numpy()
    return values.array


def write_array(writer: Writer, value: Any, room: int) -> Any:
    """The tree of an extension array."""
    return [_ARRAY, *writer.items(value, _parts(value), room, nowhere)]


def _parts(value: Any) -> list[Any]:
    """An extension array as its kind and what its class is made of."""
    cls, dtype = type(value), value.dtype
    if cls is pd.arrays.NumpyExtensionArray and dtype.kind == "O":
        return ["object", value.to_numpy().tolist()]
    if cls is pd.arrays.NumpyExtensionArray or isinstance(dtype, np.dtype):
        raise Refused(cls, "a wrapper around a numpy array; send value.to_numpy()")
    if isinstance(dtype, pd.CategoricalDtype):
        refuse_unsorted(dtype.categories, cls)
        return ["category", dtype.categories, np.asarray(value.codes), dtype.ordered]
    if isinstance(dtype, pd.DatetimeTZDtype):
        return ["datetimetz", named_zone(dtype.tz), dtype.unit, pd.DatetimeIndex(value).asi8]
    if isinstance(dtype, pd.StringDtype):
        missing_is_nan = getattr(dtype, "na_value", pd.NA) is not pd.NA
        return ["string", dtype.storage, missing_is_nan, value.to_numpy(dtype=object, na_value=None).tolist()]
    if isinstance(dtype, pd.PeriodDtype):
        index: Any = pd.PeriodIndex(value)
        if pd.PeriodDtype(index.freqstr) != dtype:
            raise Refused(cls, "its frequency has parameters that its name does not tell", index.freqstr)
        return ["period", index.freqstr, index.asi8]
    if isinstance(dtype, pd.IntervalDtype):
        return ["interval", value.left, value.right, dtype.closed]
    if cls in _MASKED:
        # What is under the mask was removed by somebody, so zeros go instead.
        known = value.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
        return ["masked", known, np.asarray(value.isna())]
    if isinstance(dtype, pd.ArrowDtype):
        return _arrow_parts(value.__arrow_array__())
    if isinstance(dtype, pd.SparseDtype):
        raise Refused(cls, "codec 'data' does not carry sparse columns; send value.sparse.to_dense()", str(dtype))
    raise Refused(cls, "codec 'data' does not carry its dtype; convert it with .astype(...)", str(dtype))


_MASKED: Final[dict[Any, str]] = {
    pd.arrays.BooleanArray: "b",
    pd.arrays.IntegerArray: "iu",
    pd.arrays.FloatingArray: "f",
}


_ARROW_NUMBERS: Final = frozenset(
    {
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float",
        "double",
    }
)
_ARROW_TEXTS: Final = frozenset({"string", "large_string"})
"""Types of Arrow that pandas has nullable columns for, by the names that Arrow gives them."""


def _arrow_parts(chunks: Any) -> list[Any]:
    name = str(chunks.type)
    if name in _ARROW_NUMBERS:
        # What is under a null was removed by somebody, so zeros go instead.
        known = chunks.fill_null(False if name == "bool" else 0).to_numpy()
        return ["arrow numbers", name, known, chunks.is_null().to_numpy()]
    if name in _ARROW_TEXTS:
        return ["arrow texts", name, chunks.to_pylist()]
    return ["arrow", chunks]


def _read_objects(reader: Reader, items: Any) -> Any:
    # Given an array of objects, pandas would look into it for a better dtype; given this, it keeps what it gets.
    return pd.arrays.NumpyExtensionArray(np.fromiter(expect_instance(list, items), dtype=object, count=len(items)))


def _read_category(reader: Reader, labels: Any, codes: Any, ordered: Any) -> Any:
    check_labels(reader, expect_instance(pd.Index, labels))
    expect([ordered], bool)
    return pd.Categorical.from_codes(expect_array(codes, "i"), categories=labels, ordered=ordered)


def _read_datetimetz(reader: Reader, zone: Any, unit: Any, ticks: Any) -> Any:
    times = pd.DatetimeIndex(expect_array(ticks, "i").view(f"M8[{expect_unit(unit)}]"))
    return times.tz_localize("UTC").tz_convert(expect_zone(zone)).array


def _read_string(reader: Reader, storage: Any, missing_is_nan: Any, texts: Any) -> Any:
    if not set(map(type, expect_instance(list, texts))) <= {str, type(None)}:
        raise DecodeError("a column of strings holds something else")
    expect([storage, missing_is_nan], str, bool)
    dtype = _string_dtype(storage, missing_is_nan)
    if dtype is None:
        return _read_objects(reader, [np.nan if text is None else text for text in texts])
    return pd.array(texts, dtype=dtype)


def _knows_missing_as_nan() -> bool:
    try:
        pd.StringDtype("python", na_value=np.nan)
    except TypeError:
        return False
    return True


_KNOWS_MISSING_AS_NAN: Final = _knows_missing_as_nan()
"""Whether this is pandas 2.3 or later, in which a dtype says what stands for a missing text."""


def _string_dtype(storage: str, missing_is_nan: bool) -> Any:
    """The dtype that is nearest to one of another pandas, None if there only objects come near to it."""
    options: dict[str, Any] = {}
    if missing_is_nan and _KNOWS_MISSING_AS_NAN:
        options["na_value"] = np.nan
    elif missing_is_nan and storage != "pyarrow_numpy":
        return None
    if storage == "pyarrow_numpy" and _KNOWS_MISSING_AS_NAN:
        storage = "pyarrow"
    try:
        return pd.StringDtype(storage, **options)
    # It lies in the memory of a package that is missing or too old, or has a name of a later pandas.
    except (ImportError, ValueError):
        return None if missing_is_nan and not options else pd.StringDtype("python", **options)


def _read_period(reader: Reader, freq: Any, ordinals: Any) -> Any:
    check_frequency(freq)
    try:
        pd.PeriodDtype(freq)
    except ValueError as error:
        raise DecodeError(f"the frequency {freq!r} is not known to pandas {pd.__version__}") from error
    index: Any = pd.PeriodIndex
    return index.from_ordinals(expect_array(ordinals, "i"), freq=freq).array


def _read_interval(reader: Reader, left: Any, right: Any, closed: Any) -> Any:
    for side in (left, right):
        if isinstance(expect_instance(pd.Index, side), pd.RangeIndex):
            reader.spend(len(side) >> 3)
    return pd.arrays.IntervalArray.from_arrays(left, right, closed=closed)


def _read_masked(reader: Reader, known: Any, missing: Any) -> Any:
    expect_array(known, "biuf")
    for cls, kinds in _MASKED.items():
        if known.dtype.kind in kinds:
            return cls(known, expect_array(missing, "b"))
    raise DecodeError("a nullable column has an unknown dtype")


def _read_arrow(reader: Reader, chunks: Any) -> Any:
    return pd.arrays.ArrowExtensionArray(chunks)


def _read_arrow_numbers(reader: Reader, name: Any, known: Any, missing: Any) -> Any:
    nullable = _read_masked(reader, known, missing)
    return _in_arrow(name, _ARROW_NUMBERS, nullable, known, missing)


def _read_arrow_texts(reader: Reader, name: Any, texts: Any) -> Any:
    nullable = _read_string(reader, "python", False, texts)
    return _in_arrow(name, _ARROW_TEXTS, nullable, texts, None)


def _in_arrow(name: Any, names: frozenset[str], nullable: Any, values: Any, missing: Any) -> Any:
    """A column in Arrow's memory, or the nullable one where there is no pyarrow."""
    if type(name) is not str or name not in names:
        raise DecodeError("a column of Arrow's is of an unknown type")
    try:
        import pyarrow as pa

        dtype = pa.type_for_alias(name)
        return pd.arrays.ArrowExtensionArray(pa.chunked_array([pa.array(values, dtype, mask=missing)]))
    except ImportError:
        return nullable


def named_zone(zone: Any) -> Any:
    """A time zone in a form that means the same in every pandas."""
    if type(zone).__module__.partition(".")[0] == "pytz":
        # pandas 2 makes these of names, and pandas 3 does not: the name is what means the same in both.
        name = str(zone)
        if not zones.is_known(name):
            raise Refused(type(zone), "its name is of no zone of the IANA database", repr(name))
        return name
    return zone


def expect_zone(zone: Any) -> Any:
    """The value, which must be a time zone or the name of one; else a `DecodeError`."""
    if not zones.is_known(zone) and type(zone) not in (datetime.timezone, zoneinfo.ZoneInfo):
        raise DecodeError("a time zone is not known here: install or update tzdata")
    return zone


def expect_unit(unit: Any) -> Any:
    """The value, which must be a unit of time; else a `DecodeError`."""
    if unit not in ("s", "ms", "us", "ns"):
        raise DecodeError("a time has an unknown unit")
    return unit


_ARRAY: Final = head(Tag.PANDAS_ARRAY)

READ_RULES: Final[dict[Tag, ReadRule]] = {
    Tag.PANDAS_ARRAY: read_kinds(
        "a pandas array",
        {
            "object": _read_objects,
            "category": _read_category,
            "datetimetz": _read_datetimetz,
            "string": _read_string,
            "period": _read_period,
            "interval": _read_interval,
            "masked": _read_masked,
            "arrow": _read_arrow,
            "arrow numbers": _read_arrow_numbers,
            "arrow texts": _read_arrow_texts,
        },
    ),
}
"""What follows the mark of a pandas array."""
