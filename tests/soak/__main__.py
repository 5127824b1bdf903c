"""``python -m tests.soak --seconds 600 --seed 1``: random jobs under random faults, one seed after another.

Ends with 1 at the first that breaks a law of `tests.soak.laws`, and names its seed.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
from typing import Final

from tests.soak.test_soak import suffered

REPORT_S: Final = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="for how long (600)")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (1)")
    options = parser.parse_args()
    began = reported = time.monotonic()
    counts: collections.Counter[str] = collections.Counter()
    seed = options.seed
    while time.monotonic() - began < options.seconds:
        found, injected = suffered(seed)
        for text in found:
            print(f"seed {seed}: {text}", file=sys.stderr)
        if found:
            return 1
        counts.update(f"{one.action} at {one.place}" for one in injected)
        seed += 1
        if time.monotonic() - reported > REPORT_S:
            reported = time.monotonic()
            print(f"{seed - options.seed} jobs, {counts.total()} faults, {reported - began:.0f} s", flush=True)
    print(f"seeds {options.seed} to {seed - 1}: {seed - options.seed} jobs, {counts.total()} faults, no law broken")
    print(", ".join(f"{count} x {what}" for what, count in sorted(counts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
