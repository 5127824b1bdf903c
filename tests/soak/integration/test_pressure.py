"""Memory stays flat: many small objects, and one job after another, on real Ray."""

from __future__ import annotations

import json
from typing import Final

import pytest

from tests.support.drivers import Start
from tests.support.eventually import eventually
from tests.support.hosting import ANSWER_S
from tests.support.kills import proxies
from tests.support.profile import times

pytestmark = pytest.mark.timeout(900)

BATCHES: Final = times(50, 150, 1000)
"""Of a hundred objects."""

JOBS: Final = times(12, 12, 50)


def test_many_small_objects_in_one_loop_leave_memory_as_it_was(federation: Start) -> None:
    """After two such loops: what those needed at most, the allocators keep."""
    others = proxies()
    drivers = federation("pressure.py", ("alice", "bob"), str(BATCHES), stdin=True)
    for driver in drivers.values():
        driver.wait_for("joined", 3 * ANSWER_S)
    pids = sorted(proxies() - others)
    assert len(pids) == 4
    for driver in drivers.values():
        assert driver.process.stdin is not None
        driver.process.stdin.write(json.dumps(pids) + "\n")
        driver.process.stdin.flush()
    for driver in drivers.values():
        assert driver.end(5 * ANSWER_S) == 0, driver.output
        before, after = json.loads(next(line for line in driver.lines if line.startswith("[[")))
        growth = [late / early for early, late in zip(before, after, strict=True)]
        print(driver.party, [f"{size / 1e6:.0f} MB" for size in before], [f"{factor:.3f}" for factor in growth])
        assert max(growth) < 1.1, (before, after)


def test_many_jobs_in_one_process_leave_memory_as_it_was_and_no_descriptor_but_rays(federation: Start) -> None:
    others = proxies()
    drivers = federation("again.py", ("alice", "bob"), str(JOBS), everywhere={"FED_LEASE_S": "30"})
    for driver in drivers.values():
        assert driver.end(7 * ANSWER_S) == 0, driver.output
        before, after = json.loads(next(line for line in driver.lines if line.startswith("[[")))
        print(driver.party, "memory, descriptors, threads:", before, after)
        assert after[0] < 1.1 * before[0]
        # Of each cluster that it has left Ray may keep the listening socket of its own server, as it does without us.
        assert after[1] <= before[1] + 40 + 5
        assert after[2] <= before[2] + 2
    assert eventually(lambda: proxies() <= others)
