from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings

from fed.serde.contract import DecodeError, Encoded, EncodeError
from fed.serde.tags import Tag
from fed.serde.tree import MAX_DEPTH
from tests.support.sameness import assert_same, assert_same_array
from tests.support.values import CODEC, Plain, arrays, roundtrip


@settings(max_examples=200)
@given(arrays())
def test_an_array_arrives_as_it_was_and_read_only(array: Any) -> None:
    encoded = CODEC.encode(array)
    assert [len(buffer) for buffer in encoded.buffers] == [array.nbytes]
    arrived = roundtrip(array)
    assert_same_array(arrived, array)
    assert not arrived.flags.writeable


NESTED = np.dtype([("a", "u1"), ("b", [("c", ">f8"), ("d", "<i2", (2, 2))]), ("e", "S3")], align=True)
OVERLAPPING = np.dtype({"names": ["all", "low"], "formats": ["<u4", "<u2"], "offsets": [0, 0]})
TITLED = np.dtype({"names": ["a"], "formats": ["i4"], "titles": ["the first"]})
RECORD = np.dtype((np.record, [("a", "i4")]))
EMPTY = np.dtype({"names": [], "formats": [], "itemsize": 4})
NO_BYTES: Any = np.zeros(3, [("a", "U0")])["a"]
LAST_FIRST = np.dtype({"names": ["b", "a"], "formats": ["u1", "i8"], "offsets": [8, 0], "itemsize": 32})


@pytest.mark.parametrize(
    "array",
    [
        np.array(5),
        np.array(5, ">i4"),
        np.array([], "f4"),
        np.zeros((0, 3)),
        np.zeros((3, 0, 2), order="F"),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
        np.arange(10)[::-1],
        np.arange(10)[::3],
        np.broadcast_to(np.arange(3), (4, 3)),
        np.arange(6).reshape(2, 3)[:, 1:],
        np.array(["2020", "NaT"], "M8[D]"),
        np.array([1, 2], "m8[7s]"),
        np.array(["a", "", "ü\x00x"]),
        np.array(["a"], ">U3"),
        np.array([b"a\x00b", b""]),
        np.array([1.5, np.nan], "f2"),
        np.array([1 / 3, 2], np.longdouble),
        np.array([1 / 3, 2j], np.clongdouble),
        np.array([1 / 3, 2], np.dtype(np.longdouble).newbyteorder(">")),
        np.zeros(2, [("x", np.longdouble), ("y", "u1")]),
        np.zeros(2, NESTED),
        np.ones(2, OVERLAPPING),
        np.ones(2, TITLED),
        np.ones(2, RECORD),
        np.ones(2, RECORD).view(np.recarray),
        np.zeros(2, EMPTY),
        np.zeros(2, np.dtype([])),
        np.ones(2, LAST_FIRST),
        NO_BYTES,
        np.array([b"abc"], "V3"),
        np.zeros((1,) * 32),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}"[:50],
)
def test_corner_cases_arrive_as_they_were(array: Any) -> None:
    arrived = roundtrip(array)
    assert type(arrived) is type(array)
    assert_same_array(arrived, array)


@pytest.mark.parametrize(
    "scalar",
    [
        np.float64(-0.0),
        np.bool_(True),
        np.str_("a\x00"),
        np.str_(""),
        np.str_("\ud800"),
        np.bytes_(b"a\x00"),
        np.longlong(1),
        np.ulonglong(1),
        np.clongdouble(1 / 3),
        np.datetime64("NaT", "s"),
        np.array(["2020-01-01"], "M8[25s]")[0],
        np.ones(1, NESTED)[0],
        np.ones(1, RECORD)[0],
        np.void(b"abc"),
    ],
    ids=lambda scalar: str(scalar.dtype)[:30],
)
def test_scalars_keep_their_dtype(scalar: Any) -> None:
    arrived = roundtrip([scalar])[0]
    assert type(arrived) is type(scalar)
    assert arrived.dtype == scalar.dtype
    assert str(arrived) == str(scalar)
    assert CODEC.encode(scalar).buffers == ()


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_contiguous_array_is_copied_by_neither_end(order: Any) -> None:
    array = np.zeros((1000, 30), ">i2", order=order)
    array.flags.writeable = False
    encoded = CODEC.encode({"weights": array})
    (buffer,) = encoded.buffers
    assert np.shares_memory(np.asarray(buffer), array)
    arrived = CODEC.decode(*encoded)["weights"]
    assert np.shares_memory(arrived, array)


def test_decoding_shares_the_memory_given_and_protects_it() -> None:
    encoded = CODEC.encode(np.arange(5))
    memory = bytearray(encoded.buffers[0])
    arrived = CODEC.decode(encoded.header, [memoryview(memory)])
    memory[0] = 9
    assert arrived[0] == 9
    with pytest.raises(ValueError, match="read-only"):
        arrived[0] = 1


def test_a_buffer_need_not_be_aligned() -> None:
    array = np.arange(7, dtype="f8")
    encoded = CODEC.encode(array)
    memory = memoryview(b"x" + bytes(encoded.buffers[0]))
    arrived = CODEC.decode(encoded.header, [memory[1:]])
    assert not arrived.flags.aligned
    assert_same_array(arrived, array)
    assert arrived.sum() == array.sum()


def test_several_arrays_have_a_buffer_each_in_their_order() -> None:
    value = {"a": np.full(2, 1), "b": [np.full(3, 2), (np.full(4, 3),)], (0,): np.full(5, 4)}
    encoded = CODEC.encode(value)
    assert [len(buffer) // 8 for buffer in encoded.buffers] == [2, 3, 4, 5]
    assert [buffer[0] for buffer in encoded.buffers] == [1, 2, 3, 4]
    assert_same(roundtrip(value), value)


@pytest.mark.parametrize(
    "dtype", [NESTED, np.dtype("u1,f8", align=True), np.dtype(np.longdouble), EMPTY, np.dtype([("x", np.clongdouble)])]
)
def test_bytes_that_mean_nothing_do_not_leave(dtype: Any) -> None:
    array = np.frombuffer(b"\xab" * (4 * dtype.itemsize), dtype).copy()
    clean = np.zeros(4, dtype)
    if dtype.names is None:
        array[:] = 1
        clean[:] = 1
        array.view("u1").reshape(4, -1)[:, 10:] = 0xAB
        clean.view("u1").reshape(4, -1)[:, 10:] = 0
    used = sum(_sizes(dtype))
    assert used < dtype.itemsize
    (buffer,) = CODEC.encode(array).buffers
    assert bytes(buffer).count(0xAB) == (0 if dtype.names is None else 4 * used)
    if dtype.names is None:
        assert bytes(buffer) == clean.tobytes()
    (scalar,) = [CODEC.encode(array[0]).header]
    assert scalar.count(0xAB) == (0 if dtype.names is None else used)


def _sizes(dtype: Any) -> list[int]:
    if dtype.names is not None:
        return [size for name in dtype.names for size in _sizes(dtype.fields[name][0])]
    if dtype.subdtype is not None:
        return _sizes(dtype.subdtype[0]) * int(np.prod(dtype.subdtype[1]))
    if dtype.char in "gG" and np.finfo(np.longdouble).nmant == 63:
        return [10] * (1 + (dtype.char == "G"))
    return [int(dtype.itemsize)]


def _header(*description: Any) -> Encoded:
    """The header of an array with another description, made by changing a good one."""
    (mark, *_) = msgpack.unpackb(CODEC.encode(np.zeros(2)).header)
    return Encoded(msgpack.packb([mark, *description]), (memoryview(bytes(16)),))


def test_the_forged_header_is_good_unless_changed() -> None:
    assert_same_array(CODEC.decode(*_header("<f8", "C", False, 2)), np.zeros(2))


@pytest.mark.parametrize(
    "description",
    [
        ["|O", "C", False, 2],
        ["O", "C", False, 2],
        ["<f8,<f8", "C", False, 1],
        ["f8", "C", False, 2],
        ["(2,)<f8", "C", False, 1],
        ["<f8\n", "C", False, 2],
        ["<f3", "C", False, 2],
        ["<M8[us][us]", "C", False, 2],
        ["<M8[0s]", "C", False, 2],
        ["<U9999999999", "C", False, 0],
        ["<f16:1:1", "C", False, 1],
        ["<f8:63:16384", "C", False, 2],
        [None, "C", False, 2],
        [["fields"], "C", False, 2],
        [["fields", 8, False, False, ["a", "|O", 0]], "C", False, 2],
        [["fields", 8, False, False, ["a", "<f8", 4]], "C", False, 2],
        [["fields", 8, False, False, ["a", "<f8", -4]], "C", False, 2],
        [["fields", -8, False, False], "C", False, 2],
        [["fields", 8, False, False, ["a", "<f8", 0], ["a", "<f8", 0]], "C", False, 2],
        [["shape", "<f8", 2], "C", False, 1],
        [["shape", "<f8", 2**40, 2**40], "C", False, 1],
        ["<f8", "K", False, 2],
        ["<f8", "C", 1, 2],
        ["<f8", "C", False, 3],
        ["<f8", "C", False, 1],
        ["<f8", "C", False, -2],
        ["<f8", "C", False, -1, -2],
        ["<f8", "C", False, 2.0],
        ["<f8", "C", False, True, 2],
        ["<f8", "C", False, 2**63, 2**63],
        ["<f8", "C", False, *[1] * 100, 2],
        ["<f8", "C", False, 2**62, 0],
        ["<f8", "C"],
        [],
    ],
    ids=repr,
)
def test_a_false_description_is_refused(description: list[Any]) -> None:
    with pytest.raises(DecodeError):
        CODEC.decode(*_header(*description))


@pytest.mark.parametrize("shape", [[-1, -2], [-2], [2.0], [True, 2], [1] * 100], ids=repr)
def test_a_shape_is_checked_before_numpy_sees_it(shape: list[Any]) -> None:
    with pytest.raises(DecodeError, match="malformed shape"):
        CODEC.decode(*_header("<f8", "C", False, *shape))


def test_dtypes_may_not_nest_without_end() -> None:
    dtype: Any = np.dtype("i4")
    description: Any = "<i4"
    for _ in range(40):
        dtype = np.dtype([("a", dtype)])
        description = ["fields", 4, False, False, ["a", description, 0]]
    with pytest.raises(EncodeError, match="dtype nests deeper"):
        CODEC.encode(np.zeros(2, dtype))
    with pytest.raises(DecodeError, match="malformed dtype"):
        CODEC.decode(*_header(description, "C", False, 4))


OBJECTS: Any = np.empty((2, 2), object)
OBJECTS[:] = [["a", None], [(1, [2]), Plain(3)]]
INSIDE: Any = np.empty(2, object)
INSIDE[:] = [np.arange(3), np.array(["x", 1], object)]


@pytest.mark.parametrize(
    "array",
    [
        OBJECTS,
        OBJECTS.T,
        OBJECTS[:, 1],
        INSIDE,
        np.array(None, object),
        np.zeros((0, 3), object),
        np.array([[1], [1, 2]] * 10_000, object),
    ],
    ids=lambda array: f"{array.shape}",
)
def test_an_array_of_plain_objects_arrives_as_it_was(array: Any) -> None:
    arrived = roundtrip([array])[0]
    assert type(arrived) is np.ndarray
    assert (arrived.dtype, arrived.shape) == (array.dtype, array.shape)
    assert_same(arrived.reshape(-1).tolist(), array.reshape(-1).tolist())
    assert not arrived.flags.writeable


def test_an_object_in_an_array_that_cannot_cross_has_a_place() -> None:
    array = OBJECTS.copy()
    array[1, 0] = [object()]
    with pytest.raises(EncodeError) as caught:
        CODEC.encode({"k": array})
    assert caught.value.where == "['k'][1, 0][0]"
    array[1, 0] = array
    with pytest.raises(EncodeError, match="it contains itself"):
        CODEC.encode(array)


def test_an_array_of_objects_that_is_deep_enough_to_be_sent_is_not_too_deep_to_be_received() -> None:
    value: Any = 1
    refused = 0
    for _ in range(MAX_DEPTH):
        array = np.empty(1, object)
        array[0] = value
        value = array
        try:
            encoded = CODEC.encode(value)
        except EncodeError:
            refused += 1
        else:
            CODEC.decode(*encoded)
    assert 0 < refused < MAX_DEPTH


@pytest.mark.parametrize("options", [{}, {"coerce": False}, {"na_object": None}, {"na_object": float("nan")}], ids=repr)
def test_an_array_of_texts_of_any_length_arrives_as_it_was(options: dict[str, Any]) -> None:
    strings: Any = getattr(np.dtypes, "StringDType", None)
    if strings is None:
        pytest.skip("numpy before 2.0 has no dtype of its own for strings of any length")
    missing = [options["na_object"]] if "na_object" in options else []
    array = np.array([["a", "b" * 100, *missing]], strings(**options))
    arrived = roundtrip(array)
    assert (arrived.dtype, arrived.shape) == (array.dtype, array.shape)
    assert arrived.dtype.coerce == array.dtype.coerce
    assert repr(arrived.tolist()) == repr(array.tolist())


@pytest.mark.parametrize(
    "tree",
    [
        [None, [2], [1]],
        [None, [-1], [1]],
        [None, 1, [1]],
        [None, [1], 1],
        [None, [1]],
        [[], [1], ["a"]],
        [[1], [1], ["a"]],
        [[True], [1], [1]],
        [[True, [1]], [1], ["a"]],
        [[True, None], [2], ["a", 1]],
        [[True, None, None], [1], ["a"]],
    ],
    ids=repr,
)
def test_a_false_array_of_items_is_refused(tree: list[Any]) -> None:
    with pytest.raises(DecodeError, match=r"an array|numpy"):
        CODEC.decode(msgpack.packb([msgpack.ExtType(Tag.NUMPY_ITEMS, b""), *tree]), [])


def test_a_dtype_that_is_not_numpys_own_is_refused() -> None:
    with pytest.raises(EncodeError, match="holds Python objects"):
        CODEC.encode(np.zeros(1, [("a", object)]))


WITHOUT = """
import pathlib, sys, types
# The parent without what it imports itself, of which some needs numpy.
fed = sys.modules["fed"] = types.ModuleType("fed")
fed.__path__ = [sys.argv[1]]
sys.modules["numpy"] = None
from fed.serde.contract import DecodeError
from fed.serde.data import DataCodec
assert DataCodec().decode(*DataCodec().encode([1, (2,)])) == [1, (2,)]
try:
    DataCodec().decode(bytes.fromhex(sys.argv[2]), [memoryview(bytes(16))])
except DecodeError as error:
    print(error)
"""


def test_a_missing_package_is_named() -> None:
    package = pathlib.Path(__file__).parents[3] / "fed"
    header = CODEC.encode(np.zeros(2)).header.hex()
    command = [sys.executable, "-c", WITHOUT, str(package), header]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "the value holds a numpy object: it needs numpy 1.26 or later, not installed here\n"
