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
from types import TracebackType
from typing import Any, Final

import numpy as np
import pandas as pd

from fed.serde import zones
from fed.serde.arrays import read_numpy
from fed.serde.builtin import expect
from fed.serde.contract import DecodeError
from fed.serde.tree import Reader, ReadRule, Refused, Tag, Writer, WriteRule, head, place_of_key

__all__ = ["READ_RULES", "rule_for"]

_UNITS: Final = ("s", "ms", "us", "ns")


class _At:
    """Names a part of a container in the errors of what is inside."""

    __slots__ = ("_container", "_step")

    def __init__(self, container: object, step: str) -> None:
        self._container = container
        self._step = step

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if isinstance(error, Refused):
            error.leave(self._step, self._container)


# Arrays


def _write_values(writer: Writer, values: Any, room: int) -> Any:
    """The tree of the values of a series, an index or an extension array."""
    dtype = values.dtype
    if isinstance(dtype, np.dtype):
        memory = values.to_numpy()
        if dtype.kind != "O":
            return writer.write(memory, room)
        return [_ARRAY, "object", writer.write(memory.tolist(), room)]
    values = getattr(values, "array", values)
    if isinstance(dtype, pd.CategoricalDtype):
        _refuse_unsorted(dtype.categories, type(values))
        categories = writer.write(dtype.categories, room)
        return [_ARRAY, "category", categories, writer.write(np.asarray(values.codes), room), dtype.ordered]
    if isinstance(dtype, pd.DatetimeTZDtype):
        ticks = pd.DatetimeIndex(values).asi8
        return [_ARRAY, "datetimetz", _write_tz(writer, dtype.tz, room), dtype.unit, writer.write(ticks, room)]
    if isinstance(dtype, pd.StringDtype):
        missing_is_nan = getattr(dtype, "na_value", pd.NA) is not pd.NA
        texts = values.to_numpy(dtype=object, na_value=None).tolist()
        return [_ARRAY, "string", dtype.storage, missing_is_nan, writer.write(texts, room)]
    if isinstance(dtype, pd.PeriodDtype):
        index: Any = pd.PeriodIndex(values)
        if pd.PeriodDtype(index.freqstr) != dtype:
            raise Refused(type(values), f"its frequency {index.freqstr!r} has parameters that its name does not tell")
        return [_ARRAY, "period", index.freqstr, writer.write(index.asi8, room)]
    if isinstance(dtype, pd.IntervalDtype):
        sides = [writer.write(values.left, room), writer.write(values.right, room)]
        return [_ARRAY, "interval", *sides, dtype.closed]
    if type(values) in _MASKED:
        # What is under the mask was removed by somebody, so zeros go instead.
        known = values.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
        return [_ARRAY, "masked", writer.write(known, room), writer.write(np.asarray(values.isna()), room)]
    if isinstance(dtype, pd.ArrowDtype):
        return [_ARRAY, "arrow", writer.write(values.__arrow_array__(), room)]
    raise Refused(type(values), f"codec 'data' does not carry dtype {dtype}; convert it with .astype(...)")


_MASKED: Final[dict[Any, str]] = {
    pd.arrays.BooleanArray: "b",
    pd.arrays.IntegerArray: "iu",
    pd.arrays.FloatingArray: "f",
}


def _write_array(writer: Writer, value: Any, room: int) -> Any:
    if isinstance(value.dtype, np.dtype) or type(value) is pd.arrays.NumpyExtensionArray:
        raise Refused(type(value), "a wrapper around a numpy array; send value.to_numpy()")
    if not room:
        writer.deny_depth(value)
    return _write_values(writer, value, room - 1)


def _read_array(reader: Reader, args: list[Any], room: int) -> Any:
    if not room:
        raise DecodeError("containers nest too deeply")
    if not args or type(args[0]) is not str or args[0] not in _READ_VALUES:
        raise DecodeError("a pandas array is of an unknown kind")
    kind, *parts = args
    return _READ_VALUES[kind](reader, parts, room)


def _read_objects(reader: Reader, args: list[Any], room: int) -> Any:
    (items,) = args
    items = _read_as(list, reader, items, room)
    # Given an array of objects, pandas would look into it for a better dtype; given this, it keeps what it gets.
    return pd.arrays.NumpyExtensionArray(np.fromiter(items, dtype=object, count=len(items)))


def _read_category(reader: Reader, args: list[Any], room: int) -> Any:
    categories, codes, ordered = args
    labels = _read_as(pd.Index, reader, categories, room)
    _check_labels(reader, labels)
    expect([ordered], bool)
    return pd.Categorical.from_codes(read_numpy(reader, codes, room, "i"), categories=labels, ordered=ordered)


def _read_datetimetz(reader: Reader, args: list[Any], room: int) -> Any:
    tz, unit, ticks = args
    zone = _read_tz(reader, tz, room)
    times = pd.DatetimeIndex(read_numpy(reader, ticks, room, "i").view(f"M8[{_read_unit(unit)}]"))
    return times.tz_localize("UTC").tz_convert(zone).array


def _read_string(reader: Reader, args: list[Any], room: int) -> Any:
    storage, missing_is_nan, texts = args
    items = _read_as(list, reader, texts, room)
    if not set(map(type, items)) <= {str, type(None)}:
        raise DecodeError("a column of strings holds something else")
    dtype: Any = pd.StringDtype(storage, na_value=np.nan) if missing_is_nan else pd.StringDtype(storage)
    return pd.array(items, dtype=dtype)


def _read_period(reader: Reader, args: list[Any], room: int) -> Any:
    freq, ordinals = args
    _check_frequency(freq)
    index: Any = pd.PeriodIndex
    return index.from_ordinals(read_numpy(reader, ordinals, room, "i"), freq=freq).array


def _read_interval(reader: Reader, args: list[Any], room: int) -> Any:
    left, right, closed = args
    sides = [_read_as(pd.Index, reader, side, room) for side in (left, right)]
    for side in sides:
        if isinstance(side, pd.RangeIndex):
            reader.spend(len(side) >> 3)
    return pd.arrays.IntervalArray.from_arrays(sides[0], sides[1], closed=closed)


def _read_masked(reader: Reader, args: list[Any], room: int) -> Any:
    known, missing = args
    values = read_numpy(reader, known, room, "biuf")
    mask = read_numpy(reader, missing, room, "b")
    for cls, kinds in _MASKED.items():
        if values.dtype.kind in kinds:
            return cls(values, mask)
    raise DecodeError("a nullable column has an unknown dtype")


def _read_arrow(reader: Reader, args: list[Any], room: int) -> Any:
    (chunks,) = args
    return pd.arrays.ArrowExtensionArray(reader.read(chunks, room))


_READ_VALUES: Final[dict[str, ReadRule]] = {
    "object": _read_objects,
    "category": _read_category,
    "datetimetz": _read_datetimetz,
    "string": _read_string,
    "period": _read_period,
    "interval": _read_interval,
    "masked": _read_masked,
    "arrow": _read_arrow,
}


def _read_as(cls: Any, reader: Reader, tree: Any, room: int) -> Any:
    value = reader.read(tree, room)
    if not isinstance(value, cls):
        raise DecodeError(f"a {type(value).__name__} stands where a {cls.__name__} should")
    return value


def _write_tz(writer: Writer, zone: Any, room: int) -> Any:
    if type(zone).__module__.partition(".")[0] == "pytz":
        # pandas 2 makes these of names, and pandas 3 does not: the name is what means the same in both.
        name = str(zone)
        if not zones.is_known(name):
            raise Refused(type(zone), f"{name!r} names no zone of the IANA database")
        return name
    return writer.write(zone, room)


def _read_tz(reader: Reader, tree: Any, room: int) -> Any:
    if zones.is_known(tree):
        return tree
    zone = None if type(tree) is str else reader.read(tree, room)
    if type(zone) not in (datetime.timezone, zoneinfo.ZoneInfo):
        raise DecodeError("a time zone is not known here")
    return zone


def _write_freq(freq: Any, cls: type, count: int) -> str | None:
    if freq is None:
        return None
    name: str = freq.freqstr
    if not _is_constant(freq) and count > _MAX_STEPS:
        raise Refused(cls, f"it has a frequency that takes too long to check for {count} times; set freq to None")
    try:
        faithful = pd.tseries.frequencies.to_offset(name) == freq
    except ValueError:
        faithful = False
    if not faithful:
        raise Refused(cls, f"its frequency {name!r} has parameters that its name does not tell; set freq to None")
    return name


def _read_unit(unit: Any) -> Any:
    if unit not in _UNITS:
        raise DecodeError("a time has an unknown unit")
    return unit


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
        raise Refused(cls, f"its {len(labels)} distinct labels are not sorted; more than {_MAX_UNSORTED} must be")


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

_VALUES: Final = (np.ndarray, pd.api.extensions.ExtensionArray)


def _write_index(writer: Writer, value: Any, room: int) -> Any:
    if not room:
        writer.deny_depth(value)
    room -= 1
    cls = type(value)
    if cls is pd.MultiIndex:
        with _At(value, ".names"):
            names = [writer.write(name, room) for name in value.names]
        with _At(value, ".levels"):
            for level in value.levels:
                _refuse_unsorted(level, cls)
            levels = [writer.write(level.rename(None), room) for level in value.levels]
        codes = [writer.write(np.asarray(part), room) for part in value.codes]
        return [_INDEX, "multi", len(names), *names, *levels, *codes]
    with _At(value, ".name"):
        name = writer.write(value.name, room)
    if cls is pd.RangeIndex:
        return [_INDEX, "range", name, value.start, value.stop, value.step]
    freq = _write_freq(value.freq, cls, len(value)) if cls in (pd.DatetimeIndex, pd.TimedeltaIndex) else None
    return [_INDEX, "plain", name, freq, _write_values(writer, value, room)]


def _read_index(reader: Reader, args: list[Any], room: int) -> Any:
    if not room or len(args) < 2:
        raise DecodeError("an index is malformed or nests too deeply")
    room -= 1
    kind, *parts = args
    if kind == "multi":
        count, *trees = parts
        if type(count) is not int or not 0 < count <= len(trees) or len(trees) != 3 * count:
            raise DecodeError("an index has not as many levels as names")
        names = [reader.read(tree, room) for tree in trees[:count]]
        levels = [_read_as(pd.Index, reader, tree, room) for tree in trees[count : 2 * count]]
        for level in levels:
            _check_labels(reader, level)
        codes = [read_numpy(reader, tree, room, "i") for tree in trees[2 * count :]]
        return pd.MultiIndex(levels=levels, codes=codes, names=names)
    name = reader.read(parts[0], room)
    if kind == "range":
        _, start, stop, step = parts
        expect([start, stop, step], int, int, int)
        return pd.RangeIndex(start, stop, step, name=name)
    if kind != "plain":
        raise DecodeError("an index is of an unknown kind")
    _, freq, tree = parts
    values = _read_values(reader, tree, room)
    index: Any = pd.Index(values, dtype=values.dtype, name=name, copy=False, tupleize_cols=False)
    if freq is not None:
        _check_frequency(freq)
        offset = pd.tseries.frequencies.to_offset(freq)
        reader.spend(_FREQUENCY_WORK * (1 if _is_constant(offset) else 1 + len(index)))
        index = type(index)(index, freq=offset, name=name)
    return index


def _read_values(reader: Reader, tree: Any, room: int) -> Any:
    value = reader.read(tree, room)
    if not isinstance(value, _VALUES) or value.ndim != 1:
        raise DecodeError("something else stands where a column should")
    return value


def _write_series(writer: Writer, value: Any, room: int) -> Any:
    if not room:
        writer.deny_depth(value)
    room -= 1
    with _At(value, ".index"):
        index = writer.write(value.index, room)
    with _At(value, ".name"):
        name = writer.write(value.name, room)
    with _At(value, ".attrs"):
        attrs = writer.write(value.attrs, room)
    return [
        _SERIES,
        index,
        name,
        attrs,
        _allows_duplicates(value),
        _write_values(writer, value, room),
    ]


def _read_series(reader: Reader, args: list[Any], room: int) -> Any:
    if not room:
        raise DecodeError("containers nest too deeply")
    room -= 1
    index, name, attrs, duplicates, values = args
    labels = _read_as(pd.Index, reader, index, room)
    title = reader.read(name, room)
    notes = _read_as(dict, reader, attrs, room)
    data = _read_values(reader, values, room)
    series = pd.Series(data, index=labels, name=title, dtype=data.dtype, copy=False)
    return _finish(reader, series, notes, duplicates)


def _write_frame(writer: Writer, value: Any, room: int) -> Any:
    if not room:
        writer.deny_depth(value)
    room -= 1
    with _At(value, ".index"):
        index = writer.write(value.index, room)
    with _At(value, ".columns"):
        columns = writer.write(value.columns, room)
    with _At(value, ".attrs"):
        attrs = writer.write(value.attrs, room)
    place = place_of_key(value.columns)
    arrays = []
    for number, (_, column) in enumerate(value.items()):
        try:
            arrays.append(_write_values(writer, column, room))
        except Refused as refused:
            refused.leave(place(number), value)
            raise
    return [_FRAME, index, columns, attrs, _allows_duplicates(value), writer.array(arrays)]


def _read_frame(reader: Reader, args: list[Any], room: int) -> Any:
    if not room:
        raise DecodeError("containers nest too deeply")
    room -= 1
    index, columns, attrs, duplicates, arrays = args
    labels = _read_as(pd.Index, reader, index, room)
    titles = _read_as(pd.Index, reader, columns, room)
    notes = _read_as(dict, reader, attrs, room)
    columns_read = _read_as(list, reader, arrays, room)
    if len(columns_read) != len(titles):
        raise DecodeError("a frame has not as many columns as names")
    # By number first: names may repeat.
    numbered = {}
    for number, values in enumerate(columns_read):
        if not isinstance(values, _VALUES):
            raise DecodeError("a frame has a column of something else")
        # A series keeps a dtype of objects; a frame would look for a better one.
        numbered[number] = pd.Series(values, index=labels, dtype=values.dtype, copy=False)
    frame = pd.DataFrame(numbered, index=labels, copy=False)
    frame.columns = titles
    return _finish(reader, frame, notes, duplicates)


def _allows_duplicates(value: Any) -> bool:
    allows: bool = value.flags.allows_duplicate_labels
    if not allows:
        for labels in value.axes:
            _refuse_unsorted(labels, type(value))
    return allows


def _finish(reader: Reader, value: Any, attrs: dict[Any, Any], duplicates: Any) -> Any:
    expect([duplicates], bool)
    value.attrs = attrs
    if not duplicates:
        for labels in value.axes:
            _check_labels(reader, labels)
        value.flags.allows_duplicate_labels = False
    return value


# Scalars


def _write_timestamp(writer: Writer, value: Any, room: int) -> Any:
    zone = _write_tz(writer, value.tzinfo, room)
    return [_TIMESTAMP, value.asm8.view("i8").item(), value.unit, zone]


def _read_timestamp(reader: Reader, args: list[Any], room: int) -> Any:
    ticks, unit, tz = args
    expect([ticks], int)
    value = pd.Timestamp(np.datetime64(ticks, _read_unit(unit)))
    return value if tz is None else value.tz_localize("UTC").tz_convert(_read_tz(reader, tz, room))


def _write_timedelta(writer: Writer, value: Any, room: int) -> Any:
    return [_TIMEDELTA, value.asm8.view("i8").item(), value.unit]


def _read_timedelta(reader: Reader, args: list[Any], room: int) -> Any:
    ticks, unit = args
    expect([ticks], int)
    return pd.Timedelta(np.timedelta64(ticks, _read_unit(unit)))


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
    Tag.PANDAS_ARRAY: _read_array,
    Tag.PANDAS_INDEX: _read_index,
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
