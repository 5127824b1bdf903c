"""What cannot cross, and what its sender is told."""

from __future__ import annotations

import ast
import collections
import datetime
import threading
import zoneinfo
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

import fed.serde
from fed.serde.contract import EncodeError
from fed.serde.data import DataCodec
from tests.support.values import CODEC, Pair, Plain


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Items(list):  # type: ignore[type-arg]
    pass


class Mapping(dict):  # type: ignore[type-arg]
    pass


class Opaque:
    def __repr__(self) -> str:
        raise RuntimeError("nobody calls this")


class OtherZone(datetime.tzinfo):
    def utcoffset(self, moment: datetime.datetime | None) -> datetime.timedelta:
        return datetime.timedelta(0)

    def tzname(self, moment: datetime.datetime | None) -> str:
        return "other"

    def dst(self, moment: datetime.datetime | None) -> datetime.timedelta:
        return datetime.timedelta(0)


def _frame_without_key() -> zoneinfo.ZoneInfo:
    import io
    import struct

    data = b"TZif" + b"\0" * 16 + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", 0, 0, 0) + b"UTC\0"
    return zoneinfo.ZoneInfo.from_file(io.BytesIO(data))


@pytest.mark.parametrize(
    ("value", "type_name", "way_out"),
    [
        (Text("x"), "Text", "convert it with str(...)"),
        (Number(1), "Number", "convert it with int(...)"),
        (Real(1), "Real", "convert it with float(...)"),
        (Items(), "Items", "convert it with list(...)"),
        (Mapping(), "Mapping", "convert it with dict(...)"),
        (Opaque(), "Opaque", "fed.init(types=[...])"),
        (Opaque, "type", "plain data only"),
        (len, "builtin_function_or_method", "plain data only"),
        (threading.Lock(), "lock", "plain data only"),
        (memoryview(b"x"), "memoryview", "plain data only"),
        (msgpack.ExtType(2, b""), "ExtType", "fed.init(types=[ExtType])"),
        (msgpack.Timestamp(1), "Timestamp", "plain data only"),
        (ValueError("x"), "ValueError", "plain data only"),
        (..., "ellipsis", "plain data only"),
        (iter([1]), "list_iterator", "plain data only"),
        (collections.defaultdict(lambda: 1), "defaultdict", "convert it with dict(...)"),
        (np.array([(1, None)], dtype="i4,O"), "ndarray", "Python objects"),
        (np.ma.masked_array([1], [True]), "MaskedArray", ".filled()"),
        (np.ones((1, 1)).view(np.matrix), "matrix", "numpy.asarray(...)"),
        (_frame_without_key(), "ZoneInfo", "names no zone"),
        (type("ObjectRef", (), {"__module__": "ray"})(), "ObjectRef", "return that, as from ray.get(...)"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_the_error_names_type_place_and_way_out(value: Any, type_name: str, way_out: str) -> None:
    for container, where in (
        (value, ""),
        ([0, 1, 2, {"weights": value}], "[3]['weights']"),
        ({(1,): (Plain(value),)}, "[tuple][0].a"),
        ([Pair(0, value)], "[0].right"),
        (collections.OrderedDict(k=value), "['k']"),
        (slice(value), ".stop"),
    ):
        with pytest.raises(EncodeError) as caught:
            CODEC.encode(container)
        assert caught.value.type_name.endswith(type_name)
        assert caught.value.where == where
        message = str(caught.value)
        assert type_name in message
        assert (where or "the top of the value") in message
        assert way_out in message


def test_keys_and_items_of_sets_have_a_place_too() -> None:
    with pytest.raises(EncodeError) as caught:
        CODEC.encode({"a": {1: 0, Text("k"): 1}})
    assert caught.value.where == "['a'].keys()[1]"
    with pytest.raises(EncodeError) as caught:
        CODEC.encode([{Text("k")}])
    assert caught.value.where == "[0]{...}"


def test_a_time_zone_of_ones_own_is_refused() -> None:
    for value in (datetime.datetime(2020, 1, 1, tzinfo=OtherZone()), datetime.time(1, tzinfo=OtherZone())):
        with pytest.raises(EncodeError) as caught:
            CODEC.encode([value])
        assert (caught.value.type_name, caught.value.where) == ("OtherZone", "[0].tzinfo")


def test_a_long_key_is_cut_and_a_strange_one_is_not_shown() -> None:
    with pytest.raises(EncodeError) as caught:
        CODEC.encode({"k" * 10_000: object()})
    assert len(caught.value.where) < 100
    with pytest.raises(EncodeError) as caught:
        CODEC.encode({Plain: 1, (Opaque(),): object()})
    assert caught.value.where == ".keys()[0]"


def test_code_that_a_value_brings_along_cannot_fail_in_any_other_way() -> None:
    class Growing(collections.deque):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[Any]:
            raise KeyError("mine")

    codec = DataCodec()
    codec._rules[Growing] = codec._rules[collections.deque]
    with pytest.raises(EncodeError, match="KeyError: 'mine'"):
        codec.encode(Growing())


def test_refusing_leaves_the_codec_as_it_was() -> None:
    with pytest.raises(EncodeError):
        CODEC.encode([np.zeros(3), object()])
    assert len(CODEC.encode([np.zeros(3)]).buffers) == 1


def _says_nothing_of_a_value(text: ast.expr) -> bool:
    """Whether a text is a constant, or is made of constants and names of classes."""
    if isinstance(text, ast.IfExp):
        return _says_nothing_of_a_value(text.body) and _says_nothing_of_a_value(text.orelse)
    if isinstance(text, ast.JoinedStr):
        return all(map(_says_nothing_of_a_value, text.values))
    if isinstance(text, ast.FormattedValue):
        inner = text.value
        if isinstance(inner, ast.Attribute):
            return inner.attr == "__name__"
        # The two are what `way_out` has made of its own texts.
        return isinstance(inner, ast.Name) and (inner.id.isupper() or inner.id in {"told", "declare"})
    return isinstance(text, ast.Constant)


def test_the_reasons_that_all_parties_read_are_texts_of_the_code() -> None:
    reasons: list[ast.expr] = []
    for path in Path(fed.serde.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Refused":
                reasons.append(node.args[1])
            if isinstance(node, ast.FunctionDef) and node.name == "way_out":
                reasons += [part.value for part in ast.walk(node) if isinstance(part, ast.Return) and part.value]
    assert len(reasons) > 20
    odd = {ast.unparse(reason) for reason in reasons if not _says_nothing_of_a_value(reason)}
    assert odd == {"declare", "way_out(kind)"}
