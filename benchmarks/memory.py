"""How much memory processes of their own need, beyond what they share (the object store, code)."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import psutil

__all__ = ["MemoryWatch"]

PERIOD_S: Final = 0.02
LOOK_S: Final = 0.5
"""How often to look for new processes, which takes far longer than to read what one uses."""
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class MemoryWatch:
    """Samples processes and all that they have started, while the block lasts. It takes some of one core.

    Args:
        roots: Ids of the processes.

    Attributes:
        before: Bytes that each process had when the block began, or when it was first seen.
        most: The most bytes that each process had.
    """

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = roots
        self.before: dict[int, int] = {}
        self.most: dict[int, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="benchmark-memory", daemon=True)

    @property
    def largest_growth(self) -> int:
        """How many bytes that process grew by which grew most."""
        return max((self.most[pid] - self.before[pid] for pid in self.most), default=0)

    @property
    def total_growth(self) -> int:
        """The same, of all processes together, each at its own worst moment."""
        return sum(self.most[pid] - self.before[pid] for pid in self.most)

    def __enter__(self) -> MemoryWatch:
        for pid in self._processes():
            self._sample(pid)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        looked, pids = 0.0, list[int]()
        while not self._over.wait(PERIOD_S):
            if time.monotonic() > looked + LOOK_S:
                looked, pids = time.monotonic(), list(self._processes())
            for pid in pids:
                self._sample(pid)

    def _processes(self) -> Iterator[int]:
        for root in self._roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(root)
                yield root
                yield from (child.pid for child in process.children(recursive=True))

    def _sample(self, pid: int) -> None:
        with contextlib.suppress(OSError, IndexError):
            _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
            own = (resident - shared) * PAGE
            self.before.setdefault(pid, own)
            self.most[pid] = max(self.most.get(pid, 0), own)
