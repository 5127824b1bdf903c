"""Proxies and drivers that are killed at any moment: nothing is lost, nothing comes twice, nobody hangs."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Final

import pytest

from tests.support.drivers import Start
from tests.support.endings import miss_a_killed_driver
from tests.support.kills import kill_proxies
from tests.support.profile import SEED, times

pytestmark = pytest.mark.timeout(3000)

PROXIES: Final = times(5, 12, 200)
DRIVERS: Final = times(1, 1, 30)


def test_proxies_that_are_killed_at_any_moment_lose_nothing(federation: Start, tmp_path: Path) -> None:
    kill_proxies(federation, tmp_path / "stop", PROXIES, SEED)


def test_e40_how_soon_drivers_that_are_killed_are_missed(federation: Start) -> None:
    """Prints the time from the kill to the error at each of the others."""
    found = [time for _ in range(DRIVERS) for time in miss_a_killed_driver(federation, lease_s=4)]
    middle, most = statistics.median(found), max(found)
    print(f"{DRIVERS} kills; lease 4 s; missed after median {middle:.2f} s, at most {most:.2f} s")
