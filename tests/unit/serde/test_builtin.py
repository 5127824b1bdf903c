from __future__ import annotations

import collections
import datetime
import random
import zoneinfo
from typing import Any

import pytest
from hypothesis import given, settings

from fed.serde.builtin import LARGE_BYTES
from fed.serde.contract import Codec, DecodeError, EncodeError
from fed.serde.data import DataCodec
from fed.serde.tree import MAX_ARRAY, MAX_DEPTH
from tests.support.sameness import assert_same
from tests.support.values import CODEC, Pair, Plain, roundtrip, values


def test_it_is_a_codec() -> None:
    codec: Codec = DataCodec()
    assert codec.decode(*codec.encode([1])) == [1]


@settings(max_examples=200)
@given(values)
def test_a_value_arrives_as_it_was_at_every_depth(value: Any) -> None:
    assert_same(roundtrip(value), value)


@given(values)
def test_encoding_is_repeatable_and_leaves_the_value_alone(value: Any) -> None:
    first = CODEC.encode(value)
    assert CODEC.encode(value) == first
    assert first.nbytes == len(first.header) + sum(len(buffer) for buffer in first.buffers)
    for buffer in first.buffers:
        assert (buffer.format, buffer.ndim, buffer.c_contiguous) == ("B", 1, True)


@pytest.mark.parametrize(
    "value",
    [
        {1: "int", "1": "str", b"1": "bytes", None: 0, 1.5: 0},
        {True: 1, 0: 2},
        {(1, (2,)): 1, frozenset([1]): 2},
        {2**70: 1, -(2**70): 2},
        [1, True, 1.0, 0, False, -0.0],
        [[], (), {}, set(), frozenset(), b"", "", bytearray()],
        ([()],),
        "\ud800",
        {"\udfff": ["\ud800x"]},
        [b"x" * (LARGE_BYTES - 1), b"x" * LARGE_BYTES, bytearray(LARGE_BYTES - 1), bytearray(LARGE_BYTES)],
        [0.5] * 1023,
        [0.5] * 1024,
        [-0.0, float("nan"), float("inf")] * 500,
        [0.5] * 2000 + [1],
        [True] + [0.5] * 2000,
        (0.5,) * 2000,
        {float("nan"): 1},
        range(2**70, 0, -3),
        slice(None, "a", (1,)),
        collections.OrderedDict([("b", 1), ("a", 2)]),
        collections.defaultdict(list, {"a": [1]}),
        collections.Counter({"a": 0, "b": -2}),
        collections.deque([1, 2], 5),
        datetime.datetime(2020, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
        datetime.timezone(datetime.timedelta(0), "UTC"),
        datetime.timezone(datetime.timedelta(0), "Z"),
        datetime.timezone(datetime.timedelta(microseconds=1)),
        datetime.datetime.min,
        datetime.datetime.max,
        datetime.timedelta.min,
    ],
    ids=lambda value: repr(value)[:40],
)
def test_corner_cases_arrive_as_they_were(value: Any) -> None:
    assert_same(roundtrip(value), value)


@pytest.mark.parametrize("count", [MAX_ARRAY - 1, MAX_ARRAY, MAX_ARRAY + 1, 3 * MAX_ARRAY])
def test_long_containers_arrive_in_pieces_without_a_trace(count: int) -> None:
    items = list(range(count))
    for value in (items, tuple(items), set(items), dict.fromkeys(items), {(item,): item for item in items}):
        arrived = roundtrip(value)
        assert type(arrived) is type(value)
        assert arrived == value
    assert list(roundtrip(dict.fromkeys(reversed(items)))) == items[::-1]
    assert roundtrip([[item] for item in items]) == [[item] for item in items]


def test_a_long_list_that_begins_like_pieces_is_not_taken_for_them() -> None:
    value = [[[1]], *range(MAX_ARRAY)]
    assert_same(roundtrip(value), value)


def test_floats_cross_as_one_buffer_bit_by_bit() -> None:
    generator = random.Random(7)
    value = [generator.uniform(-1e300, 1e300) for _ in range(5000)]
    encoded = CODEC.encode(value)
    assert [len(buffer) for buffer in encoded.buffers] == [8 * len(value)]
    assert_same(roundtrip(value), value)


def test_large_bytes_are_not_copied_to_encode() -> None:
    value = bytearray(LARGE_BYTES)
    (buffer,) = CODEC.encode([value]).buffers
    value[7] = 42
    assert buffer[7] == 42


def test_what_is_referred_to_twice_is_written_twice() -> None:
    shared = [1]
    arrived = roundtrip([shared, shared])
    assert arrived == [[1], [1]]
    assert arrived[0] is not arrived[1]


def _nested(depth: int, wrap: Any) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = wrap(value)
    return value


WRAPS = {
    "list": lambda inner: [inner],
    "tuple": lambda inner: (inner,),
    "dict": lambda inner: {"k": inner},
    "pairs": lambda inner: {(1,): inner},
    "dataclass": Plain,
    "namedtuple": Pair,
    "deque": lambda inner: collections.deque([inner]),
    "frozenset": lambda inner: frozenset([inner]),
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS.keys())
def test_the_deepest_value_crosses_and_one_level_more_does_not(wrap: Any) -> None:
    depth = MAX_DEPTH - 1 if wrap is WRAPS["pairs"] else MAX_DEPTH
    deepest = _nested(depth, wrap)
    assert repr(roundtrip(deepest)) == repr(deepest)
    with pytest.raises(EncodeError, match=f"deeper than {MAX_DEPTH} levels"):
        CODEC.encode(_nested(MAX_DEPTH + 1, wrap))


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS.keys())
def test_decoding_counts_the_same_depth(wrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fed.serde.data.MAX_DEPTH", MAX_DEPTH + 2)
    encoded = CODEC.encode(_nested(MAX_DEPTH + 1, wrap))
    monkeypatch.undo()
    with pytest.raises(DecodeError, match=f"deeper than {MAX_DEPTH} levels"):
        CODEC.decode(*encoded)


def test_a_value_that_contains_itself_is_named_as_such() -> None:
    value: list[Any] = [1]
    value.append({"again": (value,)})
    with pytest.raises(EncodeError, match="contains itself") as caught:
        CODEC.encode({"top": value})
    assert caught.value.where.startswith("['top'][1]['again'][0]")
    assert len(caught.value.where) < 200

    crossed = Plain(None)
    crossed.b = crossed
    with pytest.raises(EncodeError, match="contains itself"):
        CODEC.encode(crossed)


def test_too_little_stack_is_an_encode_error() -> None:
    deep = _nested(MAX_DEPTH, WRAPS["tuple"])

    def descend() -> None:
        try:
            descend()
        except RecursionError:
            CODEC.encode(deep)

    with pytest.raises(EncodeError, match="recursion limit"):
        descend()
