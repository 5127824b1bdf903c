"""The command: ``python -m benchmarks --quick`` or ``--full``."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from benchmarks import quick


def main() -> int:
    """Run what the arguments say. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure workloads beside their limits.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--quick", action="store_true", help="two minutes, compared with the committed ratios")
    what.add_argument("--full", action="store_true", help="everything, written down in a directory")
    parser.add_argument("--only", default="", help="workloads, by comma")
    parser.add_argument("--out", type=Path, help="a directory for what is measured")
    parser.add_argument("--record", action="store_true", help="with --quick: make the ratios the committed ones")
    parser.add_argument("--tls", action="store_true", help="with --full: mutual TLS everywhere")
    options = parser.parse_args()
    # As Ctrl-C does, so that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    only = frozenset(filter(None, (key.strip() for key in options.only.split(","))))
    if options.full:
        # Imported here because it draws, which the quick run does not need.
        from benchmarks import full

        return full.run(only, options.out or Path(__file__).parent, tls=options.tls)
    return quick.record(only) if options.record else quick.run(only, options.out)


if __name__ == "__main__":
    sys.exit(main())
