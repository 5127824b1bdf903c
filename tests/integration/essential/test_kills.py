"""What is killed: a proxy lives again and loses nothing, a driver is missed by everyone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.drivers import Start
from tests.support.endings import miss_a_killed_driver
from tests.support.kills import kill_proxies
from tests.support.profile import SEED

pytestmark = pytest.mark.timeout(300)


def test_proxies_that_are_killed_lose_nothing(federation: Start, tmp_path: Path) -> None:
    kill_proxies(federation, tmp_path / "stop", count=3, seed=SEED)


@pytest.mark.parametrize("own_cluster", [True, False], ids=["its own cluster", "a cluster that it has joined"])
def test_e40_a_driver_that_is_killed_is_missed_by_everyone(federation: Start, own_cluster: bool) -> None:
    assert len(miss_a_killed_driver(federation, own_cluster=own_cluster)) == 2
