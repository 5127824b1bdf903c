"""A federated job from end to end, and its failure, with nothing replaced: drivers, Ray, gRPC and mutual TLS."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.drivers import PARTIES, Start

pytestmark = pytest.mark.timeout(180)


def test_every_kind_of_call_gives_the_same_in_every_party(federation: Start) -> None:
    count = 3
    drivers = federation("everything.py", PARTIES[:count])
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
            "models": [5, 500_000, 5, 500_000],
            "again": total,
            "empty": [],
        }


def test_e01_e02_e05_e06_a_failure_reaches_everyone_once_and_tells_no_more_than_type_and_party(
    federation: Start,
) -> None:
    drivers = federation("fails.py", PARTIES[:4])
    told_at = []
    for party, driver in drivers.items():
        assert driver.end() == 1, driver.output
        handled = [line for line in driver.lines if line.startswith("handler")]
        assert handled == ["handler TASK ValueError alice"], driver.output
        at = re.search(r"told at ([0-9.]+)", driver.output)
        assert at is not None, driver.output
        told_at.append(float(at[1]))
        if party != "alice":
            assert "canary-4711" not in driver.output
            assert "Traceback" not in driver.output
            told = next(line for line in driver.lines if line.startswith("fed: error: "))
            assert "task #0 fail at party 'alice'" in told
            assert "TASK" in told
    # Far less than a lease, or any other wait that ends by itself. Counted from the first who knew: before that a
    # worker had to be started, which takes as long as the machine likes.
    assert max(told_at) - min(told_at) < 8
    assert "canary-4711" in drivers["alice"].output
    assert "in fail" in drivers["alice"].output
