"""Whether a run is slower than the one that was committed: ratios against ratios. Pure.

What decides is `Comparison.at_least` of the pairs in which others took least of the machine. Whatever they took
nevertheless loosens the bound by as much, since many processes suffer more from it than few: on a machine that does
nothing else, the bound is `BOUND`; where others take half, it is one and a half times that. A ratio beyond the bound is
doubted before it is believed: the workload is measured again, and judged by the old samples and the new ones together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.statistics import Pair, calmer, compare, spread

__all__ = ["BOUND", "Verdict", "judge"]

BOUND: Final = 1.3
"""How many times the committed ratio a ratio may be, on a machine that does nothing else."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One workload against the baseline.

    Attributes:
        key: Which workload.
        committed: Its ratio in the baseline; None if the baseline does not have it.
        measured: Its ratio now; None if it was not measured.
        pairs: From how many pairs.
        others: What share of the machine others took meanwhile.
    """

    key: str
    committed: float | None
    measured: float | None
    pairs: int = 0
    others: float = 0.0

    @property
    def bound(self) -> float:
        """How many times the committed ratio it may be."""
        return BOUND * (1 + self.others)

    @property
    def slower(self) -> bool:
        """Whether it is beyond the bound."""
        return self.change is not None and self.change > self.bound

    @property
    def passed(self) -> bool:
        """Whether it is within the bound. What only one side has is not: a workload does not vanish unnoticed."""
        return self.change is not None and not self.slower

    @property
    def change(self) -> float | None:
        """The ratio now over the committed one."""
        if self.committed is None or self.measured is None:
            return None
        return self.measured / self.committed

    def __str__(self) -> str:
        if self.committed is None:
            return f"{self.key}: not in the baseline"
        if self.measured is None or self.change is None:
            return f"{self.key}: in the baseline, and not measured"
        word = "SLOWER" if self.slower else "faster" if self.change < 1 / BOUND else "as before"
        return (
            f"{self.key}: ratio {self.measured:.2f}, committed {self.committed:.2f}, x {self.change:.2f} "
            f"(at most x {self.bound:.2f}), {self.pairs} pairs, others took {self.others:.0%}: {word}"
        )


def judge(baseline: Mapping[str, float], samples: Mapping[str, Sequence[Pair]]) -> list[Verdict]:
    """Every workload that the baseline has or that was measured, by name.

    Args:
        baseline: The committed ratio of each.
        samples: All pairs of each.
    """
    verdicts = []
    for key in sorted({*baseline, *samples}):
        pairs = calmer(samples.get(key, ()))
        measured = compare(pairs).at_least if pairs else None
        others = spread([pair.others for pair in pairs]).median if pairs else 0.0
        verdicts.append(Verdict(key, baseline.get(key), measured, len(pairs), others))
    return verdicts
