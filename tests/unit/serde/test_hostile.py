"""Any bytes give a value or a DecodeError, and nothing else: no other error, no import, no call, no wasted memory."""

from __future__ import annotations

import builtins
import datetime
import enum
import sys
import time
import tracemalloc
import uuid
from fractions import Fraction
from typing import Any

import msgpack
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed.serde.contract import DecodeError, Encoded, EncodeError
from fed.serde.data import _MARKS, DataCodec
from fed.serde.tags import Tag
from fed.serde.tree import MAX_ARRAY, MAX_DEPTH, MAX_INT_BITS, WORK
from tests.support.values import CODEC, hashables, values


def _decode(header: bytes, buffers: list[bytes] | None = None) -> Any:
    return CODEC.decode(header, [memoryview(buffer) for buffer in buffers or []])


def _decode_or_refuse(header: bytes, buffers: list[bytes]) -> None:
    try:
        _decode(header, buffers)
    except DecodeError:
        pass


@settings(max_examples=500)
@given(st.binary(max_size=200), st.lists(st.binary(max_size=20), max_size=3))
def test_random_bytes(header: bytes, buffers: list[bytes]) -> None:
    _decode_or_refuse(header, buffers)


@settings(max_examples=300)
@given(values, st.data())
def test_mutated_encodings(value: Any, data: st.DataObject) -> None:
    encoded = CODEC.encode(value)
    header = bytearray(encoded.header)
    buffers = [bytes(buffer) for buffer in encoded.buffers]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, max(len(header) - 1, 0)))
        match data.draw(st.sampled_from(["change", "cut", "insert", "swap", "truncate"])):
            case "change":
                header[place : place + 1] = data.draw(st.binary(min_size=1, max_size=1))
            case "cut":
                del header[place : place + 1]
            case "insert":
                header[place:place] = data.draw(st.binary(min_size=1, max_size=4))
            case "truncate":
                del header[place:]
            case _ if buffers:
                index = data.draw(st.integers(0, len(buffers) - 1))
                buffers[index] = buffers[index][: data.draw(st.integers(0, len(buffers[index])))]
    _decode_or_refuse(bytes(header), buffers)


plain_trees = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=4),
        st.sampled_from(["<f8", "C", "tests.support.values.Plain", "a,b", "fields", "shape", "plain", "object"]),
        st.binary(max_size=8),
        st.sampled_from(sorted(_MARKS)).map(lambda tag: msgpack.ExtType(tag, b"")),
        st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=4)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.builds(
            lambda tag, rest: [msgpack.ExtType(tag, b""), *rest], st.sampled_from(sorted(_MARKS)), st.lists(inner)
        ),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
    max_leaves=20,
)


@settings(max_examples=500)
@given(plain_trees, st.lists(st.binary(max_size=20), max_size=3))
def test_well_formed_trees_of_nonsense(tree: Any, buffers: list[bytes]) -> None:
    _decode_or_refuse(msgpack.packb(tree), buffers)


@given(hashables, st.data())
def test_every_prefix_is_refused(value: Any, data: st.DataObject) -> None:
    header = CODEC.encode([value]).header
    with pytest.raises(DecodeError):
        _decode(header[: data.draw(st.integers(0, len(header) - 1))])


def _mark(tag: Tag, *rest: Any) -> list[Any]:
    return [msgpack.ExtType(tag, b""), *rest]


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        (msgpack.ExtType(Tag.TUPLE, b""), "a mark stands where a value should"),
        ([1, msgpack.ExtType(Tag.TUPLE, b"")], "a mark stands where a value should"),
        ({"k": msgpack.ExtType(Tag.TUPLE, b"")}, "a mark stands where a value should"),
        ({msgpack.ExtType(Tag.TUPLE, b""): 1}, "a key of a type that cannot be one"),
        (_mark(Tag.TUPLE, msgpack.ExtType(Tag.SET, b"")), "a mark stands where a value should"),
        (msgpack.ExtType(127, b""), "unknown extension 127"),
        (msgpack.ExtType(Tag.TUPLE, b"x"), "unknown extension 2 of 1 bytes"),
        (msgpack.Timestamp(1), "a Timestamp stands where a value should"),
        (_mark(Tag.SET, []), "unhashable"),
        (_mark(Tag.SET, 1, 1), "has an item twice"),
        (_mark(Tag.DICT, 1), "a key without a value"),
        (_mark(Tag.DICT, 1, 2, 1, 3), "has a key twice"),
        (_mark(Tag.DICT, {}, 2), "unhashable"),
        (_mark(Tag.PIECES, 1), "a piece of a long array is not an array"),
        (_mark(Tag.PIECES, _mark(Tag.PIECES, [1])), "are themselves in pieces"),
        (_mark(Tag.PIECES), None),
        (_mark(Tag.BYTES), "refers to more than the 0 buffers"),
        (_mark(Tag.COMPLEX, 1.0), "followed by 1 items instead of 2"),
        (_mark(Tag.COMPLEX, 1, 2), "where something else should be"),
        (_mark(Tag.FRACTION, 1, 0), "ZeroDivisionError"),
        (_mark(Tag.FRACTION, True, 1), "where something else should be"),
        (_mark(Tag.DECIMAL, "1e99999999999999999999"), "InvalidOperation"),
        (_mark(Tag.UUID, b"short"), "ValueError"),
        (_mark(Tag.RANGE, 0, 1, 0), "ValueError"),
        (_mark(Tag.DATE, 10**10), "OverflowError|ValueError"),
        (_mark(Tag.DATETIME, 1, 25, 0, 0, 0, 0, None), "ValueError"),
        (_mark(Tag.DATETIME, 1, 1, 0, 0, 0, 0, "UTC"), "something else for a time zone"),
        (_mark(Tag.TIMEZONE, 10**18), "OverflowError|ValueError"),
        (_mark(Tag.ZONEINFO, "../../etc/passwd"), "not known here"),
        (_mark(Tag.ZONEINFO, "os"), "not known here"),
        (_mark(Tag.PATH, "there", "x"), "unknown kind"),
        (_mark(Tag.DEFAULT_DICT, "eval"), "unknown default_factory"),
        (_mark(Tag.DEFAULT_DICT, []), "unknown default_factory"),
        (_mark(Tag.DEQUE, 1, 1, 2), "longer than its maxlen"),
        (_mark(Tag.DEQUE, -1), "longer than its maxlen"),
        (_mark(Tag.ENUM, "tests.support.values.Access", 1 << 70 >> 10), "ValueError|no such member"),
        (_mark(Tag.ENUM, "tests.support.values.Colour", "__class__"), "no such member"),
        (_mark(Tag.ENUM, "builtins.eval", "RED"), "not declared here"),
        (_mark(Tag.ENUM), "has no name"),
        (_mark(Tag.DATACLASS, "os.system", "", "x"), "not declared here"),
        (_mark(Tag.DATACLASS, "tests.support.values.Plain", "a,b", 1), "has other fields"),
        (_mark(Tag.DATACLASS, "tests.support.values.Plain", "a,__class__", 1, 2), "has other fields"),
        (_mark(Tag.DATACLASS, "tests.support.values.Colour", ""), "not declared here"),
        (_mark(Tag.NUMPY_SCALAR, "<f8", b"123"), "another size"),
        (_mark(Tag.NUMPY_SCALAR, "|O", b"12345678"), "malformed dtype"),
        (_mark(Tag.NUMPY_ARRAY), "malformed description"),
    ],
    ids=lambda part: repr(part)[:50],
)
def test_what_is_refused_and_why(tree: Any, complaint: str | None) -> None:
    header = msgpack.packb(tree)
    if complaint is None:
        assert _decode(header) == []
        return
    with pytest.raises(DecodeError, match=complaint):
        _decode(header)


def test_buffers_are_all_used_once() -> None:
    encoded = CODEC.encode([np.zeros(2), np.ones(2)])
    first, second = map(bytes, encoded.buffers)
    assert _decode(encoded.header, [first, second])[1].sum() == 2
    with pytest.raises(DecodeError, match="more than the 1 buffers"):
        _decode(encoded.header, [first])
    with pytest.raises(DecodeError, match="refers to 2 of the 3 buffers"):
        _decode(encoded.header, [first, second, second])
    with pytest.raises(DecodeError, match="refers to 0 of the 1 buffers"):
        _decode(msgpack.packb(1), [first])
    for odd in (memoryview(first).cast("d"), memoryview(first)[::2], first):
        with pytest.raises(DecodeError, match="buffer 0 is not a one-dimensional contiguous view"):
            CODEC.decode(encoded.header, [odd, memoryview(second)])  # type: ignore[list-item]


@pytest.mark.parametrize("size", [1, 7, 9, 8 * 1023 + 1])
def test_floats_need_whole_numbers(size: int) -> None:
    with pytest.raises(DecodeError):
        _decode(msgpack.packb(_mark(Tag.FLOATS)), [bytes(size)])


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(DecodeError, match=r"extra data|ExtraData"):
        _decode(CODEC.encode([1]).header + b"\x00")
    with pytest.raises(DecodeError):
        _decode(b"")


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 500, 1023, 5000, 100_000])
def test_bottomless_nesting_is_refused(depth: int) -> None:
    tuples = b"\x92" + msgpack.packb(msgpack.ExtType(Tag.TUPLE, b""))
    for level in (b"\x91", b"\x81\xa1k", tuples):
        with pytest.raises(DecodeError):
            _decode(level * depth + b"\xc0")


def test_lying_lengths_cost_little() -> None:
    # Every array claims as many items as there are bytes in all, and holds the next one.
    header = b"\xdd\x00\x0f\xff\xff" * 1000
    header += b"\xc0" * ((1 << 20) - len(header))
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(DecodeError):
        _decode(header)
    elapsed = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1024 * MAX_ARRAY * 8 + (16 << 20)
    assert elapsed < 5

    for claim in (
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x05",
    ):
        with pytest.raises(DecodeError):
            _decode(claim)


def test_an_array_longer_than_any_that_is_written_is_refused() -> None:
    assert len(_decode(msgpack.packb([0] * MAX_ARRAY))) == MAX_ARRAY
    with pytest.raises(DecodeError):
        _decode(msgpack.packb([0] * (MAX_ARRAY + 1)))


def test_decoding_imports_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    value = CODEC.encode([1, (2,), np.zeros(3), {"k": {1}}])
    names = CODEC.encode(["os.system", "subprocess"])
    CODEC.decode(*value)
    allowed = {"fed.serde", "numpy"}
    imported: list[str] = []
    real = builtins.__import__

    def watch(name: str, *args: Any, **kwargs: Any) -> Any:
        imported.append(name)
        return real(name, *args, **kwargs)

    before = set(sys.modules)
    monkeypatch.setattr(builtins, "__import__", watch)
    CODEC.decode(*value)
    CODEC.decode(*names)
    with pytest.raises(DecodeError):
        _decode(msgpack.packb(_mark(Tag.DATACLASS, "subprocess.Popen", "args", "true")))
    monkeypatch.undo()
    assert {name.partition(".")[0] for name in imported} <= {name.partition(".")[0] for name in allowed}
    assert set(sys.modules) == before


def test_an_encoding_is_what_it_says() -> None:
    encoded = CODEC.encode(np.zeros(2))
    assert isinstance(encoded, Encoded)
    assert encoded.nbytes == len(encoded.header) + 16


# What takes time or memory


PRIME = (1 << 61) - 1
"""Ints that differ by a multiple of it have one hash, and so have fractions, decimals and complex numbers of these."""


def _wire(value: Any) -> Any:
    return msgpack.ExtType(Tag.BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def _of_one_hash(count: int) -> list[Any]:
    return [_wire(PRIME * factor + 5) for factor in range(1 << 10, count + (1 << 10))]


def _long(tag: Tag, items: list[Any]) -> Any:
    whole = _mark(tag, *items)
    return _mark(Tag.PIECES, *(whole[start : start + MAX_ARRAY] for start in range(0, len(whole), MAX_ARRAY)))


def _pairs(keys: list[Any]) -> list[Any]:
    return [part for key in keys for part in (key, None)]


@pytest.mark.parametrize(
    "tree",
    [
        _long(Tag.SET, _of_one_hash(60_000)),
        _long(Tag.FROZENSET, _of_one_hash(20_000)),
        _long(Tag.DICT, _pairs(_of_one_hash(20_000))),
        _long(Tag.ORDERED_DICT, _pairs(_of_one_hash(20_000))),
        _long(Tag.COUNTER, _pairs(_of_one_hash(20_000))),
        _mark(Tag.DEFAULT_DICT, None, *_pairs(_of_one_hash(8_000))),
        _long(Tag.SET, [_mark(Tag.TUPLE, number) for number in _of_one_hash(20_000)]),
        _long(Tag.SET, [_mark(Tag.FRACTION, number, 1) for number in _of_one_hash(20_000)]),
        _long(Tag.SET, [_mark(Tag.DECIMAL, str(PRIME * factor)) for factor in range(20_000)]),
        _long(Tag.SET, [_mark(Tag.COMPLEX, float(1_000_003 * n), float(-n)) for n in range(20_000)]),
        _mark(
            Tag.PANDAS_ARRAY,
            "category",
            _mark(Tag.PANDAS_INDEX, "plain", None, None, _mark(Tag.PANDAS_ARRAY, "object", _of_one_hash(10_000))),
            _mark(Tag.NUMPY_ARRAY, "|i1", "C", False, 0),
            False,
        ),
    ],
    ids=[
        "set",
        "frozenset",
        "dict",
        "ordered",
        "counter",
        "defaultdict",
        "tuples",
        "fractions",
        "decimals",
        "complex",
        "pandas",
    ],
)
def test_many_keys_of_one_hash_are_refused_before_they_are_compared(tree: Any) -> None:
    header = msgpack.packb(tree)
    began = time.thread_time()
    with pytest.raises(DecodeError, match="too many small objects"):
        _decode(header, [b""] if tree[1] == "category" else [])
    assert time.thread_time() - began < 5


def test_some_keys_of_one_hash_are_none_too_many() -> None:
    numbers = {PRIME * factor + 5 for factor in range(1 << 10, (1 << 10) + 1000)}
    assert CODEC.decode(*CODEC.encode(numbers)) == numbers
    assert CODEC.decode(*CODEC.encode(dict.fromkeys(numbers))) == dict.fromkeys(numbers)


def test_a_map_of_msgpack_has_no_key_beyond_64_bits() -> None:
    keys = _of_one_hash(60_000)
    header = b"\xde" + len(keys).to_bytes(2, "big") + b"".join(msgpack.packb(key) + b"\xc0" for key in keys)
    began = time.thread_time()
    with pytest.raises(DecodeError, match="a key of a type that cannot be one"):
        _decode(header)
    assert time.thread_time() - began < 5
    edge = {-(1 << 63): 1, (1 << 64) - 1: 2, "k": 3}
    assert CODEC.encode(edge).header[:1] == b"\x83"
    for beyond in (-(1 << 63) - 1, 1 << 64):
        assert CODEC.decode(*CODEC.encode({**edge, beyond: 4})) == {**edge, beyond: 4}


def test_a_number_is_of_a_size_that_can_be_computed_with() -> None:
    for largest in (1 << (MAX_INT_BITS - 1), -(1 << (MAX_INT_BITS - 1))):
        assert CODEC.decode(*CODEC.encode([largest])) == [largest]
    with pytest.raises(EncodeError, match="more than 524288 bits; send it as bytes"):
        CODEC.encode([1 << MAX_INT_BITS])
    with pytest.raises(DecodeError, match="an int of 500000 bytes"):
        _decode(msgpack.packb(msgpack.ExtType(Tag.BIG_INT, b"\x01" * 500_000)))
    widest = Fraction((1 << 8192) - 1, 1 << 8191)
    assert CODEC.decode(*CODEC.encode(widest)) == widest
    with pytest.raises(EncodeError, match="more than 8192 bits; send the two as ints"):
        CODEC.encode(Fraction(1, 1 << 8192))
    with pytest.raises(DecodeError, match="a fraction of 60000 bits"):
        _decode(msgpack.packb(_mark(Tag.FRACTION, _wire(1 << 59_999), 1)))
    # A flag that keeps what it does not know looks at every bit of it.
    with pytest.raises(DecodeError, match="no such member"):
        _decode(msgpack.packb(_mark(Tag.ENUM, "tests.support.values.Mode", _wire(1 << 500_000))))


@pytest.mark.parametrize(
    "tree",
    [
        [],
        {},
        {"a": 1},
        _mark(Tag.TUPLE, 1, 2),
        _mark(Tag.DEQUE, None),
        _mark(Tag.SET),
        _mark(Tag.ORDERED_DICT),
        _mark(Tag.COUNTER),
        _mark(Tag.FRACTION, 1, 3),
        _mark(Tag.DATETIME, 700_000, 1, 1, 1, 1, 0, _mark(Tag.ZONEINFO, "UTC")),
        _mark(Tag.PANDAS_INDEX, "range", None, 0, 1, 1),
        _mark(Tag.PANDAS_TIMESTAMP, 1, "ns", "UTC"),
    ],
    ids=lambda tree: repr(tree)[:40],
)
def test_many_small_objects_take_no_more_than_what_they_are_allowed(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of a second, on a machine as fast as the one where work was measured."""
    monkeypatch.setattr("fed.serde.data.WORK", WORK // 32)
    count = (2 << 20) // len(msgpack.packb(tree))
    header = msgpack.packb(_mark(Tag.PIECES, *([tree] * MAX_ARRAY for _ in range(count // MAX_ARRAY + 1))))
    began = time.thread_time()
    with pytest.raises(DecodeError, match="too many small objects"):
        _decode(header)
    assert time.thread_time() - began < 5


def test_a_million_pairs_are_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fed.serde.data.WORK", WORK // 8)
    pairs = [(number, number + 1) for number in range(1_000_000 // 8)]
    assert CODEC.decode(*CODEC.encode(pairs)) == pairs


@pytest.mark.parametrize(
    "name", ["dateutil//etc/passwd", "dateutil/:/etc/passwd", "a/b", "/etc/passwd", "../x", "tzlocal()", "EST5EDT4"]
)
def test_only_names_of_known_zones_reach_what_looks_them_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = [_mark(Tag.NUMPY_ARRAY, "<i8", "C", False, 1), [bytes(8)]]
    sink = pa.BufferOutputStream()
    table = pa.table({"t": pa.array([1], pa.timestamp("ns", tz=name))})
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write(table)
    for tree, buffers in (
        (_mark(Tag.PANDAS_TIMESTAMP, 1, "ns", name), []),
        (_mark(Tag.PANDAS_ARRAY, "datetimetz", name, "ns", ticks[0]), ticks[1]),
        (_mark(Tag.ZONEINFO, name), []),
        (_mark(Tag.ARROW, "table"), [sink.getvalue().to_pybytes()]),
    ):
        with pytest.raises(DecodeError, match="zone is not known here"):
            _decode(msgpack.packb(tree), buffers)


def test_labels_that_must_be_unique_are_sorted_or_few() -> None:
    """pandas puts them into hash tables of its own, whose hashes of numbers anybody can compute."""
    low = np.arange(1, 400_000, dtype=np.uint64)
    high = (low ^ (low << np.uint64(11))) & np.uint64(0xFFFFFFFF)
    fitting = high < 1 << 31
    numbers = ((high[fitting] << np.uint64(33)) | low[fitting]).astype(np.int64)[:100_000]
    shuffled = np.random.default_rng(1).permutation(numbers)

    def index(values: Any) -> Any:
        return _mark(Tag.PANDAS_INDEX, "plain", None, None, _mark(Tag.NUMPY_ARRAY, "<i8", "C", False, len(values)))

    def category(values: Any) -> tuple[Any, list[bytes]]:
        codes = _mark(Tag.NUMPY_ARRAY, "|i1", "C", False, 1)
        return _mark(Tag.PANDAS_ARRAY, "category", index(values), codes, False), [values.tobytes(), b"\x00"]

    def several(values: Any) -> tuple[Any, list[bytes]]:
        codes = _mark(Tag.NUMPY_ARRAY, "|i1", "C", False, 1)
        return _mark(Tag.PANDAS_INDEX, "multi", 1, None, index(values), codes), [values.tobytes(), b"\x00"]

    def without_duplicates(values: Any) -> tuple[Any, list[bytes]]:
        data = _mark(Tag.NUMPY_ARRAY, "|i1", "C", False, len(values))
        return _mark(Tag.PANDAS_SERIES, index(values), None, {}, False, data), [values.tobytes(), bytes(len(values))]

    for make in (category, several, without_duplicates):
        began = time.thread_time()
        with pytest.raises(DecodeError, match="labels are not sorted"):
            _decode(msgpack.packb(make(shuffled)[0]), make(shuffled)[1])
        assert len(_decode(msgpack.packb(make(np.sort(numbers))[0]), make(np.sort(numbers))[1]))
        assert time.thread_time() - began < 5
    unsorted: Any = np.random.default_rng(1).permutation(20_000)
    with pytest.raises(EncodeError, match="distinct labels are not sorted"):
        CODEC.encode(pd.Categorical.from_codes([0], categories=unsorted))
    # These are as good as sorted.
    sorted_enough: list[Any] = [
        pd.RangeIndex(20_000, 0, -1),
        pd.Index(np.arange(20_000, 0, -1)),
        pd.Index([f"k{number}" for number in range(20_000)]),
    ]
    for categories in sorted_enough:
        assert len(CODEC.decode(*CODEC.encode(pd.Categorical.from_codes([0], categories=categories)))) == 1


def _plain(tree: Any) -> Any:
    return _mark(Tag.PANDAS_INDEX, "plain", None, None, tree)


def _range(start: int, stop: int) -> Any:
    return _mark(Tag.PANDAS_INDEX, "range", None, start, stop, 1)


def _codes(count: int) -> Any:
    return _mark(Tag.NUMPY_ARRAY, "|i1", "C", False, count)


ENDLESS = 1 << 33


@pytest.mark.parametrize(
    ("tree", "buffers"),
    [
        (_mark(Tag.PANDAS_ARRAY, "interval", _range(0, ENDLESS), _range(1, ENDLESS + 1), "right"), []),
        (_mark(Tag.PANDAS_ARRAY, "category", _range(0, ENDLESS), _codes(1), False), [b"\0"]),
        (_mark(Tag.PANDAS_INDEX, "multi", 1, None, _range(0, ENDLESS), _codes(1)), [b"\0"]),
        (_plain(_mark(Tag.NUMPY_ARRAY, "<U0", "C", False, ENDLESS)), [b""]),
        (_plain(_mark(Tag.NUMPY_ARRAY, "|S0", "C", False, ENDLESS)), [b""]),
        (_mark(Tag.NUMPY_ARRAY, "|V0", "C", False, ENDLESS), [b""]),
    ],
    ids=["interval", "category", "levels", "text", "bytes", "void"],
)
def test_what_has_no_bytes_is_not_made_into_something_that_has(tree: Any, buffers: list[bytes]) -> None:
    with pytest.raises(DecodeError):
        _decode(msgpack.packb(tree), buffers)


@pytest.mark.parametrize("name", ["1" * 4000, "D" * 4000, "REQ-" + "N-" * 1000, "1D 2D", "1.5h", ""])
def test_the_name_of_a_frequency_is_short(name: str) -> None:
    times = _mark(Tag.NUMPY_ARRAY, "<M8[ns]", "C", False, 0)
    for tree in (
        _mark(Tag.PANDAS_ARRAY, "period", name, _mark(Tag.NUMPY_ARRAY, "<i8", "C", False, 0)),
        _mark(Tag.PANDAS_INDEX, "plain", None, name, times),
    ):
        with pytest.raises(DecodeError, match="frequency is not known"):
            _decode(msgpack.packb(tree), [b""])


@pytest.mark.parametrize("name", ["REQ-N-DEC-MON-1", "cbh", "bh"])
def test_steps_of_a_frequency_are_counted(name: str) -> None:
    count = 50_000
    tree = _mark(Tag.PANDAS_INDEX, "plain", None, name, _mark(Tag.NUMPY_ARRAY, "<M8[s]", "C", False, count))
    with pytest.raises(DecodeError, match="too many small objects"):
        _decode(msgpack.packb(tree), [np.arange(count).tobytes()])


def _colliding(depth: int, last: int) -> Any:
    """Sets in sets, all of one hash at each depth, and different only in the innermost."""
    if not depth:
        return _wire(PRIME * (last + (1 << 10)))
    first = [_colliding(depth - 1, number) for number in range(15)]
    return _mark(Tag.FROZENSET, *first, _colliding(depth - 1, 15 + last))


LONG = [_wire(PRIME * ((1 << 500_000) + number)) for number in (1, 2)]


@pytest.mark.parametrize(
    "tree",
    [
        _mark(Tag.SET, *LONG, *(_mark(Tag.DECIMAL, str(PRIME * number)) for number in range(1, 9))),
        _mark(Tag.SET, *(_mark(Tag.TUPLE, *[0] * 300, number) for number in _of_one_hash(1000))),
        _mark(Tag.SET, *(_colliding(3, last) for last in range(8))),
    ],
    ids=["decimals", "tuples", "sets"],
)
def test_a_comparison_of_keys_costs_what_it_costs(tree: Any) -> None:
    began = time.thread_time()
    with pytest.raises(DecodeError, match="too many small objects"):
        _decode(msgpack.packb(tree))
    assert time.thread_time() - began < 5


def test_labels_that_are_objects_are_no_way_round() -> None:
    """pandas folds a hash to 32 bits, so that of these it is the same."""
    labels = [(number << 32) ^ number for number in np.random.default_rng(1).permutation(60_000).tolist()]
    objects = _mark(Tag.PIECES, *(labels[start : start + MAX_ARRAY] for start in range(0, len(labels), MAX_ARRAY)))
    index = _plain(_mark(Tag.PANDAS_ARRAY, "object", objects))
    with pytest.raises(DecodeError, match="labels are not sorted"):
        _decode(msgpack.packb(_mark(Tag.PANDAS_ARRAY, "category", index, _codes(1), False)), [b"\0"])


SORTED: Any = np.arange(20_000) * 3


class Wide(enum.IntFlag):
    A = 1
    MASK = (1 << 100) - 1


@pytest.mark.parametrize(
    "value",
    [
        [datetime.date.fromordinal(700_000 + number % 1000) for number in range(300_000)],
        list(np.zeros(200_000)),
        [(number, number) for number in range(500_000)],
        [uuid.UUID(int=number) for number in range(200_000)],
        pd.date_range("1700-01-01", periods=140_000, freq="D", unit="s"),
        pd.date_range("2000-01-01", periods=10_000, freq="B"),
        pd.date_range("2000-01-01", periods=10, freq="QE-DEC"),
        pd.period_range("2000-01", periods=10, freq="2M"),
        {(-1, 0), (-2, 0), (-1, -1), (-2, -2), (-1, -2), (-2, -1)},
        {number: str(number) for number in range(100_000)},
        pd.DataFrame({n: pd.Categorical.from_codes([0], categories=pd.RangeIndex(20_000)) for n in range(40)}),
        pd.DataFrame({n: pd.Categorical.from_codes([0], categories=pd.Index(SORTED)) for n in range(40)}),
        pa.array([1], pa.timestamp("us", tz="UTC")),
        Wide.MASK,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_honest_crosses(value: Any) -> None:
    codec = DataCodec([Wide])
    arrived = codec.decode(*codec.encode(value))
    assert type(arrived) is type(value)
    if hasattr(value, "__len__"):
        assert len(arrived) == len(value)
    else:
        assert arrived == value
    assert getattr(arrived, "freq", None) == getattr(value, "freq", None)


@pytest.mark.parametrize("zone", ["utc", "Z", "UTC+1"])
def test_a_zone_that_the_receiver_would_refuse_is_refused_by_the_sender(zone: str) -> None:
    with pytest.raises(EncodeError, match="not of the IANA database"):
        CODEC.encode(pa.array([1], pa.timestamp("us", tz=zone)))
