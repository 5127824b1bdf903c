"""What to send instead of a value that cannot cross."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Final

from fed.serde.declared import is_declarable

__all__ = ["way_out"]

_BUILTIN_BASES: Final = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)

_TO_SEND: Final = {
    "PIL.Image": "numpy.asarray(value)",
    "_io.BytesIO": "value.getvalue()",
    "array.array": "numpy.asarray(value)",
    "builtins.BaseException": "str(value)",
    "builtins.builtin_function_or_method": "what it returns",
    "builtins.function": "what it returns",
    "builtins.mappingproxy": "dict(value)",
    "builtins.memoryview": "bytes(value)",
    "builtins.method": "what it returns",
    "builtins.type": "its name",
    "google.Message": "value.SerializeToString()",
    "ipaddress._IPAddressBase": "str(value)",
    "lightgbm.Booster": "value.model_to_string(), or declare it with fed.codec(...)",
    "lightgbm.LGBMModel": "value.booster_.model_to_string(), or declare it with fed.codec(...)",
    "networkx.Graph": "networkx.node_link_data(value)",
    "polars.LazyFrame": "value.collect()",
    "pydantic.BaseModel": "value.model_dump(), or declare it with fed.codec(...)",
    "pytz.BaseTzInfo": "a time with zoneinfo.ZoneInfo(...)",
    "re.Pattern": "value.pattern",
    "sklearn.BaseEstimator": "what it has learned, such as value.coef_, or declare it with fed.codec(...)",
    "types.SimpleNamespace": "vars(value)",
    "xgboost.Booster": "value.save_raw(), or declare it with fed.codec(...)",
    "xgboost.XGBModel": "value.get_booster().save_raw(), or declare it with fed.codec(...)",
}
"""By the first part of a class's module and its name. Subclasses have it too."""


def way_out(kind: type) -> str:
    """What to do with the instances of a class that no rule covers, as the end of a sentence."""
    if is_declarable(kind):
        declare = f"declare the class in every party with fed.init(types=[{kind.__name__}])"
        # A dict beside its fields may hold what no declaration would bring along.
        if issubclass(kind, tuple) and kind.__dictoffset__:
            return f"send tuple(value), or, if it holds nothing that its fields do not name, {declare}"
        return declare
    if kind.__module__.partition(".")[0] == "ray":
        return "only the Ray cluster of this party knows what it stands for; return that, as from ray.get(...)"
    for cls in kind.__mro__:
        told = _TO_SEND.get(f"{cls.__module__.partition('.')[0]}.{cls.__name__}")
        if told is not None:
            return f"codec 'data' carries plain data only; send {told}"
    if hasattr(kind, "__attrs_attrs__"):
        return "codec 'data' carries plain data only; send attrs.asdict(value), or declare it with fed.codec(...)"
    for base in _BUILTIN_BASES:
        if issubclass(kind, base):
            return f"a subclass would arrive as a plain {base.__name__}; convert it with {base.__name__}(...) first"
    if issubclass(kind, (Iterator, KeysView, ValuesView, ItemsView)):
        return "codec 'data' carries plain data only; send list(value)"
    return (
        "codec 'data' carries plain data only; send builtin types and arrays, "
        "or declare it with fed.init(types=[...]): as a dataclass, or any class with fed.codec(...)"
    )
