"""How the C library treats freed memory, in a process that does nothing but transport."""

from __future__ import annotations

import ctypes
from typing import Final

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
"""Parameters of mallopt(3), from malloc.h."""
_KEPT_BYTES: Final = 64 << 20
_LARGEST_KEPT_BYTES: Final = 32 << 20
"""The most that glibc accepts."""


def keep_freed_memory() -> bool:
    """Let the C library keep up to 64 MiB of freed memory instead of giving each chunk back to the kernel at once.

    gRPC allocates and frees every chunk at both ends. By default glibc fetches memory of that size from the kernel
    each time, page by page; measured when this was written, that took more than half of the time of an upload.

    It holds for the whole process and cannot be undone, so it is for a process of our own, never for a user's.

    Returns:
        Whether it took effect; it does nothing where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
