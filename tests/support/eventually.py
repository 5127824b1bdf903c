"""Waiting for what happens in other processes and threads, which tell nobody."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(holds: Callable[[], bool], within_s: float = 60.0) -> bool:
    """Whether something outside our control comes true in time. For the end of other processes and threads only."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
