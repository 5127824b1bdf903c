"""What is measured, and what came of it: plain values that can be written down and read again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.harness import interleave
from benchmarks.statistics import Comparison, Pair, calmer, compare, spread

__all__ = ["Case", "Measurement", "Outcome", "Reading", "Record"]


@dataclasses.dataclass(frozen=True)
class Case:
    """Something that can be measured beside its limit, as often as wanted.

    Attributes:
        key: Names it.
        ours: Does a block of our work, checks it, and returns seconds for a unit of it.
        limit: The same for the limit.
        pairs: How many pairs a first look takes.
    """

    key: str
    ours: Callable[[], float]
    limit: Callable[[], float]
    pairs: int

    def measure(self, pairs: int | None = None) -> tuple[Pair, ...]:
        """Pairs, after one that is thrown away: it starts workers and touches fresh memory."""
        interleave(1, self.ours, self.limit)
        return tuple(interleave(pairs or self.pairs, self.ours, self.limit))


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Ours beside a limit.

    Attributes:
        key: Names it, and begins with its workload.
        pairs: Seconds for one unit of work.
        target: The ratio that it should not exceed.
        x: Its place on a curve of growth.
        series: The curve, where there are several.
    """

    key: str
    pairs: tuple[Pair, ...]
    target: float | None = None
    x: float | None = None
    series: str = ""

    @property
    def comparison(self) -> Comparison:
        """What those pairs come to that others spared."""
        return compare(calmer(self.pairs))

    @property
    def others(self) -> float:
        """What share of the machine others took meanwhile."""
        return spread([pair.others for pair in calmer(self.pairs)]).median


@dataclasses.dataclass(frozen=True)
class Reading:
    """A single figure.

    Attributes:
        key: Names it, and begins with its workload.
        value: The figure.
        unit: Of the figure.
        target: What it should not exceed.
        note: From what it is, such as the number of samples.
    """

    key: str
    value: float
    unit: str
    target: float | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a workload came to.

    Attributes:
        workload: Its name.
        title: What is done.
        limit: What it is compared with.
        measurements: Ours beside the limit.
        readings: What has no such limit.
        x_label: What the measurements' `x` is.
    """

    workload: str
    title: str
    limit: str
    measurements: tuple[Measurement, ...] = ()
    readings: tuple[Reading, ...] = ()
    x_label: str = ""

    def as_json(self) -> dict[str, Any]:
        """Dicts, lists and plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Outcome:
        """The inverse of `as_json`."""
        measurements = [
            Measurement(**{**one, "pairs": tuple(Pair(*pair) for pair in one["pairs"])})
            for one in found["measurements"]
        ]
        readings = [Reading(**one) for one in found["readings"]]
        return cls(**{**found, "measurements": tuple(measurements), "readings": tuple(readings)})


@dataclasses.dataclass(frozen=True)
class Record:
    """A workload as it was measured.

    Attributes:
        machine: On what, and when.
        seconds: How long that took.
        outcome: What it came to.
    """

    machine: Mapping[str, str]
    seconds: float
    outcome: Outcome
