"""How codec ``data`` carries what Python itself brings: containers, numbers, times, paths."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import fractions
import functools
import operator
import pathlib
import sys
import uuid
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from fed.serde import zones
from fed.serde.contract import DecodeError
from fed.serde.tags import Tag
from fed.serde.tree import (
    KEYS,
    PLAIN,
    BigInt,
    Reader,
    ReadRule,
    Refused,
    Writer,
    WriteRule,
    head,
    place_of_attribute,
    place_of_key,
)

__all__ = ["LARGE_BYTES", "READ_RULES", "WRITE_RULES", "expect"]

LARGE_BYTES: Final = 16 * 1024
"""Bytes of at least this size are a buffer of their own. Below it, copying them into the header is cheaper than
what a buffer costs on its way."""

_LONG_FLOATS: Final = 1024
"""A list of at least this many floats and nothing else is a buffer of doubles: converting them in one call makes up
for the pass that found out that they are all floats."""

_INT_MIN: Final = -(1 << 63)
_INT_MAX: Final = (1 << 64) - 1
"""The ints that msgpack has a form for, and that may be keys of its maps."""

_MAX_FRACTION_BITS: Final = 1 << 13
"""Of either part of a fraction: to find out whether they have a common factor takes the square of the time."""


class _Rule(NamedTuple):
    tag: Tag
    cls: type
    write: WriteRule
    read: ReadRule


def expect(args: list[Any], *kinds: type | tuple[type, ...]) -> list[Any]:
    """Check the number and exact types of what follows a mark. Returns it, with every int as one.

    Raises:
        DecodeError: They are others.
    """
    if len(args) != len(kinds):
        raise DecodeError(f"a mark is followed by {len(args)} items instead of {len(kinds)}")
    args = [arg.value if type(arg) is BigInt else arg for arg in args]
    for arg, kind in zip(args, kinds, strict=True):
        if type(arg) is not kind and not (type(kind) is tuple and type(arg) in kind):
            raise DecodeError(f"a mark is followed by a {type(arg).__name__} where something else should be")
    return args


# Containers


def _write_list(writer: Writer, value: list[Any], room: int) -> Any:
    if len(value) >= _LONG_FLOATS and type(value[0]) is float and set(map(type, value)) == {float}:
        if not room:
            writer.deny_depth(value)
        doubles = array.array("d", value)
        if sys.byteorder == "big":
            doubles.byteswap()
        writer.buffers.append(memoryview(doubles).cast("B"))
        return [_FLOATS]
    return writer.array(writer.items(value, value, room))


def _read_floats(reader: Reader, args: list[Any], room: int) -> list[float]:
    expect(args)
    doubles = array.array("d")
    doubles.frombytes(reader.buffer())
    if sys.byteorder == "big":
        doubles.byteswap()
    return doubles.tolist()


def _sequence(tag: Tag, cls: Any) -> _Rule:
    mark = head(tag)

    def write(writer: Writer, value: Any, room: int) -> Any:
        return writer.array([mark, *writer.items(value, value, room)])

    def read(reader: Reader, args: list[Any], room: int) -> Any:
        return cls(reader.items(args, room))

    return _Rule(tag, cls, write, read)


def _set(tag: Tag, cls: Any) -> _Rule:
    mark = head(tag)

    def write(writer: Writer, value: Any, room: int) -> Any:
        return writer.array([mark, *writer.items(value, value, room, _place_in_set)])

    def read(reader: Reader, args: list[Any], room: int) -> Any:
        items = reader.items(args, room)
        reader.check_keys(items)
        value = cls(items)
        if len(value) != len(items):
            raise DecodeError("a set has an item twice")
        return value

    return _Rule(tag, cls, write, read)


def _place_in_set(index: int) -> str:
    return "{...}"


def _write_dict(writer: Writer, value: dict[Any, Any], room: int) -> Any:
    kinds = set(map(type, value))
    if not kinds <= KEYS or (int in kinds and _has_big_int(value)):
        return writer.array([_DICT, *_write_pairs(writer, value, room)])
    if not room:
        writer.deny_depth(value)
    if set(map(type, value.values())) <= PLAIN:
        return value
    return dict(zip(value, writer.items(value, value.values(), room, place_of_key(value)), strict=True))


def _has_big_int(keys: Iterable[Any]) -> bool:
    ints = [key for key in keys if type(key) is int]
    return min(ints) < _INT_MIN or max(ints) > _INT_MAX


def _place_of_pair(keys: Iterable[object]) -> Callable[[int], str]:
    """Name the n-th item of ``[key, value, key, value, ...]``."""

    def place(index: int) -> str:
        which, is_value = divmod(index, 2)
        return place_of_key(keys)(which) if is_value else f".keys()[{which}]"

    return place


def _write_pairs(writer: Writer, value: Mapping[Any, Any], room: int) -> list[Any]:
    pairs = [part for pair in value.items() for part in pair]
    return writer.items(value, pairs, room, _place_of_pair(value))


def _read_pairs(reader: Reader, args: list[Any], room: int, make: Callable[[Iterable[tuple[Any, Any]]], Any]) -> Any:
    if len(args) % 2:
        raise DecodeError("a mapping has a key without a value")
    parts = reader.items(args, room)
    keys = parts[::2]
    reader.check_keys(keys)
    value = make(zip(keys, parts[1::2], strict=True))
    if len(value) != len(keys):
        raise DecodeError("a mapping has a key twice")
    return value


def _mapping(tag: Tag, cls: Any, make: Callable[[Iterable[tuple[Any, Any]]], Any] | None = None) -> _Rule:
    mark = head(tag)
    make = make or cls

    def write(writer: Writer, value: Any, room: int) -> Any:
        return writer.array([mark, *_write_pairs(writer, value, room)])

    def read(reader: Reader, args: list[Any], room: int) -> Any:
        return _read_pairs(reader, args, room, make)

    return _Rule(tag, cls, write, read)


def _make_counter(pairs: Iterable[tuple[Any, Any]]) -> collections.Counter[Any]:
    # Given pairs, Counter would count them.
    return collections.Counter(dict(pairs))


_FACTORIES: Final = frozenset({bool, bytes, dict, float, int, list, set, str, tuple})
_FACTORIES_BY_NAME: Final[dict[str | None, Any]] = {None: None, **{cls.__name__: cls for cls in _FACTORIES}}


def _write_default_dict(writer: Writer, value: collections.defaultdict[Any, Any], room: int) -> Any:
    factory = value.default_factory
    # A dict finds equal keys, and a factory may be an object that claims to equal anything.
    if factory is not None and (type(factory) is not type or factory not in _FACTORIES):
        raise Refused(type(value), "its default_factory is code; convert it with dict(...)")
    name = None if factory is None else factory.__name__
    return writer.array([_DEFAULT_DICT, name, *_write_pairs(writer, value, room)])


def _read_default_dict(reader: Reader, args: list[Any], room: int) -> Any:
    if not args or type(args[0]) not in (str, type(None)) or args[0] not in _FACTORIES_BY_NAME:
        raise DecodeError("a defaultdict has an unknown default_factory")
    return _read_pairs(reader, args[1:], room, functools.partial(collections.defaultdict, _FACTORIES_BY_NAME[args[0]]))


def _write_deque(writer: Writer, value: collections.deque[Any], room: int) -> Any:
    return writer.array([_DEQUE, value.maxlen, *writer.items(value, value, room)])


def _read_deque(reader: Reader, args: list[Any], room: int) -> collections.deque[Any]:
    if not args or type(args[0]) not in (int, type(None)):
        raise DecodeError("a deque has no maxlen")
    maxlen, items = args[0], args[1:]
    if maxlen is not None and maxlen < len(items):
        raise DecodeError("a deque is longer than its maxlen")
    return collections.deque(reader.items(items, room), maxlen)


# Bytes


def _write_bytes(writer: Writer, value: bytes, room: int) -> Any:
    if len(value) < LARGE_BYTES:
        return value
    writer.buffers.append(memoryview(value))
    return [_BYTES]


def _read_bytes(reader: Reader, args: list[Any], room: int) -> bytes:
    expect(args)
    return bytes(reader.buffer())


def _write_bytearray(writer: Writer, value: bytearray, room: int) -> Any:
    if len(value) < LARGE_BYTES:
        return [_BYTEARRAY, bytes(value)]
    writer.buffers.append(memoryview(value))
    return [_BYTEARRAY]


def _read_bytearray(reader: Reader, args: list[Any], room: int) -> bytearray:
    return bytearray(expect(args, bytes)[0] if args else reader.buffer())


# Numbers


def _of_one_part(tag: Tag, cls: type, kind: type, take: Callable[[Any], Any], make: Callable[[Any], Any]) -> _Rule:
    """The rule for what is made of one part that stands for itself."""
    mark = head(tag)

    def write(writer: Writer, value: Any, room: int) -> Any:
        return [mark, take(value)]

    def read(reader: Reader, args: list[Any], room: int) -> Any:
        return make(expect(args, kind)[0])

    return _Rule(tag, cls, write, read)


def _of_attributes(tag: Tag, cls: type, **kinds: type) -> _Rule:
    """The rule for what is made of its attributes, each of which stands for itself."""
    mark = head(tag)
    take = operator.attrgetter(*kinds)
    types = tuple(kinds.values())

    def write(writer: Writer, value: Any, room: int) -> Any:
        return [mark, *take(value)]

    def read(reader: Reader, args: list[Any], room: int) -> Any:
        return cls(*expect(args, *types))

    return _Rule(tag, cls, write, read)


_place_in_slice: Final = place_of_attribute(("start", "stop", "step"))


def _write_slice(writer: Writer, value: slice, room: int) -> Any:
    parts = [value.start, value.stop, value.step]
    return [_SLICE, *writer.items(value, parts, room, _place_in_slice)]


def _read_slice(reader: Reader, args: list[Any], room: int) -> slice:
    if len(args) != 3:
        raise DecodeError("a slice has not three parts")
    return slice(*reader.items(args, room))


def _write_fraction(writer: Writer, value: fractions.Fraction, room: int) -> Any:
    parts = (value.numerator, value.denominator)
    if max(part.bit_length() for part in parts) > _MAX_FRACTION_BITS:
        raise Refused(type(value), f"a part of it has more than {_MAX_FRACTION_BITS} bits; send the two as ints")
    return [_FRACTION, *parts]


def _read_fraction(reader: Reader, args: list[Any], room: int) -> fractions.Fraction:
    parts = expect(args, int, int)
    bits = max(part.bit_length() for part in parts)
    if bits > _MAX_FRACTION_BITS:
        raise DecodeError(f"a fraction of {bits} bits is longer than any that is written")
    reader.spend((bits >> 9) ** 2)
    return fractions.Fraction(*parts)


# Times

_clock: Final = operator.attrgetter("hour", "minute", "second", "microsecond", "fold")


def _write_tzinfo(writer: Writer, value: datetime.tzinfo | None, room: int) -> Any:
    try:
        return writer.write(value, room)
    except Refused as refused:
        refused.leave(".tzinfo", value)
        raise


def _read_tzinfo(reader: Reader, tree: Any, room: int) -> datetime.tzinfo | None:
    value = reader.read(tree, room)
    if value is not None and type(value) not in (datetime.timezone, zoneinfo.ZoneInfo):
        raise DecodeError("a time has something else for a time zone")
    return value  # type: ignore[no-any-return]


def _write_datetime(writer: Writer, value: datetime.datetime, room: int) -> Any:
    return [_DATETIME, value.toordinal(), *_clock(value), _write_tzinfo(writer, value.tzinfo, room)]


def _read_datetime(reader: Reader, args: list[Any], room: int) -> datetime.datetime:
    zone = _read_tzinfo(reader, args.pop() if args else None, room)
    day, hour, minute, second, microsecond, fold = expect(args, int, int, int, int, int, int)
    clock = datetime.time(hour, minute, second, microsecond, zone, fold=fold)
    return datetime.datetime.combine(datetime.date.fromordinal(day), clock)


def _write_time(writer: Writer, value: datetime.time, room: int) -> Any:
    return [_TIME, *_clock(value), _write_tzinfo(writer, value.tzinfo, room)]


def _read_time(reader: Reader, args: list[Any], room: int) -> datetime.time:
    zone = _read_tzinfo(reader, args.pop() if args else None, room)
    hour, minute, second, microsecond, fold = expect(args, int, int, int, int, int)
    return datetime.time(hour, minute, second, microsecond, zone, fold=fold)


_MICROSECOND: Final = datetime.timedelta(microseconds=1)


def _write_timezone(writer: Writer, value: datetime.timezone, room: int) -> Any:
    # What it was made of, as pickle asks for it: its name tells not whether one was given.
    given: Any = value
    offset, *name = given.__getinitargs__()
    return [_TIMEZONE, offset // _MICROSECOND, *name]


def _read_timezone(reader: Reader, args: list[Any], room: int) -> datetime.timezone:
    microseconds, *name = expect(args, *(int, str)[: len(args)])
    return datetime.timezone(datetime.timedelta(microseconds=microseconds), *name)


def _write_zoneinfo(writer: Writer, value: zoneinfo.ZoneInfo, room: int) -> Any:
    if not zones.is_known(value.key):
        raise Refused(type(value), "its key names no zone of the IANA database", repr(value.key))
    return [_ZONEINFO, value.key]


def _read_zoneinfo(reader: Reader, args: list[Any], room: int) -> zoneinfo.ZoneInfo:
    key = expect(args, str)[0]
    if not zones.is_known(key):
        raise DecodeError("a time zone is not known here: install or update tzdata")
    return zoneinfo.ZoneInfo(key)


# Paths

_PATHS: Final[dict[type, str]] = {
    type(pathlib.Path()): "here",
    pathlib.PurePosixPath: "posix",
    pathlib.PureWindowsPath: "windows",
}
_PATHS_BY_NAME: Final = {name: kind for kind, name in _PATHS.items()}


def _write_path(writer: Writer, value: pathlib.PurePath, room: int) -> Any:
    return [_PATH, _PATHS[type(value)], str(value)]


def _read_path(reader: Reader, args: list[Any], room: int) -> pathlib.PurePath:
    name, text = expect(args, str, str)
    if name not in _PATHS_BY_NAME:
        raise DecodeError("a path is of an unknown kind")
    return _PATHS_BY_NAME[name](text)  # type: ignore[no-any-return]


_DICT: Final = head(Tag.DICT)
_BYTES: Final = head(Tag.BYTES)
_BYTEARRAY: Final = head(Tag.BYTEARRAY)
_FLOATS: Final = head(Tag.FLOATS)
_SLICE: Final = head(Tag.SLICE)
_FRACTION: Final = head(Tag.FRACTION)
_DATETIME: Final = head(Tag.DATETIME)
_TIME: Final = head(Tag.TIME)
_TIMEZONE: Final = head(Tag.TIMEZONE)
_ZONEINFO: Final = head(Tag.ZONEINFO)
_PATH: Final = head(Tag.PATH)
_DEFAULT_DICT: Final = head(Tag.DEFAULT_DICT)
_DEQUE: Final = head(Tag.DEQUE)

_RULES: Final = (
    _sequence(Tag.TUPLE, tuple),
    _mapping(Tag.DICT, dict)._replace(write=_write_dict),
    _set(Tag.SET, set),
    _set(Tag.FROZENSET, frozenset),
    _Rule(Tag.BYTES, bytes, _write_bytes, _read_bytes),
    _Rule(Tag.BYTEARRAY, bytearray, _write_bytearray, _read_bytearray),
    _Rule(Tag.FLOATS, list, _write_list, _read_floats),
    _of_attributes(Tag.COMPLEX, complex, real=float, imag=float),
    _of_attributes(Tag.RANGE, range, start=int, stop=int, step=int),
    _Rule(Tag.SLICE, slice, _write_slice, _read_slice),
    _of_one_part(Tag.DECIMAL, decimal.Decimal, str, str, decimal.Decimal),
    _Rule(Tag.FRACTION, fractions.Fraction, _write_fraction, _read_fraction),
    _of_one_part(Tag.UUID, uuid.UUID, bytes, operator.attrgetter("bytes"), lambda data: uuid.UUID(bytes=data)),
    _Rule(Tag.DATETIME, datetime.datetime, _write_datetime, _read_datetime),
    _of_one_part(Tag.DATE, datetime.date, int, datetime.date.toordinal, datetime.date.fromordinal),
    _Rule(Tag.TIME, datetime.time, _write_time, _read_time),
    _of_attributes(Tag.TIMEDELTA, datetime.timedelta, days=int, seconds=int, microseconds=int),
    _Rule(Tag.TIMEZONE, datetime.timezone, _write_timezone, _read_timezone),
    _Rule(Tag.ZONEINFO, zoneinfo.ZoneInfo, _write_zoneinfo, _read_zoneinfo),
    *(_Rule(Tag.PATH, cls, _write_path, _read_path) for cls in _PATHS),
    _mapping(Tag.ORDERED_DICT, collections.OrderedDict),
    _Rule(Tag.DEFAULT_DICT, collections.defaultdict, _write_default_dict, _read_default_dict),
    _mapping(Tag.COUNTER, collections.Counter, _make_counter),
    _Rule(Tag.DEQUE, collections.deque, _write_deque, _read_deque),
)

WRITE_RULES: Final[dict[type, WriteRule]] = {rule.cls: rule.write for rule in _RULES}
"""By exact type: a subclass is another type, and must not quietly become its base on the way."""

READ_RULES: Final[dict[Tag, ReadRule]] = {rule.tag: rule.read for rule in _RULES}
"""What follows the marks of these types."""
