from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.statistics import Pair, compare, growth_exponent, percentile, spread

SECONDS = st.floats(1e-6, 1e3)


def test_percentiles_lie_between_their_neighbours() -> None:
    assert percentile([4, 1, 3, 2], 0) == 1
    assert percentile([4, 1, 3, 2], 50) == 2.5
    assert percentile([4, 1, 3, 2], 100) == 4
    assert percentile([7], 99) == 7


@given(st.lists(SECONDS, min_size=1), st.floats(0, 100))
def test_no_percentile_leaves_the_range(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert min(values) <= found <= max(values) or found == pytest.approx(min(values))


def test_without_values_there_is_nothing_to_tell() -> None:
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_the_spread_is_the_middle_half() -> None:
    found = spread([5, 1, 2, 4, 3])
    assert (found.median, found.low, found.high, found.count) == (3, 2, 4, 5)


def test_ratios_are_those_of_pairs() -> None:
    # In a moment when the machine was slow, both were; the ratio does not know.
    pairs = [Pair(2, 1), Pair(20, 10), Pair(2.2, 1.1)]
    found = compare(pairs)
    assert found.ratio.median == found.ratio.low == found.ratio.high == pytest.approx(2)


def test_noise_on_one_side_does_not_make_the_least_ratio_worse() -> None:
    # Seven of eleven of ours were disturbed, so the median is; the short times were spared.
    pairs = [Pair(3, 1)] * 7 + [Pair(2, 1)] * 4
    found = compare(pairs)
    assert found.ratio.median == 3
    assert found.undisturbed == found.at_least == 2


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1), st.floats(1.01, 10))
def test_what_is_slower_throughout_is_slower_in_every_view(times: list[tuple[float, float]], factor: float) -> None:
    before = compare([Pair(*pair) for pair in times])
    after = compare([Pair(ours * factor, limit) for ours, limit in times])
    assert after.at_least == pytest.approx(before.at_least * factor)


@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
def test_the_growth_of_a_power_is_the_power(power: float) -> None:
    points = [(x, 3 * x**power) for x in (1, 10, 100, 1000)]
    assert growth_exponent(points) == pytest.approx(power)
