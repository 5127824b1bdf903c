"""Proxies that are killed while objects cross, on real Ray: nothing is lost, nothing comes twice, nobody hangs."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.federation.conftest import Start
from tests.federation.hosting import ANSWER_S
from tests.federation.test_pressure import proxies

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(3000)]

KILLS = int(os.environ.get("TEST_KILLS", "20"))
SEED = int(os.environ.get("TEST_SEED", "0"))


def test_proxies_that_are_killed_at_any_moment_lose_nothing(federation: Start, tmp_path: Path) -> None:
    """``TEST_KILLS`` and ``TEST_SEED`` make it longer and another one."""
    chance = random.Random(SEED)
    print(f"TEST_SEED={SEED}")
    stop = tmp_path / "stop"
    others = proxies()
    drivers = federation("rounds.py", ("alice", "bob"), str(stop), everywhere={"FED_LEASE_S": "30"})
    for driver in drivers.values():
        driver.wait_for("round 2", 2 * ANSWER_S)
    killed = 0
    while killed < KILLS:
        # At any moment of a round, which takes about half a second, and now and then while one is being restarted.
        time.sleep(chance.uniform(0, 1.5))
        alive = sorted(proxies() - others)
        victims = chance.sample(alive, k=min(len(alive), chance.choice([1, 1, 1, 2])))
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed += 1
        # The rounds go on, with the new ones.
        last = max(_round(driver.lines) for driver in drivers.values())
        for driver in drivers.values():
            driver.wait_for(f"round {last + 2}", 2 * ANSWER_S)
    stop.touch()
    rounds = set()
    for driver in drivers.values():
        assert driver.end(ANSWER_S) == 0, driver.output
        rounds.add(driver.lines[-1])
    assert len(rounds) == 1
    print(f"{killed} kills, {rounds.pop()}")
    assert eventually(lambda: proxies() <= others)


def _round(lines: list[str]) -> int:
    return max((int(line.split()[1]) for line in lines if line.startswith("round ")), default=0)
