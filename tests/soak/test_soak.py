"""Random failing jobs by the hundred: whatever goes wrong, in whatever order, the laws of `tests.soak.laws` hold.

``FED_SOAK_SEED`` is the first seed, ``FED_SOAK_JOBS`` how many jobs are played, ``FED_SOAK_FAULTY_JOBS`` how many whose
network and proxies suffer as well. A failure names its seed: to play that
one alone, give it as the first, and one as the number.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from fed.testing import FaultPlan, simulate
from fed.testing.faults import Injection
from tests.conftest import eventually
from tests.federation.conftest import Driver
from tests.soak import programs
from tests.soak.faults import plan_of
from tests.soak.laws import violations
from tests.soak.programs import MEETINGS, PARTIES, Account, Job, Task, account_of, job_of, play

# Read here, because no test sees variables of the caller's.
SEED: Final = int(os.environ.get("FED_SOAK_SEED", "4711"))
JOBS: Final = int(os.environ.get("FED_SOAK_JOBS", "300"))
FAULTY_JOBS: Final = int(os.environ.get("FED_SOAK_FAULTY_JOBS", "100"))
CHUNK: Final = 10
HANG_S: Final = 60.0
RAY_HANG_S: Final = 180.0
"""A job takes three seconds there, and twenty where ten other processes want the same core."""

AGENTS: Final = frozenset({"ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent"})
"""What is in a Ray cluster that nobody uses."""

BUDGETS: Final = {"init_timeout_s": 20.0, "drain_timeout_s": 20.0, "handler_timeout_s": 10.0}
"""Generous for jobs of a second. Whatever is waited for as long is waited for in vain."""


class Record(logging.Handler):
    """What the library has to say that it should not."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if record.levelno >= logging.WARNING or "raised" in said:
            self.said.append(said + (f": {record.exc_info[1]!r}" if record.exc_info else ""))


@contextlib.contextmanager
def recorded() -> Iterator[Record]:
    logger = logging.getLogger("fed")
    record, level = Record(), logger.level
    logger.addHandler(record)
    logger.setLevel(logging.DEBUG)
    try:
        yield record
    finally:
        logger.setLevel(level)
        logger.removeHandler(record)


def played_here(job: Job, faults: FaultPlan | None = None) -> tuple[dict[str, Account], list[str]]:
    """Play a job in this process. Returns the accounts, and what the library said meanwhile."""
    meetings = {one.meeting for stretch in job.stretches for one in stretch.operations if isinstance(one, Task)}
    MEETINGS.update({meeting: threading.Barrier(2) for meeting in meetings if meeting})
    try:
        with recorded() as record:
            ended = simulate(
                lambda: play(job, **BUDGETS),
                parties=job.parties,
                transport="grpc" if job.transport == "grpc" else "memory",
                timeout_s=HANG_S,
                faults=faults,
            )
    finally:
        MEETINGS.clear()
    said = [one for one in record.said if not (job.handlers and one.startswith("the failure handler raised"))]
    return dict(ended.results), said


@pytest.mark.parametrize("first", range(SEED, SEED + JOBS, CHUNK))
def test_random_failing_jobs_in_one_process(first: int) -> None:
    found: list[str] = []
    for seed in range(first, min(first + CHUNK, SEED + JOBS)):
        job = job_of(seed)
        began = time.monotonic()
        accounts, said = played_here(job)
        print(f"seed {seed}: {time.monotonic() - began:.3f} s")
        found += [f"seed {seed}: {text}" for text in [*violations(job, accounts), *said]]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("first", range(SEED, SEED + FAULTY_JOBS, CHUNK))
def test_random_jobs_whose_connections_break_and_whose_proxies_are_killed(first: int) -> None:
    found: list[str] = []
    for seed in range(first, min(first + CHUNK, SEED + FAULTY_JOBS)):
        found += [f"seed {seed}: {text}" for text in suffered(seed)[0]]
    assert not found, "\n".join(found)


def suffered(seed: int) -> tuple[list[str], tuple[Injection, ...]]:
    """Play a job while its network and its proxies suffer. Returns the violations of the laws, and what struck."""
    job = job_of(seed)
    plan = plan_of(seed, job.parties)
    began = time.monotonic()
    # What the library says of the faults is not looked at.
    accounts, _ = played_here(job, plan)
    print(f"seed {seed}: {time.monotonic() - began:.3f} s, {len(plan.injected)} faults")
    return violations(job, accounts), plan.injected


def accounts_of(driver: Driver) -> dict[int, Account]:
    """What a driver has told, by seed."""
    told = [json.loads(line.removeprefix("account ")) for line in driver.lines if line.startswith("account ")]
    return {one.pop("seed"): account_of(one) for one in told}


def ray_actors() -> list[str]:
    """What runs in the workers of the cluster that this process has started, the idle ones left out."""
    titles = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            titles += [word for word in child.cmdline()[:1] if word.startswith("ray::") and word not in AGENTS]
    return titles


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_random_failing_jobs_on_ray(federation: Callable[..., dict[str, Driver]]) -> None:
    count = max(1, JOBS // 10)
    parties = PARTIES[:3]
    drivers = federation(str(Path(programs.__file__)), parties, str(SEED), str(count), stdin=True)
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
    assert not found, "\n".join(found)
    assert eventually(lambda: not ray_actors()), f"actors left behind: {ray_actors()}"
    for driver in drivers.values():
        driver.proceed()
        assert driver.end() == 0, driver.output
