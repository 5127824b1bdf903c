"""Packages that may be missing: which module here knows their values, and what is said of one that is not there.

Bytes choose a tag, and a tag chooses one of these packages, so nothing else is imported. A package that is missing or
older than what is tried is named as such: the bytes that need it are not malformed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import re
import sys
from typing import Any, Final, NamedTuple

from fed.serde.contract import DecodeError
from fed.serde.tags import Tag
from fed.serde.tree import Reader, ReadRule, Refused, WriteRule, told

__all__ = ["OLDEST", "READ_RULES", "find_rule", "outdated"]

OLDEST: Final = {
    "numpy": "1.26",
    "pandas": "2.2",
    "polars": "1.10",
    "pyarrow": "17",
    "scipy": "1.11",
    "torch": "2.9",
}
"""The oldest release of each package that is tried. An older one is not refused, but named when it fails."""


class _Package(NamedTuple):
    """A package that may be missing.

    Attributes:
        imported: Its module whose import makes the first of its values possible.
        rules: The module here that knows its values, and imports it.
        needs: What that module needs.
        tags: What it reads.
    """

    imported: str
    rules: str
    needs: tuple[str, ...]
    tags: tuple[Tag, ...]


_PACKAGES: Final = (
    _Package("numpy", "arrays", ("numpy",), (Tag.NUMPY_ARRAY, Tag.NUMPY_SCALAR, Tag.NUMPY_ITEMS)),
    _Package(
        "pandas",
        "tables",
        ("pandas",),
        (
            Tag.PANDAS_SERIES,
            Tag.PANDAS_FRAME,
            Tag.PANDAS_INDEX,
            Tag.PANDAS_ARRAY,
            Tag.PANDAS_TIMESTAMP,
            Tag.PANDAS_TIMEDELTA,
            Tag.PANDAS_MISSING,
        ),
    ),
    _Package("pyarrow", "arrow", ("pyarrow",), (Tag.ARROW,)),
    _Package("polars", "polars_frames", ("polars", "pyarrow"), (Tag.POLARS,)),
    _Package("scipy.sparse", "sparse", ("scipy",), (Tag.SPARSE,)),
    _Package("torch", "tensors", ("torch",), (Tag.TORCH_TENSOR,)),
)


def find_rule(kind: type) -> WriteRule | None:
    """How to write the instances of a class of one of these packages, None if it is of none.

    Raises:
        Refused: The class cannot cross, or what it needs is missing.
    """
    origin = kind.__module__.partition(".")[0]
    for package in _PACKAGES:
        # An instance of a package's class can only exist once the package is imported, so encoding imports none.
        if sys.modules.get(package.imported) is None:
            continue
        try:
            rules = _rules_of(package)
        # What is too old lacks more than what an import looks for.
        except Exception as error:
            if origin == package.needs[0]:
                missing = _what_is_missing(package, error)
                raise Refused(kind, "a package that it needs is missing in its party, or too old", missing) from error
            continue
        rule: WriteRule | None = rules.rule_for(kind)
        if rule is not None:
            return rule
    return None


@functools.cache
def _rules_of(package: _Package) -> Any:
    return importlib.import_module(f"fed.serde.{package.rules}")


def _what_is_missing(package: _Package, error: Exception) -> str:
    """Why values of a package cannot be read or written here, as the end of a sentence."""
    for name in package.needs:
        if isinstance(error, ModuleNotFoundError) and error.name in (name, package.imported):
            return f"it needs {name} {OLDEST[name]} or later, not installed here"
    for name in package.needs:
        if _is_old(name):
            return f"it needs {name} {OLDEST[name]} or later, {_version_of(name)} is installed here"
    versions = " and ".join(f"{name} {_version_of(name)}" for name in package.needs)
    return f"{versions}, installed here, cannot handle it: {told(error)}"


def outdated() -> str:
    """The rest of a sentence: one of the imported packages that is older than what is tried. Empty if there is none."""
    for name, oldest in OLDEST.items():
        if name in sys.modules and _is_old(name):
            return f" ({name} {_version_of(name)} is installed here, and the oldest that is tried is {oldest})"
    return ""


def _version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        # Some are distributed under several names.
        return "of an unknown version"


def _is_old(name: str) -> bool:
    numbers = _numbers(_version_of(name))
    return bool(numbers) and numbers < _numbers(OLDEST[name])


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", version)[:2]]


def _reading(package: _Package, tag: Tag) -> ReadRule:
    what = f"the value holds a {package.needs[0]} object"

    def read(reader: Reader, args: list[Any], room: int) -> Any:
        try:
            rule = _rules_of(package).READ_RULES[tag]
        except Exception as error:
            raise DecodeError(f"{what}: {_what_is_missing(package, error)}") from error
        try:
            return rule(reader, args, room)
        except DecodeError:
            raise
        except Exception as error:
            # Whether it is the bytes or the release cannot be told apart, and so this names both.
            raise DecodeError(f"{what}: {_what_is_missing(package, error)}") from error

    return read


READ_RULES: Final[dict[Tag, ReadRule]] = {tag: _reading(package, tag) for package in _PACKAGES for tag in package.tags}
"""What follows the marks of these packages."""
