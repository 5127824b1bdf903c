"""What samples come to. Pure.

Two things are timed in turns, ours and its limit. Two turns that follow one another are a *pair*; the time that ours
took, as a multiple of its limit's, is the pair's ratio. Noise of a shared machine falls on both, so a ratio is worth
more than a time.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["CALM", "Comparison", "Pair", "Spread", "calmer", "compare", "growth_exponent", "percentile", "spread"]


CALM: Final = 0.05
"""What share of the machine others may take without anybody noticing."""


class Pair(NamedTuple):
    """One turn of each.

    Attributes:
        ours: Seconds for a unit of work.
        limit: Seconds for the same at the limit.
        others: What share of the machine others took meanwhile, from 0 to 1.
    """

    ours: float
    limit: float
    others: float = 0.0

    @property
    def ratio(self) -> float:
        """How many times as long ours took."""
        return self.ours / self.limit


@dataclasses.dataclass(frozen=True)
class Spread:
    """Where the middle half of some values lies.

    Attributes:
        median: The value in the middle.
        low: Lower quartile.
        high: Upper quartile.
        count: How many values there were.
    """

    median: float
    low: float
    high: float
    count: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Ours beside its limit.

    Attributes:
        ours: Seconds.
        limit: Seconds.
        ratio: Of the single pairs.
        undisturbed: The lower quartile of ours over the lower quartile of the limit. Other work on the machine only
            ever adds to a time, and more to that of many processes than to that of few; so the short times are those
            that it spared.
    """

    ours: Spread
    limit: Spread
    ratio: Spread
    undisturbed: float

    @property
    def at_least(self) -> float:
        """The ratio that both ways to look at the samples can agree on: what is slower is slower in both."""
        return min(self.ratio.median, self.undisturbed)


def calmer(pairs: Sequence[Pair], least: int = 8) -> list[Pair]:
    """The pairs in which others took next to nothing of the machine; if these are less than half, the calmer half.

    Which ones these are depends on what others did, and not on what was measured.

    Args:
        pairs: All of them.
        least: No fewer than so many, if there are as many.
    """
    calm = sum(pair.others <= CALM for pair in pairs)
    return sorted(pairs, key=lambda pair: pair.others)[: max(least, calm, math.ceil(len(pairs) / 2))]


def compare(pairs: Sequence[Pair]) -> Comparison:
    """What pairs come to.

    Raises:
        ValueError: There is none.
    """
    ours, limit = spread([pair.ours for pair in pairs]), spread([pair.limit for pair in pairs])
    return Comparison(ours, limit, spread([pair.ratio for pair in pairs]), ours.low / limit.low)


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles.

    Raises:
        ValueError: There is no value.
    """
    return Spread(
        median=percentile(values, 50), low=percentile(values, 25), high=percentile(values, 75), count=len(values)
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which so many percent lie, linear between two neighbours.

    Raises:
        ValueError: There is no value.
    """
    if not values:
        raise ValueError("no values, no percentile")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def growth_exponent(points: Sequence[tuple[float, float]]) -> float:
    """The power of x that y grows with: the slope of the line through the points, both on logarithmic scales.

    1 is linear. A constant part makes it less.

    Args:
        points: x and y, both above 0, for two or more different x.
    """
    slope = statistics.linear_regression(
        [math.log(x) for x, _ in points],
        [math.log(y) for _, y in points],
    ).slope
    return float(slope)
