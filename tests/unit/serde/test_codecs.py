"""A class of the user's own that crosses by two functions of the user's."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest

import fed
from fed.config import TypeCodec, declared_name
from fed.serde.builtin import LARGE_BYTES
from fed.serde.contract import DecodeError, EncodeError
from fed.serde.data import DataCodec
from fed.serde.receipt import SmallCodec
from tests.support.values import Plain, roundtrip


class Model:
    def __init__(self, weights: list[float]) -> None:
        self.weights = weights

    def to_bytes(self) -> bytes:
        return json.dumps(self.weights).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Model:
        return cls(json.loads(data))


class Better(Model):
    pass


class BadText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


DECLARED = fed.codec(Model, to_bytes=Model.to_bytes, from_bytes=Model.from_bytes)
CODEC = DataCodec([DECLARED, Plain])


def _raising(error: BaseException) -> Callable[[Any], Any]:
    def function(given: Any) -> Any:
        raise error

    return function


@pytest.mark.parametrize("count", [0, 3, LARGE_BYTES])
def test_a_class_with_a_codec_crosses_at_every_depth(count: int) -> None:
    model = Model([0.5] * count)
    arrived = roundtrip({"k": [Plain(model)]}, CODEC)["k"][0].a
    assert type(arrived) is Model
    assert arrived.weights == model.weights


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview], ids=lambda make: make.__name__)
def test_whatever_is_bytes_is_taken_for_bytes(make: Any) -> None:
    given: list[Any] = []

    def keep(data: bytes) -> Model:
        given.append(data)
        return Model([])

    codec = DataCodec([fed.codec(Model, to_bytes=lambda model: make(b"abc"), from_bytes=keep)])
    roundtrip(Model([]), codec)
    assert given == [b"abc"]
    assert type(given[0]) is bytes


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (lambda model: "text", "to_bytes of its codec returned no bytes (a str)"),
        (lambda model: None, "to_bytes of its codec returned no bytes (a NoneType)"),
        (_raising(ValueError("no")), "to_bytes of its codec raised an exception (ValueError: no)"),
        (_raising(SystemExit(3)), "to_bytes of its codec raised an exception (SystemExit: 3)"),
        (_raising(BadText()), "to_bytes of its codec raised an exception (BadText: <its __str__ raised RuntimeError>)"),
    ],
    ids=range(5),
)
def test_a_bad_to_bytes_spoils_the_value_and_is_named(function: Any, complaint: str) -> None:
    codec = DataCodec([fed.codec(Model, to_bytes=function, from_bytes=Model.from_bytes)])
    with pytest.raises(EncodeError) as caught:
        codec.encode({"w": Model([])})
    assert str(caught.value) == f"cannot encode {__name__}.Model at ['w']: {complaint}"
    assert (caught.value.type_name, caught.value.where) == ("Model", "['w']")


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (lambda data: {}, "returned a dict instead"),
        (_raising(ValueError("no")), "raised ValueError: no"),
        (_raising(SystemExit(3)), "raised SystemExit: 3"),
        (_raising(BadText()), "raised BadText: <its __str__ raised RuntimeError>"),
    ],
    ids=range(4),
)
def test_a_bad_from_bytes_spoils_the_value_and_is_named(function: Any, complaint: str) -> None:
    codec = DataCodec([fed.codec(Model, to_bytes=Model.to_bytes, from_bytes=function)])
    with pytest.raises(DecodeError) as caught:
        roundtrip([Model([])], codec)
    assert str(caught.value) == f"from_bytes of the codec of {__name__}.Model {complaint}"


def test_an_interruption_is_not_taken_for_an_error_of_the_codec() -> None:
    codec = DataCodec([fed.codec(Model, to_bytes=_raising(KeyboardInterrupt()), from_bytes=Model.from_bytes)])
    with pytest.raises(KeyboardInterrupt):
        codec.encode(Model([]))


def test_a_subclass_is_another_class() -> None:
    with pytest.raises(EncodeError, match=r"Better at \[0\]: codec 'data' carries plain data only"):
        CODEC.encode([Better([])])


def test_a_codec_runs_only_where_it_is_declared() -> None:
    encoded = CODEC.encode(Model([1.0]))
    with pytest.raises(DecodeError, match="Model' is not declared here"):
        DataCodec().decode(*encoded)
    with pytest.raises(EncodeError, match=r"fed\.codec\(\.\.\.\)"):
        DataCodec().encode(Model([]))


def test_bytes_of_a_codec_are_not_those_of_a_declared_class() -> None:
    as_codec = DataCodec([fed.codec(Plain, to_bytes=lambda plain: b"", from_bytes=lambda data: Plain(7))])
    as_class = DataCodec([Plain])
    assert roundtrip(Plain(1), as_codec).a == 7
    for one, other in ((as_codec, as_class), (as_class, as_codec)):
        with pytest.raises(DecodeError, match="is not declared here"):
            other.decode(*one.encode(Plain(1)))


@pytest.mark.parametrize("cls", [int, str, dict, tuple, bytes], ids=lambda cls: cls.__name__)
def test_what_crosses_as_it_is_takes_no_codec(cls: type) -> None:
    with pytest.raises(TypeError, match=rf"types\[1\]: a {cls.__name__} crosses as it is, and takes no codec"):
        DataCodec([Plain, TypeCodec(cls, bytes, cls)])


def test_a_class_is_declared_once() -> None:
    with pytest.raises(ValueError, match=r"types\[1\]: another class in types is also named .*Model"):
        DataCodec([DECLARED, DECLARED])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((3, bytes, bytes), "fed.codec: expected a class, found int"),
        ((Model, None, bytes), "fed.codec(Model): expected a function for to_bytes, found NoneType"),
        ((Model, bytes, "x"), "fed.codec(Model): expected a function for from_bytes, found str"),
    ],
)
def test_what_is_no_codec_is_refused_where_it_is_made(arguments: Any, sentence: str) -> None:
    cls, to_bytes, from_bytes = arguments
    with pytest.raises(fed.ConfigError) as caught:
        fed.codec(cls, to_bytes=to_bytes, from_bytes=from_bytes)
    assert str(caught.value) == sentence


def test_functions_that_cannot_be_copied_are_refused_where_they_are_given() -> None:
    lock = threading.Lock()

    def locked(model: Model) -> bytes:
        with lock:
            return b""

    with pytest.raises(
        fed.ConfigError, match=r"^fed\.codec\(Model\): it cannot be sent to the processes of this party"
    ):
        fed.codec(Model, to_bytes=locked, from_bytes=Model.from_bytes)


def test_a_class_with_a_codec_has_a_name_of_its_own_in_the_greeting() -> None:
    assert declared_name(DECLARED) == f"fed.codec({__name__}.Model)"
    assert declared_name(Plain) == "tests.support.values.Plain"


def test_of_what_takes_unknown_time_there_is_no_receipt() -> None:
    codec = SmallCodec([DECLARED], 1 << 16)
    assert codec.write((Model([1.0]),)) == b""
    assert codec.write((1,)) != b""


def test_a_codec_can_be_pickled_by_what_ray_pickles_with() -> None:
    copy = cloudpickle.loads(
        cloudpickle.dumps(fed.codec(Model, to_bytes=lambda model: b"x", from_bytes=Model.from_bytes))
    )
    assert copy.cls is Model
    assert copy.to_bytes(Model([])) == b"x"
