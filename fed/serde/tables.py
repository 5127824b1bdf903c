"""How codec ``data`` carries pandas objects. Importing this module imports pandas.

Column by column, each in the form that its dtype keeps its values in: numpy memory as a buffer, strings and objects
as lists, the rest by their parts. Not by way of Arrow, although pandas can: that would need pyarrow in both parties,
copy what is numpy memory anyway, and lose what Arrow has no word for (objects of mixed types, names that repeat, the
frequency of an index).

What is decoded refers to the buffers and is read-only, as in an object store. Copy a frame to write into it.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pandas as pd

from fed.serde import zones
from fed.serde.builtin import expect
from fed.serde.contract import DecodeError
from fed.serde.tree import Reader, ReadRule, Refused, Tag, Writer, WriteRule, head, place_of_attribute, place_of_key

__all__ = ["READ_RULES", "rule_for"]


def _nowhere(index: int) -> str:
    """The place of a part that has no name for a user."""
    return ""


def _read_kinds(what: str, rules: dict[str, Callable[..., Any]]) -> ReadRule:
    """The rule for what begins with its kind: ``rules[kind](reader, *parts)``."""

    def read(reader: Reader, args: list[Any], room: int) -> Any:
        kind, *parts = reader.items(args, room)
        if type(kind) is not str or kind not in rules:
            raise DecodeError(f"{what} is of an unknown kind")
        return rules[kind](reader, *parts)

    return read


def _expect(cls: Any, value: Any) -> Any:
    if not isinstance(value, cls):
        raise DecodeError(f"a {type(value).__name__} stands where a {cls.__name__} should")
    return value


def _expect_array(value: Any, kinds: str) -> Any:
    if type(value) is not np.ndarray or value.ndim != 1 or value.dtype.kind not in kinds:
        raise DecodeError("something else stands where an array should")
    return value


def _expect_column(value: Any) -> Any:
    if not isinstance(value, (np.ndarray, pd.api.extensions.ExtensionArray)) or value.ndim != 1:
        raise DecodeError("something else stands where a column should")
    return value


# Arrays


def _column(values: Any) -> Any:
    """The values of a series or an index: numpy memory, or an extension array."""
    if isinstance(values.dtype, np.dtype) and values.dtype.kind != "O":
        return values.to_numpy()
    return values.array


def _write_array(writer: Writer, value: Any, room: int) -> Any:
    return [_ARRAY, *writer.items(value, _parts(value), room, _nowhere)]


def _parts(value: Any) -> list[Any]:
    """An extension array as its kind and what its class is made of."""
    cls, dtype = type(value), value.dtype
    if cls is pd.arrays.NumpyExtensionArray and dtype.kind == "O":
        return ["object", value.to_numpy().tolist()]
    if cls is pd.arrays.NumpyExtensionArray or isinstance(dtype, np.dtype):
        raise Refused(cls, "a wrapper around a numpy array; send value.to_numpy()")
    if isinstance(dtype, pd.CategoricalDtype):
        _refuse_unsorted(dtype.categories, cls)
        return ["category", dtype.categories, np.asarray(value.codes), dtype.ordered]
    if isinstance(dtype, pd.DatetimeTZDtype):
        return ["datetimetz", _zone(dtype.tz), dtype.unit, pd.DatetimeIndex(value).asi8]
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
        return ["arrow", value.__arrow_array__()]
    raise Refused(cls, "codec 'data' does not carry its dtype; convert it with .astype(...)", str(dtype))


_MASKED: Final[dict[Any, str]] = {
    pd.arrays.BooleanArray: "b",
    pd.arrays.IntegerArray: "iu",
    pd.arrays.FloatingArray: "f",
}


def _read_objects(reader: Reader, items: Any) -> Any:
    # Given an array of objects, pandas would look into it for a better dtype; given this, it keeps what it gets.
    return pd.arrays.NumpyExtensionArray(np.fromiter(_expect(list, items), dtype=object, count=len(items)))


def _read_category(reader: Reader, labels: Any, codes: Any, ordered: Any) -> Any:
    _check_labels(reader, _expect(pd.Index, labels))
    expect([ordered], bool)
    return pd.Categorical.from_codes(_expect_array(codes, "i"), categories=labels, ordered=ordered)


def _read_datetimetz(reader: Reader, zone: Any, unit: Any, ticks: Any) -> Any:
    times = pd.DatetimeIndex(_expect_array(ticks, "i").view(f"M8[{_expect_unit(unit)}]"))
    return times.tz_localize("UTC").tz_convert(_expect_zone(zone)).array


def _read_string(reader: Reader, storage: Any, missing_is_nan: Any, texts: Any) -> Any:
    if not set(map(type, _expect(list, texts))) <= {str, type(None)}:
        raise DecodeError("a column of strings holds something else")
    dtype: Any = pd.StringDtype(storage, na_value=np.nan) if missing_is_nan else pd.StringDtype(storage)
    return pd.array(texts, dtype=dtype)


def _read_period(reader: Reader, freq: Any, ordinals: Any) -> Any:
    _check_frequency(freq)
    index: Any = pd.PeriodIndex
    return index.from_ordinals(_expect_array(ordinals, "i"), freq=freq).array


def _read_interval(reader: Reader, left: Any, right: Any, closed: Any) -> Any:
    for side in (left, right):
        if isinstance(_expect(pd.Index, side), pd.RangeIndex):
            reader.spend(len(side) >> 3)
    return pd.arrays.IntervalArray.from_arrays(left, right, closed=closed)


def _read_masked(reader: Reader, known: Any, missing: Any) -> Any:
    _expect_array(known, "biuf")
    for cls, kinds in _MASKED.items():
        if known.dtype.kind in kinds:
            return cls(known, _expect_array(missing, "b"))
    raise DecodeError("a nullable column has an unknown dtype")


def _read_arrow(reader: Reader, chunks: Any) -> Any:
    return pd.arrays.ArrowExtensionArray(chunks)


def _zone(zone: Any) -> Any:
    if type(zone).__module__.partition(".")[0] == "pytz":
        # pandas 2 makes these of names, and pandas 3 does not: the name is what means the same in both.
        name = str(zone)
        if not zones.is_known(name):
            raise Refused(type(zone), "its name is of no zone of the IANA database", repr(name))
        return name
    return zone


def _expect_zone(zone: Any) -> Any:
    if not zones.is_known(zone) and type(zone) not in (datetime.timezone, zoneinfo.ZoneInfo):
        raise DecodeError("a time zone is not known here")
    return zone


def _expect_unit(unit: Any) -> Any:
    if unit not in ("s", "ms", "us", "ns"):
        raise DecodeError("a time has an unknown unit")
    return unit


# What pandas takes long for: labels of one hash, and the steps of a frequency


def _name_of_freq(freq: Any, cls: type, count: int) -> str | None:
    if freq is None:
        return None
    name: str = freq.freqstr
    if not _is_constant(freq) and count > _MAX_STEPS:
        raise Refused(
            cls, "its frequency takes too long to check for so many times; set freq to None", f"{count} times"
        )
    try:
        faithful = pd.tseries.frequencies.to_offset(name) == freq
    except ValueError:
        faithful = False
    if not faithful:
        raise Refused(cls, "its frequency has parameters that its name does not tell; set freq to None", name)
    return name


def _check_labels(reader: Reader, labels: Any) -> None:
    """Look at labels that pandas is about to check for being unique.

    It puts them into a hash table, whose hashes of numbers are known, so that anybody can make many of one hash. It
    does not where they are sorted, which it then knows of them.

    Raises:
        DecodeError: To find out could take too long.
    """
    count = len(labels)
    if isinstance(labels, pd.RangeIndex):
        # It has no bytes, and may be made into numbers.
        reader.spend(count >> 3)
        return
    if _are_objects(labels):
        reader.check_keys(labels.tolist())
    if _are_safe(labels):
        return
    if count > _MAX_UNSORTED:
        raise DecodeError(f"{count} labels are not sorted; more than {_MAX_UNSORTED} must be")
    # What it takes if all have one hash.
    reader.spend(count**2 >> 9)


def _refuse_unsorted(labels: Any, cls: type) -> None:
    """Refuse what `_check_labels` would."""
    if len(labels) > _MAX_UNSORTED and not _are_safe(labels):
        raise Refused(
            cls, f"its distinct labels are not sorted; more than {_MAX_UNSORTED} must be", f"{len(labels)} labels"
        )


def _are_objects(labels: Any) -> bool:
    return labels.dtype == object and not isinstance(labels, pd.MultiIndex)


def _are_safe(labels: Any) -> bool:
    """Whether labels are sorted, or their hashes are random in each process."""
    if isinstance(labels, pd.RangeIndex) or isinstance(labels.dtype, pd.StringDtype):
        return True
    if _are_objects(labels) and set(map(type, labels.tolist())) <= {str, bytes, type(None)}:
        return True
    try:
        return bool(labels.is_monotonic_increasing or labels.is_monotonic_decreasing)
    except TypeError:
        # Some cannot be compared.
        return False


_MAX_STEPS: Final = 1 << 14
"""Most times of an index with a frequency that pandas can only check step by step."""

_FREQUENCY_WORK: Final = 400
"""What it takes to check a frequency, and again for every step where it is checked by steps."""

_FREQUENCY: Final = re.compile(r"-?[0-9]{0,9}[A-Za-z]{1,6}(?:-[A-Z0-9]{1,4}){0,4}")
"""The names of frequencies. pandas' own grammar is larger, and takes the square of a name's length."""


def _check_frequency(name: Any) -> None:
    if type(name) is not str or not _FREQUENCY.fullmatch(name):
        raise DecodeError("a frequency is not known here")


def _is_constant(offset: Any) -> bool:
    """Whether every step is as long as the others. A day is no `Tick` any more, and is one for whoever has no zone."""
    return isinstance(offset, (pd.tseries.offsets.Tick, pd.tseries.offsets.Day))


_MAX_UNSORTED: Final = 1 << 14
"""Most labels that must be unique and are not sorted."""


# Index, Series, DataFrame


def _write_index(writer: Writer, value: Any, room: int) -> Any:
    cls = type(value)
    if cls is pd.MultiIndex:
        for level in value.levels:
            _refuse_unsorted(level, cls)
        count = value.nlevels
        parts = [*value.names, *(level.rename(None) for level in value.levels), *map(np.asarray, value.codes)]
        trees = writer.items(value, parts, room, lambda index: ".names" if index < count else ".levels")
        return [_INDEX, "multi", count, *trees]
    if cls is pd.RangeIndex:
        parts = ["range", value.name, value.start, value.stop, value.step]
    else:
        times = cls in (pd.DatetimeIndex, pd.TimedeltaIndex)
        freq = _name_of_freq(value.freq, cls, len(value)) if times else None
        parts = ["plain", value.name, freq, _column(value)]
    return [_INDEX, *writer.items(value, parts, room, lambda index: ".name" if index == 1 else "")]


def _read_multi(reader: Reader, count: Any, *parts: Any) -> Any:
    if type(count) is not int or count < 1 or len(parts) != 3 * count:
        raise DecodeError("an index has not as many levels as names")
    levels = [_expect(pd.Index, level) for level in parts[count : 2 * count]]
    for level in levels:
        _check_labels(reader, level)
    codes = [_expect_array(part, "i") for part in parts[2 * count :]]
    return pd.MultiIndex(levels=levels, codes=codes, names=parts[:count])


def _read_range(reader: Reader, name: Any, *bounds: Any) -> Any:
    start, stop, step = expect(list(bounds), int, int, int)
    return pd.RangeIndex(start, stop, step, name=name)


def _read_plain(reader: Reader, name: Any, freq: Any, values: Any) -> Any:
    dtype = _expect_column(values).dtype
    index: Any = pd.Index(values, dtype=dtype, name=name, copy=False, tupleize_cols=False)
    if freq is not None:
        _check_frequency(freq)
        offset = pd.tseries.frequencies.to_offset(freq)
        reader.spend(_FREQUENCY_WORK * (1 if _is_constant(offset) else 1 + len(index)))
        index = type(index)(index, freq=offset, name=name)
    return index


_place_in_series: Final = place_of_attribute(("index", "name", "attrs"))
_place_in_frame: Final = place_of_attribute(("index", "columns", "attrs"))


def _write_series(writer: Writer, value: Any, room: int) -> Any:
    parts = writer.items(value, [value.index, value.name, value.attrs], room, _place_in_series)
    (values,) = writer.items(value, [_column(value)], room, _nowhere)
    return [_SERIES, *parts, _allows_duplicates(value), values]


def _read_series(reader: Reader, args: list[Any], room: int) -> Any:
    labels, name, attrs, duplicates, values = reader.items(args, room)
    dtype = _expect_column(values).dtype
    series = pd.Series(values, index=_expect(pd.Index, labels), name=name, dtype=dtype, copy=False)
    return _finish(reader, series, attrs, duplicates)


def _write_frame(writer: Writer, value: Any, room: int) -> Any:
    parts = writer.items(value, [value.index, value.columns, value.attrs], room, _place_in_frame)
    columns = [_column(column) for _, column in value.items()]
    # These are in a list, which is one level more.
    trees = writer.items(value, columns, room - 1, place_of_key(value.columns))
    return [_FRAME, *parts, _allows_duplicates(value), writer.array(trees)]


def _read_frame(reader: Reader, args: list[Any], room: int) -> Any:
    labels, names, attrs, duplicates, columns = reader.items(args, room)
    _expect(pd.Index, labels)
    if len(_expect(list, columns)) != len(_expect(pd.Index, names)):
        raise DecodeError("a frame has not as many columns as names")
    # By number first: names may repeat. A series keeps a dtype of objects; a frame would look for a better one.
    numbered = {
        number: pd.Series(values, index=labels, dtype=_expect_column(values).dtype, copy=False)
        for number, values in enumerate(columns)
    }
    frame = pd.DataFrame(numbered, index=labels, copy=False)
    frame.columns = names
    return _finish(reader, frame, attrs, duplicates)


def _allows_duplicates(value: Any) -> bool:
    allows: bool = value.flags.allows_duplicate_labels
    if not allows:
        for labels in value.axes:
            _refuse_unsorted(labels, type(value))
    return allows


def _finish(reader: Reader, value: Any, attrs: Any, duplicates: Any) -> Any:
    expect([duplicates], bool)
    value.attrs = _expect(dict, attrs)
    if not duplicates:
        for labels in value.axes:
            _check_labels(reader, labels)
        value.flags.allows_duplicate_labels = False
    return value


# Scalars


def _write_timestamp(writer: Writer, value: Any, room: int) -> Any:
    return [_TIMESTAMP, value.asm8.view("i8").item(), value.unit, writer.write(_zone(value.tzinfo), room)]


def _read_timestamp(reader: Reader, args: list[Any], room: int) -> Any:
    ticks, unit, zone = (reader.read(tree, room) for tree in args)
    expect([ticks], int)
    value = pd.Timestamp(np.datetime64(ticks, _expect_unit(unit)))
    return value if zone is None else value.tz_localize("UTC").tz_convert(_expect_zone(zone))


def _write_timedelta(writer: Writer, value: Any, room: int) -> Any:
    return [_TIMEDELTA, value.asm8.view("i8").item(), value.unit]


def _read_timedelta(reader: Reader, args: list[Any], room: int) -> Any:
    ticks, unit = expect(args, int, str)
    return pd.Timedelta(np.timedelta64(ticks, _expect_unit(unit)))


def _write_missing(writer: Writer, value: Any, room: int) -> Any:
    return [_MISSING, value is pd.NaT]


def _read_missing(reader: Reader, args: list[Any], room: int) -> Any:
    (is_time,) = expect(args, bool)
    return pd.NaT if is_time else pd.NA


_ARRAY: Final = head(Tag.PANDAS_ARRAY)
_INDEX: Final = head(Tag.PANDAS_INDEX)
_SERIES: Final = head(Tag.PANDAS_SERIES)
_FRAME: Final = head(Tag.PANDAS_FRAME)
_TIMESTAMP: Final = head(Tag.PANDAS_TIMESTAMP)
_TIMEDELTA: Final = head(Tag.PANDAS_TIMEDELTA)
_MISSING: Final = head(Tag.PANDAS_MISSING)

_RULES: Final[dict[Any, WriteRule]] = {
    pd.DataFrame: _write_frame,
    pd.Series: _write_series,
    pd.Timestamp: _write_timestamp,
    pd.Timedelta: _write_timedelta,
    type(pd.NaT): _write_missing,
    type(pd.NA): _write_missing,
    **dict.fromkeys(
        (
            pd.Index,
            pd.RangeIndex,
            pd.MultiIndex,
            pd.DatetimeIndex,
            pd.TimedeltaIndex,
            pd.PeriodIndex,
            pd.IntervalIndex,
            pd.CategoricalIndex,
        ),
        _write_index,
    ),
}

READ_RULES: Final[dict[Tag, ReadRule]] = {
    Tag.PANDAS_ARRAY: _read_kinds(
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
        },
    ),
    Tag.PANDAS_INDEX: _read_kinds("an index", {"multi": _read_multi, "range": _read_range, "plain": _read_plain}),
    Tag.PANDAS_SERIES: _read_series,
    Tag.PANDAS_FRAME: _read_frame,
    Tag.PANDAS_TIMESTAMP: _read_timestamp,
    Tag.PANDAS_TIMEDELTA: _read_timedelta,
    Tag.PANDAS_MISSING: _read_missing,
}
"""What follows the marks of pandas."""


def rule_for(cls: type) -> WriteRule | None:
    """How to write the instances of a class, None if it is not pandas'.

    Raises:
        Refused: It is a subclass that means more than its columns say.
    """
    if cls in _RULES:
        return _RULES[cls]
    if issubclass(cls, pd.api.extensions.ExtensionArray):
        return _write_array
    for base in (pd.DataFrame, pd.Series, pd.Index):
        if issubclass(cls, base):
            raise Refused(cls, f"a subclass of {base.__name__}; convert it with pandas.{base.__name__}(...)")
    return None
