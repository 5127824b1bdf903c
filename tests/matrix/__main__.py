"""``python -m tests.matrix``: what each release of the packages makes of the values of each other one.

Makes an environment for each, in which ray is not installed; encodes all samples in each, decodes them in each, and
prints a table. ``--record`` keeps the bytes for the tests that everybody runs.

Ends with 1 if a value arrived as another one, or was refused without naming a package that is missing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.matrix.child import ROOT

FOLDER: Final = ROOT / ".venv-matrix"
RECORDED: Final = ROOT / "tests" / "unit" / "serde" / "recorded"
CHILD: Final = Path(__file__).with_name("child.py")
NEEDS: Final = ("msgpack>=1.0.5", "tomli>=2.0; python_version < '3.11'", "typing-extensions>=4.10")


class Environment(NamedTuple):
    """Releases that go together.

    Attributes:
        name: What it is called in the table.
        python: The command of its Python.
        packages: What pip installs.
    """

    name: str
    python: str
    packages: tuple[str, ...]


ENVIRONMENTS: Final = (
    Environment("pandas-2.2", "python3.10", ("pandas==2.2.*", "numpy==1.26.*")),
    Environment(
        "pandas-2.2-pyarrow",
        "python3.10",
        ("pandas==2.2.*", "numpy==1.26.*", "pyarrow==17.*", "scipy==1.11.*", "polars==1.10.*"),
    ),
    Environment("pandas-2.2-numpy-2", "python3.13", ("pandas==2.2.*", "numpy==2.*")),
    Environment("pandas-2.3-pyarrow", "python3.13", ("pandas==2.3.*", "numpy==2.*", "pyarrow")),
    Environment("pandas-3", "python3.13", ("pandas==3.*", "numpy==2.*", "scipy")),
    Environment("pandas-3-pyarrow", "python3.13", ("pandas==3.*", "numpy==2.*", "pyarrow", "scipy", "polars")),
    Environment("pandas-3-numpy-1", "python3.11", ("pandas==3.*", "numpy==1.26.*")),
)


def _installed(environment: Environment) -> Path | None:
    """Its Python, or None if there is none to make it with."""
    command = shutil.which(environment.python)
    # One that a version manager stands in for may be found and not be there.
    if command is None or subprocess.run([command, "-c", ""], capture_output=True, check=False).returncode:
        return None
    folder = FOLDER / environment.name
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([command, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *NEEDS, *environment.packages], check=True)
    return python


def _run(python: Path, what: str, given: str = "") -> dict[str, Any]:
    command = [str(python), str(CHILD), what]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{python}: {done.stderr}")
    results: dict[str, Any] = json.loads(done.stdout)
    return results


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--record", action="store_true", help=f"keep the bytes in {RECORDED.relative_to(ROOT)}")
    options = parser.parse_args()
    pythons: dict[str, Path] = {}
    for environment in ENVIRONMENTS:
        python = _installed(environment)
        if python is None:
            print(f"{environment.name}: not tried, there is no {environment.python}")
        else:
            pythons[environment.name] = python
    encoded = {name: _run(python, "encode") for name, python in pythons.items()}
    if options.record:
        RECORDED.mkdir(exist_ok=True)
        for name, samples in encoded.items():
            text = json.dumps(samples, indent=1, sort_keys=True)
            (RECORDED / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    wrong: list[str] = []
    missing: dict[str, set[str]] = {}
    width = max(map(len, pythons))
    print(f"{'from / to':{width}}", *(f"{name:>{width}}" for name in pythons))
    for sender, samples in encoded.items():
        cells = []
        for receiver, python in pythons.items():
            refused = {name: text for name, text in _run(python, "decode", json.dumps(samples)).items() if text}
            for name, text in refused.items():
                if "or later, not installed here" in text:
                    missing.setdefault(f"to {receiver}: {text}", set()).add(name)
                else:
                    wrong.append(f"{sender} -> {receiver}: {name}: {text}")
            cells.append(f"{len(samples) - len(refused)} of {len(samples)}")
        print(f"{sender:{width}}", *(f"{cell:>{width}}" for cell in cells))
    for text, names in sorted(missing.items()):
        print(f"{text} ({', '.join(sorted(names))})")
    for text in wrong:
        print(f"\nWRONG {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
