from __future__ import annotations

import ctypes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed.object import ObjectId
from fed.transport.blocks import Blocks
from fed.transport.chunks import ALIGNMENT, Assembly, cut, offer_of
from fed.transport.contract import Parcel
from fed.transport.wire import MAX_BYTES, MalformedFrame, Offer
from tests.support.worlds import content, parcel


def address(buffer: memoryview) -> int:
    # A read-only view cannot be handed to ctypes; the CPython API for buffers can be asked.
    view = (ctypes.c_byte * 256)()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(buffer), ctypes.byref(view), 0)
    start = ctypes.c_void_p.from_buffer(view).value
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))
    assert start is not None
    return start


def reassembled(sent: Parcel, chunk_bytes: int) -> Parcel:
    assembly = Assembly(offer_of(sent), Blocks())
    for chunk in cut(sent, chunk_bytes):
        assembly.write(chunk)
    return assembly.finish()


@settings(deadline=None)
@given(st.binary(max_size=300), st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 400))
def test_what_is_cut_can_be_put_together(header: bytes, buffers: list[bytes], chunk_bytes: int) -> None:
    sent = parcel(1, *buffers, header=header)
    chunks = list(cut(sent, chunk_bytes))
    assert b"".join(chunks) == header + b"".join(buffers)
    assert all(len(chunk) == chunk_bytes for chunk in chunks[:-1])
    assert all(chunks)
    received = reassembled(sent, chunk_bytes)
    assert content(received) == content(sent)
    assert all(buffer.readonly and buffer.format == "B" for buffer in received.buffers)
    assert all(address(buffer) % ALIGNMENT == 0 for buffer in received.buffers if buffer.nbytes)


@settings(deadline=None)
@given(st.lists(st.integers(0, 200), max_size=5), st.integers(0, 100), st.lists(st.integers(1, 90), max_size=9))
def test_any_other_number_of_bytes_than_offered_is_refused(sizes: list[int], header: int, chunks: list[int]) -> None:
    assembly = Assembly(Offer(ObjectId(0, 1, 0), header, tuple(sizes)), Blocks())
    offered = header + sum(sizes)
    written = 0
    for chunk in chunks:
        if written + chunk > offered:
            with pytest.raises(MalformedFrame, match="goes on after"):
                assembly.write(bytes(chunk))
            return
        assembly.write(bytes(chunk))
        written += chunk
    if written < offered:
        with pytest.raises(MalformedFrame, match="ended before"):
            assembly.finish()
    else:
        assert assembly.finish().nbytes == offered


def test_an_empty_chunk_is_refused() -> None:
    with pytest.raises(MalformedFrame, match="empty chunk"):
        Assembly(Offer(ObjectId(0, 1, 0), 1, ()), Blocks()).write(b"")


def test_an_offer_beyond_all_memory_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        Assembly(Offer(ObjectId(0, 1, 0), 0, (MAX_BYTES,)), Blocks())


def test_buffers_of_any_type_are_cut_as_bytes() -> None:
    numbers = memoryview(bytes(range(48))).cast("I", [3, 4])
    sent = Parcel(ObjectId(0, 1, 0), b"h", (numbers,))
    assert content(reassembled(sent, 7))[2] == (bytes(range(48)),)
