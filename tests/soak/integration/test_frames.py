"""Frames that were changed at random reach real receivers while a job of honest parties goes on."""

from __future__ import annotations

import collections
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil
import pytest

from fed.config import TLSConfig
from tests.support.drivers import Start
from tests.support.eventually import eventually
from tests.support.hosting import ANSWER_S
from tests.support.kills import proxies
from tests.support.profile import SEED, times

pytestmark = pytest.mark.timeout(1800)

ROOT: Final = Path(__file__).parents[3]
FRAMES: Final = times(400, 2_000, 100_000)
BATCHES: Final = times(2, 4, 50)
GROWTH: Final = 256 << 20
"""What a peer may make a receiver grow by; docs/security.md says so."""


def most_resident(pids: set[int]) -> int:
    """The memory of the largest of these processes, in bytes."""
    sizes = [0]
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            sizes.append(psutil.Process(pid).memory_info().rss)
    return max(sizes)


def test_an_honest_job_goes_on_under_frames_that_were_changed_at_random(
    federation: Start, credentials: Mapping[str, TLSConfig], logs: Path
) -> None:
    """Each is refused, or taken for what it then is; none has an answer that says that we had not foreseen it."""
    own, strangers = credentials["carol"], credentials["erin"]
    tls = [str(path) for one in (own, strangers) for path in (one.ca, one.cert, one.key)]
    print(f"play it again with FED_TEST_SEED={SEED}")
    others = proxies()
    drivers = federation(
        "fuzzed.py",
        ("alice", "bob", "carol"),
        *(str(SEED), str(BATCHES), str(FRAMES)),
        *tls,
        everywhere={"PYTHONPATH": str(ROOT), "FED_LEASE_S": "60", "FED_INIT_TIMEOUT_S": "120"},
    )
    drivers["alice"].wait_for("joined", ANSWER_S)
    pids = proxies() - others
    before = peak = most_resident(pids)

    def ended() -> bool:
        nonlocal peak
        if drivers["alice"].process.poll() is not None:
            return True
        peak = max(peak, most_resident(pids))
        return False

    assert eventually(ended, FRAMES / 50 + ANSWER_S), drivers["alice"].output
    for driver in drivers.values():
        assert driver.end(ANSWER_S) == 0, driver.output
    answers = collections.Counter(json.loads(drivers["alice"].lines[-1]))
    print(json.dumps(answers, indent=1), f"{(peak - before) / 1e6:.0f} MB")
    assert answers.total() >= FRAMES
    # What nobody had thought of gRPC calls UNKNOWN, and we INTERNAL.
    assert not [answer for answer in answers if answer.endswith((" UNKNOWN", " INTERNAL", " DEADLINE_EXCEEDED"))]
    assert peak - before < GROWTH
    assert not [line for driver in drivers.values() for line in driver.lines if "Traceback" in line or "Error" in line]
    assert not [path for path in logs.rglob("*") if path.is_file() and "Traceback" in path.read_text(errors="replace")]
