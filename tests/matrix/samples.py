"""The values that are tried between releases, and what they say whatever the release.

Used where pytest and ray are not installed, and where each of the packages may be missing.
"""

from __future__ import annotations

import datetime
import decimal
import math
import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pandas as pd

__all__ = ["SAMPLES", "said"]


def _frame_of_all_kinds() -> Any:
    return pd.DataFrame(
        {
            "i": [1, 2],
            "f": [1.5, None],
            "s": ["a", None],
            "b": [True, False],
            "t": pd.to_datetime(pd.Series(["2020-01-01", None])),
            "c": pd.Categorical(["x", "y"]),
            "n": pd.array([1, None], dtype="Int64"),
        }
    )


def _arrow(values: list[Any], kind: str) -> Any:
    import pyarrow as pa

    return pd.Series(values, dtype=pd.ArrowDtype(pa.type_for_alias(kind)))


def _table() -> Any:
    import pyarrow as pa

    return pa.table(
        {"a": [1, None], "s": ["x", "y"], "l": [[1], None], "t": pa.array([1, 2], pa.timestamp("us", "UTC"))}
    )


def _strings() -> Any:
    return np.array([["a", "b" * 30]], np.dtypes.StringDType())  # type: ignore[attr-defined, unused-ignore]


def _strings_with_missing() -> Any:
    return np.array(["a", None], np.dtypes.StringDType(na_object=None))  # type: ignore[attr-defined, unused-ignore]


def _sparse(form: str) -> Any:
    import scipy.sparse as sp

    return getattr(sp, form)(np.array([[0, 1.5, 0], [2, 0, 0]]))


def _polars() -> Any:
    import polars as pl

    return pl.DataFrame({"a": [1, None], "s": ["x", None], "t": [datetime.date(2020, 1, 1), None], "l": [[1], []]})


SAMPLES: Final[dict[str, Callable[[], Any]]] = {
    "frame of all kinds": _frame_of_all_kinds,
    "frame with named columns": lambda: pd.DataFrame({"a": [1, 2], "b": [1.5, 2.5]}),
    "frame with texts as index": lambda: pd.DataFrame({"a": [1]}, index=["x"]).rename_axis(index="i", columns="c"),
    "empty frame": pd.DataFrame,
    "empty frame with columns": lambda: pd.DataFrame(columns=["a", "b"]),
    "empty frame with dtypes": lambda: _frame_of_all_kinds().iloc[:0],
    "frame of other columns": lambda: pd.DataFrame([[1, 2]], columns=["a", 1]),
    "frame with levels of columns": lambda: pd.DataFrame(
        [[1, 2]], columns=pd.MultiIndex.from_product([["a"], ["b", 1]])
    ),
    "series of texts": lambda: pd.Series(["a", None, "ü"], name="s"),
    "series of texts and nothing missing": lambda: pd.Series(["a", "b"]),
    "series of objects": lambda: pd.Series(["a", None, 1, (2,)], dtype=object),
    "series of string": lambda: pd.Series(["a", None], dtype="string"),
    "series of string[python]": lambda: pd.Series(["a", None], dtype="string[python]"),
    "series of string[pyarrow]": lambda: pd.Series(["a", None], dtype="string[pyarrow]"),
    "series of Int64": lambda: pd.Series([1, None], dtype="Int64"),
    "series of boolean": lambda: pd.Series([True, None], dtype="boolean"),
    "series of Float32": lambda: pd.Series([1.5, None], dtype="Float32"),
    "series of int64[pyarrow]": lambda: _arrow([1, None], "int64"),
    "series of double[pyarrow]": lambda: _arrow([1.5, None], "double"),
    "series of bool[pyarrow]": lambda: _arrow([True, None], "bool"),
    "series of string[pyarrow] by ArrowDtype": lambda: _arrow(["a", None], "string"),
    "series of date32[pyarrow]": lambda: _arrow([datetime.date(2020, 1, 1), None], "date32"),
    "series of categories": lambda: pd.Series(pd.Categorical(["a", "b", None], categories=["b", "a"], ordered=True)),
    "series of numbers as categories": lambda: pd.Series([3, 1, 3], dtype="category"),
    "series of times": lambda: pd.to_datetime(pd.Series(["2020-01-01 12:00", None])),
    "series of times with a zone": lambda: pd.Series(pd.to_datetime(["2020-07-01"]).tz_localize("Europe/Paris")),
    "series of times in seconds": lambda: pd.Series(np.array(["2020"], "M8[s]")),
    "series of time differences": lambda: pd.Series(pd.to_timedelta([1, 2], unit="h")),
    "series of periods": lambda: pd.Series(pd.period_range("2020", periods=2, freq="M")),
    "series of intervals": lambda: pd.Series(pd.interval_range(0, 2)),
    "index of texts": lambda: pd.Index(["b", "a"], name="i"),
    "index of texts with one missing": lambda: pd.Index(["b", None]),
    "index of several levels": lambda: pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["x", None]),
    "index of days": lambda: pd.date_range("2020", periods=2),
    "index of days with a zone": lambda: pd.date_range("2020-03-28", periods=3, tz="Europe/Paris"),
    "index of months": lambda: pd.date_range("2020", periods=2, freq="MS"),
    "indexes of other frequencies": lambda: [
        pd.date_range("2020", periods=2, freq=freq) for freq in ("W", "B", "QE", "YE", "h", "min", "SME", "bh", "2D")
    ],
    "index of time differences": lambda: pd.timedelta_range("1D", periods=2, freq="D"),
    "periods of other frequencies": lambda: [
        pd.period_range("2020", periods=2, freq=freq) for freq in ("Y", "Q", "W", "D", "h", "min", "s", "2M")
    ],
    "index of categories": lambda: pd.CategoricalIndex(["a", "b"]),
    "timestamp": lambda: [pd.Timestamp("2020-01-01 01:02:03"), pd.Timedelta("1h"), pd.NaT, pd.NA],
    "array of numbers": lambda: np.arange(6.0).reshape(2, 3),
    "array of texts": lambda: np.array(["a", "ü"]),
    "array of objects": lambda: np.array([["a", None], [1, (2,)]], dtype=object),
    "array of structures": lambda: np.array([(1, 2.5)], [("a", "<i4"), ("b", "<f8")]),
    "array of StringDType": _strings,
    "array of StringDType with one missing": _strings_with_missing,
    "array of times": lambda: np.array(["2020-01-01", "NaT"], "M8[D]"),
    "scalars of numpy": lambda: [np.float32(1.5), np.int64(2), np.bool_(True), np.str_("a")],
    "Arrow table": _table,
    "csr_matrix": lambda: _sparse("csr_matrix"),
    "csc_array": lambda: _sparse("csc_array"),
    "coo_array": lambda: _sparse("coo_array"),
    "polars frame": _polars,
}
"""What makes each of them. It raises where the package, or what it is made of, is not there."""


def said(value: Any) -> Any:
    """What a value says, in JSON's types: equal for values that mean the same, however they are kept."""
    if isinstance(value, pd.DataFrame):
        return {
            "columns": said(value.columns),
            "index": said(value.index),
            "values": [said(value.iloc[:, number]) for number in range(value.shape[1])],
        }
    if isinstance(value, pd.Series):
        return {"name": said(value.name), "index": said(value.index), "values": said(value.array)}
    if isinstance(value, pd.Index):
        names, freq = said(list(value.names)), getattr(value, "freqstr", None)
        return {"names": names, "freq": freq, "values": [said(item) for item in value]}
    if isinstance(value, pd.Categorical):
        order = {"categories": said(list(value.categories)), "ordered": value.ordered}
        return {**order, "values": [said(item) for item in value]}
    if isinstance(value, (list, tuple, pd.api.extensions.ExtensionArray)):
        return [said(item) for item in value]
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape), "values": [said(item) for item in value.reshape(-1)]}
    polars, scipy = sys.modules.get("polars"), sys.modules.get("scipy.sparse")
    if polars is not None and isinstance(value, polars.DataFrame):
        return [[name, said(column)] for name, column in value.to_dict(as_series=False).items()]
    if scipy is not None and scipy.issparse(value):
        return {"class": type(value).__name__, "values": said(value.toarray())}
    if type(value).__module__.startswith("pyarrow"):
        return [[name, said(column)] for name, column in value.to_pydict().items()]
    return _said_of_scalar(value)


def _said_of_scalar(value: Any) -> Any:
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, (np.datetime64, np.timedelta64, np.void)):
        return str(value)
    if isinstance(value, np.generic):
        return said(value.item())
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, (pd.Timestamp, pd.Timedelta, datetime.date)):
        return value.isoformat()
    if isinstance(value, pd.Interval):
        return [said(value.left), said(value.right), value.closed]
    if isinstance(value, (pd.Period, decimal.Decimal, complex)):
        return str(value)
    return value
