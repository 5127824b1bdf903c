"""Ctrl-C at random moments, on driver processes, Ray and gRPC."""

from __future__ import annotations

import random
from typing import Final

import pytest

from tests.support.hosting import Host, handled_once, results
from tests.support.profile import SEED, times

pytestmark = pytest.mark.timeout(900)

ROUNDS: Final = times(5, 5, 100)


def test_e07_ctrl_c_at_any_moment_of_a_fed_call_hangs_nobody(four: Host) -> None:
    generator = random.Random(SEED)
    print(f"play it again with FED_TEST_SEED={SEED}")
    for _ in range(ROUNDS):
        delay_s = generator.uniform(0, 0.2)
        answers = four.play("interrupted_call", delay_s)
        handled_once(answers)
        for party, (error, *raised_after_s) in results(answers).items():
            # It is raised at the end of the call, which does not wait for what it was waiting for.
            assert len(raised_after_s) == (1 if party == "alice" else 0), (SEED, delay_s, answers)
            assert error["error_id"] == answers[party]["handled"][0]["error_id"]
