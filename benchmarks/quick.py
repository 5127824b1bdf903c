"""The quick run: a few workloads for a few seconds each, against the committed ratios."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.harness import Lab
from benchmarks.machine import describe
from benchmarks.outcome import Case
from benchmarks.regression import BOUND, Verdict, judge
from benchmarks.statistics import CALM, Pair, compare, spread
from benchmarks.workloads import payload, pipelined, propagation, small_loop, stream

__all__ = ["BASELINE", "cases", "record", "run"]

BASELINE: Final = Path(__file__).with_name("baseline.json")
LAUNCHES: Final = 5
"""Of the processes, for the ratios that are committed."""
MORE: Final = 3
"""How many times the pairs of the first look a second one takes."""

WAY_OUT: Final = f"""
A workload takes more than {BOUND:g} times as long, beside its limit, as it did when benchmarks/baseline.json was
committed. Find out which change did it: python -m benchmarks --quick --only KEY measures one workload in seconds.
If the change is worth it, say so in the commit that records the new ratios: python -m benchmarks --quick --record"""

RECORD_IT: Final = "\nThe workloads are not those of benchmarks/baseline.json: record them with --quick --record"


def run(only: frozenset[str] = frozenset(), out: Path | None = None) -> int:
    """Measure, and compare with the baseline.

    Args:
        only: The workloads to measure, by key. Empty: all.
        out: A directory for the samples.

    Returns:
        The exit code: 1 if something is slower.
    """
    began = time.monotonic()
    machine = describe()
    baseline = _baseline(only)
    with Lab() as lab:
        chosen = _chosen(lab, only)
        samples = {key: _measured(case, case.pairs) for key, case in chosen.items()}
        doubtful = [verdict for verdict in judge(baseline, samples) if verdict.slower]
        # In new processes: some of the difference between two runs is how they came to be, and stays as long as they.
        lab.release()
        for verdict in doubtful:
            _say(f"{verdict}; measuring again")
            case = chosen[verdict.key]
            samples[verdict.key] += _measured(case, MORE * case.pairs)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        _write(out / "quick.json", {"machine": machine, "samples": samples})
    return _conclude(judge(baseline, samples), time.monotonic() - began)


def record(only: frozenset[str] = frozenset()) -> int:
    """Make new ratios the committed ones: of each workload the median over several launches of its processes.

    Args:
        only: The workloads to measure, by key. Empty: all. The ratios of the others stay.

    Returns:
        The exit code.
    """
    machine = describe()
    launches: dict[str, list[Verdict]] = {}
    with Lab() as lab:
        for _ in range(LAUNCHES):
            for key, case in _chosen(lab, only).items():
                launches.setdefault(key, []).extend(judge({}, {key: _measured(case, case.pairs)}))
            lab.release()
    ratios = _baseline(frozenset()) if BASELINE.exists() else {}
    for key, verdicts in launches.items():
        measured = spread([verdict.measured for verdict in verdicts if verdict.measured is not None])
        others = max(verdict.others for verdict in verdicts)
        ratios[key] = round(measured.median, 3)
        width = f"{measured.low:.2f} to {measured.high:.2f}"
        warning = "; too much for a ratio that others are judged by" if others > CALM else ""
        _say(f"{key}: {measured.median:.2f} ({width}), others took {others:.0%}{warning}")
    _write(BASELINE, {"machine": machine, "ratios": dict(sorted(ratios.items()))})
    return 0


def _chosen(lab: Lab, only: frozenset[str]) -> dict[str, Case]:
    return {case.key: case for case in cases(lab) if not only or case.key in only}


def cases(lab: Lab) -> list[Case]:
    """What is measured. Nothing is started before it is."""
    return [case for module in (small_loop, pipelined, payload, propagation, stream) for case in module.quick(lab)]


def _measured(case: Case, pairs: int) -> tuple[Pair, ...]:
    began = time.monotonic()
    measured = case.measure(pairs)
    found, others = compare(measured), spread([pair.others for pair in measured]).median
    _say(
        f"{case.key}: {found.ours.median * 1e3:.2f} ms beside {found.limit.median * 1e3:.2f} ms, ratio "
        f"{found.ratio.median:.2f} ({found.ratio.low:.2f} to {found.ratio.high:.2f}), undisturbed "
        f"{found.undisturbed:.2f}, others took {others:.0%}, {pairs} pairs in "
        f"{time.monotonic() - began:.0f} s"
    )
    return measured


def _baseline(only: frozenset[str]) -> dict[str, float]:
    found = json.loads(BASELINE.read_text(encoding="utf-8"))["ratios"]
    return {key: float(ratio) for key, ratio in found.items() if not only or key in only}


def _conclude(verdicts: list[Verdict], took_s: float) -> int:
    for verdict in verdicts:
        _say(str(verdict))
    _say(f"{took_s:.0f} s")
    if all(verdict.passed for verdict in verdicts):
        return 0
    _say(WAY_OUT if any(verdict.slower for verdict in verdicts) else RECORD_IT)
    return 1


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _say(text: str) -> None:
    print(text, flush=True, file=sys.stdout)
