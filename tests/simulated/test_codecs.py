"""Codecs of the user's own classes in a whole federation."""

from __future__ import annotations

import json
from typing import Any

import pytest

import fed
from fed.serde.builtin import LARGE_BYTES
from fed.testing import simulate
from tests.support.failing import run


class Model:
    def __init__(self, weights: list[float]) -> None:
        self.weights = weights


def _to_bytes(model: Model) -> bytes:
    return json.dumps(model.weights).encode()


def _from_bytes(data: bytes) -> Model:
    return Model(json.loads(data))


def _raise(given: Any) -> Any:
    raise ValueError("seven")


MODEL = fed.codec(Model, to_bytes=_to_bytes, from_bytes=_from_bytes)


@fed.remote
def train(count: int) -> Model:
    return Model([0.5] * count)


@fed.remote
def total(model: Model) -> float:
    return sum(model.weights)


@pytest.mark.parametrize("count", [4, LARGE_BYTES])
def test_a_model_crosses_to_a_task_and_to_every_driver(count: int) -> None:
    def main() -> tuple[float, list[float]]:
        with fed.job(types=[MODEL]):
            model = train.party("alice").remote(count)
            return fed.get(total.party("bob").remote(model)), fed.get(model).weights

    assert set(map(repr, simulate(main, parties=["alice", "bob"]).values())) == {repr((count / 2, [0.5] * count))}


def test_a_codec_that_only_one_party_declares_is_told_before_the_job_begins() -> None:
    errors = run(lambda: None, parties=["alice", "bob"], own={"alice": {"types": [MODEL]}}, skip_waiting=True).errors
    told = f"different declared types: party 'alice' has 'fed.codec({__name__}.Model)', which party 'bob' lacks"
    assert {type(error) for error in errors.values()} == {fed.InitError}
    assert any(told in str(error) for error in errors.values())


def test_a_class_that_is_declared_twice_is_a_mistake_of_the_program() -> None:
    def main() -> str:
        with pytest.raises(fed.ConfigError) as caught, fed.job(types=[MODEL, MODEL]):
            pass
        return str(caught.value)

    for sentence in simulate(main, parties=["alice", "bob"]).values():
        assert sentence == f"types[1]: another class in types is also named {__name__}.Model"


@pytest.mark.parametrize(
    ("codec", "type_name"),
    [
        (fed.codec(Model, to_bytes=_raise, from_bytes=_from_bytes), "Model"),
        (fed.codec(Model, to_bytes=lambda model: "text", from_bytes=_from_bytes), "Model"),  # type: ignore[arg-type, return-value]
        (fed.codec(Model, to_bytes=_to_bytes, from_bytes=_raise), "DecodeError"),
        (fed.codec(Model, to_bytes=_to_bytes, from_bytes=lambda data: None), "DecodeError"),  # type: ignore[arg-type, return-value]
    ],
    ids=["to_bytes raises", "to_bytes returns a str", "from_bytes raises", "from_bytes returns None"],
)
def test_a_codec_that_fails_spoils_the_value_and_hands_over_no_text(codec: Any, type_name: str) -> None:
    def main() -> str:
        with pytest.raises(fed.FailureError) as caught, fed.job(types=[codec]):
            fed.get(total.party("bob").remote(train.party("alice").remote(3)))
        assert caught.value.failure.type_name == type_name
        return str(caught.value)

    sentences = simulate(main, parties=["alice", "bob"])
    blamed, other = ("alice", "bob") if type_name == "Model" else ("bob", "alice")
    assert "of its codec" in sentences[blamed] or "of the codec of" in sentences[blamed]
    assert "seven" not in sentences[other]
