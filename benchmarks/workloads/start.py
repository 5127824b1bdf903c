"""W7, the start: from ``fed run --simulate`` of three parties to the first result that is printed.

Limit: a script that starts a Ray cluster and runs one task. Unit: seconds. Target: 1.5 times the limit.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.harness import BenchmarkError, Lab
from benchmarks.outcome import Case, Measurement, Outcome

__all__ = ["full"]

TARGET: Final = 1.8
PROGRAMS: Final = Path(__file__).parents[1] / "programs"
RESULT: Final = "the total is 42"
END_S: Final = 60.0


def full(lab: Lab) -> Outcome:
    """Both programs in turns."""
    environment = lab.environment()
    federated = ["-m", "fed.cli", "run", str(PROGRAMS / "first_result.py"), "--simulate", "alice,bob,carol"]
    raw = [str(PROGRAMS / "first_result_raw.py")]
    case = Case(
        "W7",
        ours=lambda: _first_result([sys.executable, *federated], environment),
        limit=lambda: _first_result([sys.executable, *raw], environment),
        pairs=6,
    )
    return Outcome(
        "W7",
        "from fed run --simulate of three parties to the first result",
        "a script that starts Ray and runs a task",
        (Measurement("W7", case.measure(), TARGET),),
    )


def _first_result(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Seconds until a line with the result is printed. Waits for the end of the program."""
    began = time.perf_counter()
    took = None
    with subprocess.Popen(
        command,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        printed = []
        for line in process.stdout or ():
            printed.append(line)
            if took is None and RESULT in line:
                took = time.perf_counter() - began
        code = process.wait(END_S)
    if took is None or code != 0:
        raise BenchmarkError(f"{' '.join(command)} ended with {code}, and printed:\n{''.join(printed)}")
    return took
