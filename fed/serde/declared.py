"""How codec ``data`` carries the classes that the user declared.

Dataclasses, enumerations and namedtuples go by what they are made of, others by functions of the user's.

They cross by qualified name and are rebuilt only from the list that this party declared, so a name in hostile bytes
chooses among these classes and reaches nothing else.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from fed.config import DeclaredType, TypeCodec
from fed.serde.builtin import WRITE_RULES, expect
from fed.serde.contract import DecodeError
from fed.serde.tags import Tag
from fed.serde.tree import PLAIN, Reader, ReadRule, Refused, Writer, WriteRule, head, place_of_attribute, told

__all__ = ["Declared", "declare", "is_declarable"]


class Declared(NamedTuple):
    """The rules for one list of declared classes.

    Attributes:
        write: How to write one, by class.
        read: How to read one, by tag and qualified name.
    """

    write: dict[type, WriteRule]
    read: dict[tuple[Tag, str], ReadRule]


def _name_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def is_declarable(cls: type) -> bool:
    """Whether a class is of a kind that can be declared."""
    return _kind_of(cls) is not None


def declare(types: Sequence[DeclaredType]) -> Declared:
    """Make the rules for a list of classes.

    A dataclass is rebuilt from its fields without a call of ``__init__`` or ``__post_init__``, as ``copy`` and
    ``pickle`` do it: fields with ``init=False`` and ``InitVar`` could not be given, a ``__post_init__`` that converts
    would convert twice, and decoding should run nobody's code. What follows: the values of the fields are what the
    peer sent, unchecked against their annotations and against the class's own checks.

    Args:
        types: Dataclasses, Enum classes, namedtuples, and codecs of any classes.

    Raises:
        TypeError: One is something else, holds state that its fields do not name, or is a codec of what crosses as
            it is.
        ValueError: Two have the same qualified name.
    """
    write: dict[type, WriteRule] = {}
    read: dict[tuple[Tag, str], ReadRule] = {}
    names: set[str] = set()
    for index, declared in enumerate(types):
        cls = declared.cls if isinstance(declared, TypeCodec) else declared
        if not isinstance(cls, type):
            raise TypeError(f"types[{index}] is not a class but {type(cls).__qualname__}: {cls!r}")
        name = _name_of(cls)
        if name in names:
            raise ValueError(f"types[{index}]: another class in types is also named {name}")
        names.add(name)
        kind = _kind_of(cls)
        rule: _Enum | _Record | _Coded
        if isinstance(declared, TypeCodec):
            if cls in PLAIN or cls in WRITE_RULES:
                raise TypeError(f"types[{index}]: a {cls.__qualname__} crosses as it is, and takes no codec")
            rule = _Coded(declared)
        elif kind is None:
            raise TypeError(
                f"types[{index}]: {name} is not a dataclass, an Enum class or a namedtuple; "
                f"declare fed.codec({cls.__qualname__}, to_bytes=..., from_bytes=...)"
            )
        else:
            rule = kind(cls)
        write[cls] = rule.write
        read[rule.tag, name] = rule.read
    return Declared(write, read)


def _kind_of(cls: type) -> type[_Enum | _Dataclass | _NamedTuple] | None:
    if issubclass(cls, enum.Enum):
        return _Enum
    if dataclasses.is_dataclass(cls):
        return _Dataclass
    fields = getattr(cls, "_fields", None)
    if issubclass(cls, tuple) and type(fields) is tuple and all(type(field) is str for field in fields):
        return _NamedTuple
    return None


class _Enum:
    tag = Tag.ENUM

    def __init__(self, cls: type[enum.Enum]) -> None:
        self._cls: Any = cls
        self._name = _name_of(cls)
        self._is_flag = issubclass(cls, enum.Flag)
        # A flag may keep bits that it has no name for, and takes the square of their number to look at them.
        values = [member.value for member in cls.__members__.values()] if issubclass(cls, enum.Flag) else []
        self._bits = max([64, *(value.bit_length() for value in values)])

    def write(self, writer: Writer, value: enum.Enum, room: int) -> Any:
        # A combination of flags has no name of its own in every Python. Any other member crosses by name, because
        # its value may be of any type.
        return [_ENUM, self._name, value._value_ if self._is_flag else value._name_]

    def read(self, reader: Reader, args: list[Any], room: int) -> enum.Enum:
        (given,) = expect(args, int if self._is_flag else str)
        member: Any = None
        if not self._is_flag:
            member = self._cls.__members__.get(given)
        elif given.bit_length() <= self._bits:
            member = self._cls(given)
        # A flag may be defined to turn an unknown bit into a plain int.
        if not isinstance(member, self._cls):
            raise DecodeError(f"{self._name} has no such member here")
        return member  # type: ignore[no-any-return]


# Attributes that are not fields and yet no loss: typing notes there how a generic class was subscripted.
_IGNORED: Final = frozenset({"__orig_class__"})


def _slots(cls: type) -> set[str]:
    slots: set[str] = set()
    for base in cls.__mro__:
        declared = base.__dict__.get("__slots__", ())
        for name in [declared] if isinstance(declared, str) else declared:
            private = name.startswith("__") and not name.endswith("__")
            slots.add(f"_{base.__name__.lstrip('_')}{name}" if private else name)
    return slots


def _cached(cls: type) -> frozenset[str]:
    # A cached property may be lost: it is computed again.
    return frozenset(
        name
        for base in cls.__mro__
        for name, attribute in base.__dict__.items()
        if isinstance(attribute, functools.cached_property)
    )


class _Record:
    """What dataclasses and namedtuples have in common: a name, and fields in an order."""

    def __init__(self, cls: type, fields: tuple[str, ...]) -> None:
        self._cls: Any = cls
        self._name = _name_of(cls)
        self._fields = fields
        self._layout = ",".join(fields)
        self._place = place_of_attribute(fields)

    def _read_fields(self, reader: Reader, args: list[Any], room: int) -> list[Any]:
        if not args or args[0] != self._layout or len(args) != len(self._fields) + 1:
            raise DecodeError(f"{self._name} has other fields in the party that sent it")
        return reader.items(args[1:], room)


class _Dataclass(_Record):
    tag = Tag.DATACLASS

    def __init__(self, cls: Any) -> None:
        super().__init__(cls, tuple(field.name for field in dataclasses.fields(cls)))
        try:
            object.__new__(cls)
        except TypeError as error:
            raise TypeError(f"{self._name} cannot be rebuilt from its fields: {error}") from error
        self._hidden = sorted(_slots(cls) - {"__dict__", "__weakref__", *self._fields})
        self._known = frozenset(self._fields) | _cached(cls) | _IGNORED

    def write(self, writer: Writer, value: Any, room: int) -> Any:
        try:
            values = [getattr(value, field) for field in self._fields]
        except AttributeError as error:
            raise Refused(self._cls, "a field is not set", str(error)) from error
        extra = [name for name in getattr(value, "__dict__", ()) if name not in self._known]
        extra += [name for name in self._hidden if hasattr(value, name)]
        if extra:
            raise Refused(self._cls, "an attribute of it is not a field and would be lost; make it one", repr(extra[0]))
        return [_DATACLASS, self._name, self._layout, *writer.items(value, values, room, self._place)]

    def read(self, reader: Reader, args: list[Any], room: int) -> Any:
        values = self._read_fields(reader, args, room)
        instance: Any = object.__new__(self._cls)
        for field, value in zip(self._fields, values, strict=True):
            # A frozen class refuses the plain assignment.
            object.__setattr__(instance, field, value)
        return instance


class _NamedTuple(_Record):
    tag = Tag.NAMED_TUPLE

    def __init__(self, cls: Any) -> None:
        # scipy's results name what they hold beside their items.
        self._count = len(cls._fields)
        super().__init__(cls, (*cls._fields, *getattr(cls, "_extra_fields", ())))

    def write(self, writer: Writer, value: Any, room: int) -> Any:
        more = getattr(value, "__dict__", {})
        extra = [name for name in more if name not in self._fields]
        if extra:
            raise Refused(
                self._cls, "an attribute of it is not a field and would be lost; send tuple(value)", repr(extra[0])
            )
        values = list(tuple.__iter__(value))
        if len(values) != self._count or len(more) != len(self._fields) - self._count:
            raise Refused(self._cls, "it has another number of items than its class has fields")
        values += [more[name] for name in self._fields[self._count :]]
        return [_NAMED_TUPLE, self._name, self._layout, *writer.items(value, values, room, self._place)]

    def read(self, reader: Reader, args: list[Any], room: int) -> Any:
        values = self._read_fields(reader, args, room)
        instance = tuple.__new__(self._cls, values[: self._count])
        if len(values) > self._count:
            instance.__dict__.update(zip(self._fields[self._count :], values[self._count :], strict=True))
        return instance


class _Coded:
    """What crosses by two functions of the user's, which may raise and return anything."""

    tag = Tag.CODED

    def __init__(self, codec: TypeCodec[Any]) -> None:
        self._codec = codec
        self._name = _name_of(codec.cls)

    def write(self, writer: Writer, value: Any, room: int) -> Any:
        try:
            data: Any = self._codec.to_bytes(value)
            if isinstance(data, (bytes, bytearray, memoryview)):
                data = bytes(data)
        except (Exception, SystemExit) as error:
            raise Refused(self._codec.cls, "to_bytes of its codec raised an exception", told(error)) from error
        if type(data) is not bytes:
            raise Refused(self._codec.cls, "to_bytes of its codec returned no bytes", f"a {type(data).__name__}")
        return [_CODED, self._name, writer.write(data, room)]

    def read(self, reader: Reader, args: list[Any], room: int) -> Any:
        (data,) = expect([reader.read(tree, room) for tree in args], bytes)
        try:
            value: Any = self._codec.from_bytes(data)
        except (Exception, SystemExit) as error:
            raise DecodeError(f"from_bytes of the codec of {self._name} raised {told(error)}") from error
        if not isinstance(value, self._codec.cls):
            raise DecodeError(f"from_bytes of the codec of {self._name} returned a {type(value).__name__} instead")
        return value


def _read(tag: Tag) -> ReadRule:
    def read(reader: Reader, args: list[Any], room: int) -> Any:
        if not args or type(args[0]) is not str:
            raise DecodeError("a declared type has no name")
        rule = reader.declared.get((tag, args[0]))
        if rule is None:
            raise DecodeError(f"{args[0][:200]!r} is not declared here: pass the class to fed.init(types=[...])")
        return rule(reader, args[1:], room)

    return read


_ENUM: Final = head(Tag.ENUM)
_DATACLASS: Final = head(Tag.DATACLASS)
_NAMED_TUPLE: Final = head(Tag.NAMED_TUPLE)
_CODED: Final = head(Tag.CODED)

READ_RULES: Final[dict[Tag, ReadRule]] = {
    tag: _read(tag) for tag in (Tag.ENUM, Tag.DATACLASS, Tag.NAMED_TUPLE, Tag.CODED)
}
"""What follows the mark of a declared type."""
