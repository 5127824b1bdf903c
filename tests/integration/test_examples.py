"""The shortest example on real Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

EXAMPLES: Final = Path(__file__).parents[2] / "examples"


def test_five_parties_run_the_quickstart_on_ray_without_noise() -> None:
    parties = ["ada", "ben", "cem", "dan", "eve"]
    ended = subprocess.run(
        [sys.executable, "-m", "fed.cli", "run", str(EXAMPLES / "quickstart.py"), "--simulate", ",".join(parties)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 0, ended
    lines = ended.stdout.splitlines()
    assert sorted(line.split(" | ")[0] for line in lines) == parties
    assert len({line.split(" | ")[1] for line in lines}) == 1
    assert all(line.startswith("fed: ") for line in ended.stderr.splitlines()), ended.stderr
