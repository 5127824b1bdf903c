"""Equality as the codec promises it: with types, at every depth, and with nan equal to nan."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import struct
from typing import Any

import numpy as np


def assert_same(actual: Any, expected: Any, where: str = "value") -> None:
    """Fail unless two values are the same, types, dtypes, byte order and order of keys included."""
    assert type(actual) is type(expected), f"{where}: {type(actual)} is not {type(expected)}"
    kind = type(expected)
    if kind is float:
        assert struct.pack("<d", actual) == struct.pack("<d", expected), f"{where}: {actual!r} != {expected!r}"
    elif kind is complex:
        assert_same(actual.real, expected.real, f"{where}.real")
        assert_same(actual.imag, expected.imag, f"{where}.imag")
    elif isinstance(expected, collections.deque):
        assert actual.maxlen == expected.maxlen, where
        assert_same(list(actual), list(expected), where)
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected), where
        for index, (left, right) in enumerate(zip(actual, expected, strict=True)):
            assert_same(left, right, f"{where}[{index}]")
    elif isinstance(expected, dict):
        assert len(actual) == len(expected), where
        # As lists, and so in their order.
        assert_same(list(actual), list(expected), f"{where}.keys()")
        assert_same(list(actual.values()), list(expected.values()), f"{where}.values()")
        if isinstance(expected, collections.defaultdict):
            assert actual.default_factory is expected.default_factory, where
    elif isinstance(expected, (set, frozenset)):
        # Several nans may be in a set, and 1 and True may not.
        assert collections.Counter(map(_fingerprint, actual)) == collections.Counter(map(_fingerprint, expected)), where
    elif isinstance(expected, np.ndarray):
        assert_same_array(actual, expected, where)
    elif isinstance(expected, np.generic):
        assert actual.dtype == expected.dtype, where
        if isinstance(expected, np.longdouble):
            # Its memory has bytes that mean nothing.
            assert actual == expected or np.isnan(expected), f"{where}: {actual!r} != {expected!r}"
        else:
            assert actual.tobytes() == expected.tobytes(), f"{where}: {actual!r} != {expected!r}"
    elif isinstance(expected, slice):
        for part in ("start", "stop", "step"):
            assert_same(getattr(actual, part), getattr(expected, part), f"{where}.{part}")
    elif isinstance(expected, (datetime.datetime, datetime.time)):
        assert actual.replace(tzinfo=None) == expected.replace(tzinfo=None), where
        assert actual.fold == expected.fold, where
        assert_same(actual.tzinfo, expected.tzinfo, f"{where}.tzinfo")
    elif isinstance(expected, datetime.timezone):
        # Equality of time zones leaves their names out.
        assert repr(actual) == repr(expected), where
    elif dataclasses.is_dataclass(expected):
        for field in dataclasses.fields(expected):
            assert_same(getattr(actual, field.name), getattr(expected, field.name), f"{where}.{field.name}")
    elif actual is not expected:
        # A signalling Decimal refuses to be compared, so the text stands in; it tells -0 from 0, too.
        assert repr(actual) == repr(expected), f"{where}: {actual!r} != {expected!r}"


def assert_same_array(actual: Any, expected: Any, where: str = "array") -> None:
    """Fail unless two arrays have the same items bit by bit, dtype, shape and memory order."""
    assert_same_dtype(actual.dtype, expected.dtype, where)
    assert actual.shape == expected.shape, where
    assert actual.flags.c_contiguous or actual.flags.f_contiguous, where
    if expected.flags.c_contiguous or expected.flags.f_contiguous:
        assert actual.flags.c_contiguous == expected.flags.c_contiguous, where
        assert actual.flags.f_contiguous == expected.flags.f_contiguous, where
    if expected.dtype == object:
        assert_same(actual.tolist(), expected.tolist(), where)
        return
    if expected.dtype.names is None:
        if not np.issubdtype(expected.dtype, np.longdouble) and not np.issubdtype(expected.dtype, np.clongdouble):
            assert actual.tobytes() == expected.tobytes(), where
        else:
            np.testing.assert_array_equal(actual, expected)
        return
    for name in expected.dtype.names:
        assert_same_array(actual[name].copy(), expected[name].copy(), f"{where}.{name}")


def assert_same_dtype(actual: Any, expected: Any, where: str = "dtype") -> None:
    """Fail unless two dtypes agree in everything that numpy's equality passes over, too."""
    assert actual == expected, f"{where}: {actual} is not {expected}"
    assert actual.type is expected.type, where
    assert actual.str == expected.str, where
    assert actual.itemsize == expected.itemsize, where
    assert actual.isalignedstruct == expected.isalignedstruct, where
    if expected.names is not None:
        for name in expected.names:
            assert actual.fields[name][1:] == expected.fields[name][1:], where
            assert_same_dtype(actual.fields[name][0], expected.fields[name][0], f"{where}.{name}")


def _fingerprint(item: Any) -> str:
    if isinstance(item, (tuple, frozenset)):
        parts = [_fingerprint(part) for part in item]
        return f"{type(item)}{parts if isinstance(item, tuple) else sorted(parts)}"
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        # Not its repr, in which a frozenset has the order in which it happened to be filled.
        return f"{type(item)}{[_fingerprint(getattr(item, field.name)) for field in dataclasses.fields(item)]}"
    return f"{type(item)}{item!r}"
