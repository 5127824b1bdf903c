from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed.serde.contract import DecodeError, EncodeError
from tests.support.values import CODEC, roundtrip

pa: Any = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

from fed.serde.arrow import _compact_array  # noqa: E402

TABLE = pa.table(
    {
        "a": [1, 2, None],
        "s": ["x", "y", None],
        "l": [[1], [2, 3], None],
        "d": pa.array(["a", "b", "a"]).dictionary_encode(),
        "t": pa.array([1, 2, 3], pa.timestamp("us", "Europe/Paris")),
    },
    metadata={"k": "v"},
)

VALUES = [
    TABLE,
    TABLE.slice(1, 1),
    TABLE.slice(3),
    pa.concat_tables([TABLE, TABLE]),
    TABLE.schema.empty_table(),
    pa.table({}),
    TABLE.to_batches()[0],
    pa.record_batch({"a": pa.array([], pa.int8())}),
    pa.array([1, None]),
    pa.array([], pa.float32()),
    pa.array(["a", "b"]).slice(1),
    pa.array([None]),
    pa.array([{"a": 1}]),
    pa.array(["a"]).dictionary_encode(),
    pa.array(["x" * 30], pa.large_string()),
    pa.chunked_array([[1], [2, 3]]),
    pa.chunked_array([], type=pa.int8()),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_an_arrow_object_arrives_as_it_was(value: Any) -> None:
    arrived = roundtrip([value])[0]
    assert type(arrived) is type(value)
    assert arrived.equals(value)
    if hasattr(value, "schema"):
        assert arrived.schema.equals(value.schema, check_metadata=True)
    else:
        assert arrived.type == value.type


def test_decoding_copies_nothing() -> None:
    encoded = CODEC.encode(pa.array(range(10_000)))
    before = pa.total_allocated_bytes()
    arrived = CODEC.decode(*encoded)
    assert pa.total_allocated_bytes() - before < 10_000
    assert arrived[9999].as_py() == 9999


SECRETS = [
    pa.array(["shown", "hidden text"]),
    pa.array(["hidden text", "shown"])[1:],
    pa.array(["shown", "hidden text"], pa.large_string()),
    pa.array([b"shown", b"hidden text"]),
    pa.array([b"shown text!", b"hidden text"], pa.binary(11)),
    pa.array([["shown"], ["hidden text"]]),
    pa.array([{"a": "shown"}, {"a": "hidden text"}]),
    pa.array([int.from_bytes(b"shown   ", "little"), int.from_bytes(b"hidden t", "little")]),
    pa.DictionaryArray.from_arrays(pa.array([0]), pa.array(["shown", "hidden text"]).slice(0, 1)),
]


@pytest.mark.parametrize("array", SECRETS, ids=lambda array: str(array.type))
def test_what_a_slice_leaves_out_does_not_leave(array: Any) -> None:
    shown = array.slice(0, 1)
    for value in (shown, pa.chunked_array([shown]), pa.table({"x": shown}), pa.record_batch({"x": shown})):
        (buffer,) = CODEC.encode(value).buffers
        assert b"shown" in bytes(buffer)
        assert b"hidden" not in bytes(buffer)
        assert roundtrip(value).equals(value)


def test_an_array_that_is_all_there_is_written_as_it_lies() -> None:
    for values in ([1, 2, None], ["a", None, "bcd"], [b""], [True] * 16, [None], [1.5]):
        array = pa.array(values)
        assert _compact_array(array) is array


def test_not_one_bit_of_a_slice_is_left_over() -> None:
    for shown in (pa.array([False] * 7 + [True]).slice(0, 7), pa.array([True] + [False] * 8).slice(1)):
        (_, data) = _compact_array(shown).buffers()
        assert data.to_pybytes() == b"\0"


def test_views_are_refused() -> None:
    for kind in (pa.string_view(), pa.list_(pa.binary_view()), pa.struct([("view", pa.string_view())])):
        with pytest.raises(EncodeError, match="cast them to string"):
            CODEC.encode(pa.array([], kind))
    assert roundtrip(pa.array([], pa.struct([("view", pa.string())]))).type.field(0).name == "view"


def _stream(table: Any, **options: Any) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as stream:
        stream.write(table)
    return memoryview(sink.getvalue()).cast("B")


HEADER = CODEC.encode(TABLE).header


def test_a_forged_stream_is_good_unless_it_is_bad() -> None:
    assert CODEC.decode(HEADER, [_stream(TABLE)]).equals(TABLE)


@pytest.mark.parametrize("column", ["a", "d"])
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_compressed_buffers_are_refused(compression: str, column: str) -> None:
    with pytest.raises(DecodeError, match="is compressed"):
        CODEC.decode(HEADER, [_stream(TABLE.select([column]), compression=compression)])


def test_extension_types_are_refused_before_they_act() -> None:
    acted = []

    class Trap(pa.ExtensionType):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(pa.int64(), "tests.trap")

        def __arrow_ext_serialize__(self) -> bytes:
            return b"bytes that some class would unpickle"

        @classmethod
        def __arrow_ext_deserialize__(cls, storage: Any, data: bytes) -> Trap:
            acted.append(data)
            return cls()

    array = pa.ExtensionArray.from_storage(Trap(), pa.array([1]))
    inside = [pa.table({"x": array}), pa.table({"x": pa.StructArray.from_arrays([array], ["y"])})]
    pa.register_extension_type(Trap())
    try:
        for table in inside:
            with pytest.raises(EncodeError, match="extension type; cast it"):
                CODEC.encode(table)
            with pytest.raises(DecodeError, match="has an extension type"):
                CODEC.decode(HEADER, [_stream(table)])
        assert acted == []
        pa.ipc.open_stream(pa.py_buffer(_stream(inside[0]))).read_all()
        assert acted
    finally:
        pa.unregister_extension_type("tests.trap")


def test_offsets_that_point_elsewhere_are_refused() -> None:
    encoded = CODEC.encode(pa.array(["aaaa", "bbbb"]))
    stream = bytearray(encoded.buffers[0])
    offsets = stream.index(b"\x00\x00\x00\x00\x04\x00\x00\x00\x08\x00\x00\x00")
    stream[offsets + 8 : offsets + 12] = b"\x00\x00\x00\x70"
    with pytest.raises(DecodeError):
        CODEC.decode(encoded.header, [memoryview(stream)])


def test_a_stream_that_goes_on_is_refused() -> None:
    encoded = CODEC.encode(TABLE)
    with pytest.raises(DecodeError, match="followed by something else"):
        CODEC.decode(encoded.header, [memoryview(bytes(encoded.buffers[0]) + b"more")])


@settings(max_examples=200)
@given(st.sampled_from(VALUES), st.data())
def test_mutated_streams_are_values_or_refused(value: Any, data: st.DataObject) -> None:
    encoded = CODEC.encode(value)
    stream = bytearray(encoded.buffers[0])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(stream)))
        stream[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        CODEC.decode(encoded.header, [memoryview(stream)])
    except DecodeError:
        pass
