"""On what, and with what, something was measured."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["describe"]

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = ("ray", "grpcio", "numpy")


def describe() -> dict[str, str]:
    """The machine, the versions, the commit, and how busy the machine is now."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory / 1e9:.0f} GB",
        "kernel": platform.release(),
        "versions": f"Python {platform.python_version()}, {versions}",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _commit() -> str:
    # Results that are being written change nothing of what is measured.
    changed = _git("status", "--porcelain", "--", "fed", "benchmarks/*.py")
    return (_git("rev-parse", "--short", "HEAD") or "unknown") + (" and changes" if changed else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
