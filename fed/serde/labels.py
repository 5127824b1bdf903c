"""What pandas takes long for: labels of one hash, and the steps of a frequency. Importing this imports pandas."""

from __future__ import annotations

import re
from typing import Any, Final

import pandas as pd

from fed.serde.contract import DecodeError
from fed.serde.tree import Reader, Refused

__all__ = [
    "FREQUENCY_WORK",
    "check_frequency",
    "check_labels",
    "is_constant",
    "name_of_frequency",
    "offset_of",
    "refuse_unsorted",
]


def name_of_frequency(freq: Any, cls: type, count: int) -> str | None:
    """The name of the frequency of an index of so many times, from which `offset_of` makes it again.

    Raises:
        Refused: There is none, or to check it would take too long.
    """
    if freq is None:
        return None
    name: str = freq.freqstr
    if not is_constant(freq) and count > _MAX_STEPS:
        raise Refused(
            cls, "its frequency takes too long to check for so many times; set freq to None", f"{count} times"
        )
    try:
        faithful = pd.tseries.frequencies.to_offset(name) == freq
    except ValueError:
        faithful = False
    if not faithful:
        raise Refused(cls, "its frequency has parameters that its name does not tell; set freq to None", name)
    return name


def check_labels(reader: Reader, labels: Any) -> None:
    """Look at labels that pandas is about to check for being unique.

    It puts them into a hash table, whose hashes of numbers are known, so that anybody can make many of one hash. It
    does not where they are sorted, which it then knows of them.

    Raises:
        DecodeError: To find out could take too long.
    """
    count = len(labels)
    if isinstance(labels, pd.RangeIndex):
        # It has no bytes, and may be made into numbers.
        reader.spend(count >> 3)
        return
    if _are_objects(labels):
        reader.check_keys(labels.tolist())
    if _are_safe(labels):
        return
    if count > _MAX_UNSORTED:
        raise DecodeError(f"{count} labels are not sorted; more than {_MAX_UNSORTED} must be")
    # What it takes if all have one hash.
    reader.spend(count**2 >> 9)


def refuse_unsorted(labels: Any, cls: type) -> None:
    """Refuse what `check_labels` would."""
    if len(labels) > _MAX_UNSORTED and not _are_safe(labels):
        raise Refused(
            cls, f"its distinct labels are not sorted; more than {_MAX_UNSORTED} must be", f"{len(labels)} labels"
        )


def _are_objects(labels: Any) -> bool:
    return labels.dtype == object and not isinstance(labels, pd.MultiIndex)


def _are_safe(labels: Any) -> bool:
    """Whether labels are sorted, or their hashes are random in each process."""
    if isinstance(labels, pd.RangeIndex) or isinstance(labels.dtype, pd.StringDtype):
        return True
    if _are_objects(labels) and set(map(type, labels.tolist())) <= {str, bytes, type(None)}:
        return True
    try:
        return bool(labels.is_monotonic_increasing or labels.is_monotonic_decreasing)
    except TypeError:
        # Some cannot be compared.
        return False


_MAX_STEPS: Final = 1 << 14
"""Most times of an index with a frequency that pandas can only check step by step."""

FREQUENCY_WORK: Final = 400
"""What it takes to check a frequency, and again for every step where it is checked by steps."""

_FREQUENCY: Final = re.compile(r"-?[0-9]{0,9}[A-Za-z]{1,6}(?:-[A-Z0-9]{1,4}){0,4}")
"""The names of frequencies. pandas' own grammar is larger, and takes the square of a name's length."""


def check_frequency(name: Any) -> None:
    """Look at the name of a frequency before pandas does.

    Raises:
        DecodeError: It is none, or one that pandas takes long for.
    """
    if type(name) is not str or not _FREQUENCY.fullmatch(name):
        raise DecodeError("a frequency is not known here")


def offset_of(name: Any) -> Any:
    """The frequency of a name.

    Raises:
        DecodeError: There is none in the pandas that is installed here.
    """
    check_frequency(name)
    try:
        return pd.tseries.frequencies.to_offset(name)
    except ValueError as error:
        raise DecodeError(f"the frequency {name!r} is not known to pandas {pd.__version__}") from error


def is_constant(offset: Any) -> bool:
    """Whether every step is as long as the others. A day is no `Tick` any more, and is one for whoever has no zone."""
    return isinstance(offset, (pd.tseries.offsets.Tick, pd.tseries.offsets.Day))


_MAX_UNSORTED: Final = 1 << 14
"""Most labels that must be unique and are not sorted."""
