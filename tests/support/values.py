"""Strategies for everything that the codec carries."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import pathlib
import zoneinfo
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fed.serde.data import DataCodec


class Colour(enum.Enum):
    RED = "r"
    GREEN = ("g", 1)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Mode(enum.IntFlag):
    A = 1
    B = 2


@dataclasses.dataclass
class Plain:
    a: Any
    b: Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: Any = 1


@dataclasses.dataclass(frozen=True)
class Slotted:
    __slots__ = ("a",)
    a: Any


class Pair(NamedTuple):
    left: Any
    right: Any = 0


Legacy = collections.namedtuple("Legacy", ["x"])

TYPES: list[type] = [Colour, Level, Access, Mode, Plain, Frozen, Slotted, Pair, Legacy]
CODEC = DataCodec(TYPES)


def roundtrip(value: Any, codec: DataCodec = CODEC) -> Any:
    """What arrives of a value."""
    encoded = codec.encode(value)
    return codec.decode(encoded.header, [memoryview(bytes(buffer)) for buffer in encoded.buffers])


def _opaque(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The same without a repr that spells out everything it is made of."""

    @st.composite
    def drawn(draw: st.DrawFn) -> Any:
        return draw(strategy)

    return drawn()


zones = st.one_of(
    st.none(),
    st.just(datetime.timezone.utc),
    st.builds(
        datetime.timezone,
        st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23)),
    ),
    st.builds(datetime.timezone, st.just(datetime.timedelta(hours=1)), st.text(max_size=5)),
    st.sampled_from(["Europe/Paris", "America/New_York", "UTC"]).map(zoneinfo.ZoneInfo),
)

texts = st.one_of(
    st.text(max_size=20), st.text(st.characters(), max_size=5), st.sampled_from(["\ud800", "a\udfffb", "\x00"])
)

numbers = st.one_of(
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, -(2**64)]),
    st.floats(),
    st.sampled_from([0.0, -0.0, float("nan"), float("inf")]),
    st.complex_numbers(),
    st.decimals(),
    st.sampled_from(["sNaN12", "-0", "1E+999999", "-NaN"]).map(decimal.Decimal),
    st.fractions(),
)

times = st.one_of(
    st.datetimes(timezones=zones),
    st.dates(),
    st.times(timezones=zones),
    st.timedeltas(),
    zones,
)

paths = st.one_of(
    st.builds(pathlib.PurePosixPath, st.text(st.characters(exclude_characters="\x00"), max_size=10)),
    st.sampled_from(["C:\\x\\y", "\\\\host\\share\\f", "a/b", ""]).map(pathlib.PureWindowsPath),
    st.sampled_from(["/a/b", "//x", ".", "a/../b", "\udcff"]).map(pathlib.Path),
)

members = st.sampled_from(
    [*Colour, *Level, *Access, Access.READ | Access.WRITE, Access(0), Mode.A, Mode.A | Mode.B, Mode(8)]
)

_hashable_leaves = st.one_of(
    st.none(),
    numbers.filter(lambda number: not isinstance(number, decimal.Decimal) or not number.is_snan()),
    texts,
    st.binary(max_size=20),
    st.builds(range, st.integers(), st.integers(), st.integers(1, 5)),
    times,
    st.uuids(),
    paths,
    members,
)

hashable_leaves = _opaque(_hashable_leaves)

_hashables = st.recursive(
    hashable_leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(inner, max_size=3),
        st.builds(Frozen, inner),
        st.builds(Slotted, inner),
        st.builds(Pair, inner, inner),
    ),
    max_leaves=5,
)


hashables = _opaque(_hashables)

_field_names = st.sampled_from(["a", "b", "c", "a b", "é"])


def dtypes() -> st.SearchStrategy[Any]:
    """Every dtype without Python objects."""
    simple = st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(endianness="<"),
        hnp.integer_dtypes(endianness=">"),
        hnp.unsigned_integer_dtypes(endianness=">"),
        hnp.floating_dtypes(endianness="<", sizes=(16, 32, 64)),
        hnp.floating_dtypes(endianness=">", sizes=(16, 32, 64)),
        hnp.complex_number_dtypes(endianness=">", sizes=(64, 128)),
        hnp.datetime64_dtypes(endianness=">"),
        hnp.timedelta64_dtypes(endianness="<"),
        hnp.byte_string_dtypes(min_len=1, max_len=5),
        hnp.unicode_string_dtypes(min_len=1, max_len=5, endianness=">"),
        st.sampled_from(["q", "Q", "V3", "M8[25s]"]).map(np.dtype),
    )
    fields = st.lists(
        st.tuples(_field_names, st.one_of(simple, st.builds(lambda kind: np.dtype((kind, (2,))), simple))),
        min_size=1,
        max_size=3,
        unique_by=lambda field: field[0],
    )
    structured = st.builds(lambda listed, align: np.dtype(listed, align=align), fields, st.booleans())
    nested = st.builds(
        lambda inner, align: np.dtype([("n", inner), ("b", "u1")], align=align), structured, st.booleans()
    )
    return st.one_of(simple, simple, structured, nested)


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """Arrays of every dtype, shape and memory order, contiguous or not."""
    dtype = draw(dtypes())
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    size = int(np.prod(shape)) * dtype.itemsize
    memory = bytearray(draw(st.binary(min_size=size, max_size=size)))
    array: Any = np.ndarray(shape, dtype, memory, order=draw(st.sampled_from("CF")))
    if dtype.kind == "b":
        array = np.asarray(np.ndarray(shape, "u1", memory) > 127)
    if draw(st.booleans()):
        array = array[(..., *(slice(None, None, draw(st.sampled_from([1, 2, -1]))) for _ in shape))]
    if draw(st.booleans()):
        array.flags.writeable = False
    return array


scalars = st.one_of(
    hnp.from_dtype(np.dtype("f4")),
    hnp.from_dtype(np.dtype("f8")),
    hnp.from_dtype(np.dtype("f2")),
    hnp.from_dtype(np.dtype("?")),
    hnp.from_dtype(np.dtype("u2")),
    hnp.from_dtype(np.dtype("c8")),
    st.integers(-9, 9).map(np.longlong),
    st.integers(-9, 9).map(np.longdouble),
    st.sampled_from(["2020-01-01", "2020-01-01T01:02:03.123456789"]).map(lambda text: np.datetime64(text)),
    st.builds(np.timedelta64, st.integers(0, 99), st.sampled_from(["D", "ns", "Y"])),
    st.text(max_size=4).map(np.str_),
    st.binary(max_size=4).map(np.bytes_),
)

_leaves = st.one_of(
    hashables,
    st.sampled_from(["sNaN", "-sNaN7"]).map(decimal.Decimal),
    st.binary(max_size=40).map(bytearray),
    st.builds(slice, st.integers(), hashable_leaves, st.none()),
    scalars,
    arrays(),
)


leaves = _opaque(_leaves)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=4)
    mappings = st.dictionaries(hashables, inner, max_size=4)
    return st.one_of(
        lists,
        lists.map(tuple),
        lists.map(collections.deque),
        st.builds(lambda items, more: collections.deque(items, len(items) + more), lists, st.integers(0, 2)),
        st.dictionaries(texts, inner, max_size=4),
        mappings,
        mappings.map(collections.OrderedDict),
        st.builds(collections.defaultdict, st.sampled_from([None, list, int, dict]), mappings),
        st.dictionaries(hashables, st.integers(), max_size=4).map(collections.Counter),
        st.sets(hashables, max_size=4),
        st.builds(Plain, inner, inner),
        st.builds(Pair, inner, inner),
        st.builds(Legacy, inner),
    )


values = st.recursive(leaves, _containers, max_leaves=12)
