"""What happens at one moment in several parties, and parties that are out of step, again and again [E06, E29, E39]."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import fed
from fed.testing import simulate
from tests.support.failing import FIVE, PARTIES, here, identity, play, roots, run
from tests.support.profile import times

pytestmark = pytest.mark.timeout(1800)


def test_e06_once_also_where_all_kinds_of_failures_race() -> None:
    """At one moment: two tasks fail, a push fails, one user shuts down, one presses Ctrl-C; and each tells the others.

    The order in which they are found is left to the scheduler, and differs from run to run.
    """
    for _ in range(times(10, 40, 400)):
        reports: list[fed.FailureReport] = []
        together = threading.Barrier(5)

        @fed.remote
        def fail_at_once(together: threading.Barrier = together) -> None:
            together.wait(10)
            raise ValueError

        @fed.remote
        def make_at_once(together: threading.Barrier = together) -> Any:
            together.wait(10)
            return threading.Lock

        def program(together: threading.Barrier = together) -> None:
            fail_at_once.party("alice").remote()
            identity.party("carol").remote(make_at_once.party("bob").remote())
            last = fail_at_once.party("dave").remote()
            if fed.party() == "carol":
                together.wait(10)
                fed.shutdown()
            elif fed.party() == "erin":
                together.wait(10)
                raise KeyboardInterrupt
            else:
                fed.get(last)

        outcome = run(program, parties=FIVE, failure_handler=reports.append)
        assert set(outcome.errors) == set(FIVE)
        assert sorted(report.party for report in reports) == FIVE
        assert len({report.root.error_id for report in reports}) == 1
        assert all(report.root in report.failures for report in reports)


@pytest.mark.parametrize(("count", "rounds"), [(2, times(20, 60, 400)), (5, times(10, 30, 400))])
def test_e29_parties_that_fail_at_the_same_moment_agree_on_the_root(count: int, rounds: int) -> None:
    parties = FIVE[:count]
    for number in range(rounds):
        together = threading.Barrier(count)
        reports: dict[str, fed.FailureReport] = {}

        @fed.remote
        def fail_at_once(together: threading.Barrier = together) -> None:
            together.wait(20)
            raise ValueError

        def program() -> None:
            mine = [fail_at_once.party(party).remote() for party in fed.parties()]
            fed.get(random.Random(here()).choice(mine))

        played = play(program, parties=parties, failure_handler=lambda one: reports.setdefault(one.party, one))  # noqa: B023
        assert set(played.errors) == set(parties), number
        (root,) = roots(played.errors)
        assert {report.root.error_id for report in reports.values()} == {root}
        # The votes are what the root was chosen from: everybody keeps them, and nobody else could have won.
        for party, job in played.jobs.items():
            known = {failure.error_id: failure for failure in job.failures}
            votes = job.shell.coordinator.book._votes
            assert set(votes.values()) <= set(known)
            assert known[root].rank == min(known[vote].rank for vote in votes.values())
            own = [failure for failure in known.values() if failure.src_party == party]
            assert len(own) == 1, f"{party} knows {known}"


def _in_job(program: Callable[[], Any], lease_s: float) -> Any:
    with fed.job(lease_s=lease_s):
        return program()


def test_e39_no_skew_and_no_slowness_is_taken_for_a_failure() -> None:
    # Long enough for a ping to get through on a machine that is busy with other things.
    lease_s = 2.0

    @fed.remote
    def step(value: int, pause_s: float) -> int:
        time.sleep(pause_s)
        return value + 1

    for seed in range(times(4, 30, 120)):
        chance = random.Random(seed)
        skew = {party: chance.uniform(0, 0.2) for party in PARTIES[:3]}
        # One party is slow, and now and then for longer than a lease: in a task, or in its driver.
        slow, pause_s = chance.choice(PARTIES[:3]), 1.2 * lease_s if seed % 6 == 0 else chance.uniform(0, 0.3)
        in_driver = chance.random() < 0.5

        def program(
            skew: dict[str, float] = skew, slow: str = slow, pause_s: float = pause_s, in_driver: bool = in_driver
        ) -> Any:
            time.sleep(skew[fed.party()] + (pause_s if in_driver and fed.party() == slow else 0))
            value: Any = 0
            for party in PARTIES[:3]:
                value = step.party(party).remote(value, skew[party] + (pause_s if party == slow else 0))
            return fed.get(value), len(fed.errors())

        main = functools.partial(_in_job, program, lease_s)
        ended = simulate(main, parties=PARTIES[:3], check=False, timeout_s=60)
        assert dict(ended) == dict.fromkeys(PARTIES[:3], (3, 0)), f"seed {seed}"
