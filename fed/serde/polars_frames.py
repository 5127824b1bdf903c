"""How codec ``data`` carries polars frames and series: as Arrow tables. Importing this module imports polars.

The stream is checked as any of Arrow's before polars sees it, which is what pyarrow is needed for.
"""

from __future__ import annotations

from typing import Any, Final

import polars as pl
import pyarrow as pa

from fed.serde.contract import DecodeError
from fed.serde.tags import Tag
from fed.serde.tree import Reader, ReadRule, Refused, Writer, WriteRule, head, place_of_key, told

__all__ = ["READ_RULES", "rule_for"]


def _write(writer: Writer, value: Any, room: int) -> Any:
    is_series = type(value) is pl.Series
    frame = value.to_frame() if is_series else value
    for column in frame:
        if column.dtype == pl.Object:
            raise Refused(type(value), "a column of it holds Python objects; send value.to_dicts()", repr(column.name))
    # Not the newest form: its views refer to memory that they do not show.
    try:
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    except pa.ArrowException as error:
        raise Refused(
            type(value), "a column of it has no form in Arrow; cast it to another dtype", told(error)
        ) from error
    for name, dtype in _frame_of(table).schema.items():
        if dtype != frame.schema[name]:
            raise Refused(
                type(value), "a column of it would arrive with another dtype; cast it to that", f"{name!r}, {dtype}"
            )
    return [_POLARS, *writer.items(value, [is_series, table], room, place_of_key(("", "")))]


def _read(reader: Reader, args: list[Any], room: int) -> Any:
    is_series, table = reader.items(args, room)
    if type(is_series) is not bool or type(table) is not pa.Table:
        raise DecodeError("a polars object has a malformed description")
    try:
        frame = _frame_of(table)
    except pl.exceptions.PanicException as error:
        raise DecodeError("a polars object has a column of a type that polars does not know") from error
    if not is_series:
        return frame
    if frame.width != 1:
        raise DecodeError(f"a polars series has {frame.width} columns")
    return frame.to_series()


def _frame_of(table: Any) -> Any:
    frame: Any = pl.from_arrow(table)
    # It gives a name to what has none.
    frame.columns = table.column_names
    return frame


_POLARS: Final = head(Tag.POLARS)

READ_RULES: Final[dict[Tag, ReadRule]] = {Tag.POLARS: _read}
"""What follows the mark of polars."""


def rule_for(cls: type) -> WriteRule | None:
    """How to write the instances of a class, None if it is not polars'."""
    return _write if cls in (pl.DataFrame, pl.Series) else None
