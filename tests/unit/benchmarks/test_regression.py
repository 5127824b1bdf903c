from __future__ import annotations

import random

from benchmarks.regression import BOUND, judge
from benchmarks.statistics import Pair

BASELINE = {"loop": 4.0}


def noisy(ratio: float, seed: int, pairs: int = 20) -> list[Pair]:
    """Pairs of a ratio on a machine where one block in four is disturbed, up to twice as long."""
    chance = random.Random(seed)

    def block(seconds: float) -> float:
        disturbed = chance.random() < 0.25
        return seconds * (1 + abs(chance.gauss(0, 0.05)) + (chance.random() if disturbed else 0))

    return [Pair(block(ratio), block(1.0)) for _ in range(pairs)]


def test_an_unchanged_ratio_passes_on_a_noisy_machine() -> None:
    verdicts = [judge(BASELINE, {"loop": noisy(4.0, seed)})[0] for seed in range(500)]
    assert [str(verdict) for verdict in verdicts if not verdict.passed] == []


def test_half_as_much_again_is_found_on_a_noisy_machine() -> None:
    verdicts = [judge(BASELINE, {"loop": noisy(4.0 * 1.5, seed)})[0] for seed in range(500)]
    assert [str(verdict) for verdict in verdicts if not verdict.slower] == []


def test_the_calmer_half_decides() -> None:
    # While others were busy it took twice as long.
    calm, busy = [Pair(4, 1, 0.01)] * 10, [Pair(8, 1, 0.6)] * 10
    [verdict] = judge(BASELINE, {"loop": [*busy, *calm]})
    assert verdict.measured == 4
    assert verdict.pairs == 10


def test_what_others_took_all_the_time_loosens_the_bound() -> None:
    slow = 4 * BOUND * 1.2
    [quiet] = judge(BASELINE, {"loop": [Pair(slow, 1, 0.0)] * 10})
    [busy] = judge(BASELINE, {"loop": [Pair(slow, 1, 0.5)] * 10})
    assert quiet.slower
    assert not busy.slower
    assert "others took 50%" in str(busy)


def test_the_bound_is_the_bound() -> None:
    [just_within] = judge(BASELINE, {"loop": [Pair(4 * BOUND * 0.999, 1)] * 3})
    [just_beyond] = judge(BASELINE, {"loop": [Pair(4 * BOUND * 1.001, 1)] * 3})
    assert just_within.passed
    assert just_beyond.slower
    assert "SLOWER" in str(just_beyond)
    assert "as before" in str(just_within)


def test_more_samples_count_together_with_the_first() -> None:
    # A first look in a bad moment, and three times as many pairs after it.
    bad, good = [Pair(8, 1)] * 5, [Pair(4, 1)] * 15
    [first] = judge(BASELINE, {"loop": bad})
    [both] = judge(BASELINE, {"loop": bad + good})
    assert first.slower
    assert both.passed
    assert both.pairs == 20


def test_faster_passes_and_is_said() -> None:
    [verdict] = judge(BASELINE, {"loop": [Pair(2, 1)]})
    assert verdict.passed
    assert "faster" in str(verdict)


def test_a_workload_that_is_not_measured_any_more_does_not_pass() -> None:
    [verdict] = judge(BASELINE, {})
    assert not verdict.passed
    assert "not measured" in str(verdict)


def test_a_workload_that_has_no_baseline_does_not_pass() -> None:
    [verdict] = judge({}, {"loop": [Pair(4, 1)]})
    assert not verdict.passed
    assert "not in the baseline" in str(verdict)
