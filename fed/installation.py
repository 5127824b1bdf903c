"""Other distributions that bring a package of the same name, which pip installs over one another without a word."""

from __future__ import annotations

from importlib.metadata import Distribution
from pathlib import Path
from typing import Final

__all__ = ["OTHERS", "refuse_others"]

OTHERS: Final = ("rayfed", "rayfed-nightly", "secretflow-rayfed")


def refuse_others(directory: Path = Path(__file__).parents[1]) -> None:
    """Refuse to be imported where one of them lies in the same place: the files are then those of both.

    Args:
        directory: Where this package lies.

    Raises:
        ImportError: One does.
    """
    for name in OTHERS:
        for _ in Distribution.discover(name=name, path=[str(directory)]):
            raise ImportError(
                f"{name} and fedray are installed in {directory}, and each overwrites the package fed of the other: "
                f"uninstall both (pip uninstall {name} fedray), then install the one that you want"
            )
