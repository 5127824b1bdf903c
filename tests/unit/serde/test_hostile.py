"""Any bytes give a value or a DecodeError, and nothing else: no other error, no import, no call, no wasted memory."""

from __future__ import annotations

import builtins
import sys
import time
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed.serde.contract import DecodeError, Encoded
from fed.serde.data import _MARKS
from fed.serde.tree import MAX_ARRAY, MAX_DEPTH, Tag
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
