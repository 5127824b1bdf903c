"""How codec ``data`` carries the sparse arrays and matrices of scipy. Importing this module imports scipy.

Each is the name of its class, its shape and the arrays that it is made of. What an array holds beyond the last entry
stays here.

Law: no index of a decoded one points outside its shape. scipy's compiled functions trust the indices, and its
constructors do not look at them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import scipy.sparse as sp

from fed.serde.contract import DecodeError
from fed.serde.tags import Tag
from fed.serde.tree import Reader, ReadRule, Refused, Writer, WriteRule, head

__all__ = ["READ_RULES", "rule_for"]

_MAX_SIZE: Final = (1 << 62) - 1
"""Of one dimension."""

_FORMATS: Final = ("csr", "csc", "bsr", "coo")
_CLASSES: Final[dict[str, Any]] = {
    f"{form}_{kind}": getattr(sp, f"{form}_{kind}") for form in _FORMATS for kind in ("array", "matrix")
}
_NAMES: Final = {cls: name for name, cls in _CLASSES.items()}


def _write(writer: Writer, value: Any, room: int) -> Any:
    if value.data.dtype.kind not in "biufc":
        raise Refused(type(value), "its dtype is not one of numbers; convert it with .astype(...)", str(value.dtype))
    parts: list[Any]
    if value.format == "coo":
        parts = [value.data, *_coordinates(value)]
    elif len(value.shape) != 2:
        raise Refused(type(value), "it has not two dimensions; send value.tocoo()")
    else:
        count = int(value.indptr[-1])
        parts = [value.data[:count], value.indices[:count], value.indptr]
    return [_SPARSE, *writer.items(value, [_NAMES[type(value)], list(map(int, value.shape)), *parts], room, _nowhere)]


def _nowhere(index: int) -> str:
    return ""


def _coordinates(value: Any) -> tuple[Any, ...]:
    # scipy 1.13 and later know any number of dimensions.
    coordinates: tuple[Any, ...] = getattr(value, "coords", None) or (value.row, value.col)
    return coordinates


def _read(reader: Reader, args: list[Any], room: int) -> Any:
    name, shape, data, *indices = reader.items(args, room)
    cls = _CLASSES.get(name) if type(name) is str else None
    if cls is None:
        raise DecodeError("a sparse array is of an unknown class")
    sizes = type(shape) is list and all(type(size) is int and 0 <= size <= _MAX_SIZE for size in shape)
    if not sizes or not shape or type(data) is not np.ndarray or data.dtype.kind not in "biufc" or not data.ndim:
        raise DecodeError("a sparse array has a malformed shape or data")
    if name.startswith("coo"):
        if data.ndim != 1 or len(indices) != len(shape):
            raise DecodeError("a sparse array has not as many indices as dimensions")
        for index, size in zip(indices, shape, strict=True):
            _check_indices(index, len(data), size)
        return cls((data, tuple(indices)), shape=tuple(shape), copy=False)
    _check_compressed(name, shape, data, indices)
    return cls((data, *indices), shape=tuple(shape), copy=False)


def _check_compressed(name: str, shape: list[int], data: Any, indices: list[Any]) -> None:
    if len(shape) != 2 or len(indices) != 2:
        raise DecodeError("a sparse array has not two dimensions")
    rows, columns = shape
    if name.startswith("bsr"):
        if data.ndim != 3 or not all(data.shape[1:]) or rows % data.shape[1] or columns % data.shape[2]:
            raise DecodeError("a sparse array has blocks that do not fill it")
        rows, columns = rows // data.shape[1], columns // data.shape[2]
    elif data.ndim != 1:
        raise DecodeError("a sparse array has a malformed shape or data")
    if name.startswith("csc"):
        rows, columns = columns, rows
    index, starts = indices
    _check_indices(index, len(data), columns)
    _check_indices(starts, rows + 1, len(data) + 1)
    if starts[0] != 0 or starts[-1] != len(data) or (np.diff(starts) < 0).any():
        raise DecodeError("a sparse array has rows that do not follow one another")


def _check_indices(index: Any, count: int, size: int) -> None:
    if type(index) is not np.ndarray or index.ndim != 1 or index.dtype.kind != "i" or len(index) != count:
        raise DecodeError("a sparse array has malformed indices")
    if count and not 0 <= index.min() <= index.max() < size:
        raise DecodeError("a sparse array has an index outside its shape")


_SPARSE: Final = head(Tag.SPARSE)

READ_RULES: Final[dict[Tag, ReadRule]] = {Tag.SPARSE: _read}
"""What follows the mark of a sparse array."""


def rule_for(cls: type) -> WriteRule | None:
    """How to write the instances of a class, None if it is not scipy's.

    Raises:
        Refused: It is a sparse class that means more than its arrays say.
    """
    if cls in _NAMES:
        return _write
    if issubclass(cls, (sp.sparray, sp.spmatrix)):
        raise Refused(cls, "send value.tocsr(), or value.tocoo()")
    return None
