"""The full run: every workload at its full size, written down as figures, a page and plots.

What was measured before and is not measured again stays, so that a workload can be measured alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import Lab
from benchmarks.machine import describe
from benchmarks.outcome import Outcome, Record
from benchmarks.plots import plot
from benchmarks.report import render
from benchmarks.workloads import (
    death,
    fan_out,
    limits,
    outstanding,
    parties,
    payload,
    pipelined,
    propagation,
    rounds,
    secure,
    sizes,
    small_loop,
    start,
    stream,
    wide_area,
)

__all__ = ["WORKLOADS", "read", "run", "write"]

WORKLOADS: Final[Mapping[str, Callable[[Lab], Outcome]]] = {
    "limits": limits.full,
    "W1": small_loop.full,
    "W2": pipelined.full,
    "W3": payload.full,
    "W3-stream": stream.full,
    "W4": rounds.full,
    "W5": propagation.full,
    "W6": death.full,
    "W7": start.full,
    "W8": fan_out.full,
    "W9": outstanding.full,
    "W10": secure.full,
    "growth-parties": parties.full,
    "growth-size": sizes.full,
    "wide-area": wide_area.full,
}
"""By the name that ``--only`` takes, in the order in which they are run."""

RESULTS: Final = "results.json"
PAGE: Final = "RESULTS.md"
PLOTS: Final = "plots"
BEGIN: Final = "<!-- written by python -m benchmarks -->\n"
END: Final = "<!-- end of what is written -->\n"


def run(only: frozenset[str], out: Path, *, tls: bool = False) -> int:
    """Measure, and write what was measured after each workload.

    Args:
        only: Which, by name. Empty: all.
        out: The directory to write to.
        tls: Mutual TLS also where it is not what is measured.

    Returns:
        The exit code.
    """
    if unknown := only - WORKLOADS.keys():
        print(f"no such workload: {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
        return 2
    records = read(out)
    with Lab(tls=tls) as lab:
        for name, measure in WORKLOADS.items():
            if only and name not in only:
                continue
            machine, began = {**describe(), "TLS": "yes" if tls else "no"}, time.monotonic()
            print(f"{name} ...", flush=True)
            outcome = measure(lab)
            records[name] = Record(machine, round(time.monotonic() - began, 1), outcome)
            write(out, records, (name,))
            print("\n".join(render({name: records[name]}, plots="")), flush=True)
            # Whatever the next one needs it starts itself: clusters that stand idle still take some of the machine.
            lab.release()
    return 0


def read(out: Path) -> dict[str, Record]:
    """What was measured before."""
    path = out / RESULTS
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {
        name: Record(one["machine"], one["seconds"], Outcome.from_json(one["outcome"]))
        for name, one in found.items()
        if name in WORKLOADS
    }


def write(out: Path, records: Mapping[str, Record], changed: tuple[str, ...]) -> None:
    """Write figures, page, and the plots of what has changed. The rest of the page is left as it is."""
    (out / PLOTS).mkdir(parents=True, exist_ok=True)
    ordered = {name: records[name] for name in WORKLOADS if name in records}
    content = {
        name: {"machine": dict(one.machine), "seconds": one.seconds, "outcome": one.outcome.as_json()}
        for name, one in ordered.items()
    }
    (out / RESULTS).write_text(json.dumps(content, indent=None) + "\n", encoding="utf-8")
    for name in changed:
        plot(ordered[name].outcome, out / PLOTS / f"{name}.png")
    page = out / PAGE
    text = page.read_text(encoding="utf-8") if page.exists() else BEGIN + END
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    page.write_text(head + BEGIN + "\n".join(render(ordered, plots=PLOTS)) + "\n" + END + tail, encoding="utf-8")
