"""One large object as a run of chunks, and back into one block of memory.

Laws:

1. Cutting copies each byte once; assembling copies each byte once, to where it stays.
2. An assembly takes no more memory than its offer announced, plus 63 bytes for each buffer. Fresh pages come into
   being only as bytes arrive, so an offer that lies about its size costs address space.
3. Every non-empty buffer starts at a multiple of 64 bytes, which is what Arrow asks for and vector units like.
4. An assembly yields the object only if exactly the bytes announced have come. So nobody sees what a block of
   memory held before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fed.transport.blocks import Blocks
from fed.transport.contract import Parcel
from fed.transport.wire import MalformedFrame, Offer

__all__ = ["Assembly", "cut", "offer_of"]

ALIGNMENT: Final = 64


def offer_of(parcel: Parcel) -> Offer:
    """What announces this object."""
    return Offer(parcel.id, len(parcel.header), tuple(buffer.nbytes for buffer in parcel.buffers))


def cut(parcel: Parcel, chunk_bytes: int) -> Iterator[bytes]:
    """Header and buffers, back to back, in chunks of `chunk_bytes`, the last one shorter; none is empty."""
    pieces: list[memoryview] = []
    room = chunk_bytes
    for source in (memoryview(parcel.header), *parcel.buffers):
        view = source if source.format == "B" and source.ndim == 1 else source.cast("B")
        at = 0
        while at < view.nbytes:
            piece = view[at : at + room]
            at += piece.nbytes
            room -= piece.nbytes
            pieces.append(piece)
            if not room:
                yield _join(pieces)
                pieces = []
                room = chunk_bytes
    if pieces:
        yield _join(pieces)


def _join(pieces: list[memoryview]) -> bytes:
    return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)


class Assembly:
    """The receiving end of one upload.

    Args:
        offer: What is to come.
        blocks: Where to take the memory from.

    Raises:
        MemoryError: There is no room for what the offer announces.
    """

    __slots__ = ("_block", "_filled", "_header", "_offer", "_region", "_regions")

    def __init__(self, offer: Offer, blocks: Blocks) -> None:
        self._offer = offer
        self._block = blocks.take(sum(map(_aligned, offer.buffer_sizes)))
        # The header has a block of its own, which is let go once it is a bytes object.
        self._header = blocks.take(offer.header_size)
        # One view at a time: thousands of them would be larger than the offer, before any byte has come.
        self._regions = (region for region in self._all_regions() if region)
        self._region = next(self._regions, None)
        self._filled = 0

    def write(self, chunk: bytes) -> None:
        """Put the next chunk in its place.

        Raises:
            MalformedFrame: It is empty, or more than was announced.
        """
        if not chunk:
            raise MalformedFrame(f"the upload of object {self._offer.id} has an empty chunk")
        view = memoryview(chunk)
        while view:
            region = self._region
            if region is None:
                raise MalformedFrame(f"the upload of object {self._offer.id} goes on after {self._offer.nbytes} bytes")
            taken = view[: region.nbytes - self._filled]
            region[self._filled : self._filled + taken.nbytes] = taken
            self._filled += taken.nbytes
            view = view[taken.nbytes :]
            if self._filled == region.nbytes:
                self._region = next(self._regions, None)
                self._filled = 0

    def finish(self) -> Parcel:
        """The object, once all of its bytes have come; its buffers are read-only.

        Raises:
            MalformedFrame: Some are missing.
        """
        if self._region is not None:
            raise MalformedFrame(f"the upload of object {self._offer.id} ended before its {self._offer.nbytes} bytes")
        return Parcel(self._offer.id, bytes(self._header), tuple(view.toreadonly() for view in self._buffers()))

    def _all_regions(self) -> Iterator[memoryview]:
        yield self._header
        yield from self._buffers()

    def _buffers(self) -> Iterator[memoryview]:
        start = 0
        for size in self._offer.buffer_sizes:
            yield self._block[start : start + size]
            start += _aligned(size)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
