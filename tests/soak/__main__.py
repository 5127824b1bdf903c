"""``python -m tests.soak --seconds 600 --seed 1``: random jobs under random faults, one seed after another.

``--jobs 1 --seed 4711`` plays one again that has failed, and ``--calm`` one that was played without the random faults.

Ends with 1 at the first that breaks a law of `tests.soak.laws`, and names its seed.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
from typing import Final

from tests.soak.playing import calm, suffered

REPORT_S: Final = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="for how long (600)")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--jobs", type=int, default=None, help="how many at most (any number)")
    parser.add_argument("--calm", action="store_true", help="no faults of the network and of the proxies")
    options = parser.parse_args()
    began = reported = time.monotonic()
    counts: collections.Counter[str] = collections.Counter()
    seed = options.seed
    while time.monotonic() - began < options.seconds and seed - options.seed != options.jobs:
        found, injected = (calm(seed), ()) if options.calm else suffered(seed)
        for text in found:
            print(f"seed {seed}: {text}", file=sys.stderr)
        if found:
            return 1
        counts.update(f"{fault.action} at {fault.place}" for fault in injected)
        seed += 1
        if time.monotonic() - reported > REPORT_S:
            reported = time.monotonic()
            print(f"{seed - options.seed} jobs, {counts.total()} faults, {reported - began:.0f} s", flush=True)
    print(f"seeds {options.seed} to {seed - 1}: {seed - options.seed} jobs, {counts.total()} faults, no law broken")
    print(", ".join(f"{count} x {what}" for what, count in sorted(counts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
