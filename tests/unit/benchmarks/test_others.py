from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.others import Meter, _share, _Times

BUSY = "import time\nwhile time.process_time() < 0.3: pass"


@pytest.mark.parametrize(
    ("idle", "own", "others"), [(10, 0, 0), (0, 10, 0), (5, 5, 0), (0, 0, 1), (2, 3, 0.5), (6, 6, 0)]
)
def test_what_is_neither_idle_nor_ours_is_others(idle: float, own: float, others: float) -> None:
    assert _share(_Times(100, 50, 20), _Times(110, 50 + idle, 20 + own)) == pytest.approx(others)


def test_no_time_is_nobodys() -> None:
    assert _share(_Times(1, 1, 1), _Times(1, 1, 1)) == 0


def test_what_a_child_did_is_ours() -> None:
    meter = Meter()
    subprocess.run([sys.executable, "-c", BUSY], check=True)
    assert 0.2 <= meter.own_s() < 5


def test_the_share_is_a_share() -> None:
    assert 0 <= Meter().share() <= 1
