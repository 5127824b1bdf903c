"""What is measured is what is written down."""

from __future__ import annotations

import json

from benchmarks.full import WORKLOADS, read
from benchmarks.harness import Lab
from benchmarks.quick import BASELINE, cases


def test_every_workload_has_its_place() -> None:
    assert {f"W{number}" for number in range(1, 11)} <= WORKLOADS.keys()


def test_the_committed_ratios_are_those_of_the_quick_run() -> None:
    # A lab that was not entered starts nothing.
    measured = {case.key for case in cases(Lab())}
    assert json.loads(BASELINE.read_text(encoding="utf-8"))["ratios"].keys() == measured


def test_the_committed_results_can_be_read() -> None:
    for name, record in read(BASELINE.parent).items():
        assert record.outcome.measurements or record.outcome.readings, name
