"""A very large object through the real proxies: whole, and within the memory that is promised."""

from __future__ import annotations

from typing import Final

import pytest

from tests.support.drivers import Start
from tests.support.payload import carry
from tests.support.profile import times

GIB: Final = 1 << 30
NBYTES: Final = times(GIB, GIB, 5 * GIB // 2)


@pytest.mark.timeout(500)
def test_a_very_large_object_crosses_in_bounded_memory(federation: Start) -> None:
    peaks, after = carry(federation, NBYTES, within_s=400)
    print({pid: (round(peak / NBYTES, 2), round(after[pid] / NBYTES, 2)) for pid, peak in peaks.items()})
    for pid, peak in peaks.items():
        assert peak < 2.5 * NBYTES, f"proxy {pid} held {peak / NBYTES:.2f} times the object"
        assert after[pid] < 0.25 * NBYTES, f"proxy {pid} still holds {after[pid] / NBYTES:.2f} times the object"
