"""Playing random jobs in this process, and what broke a law of `tests.soak.laws`."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import Final

from fed.errors import FedTimeoutError
from fed.testing import FaultPlan, Injection, simulate
from tests.soak.faults import plan_of
from tests.soak.laws import violations
from tests.soak.player import MEETINGS, Account, play
from tests.soak.programs import Job, Task, job_of

HANG_S: Final = 60.0

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
    meetings = {step.meeting for stretch in job.stretches for step in stretch.operations if isinstance(step, Task)}
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
    said = [line for line in record.said if not (job.handlers and line.startswith("the failure handler raised"))]
    return dict(ended.results), said


def calm(seed: int) -> list[str]:
    """Play a job under no faults but its own. Returns the violations of the laws, and what the library said of any."""
    job = job_of(seed)
    began = time.monotonic()
    try:
        accounts, said = played_here(job)
    except FedTimeoutError as error:
        return [str(error)]
    print(f"seed {seed}: {time.monotonic() - began:.3f} s")
    return [*violations(job, accounts), *said]


def suffered(seed: int) -> tuple[list[str], tuple[Injection, ...]]:
    """Play a job while its network and its proxies suffer. Returns the violations of the laws, and what struck."""
    job = job_of(seed)
    plan = plan_of(seed, job.parties)
    began = time.monotonic()
    try:
        # What the library says of the faults is not looked at.
        accounts, _ = played_here(job, plan)
    except FedTimeoutError as error:
        return [str(error)], plan.injected
    print(f"seed {seed}: {time.monotonic() - began:.3f} s, {len(plan.injected)} faults")
    return violations(job, accounts), plan.injected
