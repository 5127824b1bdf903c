"""How codec ``data`` carries numpy arrays and scalars. Importing this module imports numpy.

An array is its dtype, its order and its shape in the header, and its memory as a buffer. One whose memory refers to its
items, of Python objects or of texts of any length, is a list of them.

Bytes that mean nothing never cross: the padding of a structured dtype, and of an extended-precision float, holds
whatever was in that memory before, which may be anything of this party's. An array of such a dtype is copied once
and the bytes are zeroed; every other contiguous array is sent as it lies.

Law: no view of a decoded array reaches a byte outside its buffer. Every number that comes with an array (offsets,
sizes, counts) is checked here, in Python's integers, before numpy sees it: numpy's own checks of a structured dtype
are done in integers of C, which overflow, and from then on it trusts the dtype with addresses.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from fed.serde.builtin import expect
from fed.serde.contract import DecodeError
from fed.serde.tags import Tag
from fed.serde.tree import Reader, ReadRule, Refused, Writer, WriteRule, head

__all__ = ["READ_RULES", "rule_for", "sends_own_memory"]

_MAX_DTYPE_DEPTH: Final = 16
"""How deep structured dtypes may nest; numpy's own functions for them recurse in C."""

_MAX_SHAPE: Final = 64
"""More dimensions than any numpy knows."""

_MAX_ITEM_BYTES: Final = (1 << 31) - 1
"""Of one item of any dtype: numpy counts them in an int of C, or did so in some release."""

_MAX_EMPTY_ITEMS: Final = 1 << 16
"""Items of no bytes cost no bytes, until somebody converts them."""

_MAX_SPAN: Final = (1 << 62) - 1
"""Of all sizes of a shape and the item's together, where none of them is zero."""

_SIMPLE: Final = re.compile(
    r"[<>|](?:b1|[iu][1248]|[qQ]|f[248]|c(?:8|16)|(?P<kind>[SUV])(?P<count>0|[1-9][0-9]{0,9})"
    r"|[mM]8(?:\[(?:[1-9][0-9]{0,8})?(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)
"""Every dtype that is written as a string, except those of extended precision. Nothing else reaches `numpy.dtype`,
whose own grammar of strings also knows Python objects and lists of fields."""

_LONG: Final = re.compile(r"([<>](?:f|c)(?:12|16|24|32)):([0-9]{1,4}):([0-9]{1,6})")


def _long_layout() -> str:
    limits = np.finfo(np.longdouble)
    return f"{limits.nmant}:{limits.maxexp}"


_LAYOUT: Final = _long_layout()
"""What sets one machine's extended floats apart from those of the same size on another."""

_LONG_KINDS: Final = frozenset(
    order + np.dtype(kind).str[1:] for kind in (np.longdouble, np.clongdouble) for order in "<>"
) - {"<f8", ">f8", "<c16", ">c16"}

_simple_names: dict[np.dtype[Any], str] = {}


def _describe(dtype: np.dtype[Any], depth: int = _MAX_DTYPE_DEPTH) -> Any:
    """The tree of a dtype: a string, or a list where it has fields or a shape of its own."""
    name = _simple_names.get(dtype) if dtype.names is None else None
    if name is not None and _char(name) == dtype.char:
        return name
    if not depth:
        raise Refused(np.ndarray, f"its dtype nests deeper than {_MAX_DTYPE_DEPTH} levels")
    description: Any
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        description = ["shape", _describe(base, depth - 1), *shape]
    elif dtype.names is not None:
        fields = []
        known: Any = dtype.fields or {}
        for field in dtype.names:
            kind, offset, *title = known[field]
            if title and type(title[0]) is not str:
                raise Refused(np.ndarray, "the title of a field of its dtype is not a str", repr(field))
            fields.append([field, _describe(kind, depth - 1), offset, *title])
        is_record = dtype.type is np.record
        description = ["fields", dtype.itemsize, dtype.isalignedstruct, is_record, *fields]
    elif dtype.hasobject:
        raise Refused(
            np.ndarray, "its dtype holds Python objects; convert it with .tolist() or .astype(...)", str(dtype)
        )
    elif dtype.str in _LONG_KINDS:
        description = f"{dtype.str}:{_LAYOUT}"
    else:
        description = dtype.str
        if dtype.char in "qQ" and np.dtype(description).char != dtype.char:
            # Two integer types of C may have one size: equal, but with scalars of different classes.
            description = description[0] + dtype.char
    try:
        faithful = _restore(description) == dtype
    except DecodeError:
        faithful = False
    if not faithful:
        # Among them the short floats of ml_dtypes, such as bfloat16.
        raise Refused(np.ndarray, "its dtype is not one of numpy's own; convert it with .astype('float32')", str(dtype))
    if type(description) is str and dtype.metadata is None and len(_simple_names) < 1024:
        _simple_names.setdefault(dtype, description)
    return description


@functools.lru_cache(maxsize=1024)
def _char(name: str) -> str:
    return _restore(name).char


@functools.lru_cache(maxsize=1024)
def _restore_simple(name: str) -> np.dtype[Any]:
    simple = _SIMPLE.fullmatch(name)
    if simple is not None:
        if simple["count"] is not None:
            _check_item(int(simple["count"]) * (4 if simple["kind"] == "U" else 1))
        return np.dtype(name)
    long = _LONG.fullmatch(name)
    if long is None:
        raise DecodeError("an array has a malformed dtype")
    if long[1] not in _LONG_KINDS or f"{long[2]}:{long[3]}" != _LAYOUT:
        raise DecodeError(
            "an array is of an extended-precision float that this machine does not have; send value.astype('float64')"
        )
    return np.dtype(long[1])


def _restore(description: Any, depth: int = _MAX_DTYPE_DEPTH) -> np.dtype[Any]:
    if type(description) is str:
        return _restore_simple(description)
    if not depth or type(description) is not list or not description:
        raise DecodeError("an array has a malformed dtype")
    kind, *rest = description
    if kind == "shape" and len(rest) > 1:
        base, *shape = rest
        part = _restore(base, depth - 1)
        _check_item(_span(shape, part.itemsize))
        return np.dtype((part, tuple(shape)))
    if kind != "fields" or len(rest) < 3:
        raise DecodeError("an array has a malformed dtype")
    itemsize, aligned, is_record, *fields = rest
    expect(rest[:3], int, bool, bool)
    _check_item(itemsize)
    layout: dict[str, list[Any]] = {"names": [], "formats": [], "offsets": [], "titles": []}
    for field in fields:
        if type(field) is not list or len(field) not in (3, 4):
            raise DecodeError("an array has a malformed dtype")
        name, form, offset = field[:3]
        title = field[3] if len(field) == 4 else None
        expect([name, offset, title], str, int, (str, type(None)))
        part = _restore(form, depth - 1)
        if not 0 <= offset <= itemsize - part.itemsize:
            raise DecodeError("an array has a field that lies outside its item")
        layout["names"].append(name)
        layout["formats"].append(part)
        layout["offsets"].append(offset)
        layout["titles"].append(title)
    dtype: np.dtype[Any] = np.dtype({**layout, "itemsize": itemsize}, align=aligned)  # type: ignore[call-overload]
    if dtype.itemsize != itemsize:
        raise DecodeError("an array has a malformed dtype")
    return np.dtype((np.record, dtype)) if is_record else dtype


def _check_item(itemsize: int) -> None:
    if not 0 <= itemsize <= _MAX_ITEM_BYTES:
        raise DecodeError(f"an array has items of {itemsize} bytes; at most {_MAX_ITEM_BYTES} may be")


def _span(shape: list[Any], itemsize: int) -> int:
    """How many bytes items of a shape are.

    Raises:
        DecodeError: It is no shape, or numpy could not count what it spans, be it of no bytes.
    """
    if len(shape) > _MAX_SHAPE or any(type(size) is not int or not 0 <= size <= _MAX_SPAN for size in shape):
        raise DecodeError("an array has a malformed shape")
    if math.prod(size or 1 for size in (*shape, itemsize)) > _MAX_SPAN:
        raise DecodeError("an array has a shape that is too large")
    count: int = math.prod(shape)
    if not itemsize and count > _MAX_EMPTY_ITEMS:
        raise DecodeError(f"an array has {count} items of no bytes; at most {_MAX_EMPTY_ITEMS} may be")
    return count * itemsize


def _meaningful(dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    """Which bytes of an item mean something, or None for all of them."""
    if dtype.names is None and dtype.subdtype is None and dtype.str not in _LONG_KINDS:
        return None
    used = np.zeros(dtype.itemsize, bool)
    _mark_used(dtype, used)
    return None if used.all() else used


def _mark_used(dtype: np.dtype[Any], used: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
    if dtype.subdtype is not None:
        base = dtype.subdtype[0]
        for item in used.reshape(-1, base.itemsize) if base.itemsize else ():
            _mark_used(base, item)
    elif dtype.names is not None:
        for kind, offset, *_ in (dtype.fields or {}).values():
            _mark_used(kind, used[offset : offset + kind.itemsize])
    elif dtype.str in _LONG_KINDS and np.finfo(np.longdouble).nmant == 63:
        # The 80-bit format: ten bytes of a number, then what is left of 12 or 16.
        for number in used.reshape(-1, np.dtype(np.longdouble).itemsize):
            number[slice(-10, None) if dtype.str[0] == ">" else slice(10)] = True
    else:
        used[:] = True


def _write_array(writer: Writer, value: Any, room: int) -> Any:
    is_recarray = type(value) is np.recarray
    if is_recarray:
        value = value.view(np.ndarray)
    dtype = value.dtype
    if dtype.char in _OF_ITEMS and not is_recarray:
        return _write_items(writer, value, room)
    description = _describe(dtype)
    flags = value.flags
    order = "C" if flags.c_contiguous or not flags.f_contiguous else "F"
    shape = value.shape
    writer.buffers.append(_memory(value, dtype, order))
    return [_ARRAY, description, order, is_recarray, *shape]


def _memory(value: Any, dtype: np.dtype[Any], order: str) -> memoryview:
    if not value.nbytes:
        return memoryview(b"")
    # Transposed, an array in Fortran order is one in C order, over the same memory.
    value = np.ascontiguousarray(value if order == "C" else value.T)
    data = value.reshape(-1).view(np.uint8)
    used = _meaningful(dtype)
    if used is not None:
        data = np.where(used, data.reshape(-1, dtype.itemsize), np.uint8(0)).reshape(-1)
    return memoryview(data)


def sends_own_memory(value: Any) -> bool:
    """Whether an array is written without a copy of its memory."""
    return (value.flags.c_contiguous or value.flags.f_contiguous) and _meaningful(value.dtype) is None


def _read_array(reader: Reader, args: list[Any], room: int) -> Any:
    if len(args) < 3 or args[1] not in ("C", "F") or type(args[2]) is not bool:
        raise DecodeError("an array has a malformed description")
    description, order, is_recarray, *shape = args
    value = _view(reader.buffer(), _restore(description), shape, order)
    return value.view(np.recarray) if is_recarray else value


def _view(buffer: Any, dtype: np.dtype[Any], shape: list[Any], order: Any = "C") -> Any:
    if _span(shape, dtype.itemsize) != len(buffer):
        raise DecodeError(f"an array of {len(buffer)} bytes has a shape or dtype of another size")
    if dtype.subdtype is not None:
        raise DecodeError("an array has a dtype that belongs inside another")
    value: Any
    if len(buffer):
        value = np.ndarray(shape, dtype, buffer, order=order)
    elif dtype.itemsize:
        value = np.empty(shape, dtype, order)
    else:
        # Given alone, a dtype of no bytes becomes one of the next size; inside a field it stays what it is.
        value = np.empty(shape, [("", dtype)], order)["f0"]
    value.flags.writeable = False
    return value


_OF_ITEMS: Final = "OT"
"""The codes of dtypes whose arrays refer to their items: Python objects, and numpy's own texts of any length."""


def _write_items(writer: Writer, value: Any, room: int) -> Any:
    dtype = value.dtype
    strings = None
    if dtype.char == "T":
        strings = [dtype.coerce]
        if hasattr(dtype, "na_object"):
            strings.append(dtype.na_object)
            if not _is_missing(dtype.na_object):
                raise Refused(type(value), "its dtype has an na_object of its own; use None or numpy.nan", str(dtype))
    shape = value.shape
    description = writer.items(value, [strings, list(shape)], room, lambda index: ".dtype")
    # The items are in a list, which is one level more.
    trees = writer.items(value, value.reshape(-1).tolist(), room - 1, _place_in(shape))
    return [_ITEMS, *description, writer.array(trees)]


def _place_in(shape: tuple[int, ...]) -> Callable[[int], str]:
    return lambda index: f"[{', '.join(str(part) for part in np.unravel_index(index, shape))}]"


def _is_missing(value: object) -> bool:
    """Whether this stands for a missing text."""
    if type(value) is float:
        return math.isnan(value)
    return value is None or type(value) is str or type(value).__name__ == "NAType"


def _read_items(reader: Reader, args: list[Any], room: int) -> Any:
    strings, shape, items = reader.items(args, room)
    if type(shape) is not list or type(items) is not list or _span(shape, 8) != 8 * len(items):
        raise DecodeError("an array of objects has a shape of another size")
    value = np.fromiter(items, dtype=object, count=len(items)).reshape(shape)
    if strings is not None:
        value = _as_strings(value, items, strings)
    value.flags.writeable = False
    return value


def _as_strings(value: Any, items: list[Any], strings: Any) -> Any:
    """The same in numpy's own dtype of texts, where it has one."""
    if type(strings) is not list or len(strings) not in (1, 2) or type(strings[0]) is not bool:
        raise DecodeError("an array of texts has a malformed dtype")
    coerce, *missing = strings
    if not all(map(_is_missing, missing)) or not set(map(type, items)) <= {str, *map(type, missing)}:
        raise DecodeError("an array of texts holds something else")
    dtype = getattr(np.dtypes, "StringDType", None)
    if dtype is None:
        return value
    return value.astype(dtype(coerce=coerce, **({"na_object": missing[0]} if missing else {})))


def _write_text(writer: Writer, value: Any, room: int) -> Any:
    # By the base class: numpy's own functions take the zeros at the end of a text for padding.
    base: Any = str if type(value) is np.str_ else bytes
    return [_SCALAR, "", base.__getitem__(value, slice(None))]


def _write_scalar(writer: Writer, value: Any, room: int) -> Any:
    dtype = value.dtype
    description = _describe(dtype)
    if _meaningful(dtype) is not None:
        return [_SCALAR, description, bytes(_memory(np.asarray(value), dtype, "C"))]
    return [_SCALAR, description, value.tobytes()]


def _read_scalar(reader: Reader, args: list[Any], room: int) -> Any:
    if len(args) == 2 and args[0] == "":
        _, text = expect(args, str, (str, bytes))
        return np.str_(text) if type(text) is str else np.bytes_(text)
    if len(args) != 2 or type(args[1]) is not bytes:
        raise DecodeError("a numpy scalar has a malformed description")
    return _view(args[1], _restore(args[0]), [])[()]


_ARRAY: Final = head(Tag.NUMPY_ARRAY)
_SCALAR: Final = head(Tag.NUMPY_SCALAR)
_ITEMS: Final = head(Tag.NUMPY_ITEMS)

_SCALARS: Final = frozenset({*np.sctypeDict.values(), np.void, np.record}) - {np.object_}

READ_RULES: Final[dict[Tag, ReadRule]] = {
    Tag.NUMPY_ARRAY: _read_array,
    Tag.NUMPY_SCALAR: _read_scalar,
    Tag.NUMPY_ITEMS: _read_items,
}
"""What follows the marks of numpy."""


def rule_for(cls: type) -> WriteRule | None:
    """How to write the instances of a class, None if it is not numpy's.

    Raises:
        Refused: It is an array class that means more than its memory says.
    """
    if cls in (np.ndarray, np.recarray):
        return _write_array
    if cls in _SCALARS:
        return _write_text if cls in (np.str_, np.bytes_) else _write_scalar
    if issubclass(cls, np.ma.MaskedArray):
        raise Refused(cls, "send its .data and its .mask, or its .filled()")
    if issubclass(cls, np.ndarray):
        raise Refused(cls, "a subclass of ndarray; convert it with numpy.asarray(...)")
    return None
