"""Memory for objects that arrive: used again, because fresh pages cost more than the bytes that are put into them.

Measured when this was written: 14 GB/s into pages that were used before, 2.1 GB/s into fresh ones, of which the
kernel first clears each and, in a virtual machine, the host may have to find it too. Large blocks ask for huge pages:
17 GB/s, and 4 to 9 GB/s fresh; and to offer the kernel 1 GB of them takes a millisecond instead of fifty.

A block is lent out as one buffer; slices of it go to whoever decodes the object. When the last of them is gone the
block is idle. Idle blocks are kept up to a limit, and the kernel is told that it may take their pages whenever it
needs memory (MADV_FREE), so keeping them can starve nobody.

Thread safety: `take` and what it calls belong to one thread. The last view of a block may go in any thread, even in
the middle of a garbage collection; what runs then takes no lock, it appends to a list, which is atomic.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import weakref
from typing import Final

__all__ = ["Blocks"]

IDLE_BYTES: Final = 512 << 20
SMALLEST: Final = 64 << 10
"""Below this a block is a bytearray and is not kept: clearing a few pages costs less than the bookkeeping."""
SMALLEST_HUGE: Final = 8 << 20
"""From here on a block is made of huge pages where the kernel has them, of which one, 2 MiB, may go to waste."""
WASTE: Final = 4
"""An idle block serves if it is at most this many times as large as what is asked for."""


class Blocks:
    """Lends out memory.

    Args:
        idle_bytes: How much to keep while nobody uses it.
    """

    def __init__(self, idle_bytes: int = IDLE_BYTES) -> None:
        self._most_idle = idle_bytes
        self._idle: list[mmap.mmap] = []

    @property
    def idle_bytes(self) -> int:
        """How much is kept at present."""
        return sum(map(len, self._idle.copy()))

    def take(self, nbytes: int) -> memoryview:
        """Memory of this size, aligned to 64 bytes if it is not empty. What is in it is not cleared.

        Raises:
            MemoryError: There is not so much.
        """
        if nbytes < SMALLEST:
            return _small(nbytes)
        block = self._fitting(nbytes)
        if block is None:
            size = _size_class(nbytes)
            # Those kept longest give way, or blocks of a size that nobody needs any more would stay for ever.
            while self._idle and self.idle_bytes + size > self._most_idle:
                del self._idle[0]
            block = _reserve(size)
        # The buffer that is lent is an object of its own, whose end can be watched; an mmap's would be that of the
        # memory.
        lent = (ctypes.c_ubyte * len(block)).from_buffer(block)
        weakref.finalize(lent, self._return, block).atexit = False
        return memoryview(lent).cast("B")[:nbytes]

    def _fitting(self, nbytes: int) -> mmap.mmap | None:
        fitting = [block for block in self._idle if nbytes <= len(block) <= nbytes * WASTE]
        if not fitting:
            return None
        block = min(fitting, key=len)
        self._idle.remove(block)
        return block

    def _return(self, block: mmap.mmap) -> None:
        if self.idle_bytes + len(block) > self._most_idle:
            return
        if hasattr(mmap, "MADV_FREE"):
            # An older kernel refuses: the pages just stay.
            with contextlib.suppress(OSError):
                block.madvise(mmap.MADV_FREE)
        self._idle.append(block)


def _small(nbytes: int) -> memoryview:
    raw = bytearray(nbytes + 64)
    start = -ctypes.addressof(ctypes.c_char.from_buffer(raw)) % 64
    return memoryview(raw)[start : start + nbytes]


def _size_class(nbytes: int) -> int:
    """Rounded up by at most an eighth, so that objects of about one size can use the same blocks.

    It also bounds the number of array types, of which ctypes remembers every one.
    """
    step = 1 << max(nbytes.bit_length() - 4, 12)
    return -(-nbytes // step) * step


def _reserve(nbytes: int) -> mmap.mmap:
    try:
        # Private and anonymous. A bytearray would be cleared first, which touches every page once more.
        block = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"no room for {nbytes} bytes: {error}") from error
    if nbytes >= SMALLEST_HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        # As numpy does for its arrays. A kernel without huge pages refuses, and serves what it has.
        with contextlib.suppress(OSError):
            block.madvise(mmap.MADV_HUGEPAGE)
    return block
