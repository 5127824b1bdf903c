"""Codec ``data``: values as plain data, safe to decode whoever sent them.

The header is one msgpack document (see `fed.serde.tree` for its form); arrays and large bytes are buffers beside it.
Decoding never imports, unpickles or executes anything that bytes name: a mark chooses among the rules written here,
and the name of a declared type among the classes that this party declared.

What crosses, with its type, at every depth:

- None, bool, int, float, complex, str (lone surrogates too), bytes, bytearray, Decimal, Fraction
- list, tuple, dict (in its order, with keys of any of these types that hash), set, frozenset, range, slice,
  OrderedDict, Counter, deque, and defaultdict if its factory is a builtin type or None
- datetime, date, time, timedelta, timezone, ZoneInfo; UUID; pure paths and paths of the own platform
- classes that were declared: dataclasses, Enum classes, namedtuples
- numpy arrays and scalars, pandas Series, DataFrame and Index, pyarrow tables and arrays, torch tensors

What does not:

- Instances of any other class, subclasses of the above included: never silently turned into something else.
- Identity: what is referred to twice is written twice and arrives as two values. A value that contains itself is
  an error.
- Values nested deeper than `fed.serde.tree.MAX_DEPTH` containers.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgpack

from fed.serde import builtin, declared
from fed.serde.contract import DecodeError, Encoded, EncodeError
from fed.serde.tree import (
    BYTES_PER_WORK,
    MAX_ARRAY,
    MAX_DEPTH,
    MAX_INT_BITS,
    WORK,
    BigInt,
    Mark,
    Reader,
    ReadRule,
    Refused,
    Tag,
    Writer,
    WriteRule,
    read_pieces,
)

__all__ = ["DataCodec"]

UNCOUNTED_BYTES: Final = 1 << 18
"""Up to here a header is unpacked without a count of its containers."""

_BUILTIN_BASES: Final = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)


class DataCodec:
    """The codec ``data``. Immutable as seen from outside, and safe to use from any thread.

    Decoded arrays are read-only views of the buffers, also where a buffer does not begin at a multiple of the item's
    size: numpy reads such arrays correctly but more slowly, so a transport does well to align what it receives.

    Args:
        types: Dataclasses, Enum classes and namedtuples that may cross; see `fed.serde.declared.declare` for how
            they are rebuilt.

    Raises:
        TypeError: One of ``types`` cannot be declared.
        ValueError: Two of ``types`` have the same qualified name.
    """

    def __init__(self, types: Sequence[type] = ()) -> None:
        rules = declared.declare(types)
        self._rules: dict[type, WriteRule] = {**builtin.WRITE_RULES, **rules.write}
        self._declared = rules.read

    def encode(self, value: Any) -> Encoded:
        """Describe a value in a header and buffers.

        The buffers are views of the value's own memory, of arrays that lie contiguously at least: whoever changes
        an array before the buffers have been sent, changes what is sent.

        Raises:
            EncodeError: Something in it cannot cross.
        """
        writer = Writer(self._rules, self._find)
        try:
            header = _pack(writer.write(value, MAX_DEPTH))
        except Refused as refused:
            raise refused.error() from refused.__cause__
        except RecursionError as error:
            raise EncodeError(
                "cannot encode: too little of the interpreter's recursion limit was left", type(value).__qualname__, ""
            ) from error
        except Exception as error:
            # A value may run code of its own when it is looked at, and may change under our hands.
            raise EncodeError(
                f"cannot encode {type(value).__qualname__}: {type(error).__name__}: {error}",
                type(value).__qualname__,
                "",
            ) from error
        return Encoded(header, tuple(writer.buffers))

    def decode(self, header: bytes, buffers: Sequence[memoryview]) -> Any:
        """Rebuild the value.

        Args:
            header: As made by `encode`.
            buffers: As made by `encode`, in the same order; the arrays in the value refer to them from now on.

        Raises:
            DecodeError: The bytes are malformed, name a type that was not declared here, or need a package that is
                not installed here.
        """
        work = WORK + (len(header) + sum(map(len, buffers))) // BYTES_PER_WORK
        reader = Reader(buffers, self._declared, work)
        # A byte is one container at most: few of them are not worth a call for each.
        counted: dict[str, Any] = {}
        if len(header) > UNCOUNTED_BYTES:
            counted = {"list_hook": reader.count, "object_hook": reader.count}
        try:
            value = reader.read(
                msgpack.unpackb(
                    header,
                    ext_hook=_extension,
                    raw=False,
                    strict_map_key=False,
                    unicode_errors="surrogatepass",
                    max_array_len=MAX_ARRAY,
                    **counted,
                ),
                MAX_DEPTH,
            )
            reader.finish()
        except DecodeError:
            raise
        except Exception as error:
            # The bytes choose what is called with what, so anything that the calls below raise is about the bytes.
            raise DecodeError(f"malformed bytes: {type(error).__name__}: {error}") from error
        return value

    def _find(self, kind: type) -> WriteRule:
        """The rule for a class that is not in the table, of a package that may not be installed.

        Raises:
            Refused: There is none.
        """
        for package in _PACKAGES:
            # An instance of a package's class can only exist once the package is imported, so encoding imports none.
            if sys.modules.get(package) is not None:
                rule: WriteRule | None = _rules_of(package).rule_for(kind)
                if rule is not None:
                    # Two threads may both get here, and write the same.
                    self._rules[kind] = rule
                    return rule
        raise Refused(kind, _way_out(kind))


def _pack(tree: Any) -> bytes:
    try:
        packed = msgpack.packb(tree, default=_big_int, strict_types=True)
    except UnicodeEncodeError:
        # Lone surrogates. Allowing them from the start would cost every str a copy.
        packed = msgpack.packb(tree, default=_big_int, strict_types=True, unicode_errors="surrogatepass")
    return packed  # type: ignore[no-any-return]


def _big_int(value: object) -> Any:
    if type(value) is not int:
        raise TypeError(f"a {type(value).__qualname__} is left in the tree")
    if value.bit_length() > MAX_INT_BITS:
        raise Refused(int, f"it has more than {MAX_INT_BITS} bits; send it as bytes, with .to_bytes(...)")
    return msgpack.ExtType(Tag.BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def _extension(code: int, data: bytes) -> Any:
    if code == Tag.BIG_INT:
        return BigInt(data)
    mark = _MARKS.get(code)
    if mark is None or data:
        raise DecodeError(f"unknown extension {code} of {len(data)} bytes")
    return mark


def _way_out(kind: type) -> str:
    if declared.is_declarable(kind):
        return f"declare the class in every party with fed.init(types=[{kind.__name__}])"
    for base in _BUILTIN_BASES:
        if issubclass(kind, base):
            return f"a subclass would arrive as a plain {base.__name__}; convert it with {base.__name__}(...) first"
    if kind.__module__.partition(".")[0] == "ray":
        return "only the Ray cluster of this party knows what it stands for; return that, as from ray.get(...)"
    return (
        "codec 'data' carries plain data only; send builtin types and arrays, "
        "or make it a dataclass and declare it with fed.init(types=[...])"
    )


_PACKAGES: Final[dict[str, tuple[str, tuple[Tag, ...]]]] = {
    "numpy": ("arrays", (Tag.NUMPY_ARRAY, Tag.NUMPY_SCALAR)),
    "pandas": (
        "tables",
        (
            Tag.PANDAS_SERIES,
            Tag.PANDAS_FRAME,
            Tag.PANDAS_INDEX,
            Tag.PANDAS_ARRAY,
            Tag.PANDAS_TIMESTAMP,
            Tag.PANDAS_TIMEDELTA,
            Tag.PANDAS_MISSING,
        ),
    ),
    "pyarrow": ("arrow", (Tag.ARROW,)),
    "torch": ("tensors", (Tag.TORCH_TENSOR,)),
}
"""Packages that may be missing, each with the module here that imports it and the tags that it reads."""


@functools.cache
def _rules_of(package: str) -> Any:
    """The module for a package of the table: what bytes can choose is a tag, and so one of these."""
    return importlib.import_module(f"fed.serde.{_PACKAGES[package][0]}")


def _read_by(package: str, tag: Tag) -> ReadRule:
    def read(reader: Reader, args: list[Any], room: int) -> Any:
        try:
            rules = _rules_of(package).READ_RULES
        except ImportError as error:
            raise DecodeError(f"the value holds a {package} object, and {package} is not installed here") from error
        return rules[tag](reader, args, room)

    return read


_MARKS: Final[dict[int, Mark]] = {
    tag: Mark(tag, tag.work, rule)
    for tag, rule in {
        Tag.PIECES: read_pieces,
        **builtin.READ_RULES,
        **declared.READ_RULES,
        **{tag: _read_by(package, tag) for package, (_, tags) in _PACKAGES.items() for tag in tags},
    }.items()
}
