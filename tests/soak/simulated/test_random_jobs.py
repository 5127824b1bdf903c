"""Random failing jobs: whatever goes wrong, in whatever order, the laws of `tests.soak.laws` hold.

A failure names its seed, and the command that plays it again.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.soak.playing import calm, suffered
from tests.support.profile import SEED, times

JOBS: Final = times(20, 100, 1000)
FAULTY_JOBS: Final = times(10, 40, 500)
CHUNK: Final = 5


def again(seed: int, *options: str) -> str:
    return " ".join(["play it again: .venv/bin/python -m tests.soak --jobs 1 --seed", str(seed), *options])


@pytest.mark.parametrize("first", range(SEED, SEED + JOBS, CHUNK))
def test_random_failing_jobs_in_one_process(first: int) -> None:
    for seed in range(first, first + CHUNK):
        assert not calm(seed), again(seed, "--calm")


@pytest.mark.parametrize("first", range(SEED, SEED + FAULTY_JOBS, CHUNK))
def test_random_jobs_whose_connections_break_and_whose_proxies_are_killed(first: int) -> None:
    for seed in range(first, first + CHUNK):
        assert not suffered(seed)[0], again(seed)
