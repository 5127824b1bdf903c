"""How scripts end in which something went wrong, with nothing replaced."""

from __future__ import annotations

import pytest

from tests.support.drivers import PARTIES, Start

pytestmark = pytest.mark.timeout(180)


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
        assert said == ["refused PicklingError alice", "refused TaskUnschedulableError alice", "goes on 1"], (
            driver.output
        )
