"""How codec ``data`` carries pyarrow objects: as an Arrow IPC stream. Importing this module imports pyarrow.

Writing a stream copies the data once; reading copies nothing.

The memory behind a slice may hold rows that were left out on purpose. Arrow's own writer cuts a slice's buffers to a
multiple of 64 bytes, and what lies in the last of them goes out; so whatever is not exactly as long as its values is
copied together first. Values that are null, and entries of a dictionary that no row refers to, are not looked for.

A stream from a peer is looked at before Arrow acts on it, because two of its features are not harmless. The name of
an extension type chooses among the classes that anything in this process has registered, and those run code of their
own on the bytes beside the name; some unpickle them. And compressed buffers would let a few bytes unpack to more
memory than the receiver ever admitted. Neither is written, so neither is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final

import pyarrow as pa

from fed.serde import zones
from fed.serde.contract import DecodeError
from fed.serde.tags import Tag
from fed.serde.tree import Reader, ReadRule, Refused, Writer, WriteRule, head

__all__ = ["READ_RULES", "rule_for"]

_EXTENSION: Final = b"ARROW:extension:name"
_CONTINUATION: Final = b"\xff\xff\xff\xff"
_DICTIONARY_BATCH: Final = 2
_RECORD_BATCH: Final = 3


def _as_table(value: Any) -> tuple[str, Any]:
    """The kind of an Arrow object on the wire, and it as a table or a batch."""
    if isinstance(value, pa.Table):
        return "table", value
    if isinstance(value, pa.RecordBatch):
        return "batch", value
    if isinstance(value, pa.ChunkedArray):
        return "chunked", pa.Table.from_arrays([value], names=["values"])
    return "array", pa.RecordBatch.from_arrays([value], names=["values"])


def _write(writer: Writer, value: Any, room: int) -> Any:
    kind, table = _as_table(value)
    if _EXTENSION in table.schema.serialize().to_pybytes():
        raise Refused(type(value), "it has an extension type; cast it to its storage type")
    if any(map(_is_view, _types(field.type for field in table.schema))):
        raise Refused(type(value), "its views refer to memory that they do not show; cast them to string or list")
    for zone in _zones(table.schema):
        if not _is_zone(zone):
            raise Refused(
                type(value), "its time zone is not of the IANA database; cast it to 'UTC', or '+01:00'", repr(zone)
            )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write(_compact(table))
    writer.buffers.append(memoryview(sink.getvalue()).cast("B"))
    return [_ARROW, kind]


def _types(types: Iterable[Any]) -> Iterator[Any]:
    """Some types and all that they are made of."""
    for kind in types:
        yield kind
        yield from _types(kind.field(number).type for number in range(kind.num_fields))
        if pa.types.is_dictionary(kind):
            yield from _types([kind.value_type])


def _is_view(kind: Any) -> bool:
    return any(getattr(pa.types, test)(kind) for test in _VIEW_TESTS if hasattr(pa.types, test))


_VIEW_TESTS: Final = ("is_string_view", "is_binary_view", "is_list_view", "is_large_list_view")


def _compact(table: Any) -> Any:
    """The same without memory that its values do not need."""
    if not table.num_columns:
        return table
    if isinstance(table, pa.RecordBatch):
        return pa.RecordBatch.from_arrays(list(map(_compact_array, table.columns)), schema=table.schema)
    columns = [pa.chunked_array(list(map(_compact_array, column.chunks)), column.type) for column in table.columns]
    return pa.Table.from_arrays(columns, schema=table.schema)


def _compact_array(array: Any) -> Any:
    if pa.types.is_dictionary(array.type):
        dictionary = _compact_array(array.dictionary)
        return pa.DictionaryArray.from_arrays(_compact_array(array.indices), dictionary, ordered=array.type.ordered)
    # With something to put together, and be it nothing, Arrow makes new memory of just the size.
    return array if _is_exact(array) else pa.concat_arrays([array.slice(0, 0), array])


def _is_exact(array: Any) -> bool:
    """Whether an array's memory is known to be as long as its values; False where that takes longer to find out."""
    kind, count = array.type, len(array)
    # A bit that is left over may be of a value that is left out.
    if array.offset or (pa.types.is_boolean(kind) and count % 8):
        return False
    if pa.types.is_null(kind):
        return True
    if pa.types.is_primitive(kind):
        _, data = array.buffers()
        return data is None or data.size == (count * kind.bit_width + 7) // 8
    wide = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    if wide or pa.types.is_string(kind) or pa.types.is_binary(kind):
        _, offsets, data = array.buffers()
        width, code = (8, "<q") if wide else (4, "<i")
        if offsets is None or offsets.size != (count + 1) * width or struct.unpack_from(code, offsets)[0]:
            return False
        (end,) = struct.unpack_from(code, offsets, count * width)
        return bool(end == (data.size if data is not None else 0))
    return False


def _read(reader: Reader, args: list[Any], room: int) -> Any:
    kind = args[0] if len(args) == 1 else None
    if kind not in ("table", "batch", "array", "chunked"):
        raise DecodeError("an Arrow object is of an unknown kind")
    buffer = reader.buffer()
    _check_schema(buffer)
    source = pa.BufferReader(pa.py_buffer(buffer))
    for message in pa.ipc.MessageReader.open_stream(source):
        _check_message(message.metadata.to_pybytes())
    if source.tell() != len(buffer):
        raise DecodeError("an Arrow stream is followed by something else")
    with pa.ipc.open_stream(pa.py_buffer(buffer)) as stream:
        # What makes Python's times of a column looks its zone up.
        if not all(map(_is_zone, _zones(stream.schema))):
            raise DecodeError("a time zone is not known here: install or update tzdata")
        table = stream.read_all()
    # Offsets and lengths inside the buffers come from the peer, and Arrow's own functions trust them.
    table.validate(full=True)
    if kind == "table":
        return table
    if kind == "chunked":
        return _only(table.columns)
    batches = table.to_batches()
    batch = _only(batches) if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
    return batch if kind == "batch" else _only(batch.columns)


def _zones(schema: Any) -> list[str]:
    kinds = _types(field.type for field in schema)
    return [kind.tz for kind in kinds if pa.types.is_timestamp(kind) and kind.tz is not None]


def _is_zone(name: str) -> bool:
    return zones.is_known(name) or zones.is_fixed(name)


def _only(parts: list[Any]) -> Any:
    if len(parts) != 1:
        raise DecodeError(f"an Arrow object has {len(parts)} parts instead of one")
    return parts[0]


def _check_schema(buffer: memoryview) -> None:
    """Refuse a stream whose schema names an extension type: reading the schema would already act on it.

    The schema is the first message and a flatbuffer, in which text stands as it is.
    """
    if bytes(buffer[:4]) != _CONTINUATION or len(buffer) < 8:
        raise DecodeError("an Arrow stream does not begin with a message")
    (length,) = struct.unpack_from("<i", buffer, 4)
    if length < 0 or _EXTENSION in bytes(buffer[: 8 + length]):
        raise DecodeError("an Arrow stream has an extension type")


def _check_message(metadata: bytes) -> None:
    """Refuse compressed buffers.

    Message and RecordBatch are tables of flatbuffers: https://github.com/apache/arrow/tree/main/format
    """
    (root,) = struct.unpack_from("<I", metadata, 0)
    kind = _slot(metadata, root, 1)
    batch = _follow(metadata, _slot(metadata, root, 2))
    if kind is None or batch is None:
        raise DecodeError("an Arrow message has no content")
    if metadata[kind] == _DICTIONARY_BATCH:
        batch = _follow(metadata, _slot(metadata, batch, 1))
        if batch is None:
            raise DecodeError("an Arrow dictionary has no content")
    elif metadata[kind] != _RECORD_BATCH:
        return
    if _slot(metadata, batch, 3) is not None:
        raise DecodeError("an Arrow stream is compressed")


def _slot(data: bytes, table: int, index: int) -> int | None:
    """Where the ``index``-th field of a table of flatbuffers is, None if it is left out."""
    (back,) = struct.unpack_from("<i", data, table)
    vtable = table - back
    if vtable < 0:
        raise DecodeError("an Arrow message is malformed")
    (size,) = struct.unpack_from("<H", data, vtable)
    if 4 + 2 * index + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", data, vtable + 4 + 2 * index)
    return table + offset if offset else None


def _follow(data: bytes, field: int | None) -> int | None:
    if field is None:
        return None
    (offset,) = struct.unpack_from("<I", data, field)
    return field + int(offset)


_ARROW: Final = head(Tag.ARROW)

READ_RULES: Final[dict[Tag, ReadRule]] = {Tag.ARROW: _read}
"""What follows the mark of pyarrow."""


def rule_for(cls: type) -> WriteRule | None:
    """How to write the instances of a class, None if it is not pyarrow's."""
    # There is one class of array for each type, and nobody but pyarrow can make one that is not of an extension type.
    known = cls in (pa.Table, pa.RecordBatch, pa.ChunkedArray) or issubclass(cls, pa.Array)
    return _write if known else None
