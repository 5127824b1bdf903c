"""What a refusal says to send instead, and that it does cross."""

from __future__ import annotations

import array
import dataclasses
import io
import ipaddress
import re
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from fed.serde.contract import EncodeError
from fed.serde.data import DataCodec
from fed.serde.ways_out import _TO_SEND, way_out
from tests.support.values import CODEC, roundtrip


class Case(NamedTuple):
    """A value that is refused, what the refusal says, and that as code."""

    make: Callable[[], Any]
    sentence: str
    instead: Callable[[Any], Any]


def _pydantic() -> Any:
    pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed")
    return pydantic.create_model("Settings", rate=(float, 0.5), names=(list[str], ["a"]))()


def _estimator() -> Any:
    from sklearn.linear_model import LinearRegression

    return LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])


def _attrs() -> Any:
    attrs = pytest.importorskip("attrs", reason="attrs is not installed")
    return attrs.make_class("Point", ["x"])(1)


def _attrs_as_dict(value: Any) -> Any:
    import attrs

    return attrs.asdict(value)


def _message() -> Any:
    from google.protobuf.wrappers_pb2 import Int32Value

    return Int32Value(value=3)


def _image() -> Any:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    return image.new("RGB", (2, 1))


def _lazy() -> Any:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    return polars.LazyFrame({"a": [1]})


def _graph() -> Any:
    return pytest.importorskip("networkx", reason="networkx is not installed").path_graph(2)


def _node_link_data(value: Any) -> Any:
    import networkx

    return networkx.node_link_data(value)


def _xgboost(sklearn: bool) -> Any:
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    if sklearn:
        return xgboost.XGBRegressor(n_estimators=1).fit([[0.0], [1.0]], [0.0, 1.0])
    return xgboost.train({}, xgboost.DMatrix(np.eye(2), label=[0, 1]), 1)


def _lightgbm(sklearn: bool) -> Any:
    lightgbm = pytest.importorskip("lightgbm", reason="lightgbm is not installed")
    rows, labels = np.arange(100.0).reshape(50, 2), np.arange(50.0)
    if sklearn:
        return lightgbm.LGBMRegressor(n_estimators=1, verbose=-1).fit(rows, labels)
    return lightgbm.train({"verbose": -1}, lightgbm.Dataset(rows, labels), 1)


def _zone() -> Any:
    return pytest.importorskip("pytz", reason="pytz is not installed").timezone("Europe/Paris")


def _linregress() -> Any:
    from scipy import stats

    return stats.linregress([0.0, 1.0, 2.0], [0.0, 2.0, 4.5])


def _t_test() -> Any:
    from scipy import stats

    return stats.ttest_1samp([0.0, 1.0, 2.0], 0.5)


CASES = {
    "pydantic": Case(_pydantic, "send value.model_dump(), or declare it with fed.codec(...)", lambda v: v.model_dump()),
    "sklearn": Case(_estimator, "send what it has learned, such as value.coef_, or declare it with", lambda v: v.coef_),
    "attrs": Case(_attrs, "send attrs.asdict(value), or declare it with fed.codec(...)", _attrs_as_dict),
    "protobuf": Case(_message, "send value.SerializeToString()", lambda v: v.SerializeToString()),
    "pillow": Case(_image, "send numpy.asarray(value)", np.asarray),
    "polars": Case(_lazy, "send value.collect()", lambda v: v.collect()),
    "networkx": Case(_graph, "send networkx.node_link_data(value)", _node_link_data),
    "xgboost": Case(lambda: _xgboost(False), "send value.save_raw(), or declare it with", lambda v: v.save_raw()),
    "xgboost's own estimator": Case(
        lambda: _xgboost(True), "send value.get_booster().save_raw(), or", lambda v: v.get_booster().save_raw()
    ),
    "lightgbm": Case(lambda: _lightgbm(False), "send value.model_to_string(), or", lambda v: v.model_to_string()),
    "lightgbm's own estimator": Case(
        lambda: _lightgbm(True), "send value.booster_.model_to_string(), or", lambda v: v.booster_.model_to_string()
    ),
    "linregress": Case(_linregress, "send tuple(value), or, if it holds nothing", tuple),
    "t-test": Case(_t_test, "send tuple(value), or, if it holds nothing", tuple),
    "pytz": Case(_zone, "send a time with zoneinfo.ZoneInfo(...)", lambda v: __import__("zoneinfo").ZoneInfo(str(v))),
    "function": Case(lambda: _zone, "send what it returns", lambda v: 1),
    "lambda": Case(lambda: lambda: 1, "send what it returns", lambda v: v()),
    "builtin": Case(lambda: len, "send what it returns", lambda v: v([])),
    "method": Case(lambda: CODEC.encode, "send what it returns", lambda v: v(1).header),
    "class": Case(lambda: int, "send its name", lambda v: v.__name__),
    "exception": Case(lambda: KeyError("k"), "send str(value)", str),
    "memoryview": Case(lambda: memoryview(b"x"), "send bytes(value)", bytes),
    "array": Case(lambda: array.array("d", [1.0]), "send numpy.asarray(value)", np.asarray),
    "mappingproxy": Case(lambda: types.MappingProxyType({"a": 1}), "send dict(value)", dict),
    "namespace": Case(lambda: types.SimpleNamespace(a=1), "send vars(value)", vars),
    "pattern": Case(lambda: re.compile("a"), "send value.pattern", lambda v: v.pattern),
    "file in memory": Case(lambda: io.BytesIO(b"x"), "send value.getvalue()", lambda v: v.getvalue()),
    "address": Case(lambda: ipaddress.ip_address("::1"), "send str(value)", str),
    "network": Case(lambda: ipaddress.ip_network("10.0.0.0/8"), "send str(value)", str),
    "generator": Case(lambda: (i for i in (1, 2)), "send list(value)", list),
    "zip": Case(lambda: zip("ab", "cd", strict=True), "send list(value)", list),
    "keys": Case(lambda: {"a": 1}.keys(), "send list(value)", list),
    "values": Case(lambda: {"a": 1}.values(), "send list(value)", list),
    "items": Case(lambda: {"a": 1}.items(), "send list(value)", list),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_refusal_says_to_send_crosses(name: str) -> None:
    case = CASES[name]
    value = case.make()
    with pytest.raises(EncodeError) as caught:
        CODEC.encode([value])
    assert case.sentence in str(caught.value)
    roundtrip(case.instead(value))


def test_every_way_out_has_been_tried() -> None:
    sentences = " ".join(case.sentence for case in CASES.values())
    assert not [instead for instead in _TO_SEND.values() if f"send {instead.partition(', or')[0]}" not in sentences]


def test_a_result_of_scipy_crosses_with_all_that_it_holds_when_its_class_is_declared() -> None:
    value = _linregress()
    arrived = roundtrip([value], DataCodec([type(value)]))[0]
    assert type(arrived) is type(value)
    assert arrived == value
    assert arrived.intercept_stderr == value.intercept_stderr
    assert repr(arrived) == repr(value)


def test_a_result_that_holds_more_than_it_names_is_not_told_to_declare_what_is_declared() -> None:
    value = _t_test()
    with pytest.raises(EncodeError) as caught:
        DataCodec([type(value)]).encode(value)
    assert "would be lost; send tuple(value)" in str(caught.value)
    assert roundtrip(tuple(value)) == tuple(value)


def test_a_class_that_can_be_declared_is_told_so() -> None:
    @dataclasses.dataclass
    class Point:
        x: int

    assert way_out(Point) == "declare the class in every party with fed.init(types=[Point])"
