"""The same random jobs on real Ray: a driver for each party plays one after another."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.soak import player
from tests.soak.laws import violations
from tests.soak.player import Account, account_of
from tests.soak.programs import PARTIES, job_of
from tests.support.drivers import Driver, Start
from tests.support.eventually import eventually
from tests.support.profile import SEED, times

RAY_HANG_S: Final = 180.0
"""A job takes three seconds there, and twenty where ten other processes want the same core."""

AGENTS: Final = frozenset({"ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent"})
"""What is in a Ray cluster that nobody uses."""


def accounts_of(driver: Driver) -> dict[int, Account]:
    """What a driver has told, by seed."""
    told = [json.loads(line.removeprefix("account ")) for line in driver.lines if line.startswith("account ")]
    return {account.pop("seed"): account_of(account) for account in told}


def ray_actors() -> list[str]:
    """What runs in the workers of the cluster that this process has started, the idle ones left out."""
    titles = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            titles += [word for word in child.cmdline()[:1] if word.startswith("ray::") and word not in AGENTS]
    return titles


@pytest.mark.timeout(3600)
def test_random_failing_jobs_on_ray(federation: Start) -> None:
    count = times(3, 6, 50)
    parties = PARTIES[:3]
    program = Path(player.__file__)
    everywhere = {"PYTHONPATH": str(program.parents[2])}
    drivers = federation(str(program), parties, str(SEED), str(count), everywhere=everywhere, stdin=True)
    found: list[str] = []
    for seed in range(SEED, SEED + count):
        began = time.monotonic()
        for driver in drivers.values():
            driver.wait_for(f'account {{"seed": {seed},', RAY_HANG_S)
        print(f"seed {seed}: {time.monotonic() - began:.3f} s")
        accounts = {party: accounts_of(drivers[party])[seed] for party in parties}
        found += [f"seed {seed}: {text}" for text in violations(job_of(seed, real=True), accounts)]
    for driver in drivers.values():
        driver.wait_for("played")
    assert not found, "\n".join([*found, f"play them again with FED_TEST_SEED={SEED}"])
    assert eventually(lambda: not ray_actors()), f"actors left behind: {ray_actors()}"
    for driver in drivers.values():
        driver.proceed()
        assert driver.end() == 0, driver.output
