"""A federated job from end to end, and its failures, with nothing replaced."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from tests.federation.conftest import PARTIES, Driver

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

Start = Callable[..., dict[str, Driver]]


@pytest.mark.parametrize("count", [2, 3])
def test_every_kind_of_call_gives_the_same_in_every_party(federation: Start, count: int) -> None:
    parties = PARTIES[:count]
    drivers = federation("everything.py", parties)
    results = {}
    for party, driver in drivers.items():
        assert driver.end() == 0, driver.output
        results[party] = json.loads(next(line for line in driver.lines if line.startswith("{")))
    total = sum(range(count))
    for got in results.values():
        assert got == {
            "total": total,
            "counts": [total + step for step in range(1, 6)],
            "pair": [1, 2],
            "text": "Update float32 12497500 Colour.RED",
            "numbers": list(range(count)),
            "big": [3_000_000] * count,
            "again": total,
            "empty": [],
        }


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("user", "TASK ValueError alice"),
        ("unpicklable", "TASK Unpicklable alice"),
        ("crash", "WORKER_CRASHED WorkerCrashedError alice"),
    ],
)
def test_e01_e02_e05_e06_a_failure_reaches_everyone_once_and_tells_no_more_than_type_and_party(
    federation: Start, kind: str, expected: str
) -> None:
    drivers = federation("fails.py", PARTIES[:4], kind)
    for party, driver in drivers.items():
        assert driver.end() == 1, driver.output
        assert [line for line in driver.lines if line.startswith("handler")] == [f"handler {expected}"], driver.output
        waited = re.search(r"waited ([0-9.]+)", driver.output)
        assert waited is not None
        assert float(waited[1]) < 5 or kind == "crash"
        if party != "alice":
            assert "canary-4711" not in driver.output
            assert "Traceback" not in driver.output
            told = next(line for line in driver.lines if line.startswith("fed: error: "))
            assert "task #0 fail at party 'alice'" in told
            assert expected.split()[0] in told
    if kind != "crash":
        assert "canary-4711" in drivers["alice"].output
        assert "in fail" in drivers["alice"].output


def test_e10_a_script_that_dies_without_leaving_tells_the_others(federation: Start) -> None:
    drivers = federation("unleft.py", PARTIES[:2], "dies")
    assert [driver.end() for driver in drivers.values()] == [1, 1]
    assert "OSError: canary-4711" in drivers["alice"].output
    assert "fed: error: party 'alice' left: its driver raised OSError" in drivers["bob"].output
    assert "canary" not in drivers["bob"].output


def test_e19_a_failure_that_nobody_read_is_raised_at_the_end_of_the_script(federation: Start) -> None:
    drivers = federation("unleft.py", PARTIES[:2], "unread")
    assert [driver.end() for driver in drivers.values()] == [1, 1]
    # Once: neither Ray nor the exit of the interpreter tells it again.
    assert drivers["alice"].output.count("Traceback") == 1
    told = [line for line in drivers["bob"].lines if line.startswith("fed: error: ")]
    assert len(told) == 1
    assert told[0].startswith("fed: error: KeyError in task #0 fail at party 'alice'")


def test_a_call_that_ray_refuses_fails_in_every_party_and_the_job_goes_on(federation: Start) -> None:
    drivers = federation("refused.py", PARTIES[:2])
    for driver in drivers.values():
        assert driver.end() == 0, driver.output
        said = [line for line in driver.lines if line.startswith(("refused", "goes on"))]
        assert said == ["refused TypeError alice", "refused ValueError alice", "goes on 1"], driver.output
