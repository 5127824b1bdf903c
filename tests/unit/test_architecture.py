"""What docs/architecture.md names exists."""

from __future__ import annotations

import functools
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
NAMES = sorted(set(re.findall(r"`(fed\.[\w.]+)`", PAGE)))


def find(name: str) -> Any:
    """What a dotted name stands for: a module, or something in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[count:], module)
    raise AttributeError(name)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_page_on_the_architecture_names_exists(name: str) -> None:
    assert find(name) is not None


def test_the_page_names_each_room_of_the_package() -> None:
    fed = Path(__file__).parents[2] / "fed"
    rooms = {path.parent.name for path in fed.glob("*/__init__.py")} - {"cli", "testing"}
    assert {name.split(".")[1] for name in NAMES} >= rooms


def test_the_glossary_has_thirty_words_at_most_and_each_once() -> None:
    words = re.findall(r"^\| ([a-z ]+) \| [^|]+ \|$", PAGE.split("## The words")[1], re.M)
    assert "word" in words
    assert 20 < len(words) - 1 <= 30
    assert len(set(words)) == len(words)
