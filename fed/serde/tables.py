"""How codec ``data`` carries pandas objects. Importing this module imports pandas.

Column by column, each in the form that its dtype keeps its values in: numpy memory as a buffer, strings and objects
as lists, the rest by their parts. Not by way of Arrow, although pandas can: that would need pyarrow in both parties,
copy what is numpy memory anyway, and lose what Arrow has no word for (objects of mixed types, names that repeat, the
frequency of an index).

What is decoded refers to the buffers and is read-only, as in an object store. Copy a frame to write into it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from fed.serde.builtin import expect
from fed.serde.columns import READ_RULES as COLUMN_RULES
from fed.serde.columns import (
    column,
    expect_array,
    expect_column,
    expect_instance,
    expect_unit,
    expect_zone,
    named_zone,
    nowhere,
    read_kinds,
    write_array,
)
from fed.serde.contract import DecodeError
from fed.serde.labels import (
    FREQUENCY_WORK,
    check_labels,
    is_constant,
    name_of_frequency,
    offset_of,
    refuse_unsorted,
)
from fed.serde.tags import Tag
from fed.serde.tree import Reader, ReadRule, Refused, Writer, WriteRule, head, place_of_attribute, place_of_key

__all__ = ["READ_RULES", "rule_for"]


# Index, Series, DataFrame


def _write_index(writer: Writer, value: Any, room: int) -> Any:
    cls = type(value)
    if cls is pd.MultiIndex:
        for level in value.levels:
            refuse_unsorted(level, cls)
        count = value.nlevels
        parts = [*value.names, *(level.rename(None) for level in value.levels), *map(np.asarray, value.codes)]
        trees = writer.items(value, parts, room, lambda index: ".names" if index < count else ".levels")
        return [_INDEX, "multi", count, *trees]
    if cls is pd.RangeIndex:
        parts = ["range", value.name, value.start, value.stop, value.step]
    else:
        times = cls in (pd.DatetimeIndex, pd.TimedeltaIndex)
        freq = name_of_frequency(value.freq, cls, len(value)) if times else None
        parts = ["plain", value.name, freq, column(value)]
    return [_INDEX, *writer.items(value, parts, room, lambda index: ".name" if index == 1 else "")]


def _read_multi(reader: Reader, count: Any, *parts: Any) -> Any:
    if type(count) is not int or count < 1 or len(parts) != 3 * count:
        raise DecodeError("an index has not as many levels as names")
    levels = [expect_instance(pd.Index, level) for level in parts[count : 2 * count]]
    for level in levels:
        check_labels(reader, level)
    codes = [expect_array(part, "i") for part in parts[2 * count :]]
    return pd.MultiIndex(levels=levels, codes=codes, names=parts[:count])


def _read_range(reader: Reader, name: Any, *bounds: Any) -> Any:
    start, stop, step = expect(list(bounds), int, int, int)
    return pd.RangeIndex(start, stop, step, name=name)


def _read_plain(reader: Reader, name: Any, freq: Any, values: Any) -> Any:
    dtype = expect_column(values).dtype
    index: Any = pd.Index(values, dtype=dtype, name=name, copy=False, tupleize_cols=False)
    if freq is not None:
        offset = offset_of(freq)
        reader.spend(FREQUENCY_WORK * (1 if is_constant(offset) else 1 + len(index)))
        index = type(index)(index, freq=offset, name=name)
    return index


_place_in_series: Final = place_of_attribute(("index", "name", "attrs"))
_place_in_frame: Final = place_of_attribute(("index", "columns", "attrs"))


def _write_series(writer: Writer, value: Any, room: int) -> Any:
    parts = writer.items(value, [value.index, value.name, value.attrs], room, _place_in_series)
    (values,) = writer.items(value, [column(value)], room, nowhere)
    return [_SERIES, *parts, _allows_duplicates(value), values]


def _read_series(reader: Reader, args: list[Any], room: int) -> Any:
    labels, name, attrs, duplicates, values = reader.items(args, room)
    dtype = expect_column(values).dtype
    series = pd.Series(values, index=expect_instance(pd.Index, labels), name=name, dtype=dtype, copy=False)
    return _finish(reader, series, attrs, duplicates)


def _write_frame(writer: Writer, value: Any, room: int) -> Any:
    parts = writer.items(value, [value.index, value.columns, value.attrs], room, _place_in_frame)
    columns = [column(values) for _, values in value.items()]
    # These are in a list, which is one level more.
    trees = writer.items(value, columns, room - 1, place_of_key(value.columns))
    return [_FRAME, *parts, _allows_duplicates(value), writer.array(trees)]


def _read_frame(reader: Reader, args: list[Any], room: int) -> Any:
    labels, names, attrs, duplicates, columns = reader.items(args, room)
    expect_instance(pd.Index, labels)
    if len(expect_instance(list, columns)) != len(expect_instance(pd.Index, names)):
        raise DecodeError("a frame has not as many columns as names")
    # By number first: names may repeat. A series keeps a dtype of objects; a frame would look for a better one.
    numbered = {
        number: pd.Series(values, index=labels, dtype=expect_column(values).dtype, copy=False)
        for number, values in enumerate(columns)
    }
    frame = pd.DataFrame(numbered, index=labels, copy=False)
    frame.columns = names
    return _finish(reader, frame, attrs, duplicates)


def _allows_duplicates(value: Any) -> bool:
    allows: bool = value.flags.allows_duplicate_labels
    if not allows:
        for labels in value.axes:
            refuse_unsorted(labels, type(value))
    return allows


def _finish(reader: Reader, value: Any, attrs: Any, duplicates: Any) -> Any:
    expect([duplicates], bool)
    value.attrs = expect_instance(dict, attrs)
    if not duplicates:
        for labels in value.axes:
            check_labels(reader, labels)
        value.flags.allows_duplicate_labels = False
    return value


# Scalars


def _write_timestamp(writer: Writer, value: Any, room: int) -> Any:
    return [_TIMESTAMP, value.asm8.view("i8").item(), value.unit, writer.write(named_zone(value.tzinfo), room)]


def _read_timestamp(reader: Reader, args: list[Any], room: int) -> Any:
    ticks, unit, zone = (reader.read(tree, room) for tree in args)
    expect([ticks], int)
    value = pd.Timestamp(np.datetime64(ticks, expect_unit(unit)))
    return value if zone is None else value.tz_localize("UTC").tz_convert(expect_zone(zone))


def _write_timedelta(writer: Writer, value: Any, room: int) -> Any:
    return [_TIMEDELTA, value.asm8.view("i8").item(), value.unit]


def _read_timedelta(reader: Reader, args: list[Any], room: int) -> Any:
    ticks, unit = expect(args, int, str)
    return pd.Timedelta(np.timedelta64(ticks, expect_unit(unit)))


def _write_missing(writer: Writer, value: Any, room: int) -> Any:
    return [_MISSING, value is pd.NaT]


def _read_missing(reader: Reader, args: list[Any], room: int) -> Any:
    (is_time,) = expect(args, bool)
    return pd.NaT if is_time else pd.NA


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
    **COLUMN_RULES,
    Tag.PANDAS_INDEX: read_kinds("an index", {"multi": _read_multi, "range": _read_range, "plain": _read_plain}),
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
        return write_array
    for base in (pd.DataFrame, pd.Series, pd.Index):
        if issubclass(cls, base):
            raise Refused(cls, f"a subclass of {base.__name__}; convert it with pandas.{base.__name__}(...)")
    return None
