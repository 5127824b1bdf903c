"""Receipts: small results in bytes."""

from __future__ import annotations

import dataclasses
import pickle
import threading
from typing import Any

import numpy as np
import pytest

from fed.serde.data import DataCodec
from fed.serde.receipt import MAX_BYTES, SmallCodec, SmallValue
from tests.support.values import Plain

WRITER = SmallCodec([Plain], 1000)
CODEC = DataCodec([Plain])


def value_of(small: SmallValue | None) -> Any:
    assert small is not None
    return CODEC.decode(small.header, tuple(map(memoryview, small.buffers)))


@pytest.mark.parametrize("value", [7, None, "text", {"a": [1, (2,)]}, Plain(1, [2]), b"x" * 900], ids=str)
def test_a_small_value_is_in_it_as_the_codec_writes_it(value: Any) -> None:
    (small,) = WRITER.write((value,)) or (None,)
    assert value_of(small) == value


def test_a_small_array_is_copied() -> None:
    array = np.arange(50)
    receipt = pickle.loads(pickle.dumps(WRITER.write((array,))))
    array[:] = 0
    assert (value_of(receipt[0]) == np.arange(50)).all()


class Strange:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@dataclasses.dataclass
class Undeclared:
    a: int


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(1000),
        b"x" * 1001,
        list(range(10_000)),
        threading.Lock(),
        Strange(),
        Undeclared(1),
        {1: threading.Lock()},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_large_or_no_data_is_left_to_whoever_needs_it(value: Any) -> None:
    assert WRITER.write((value,)) is None
    receipt = WRITER.write((value, 7))
    assert receipt is not None
    assert (receipt[0], value_of(receipt[1])) == (None, 7)


def test_a_writer_can_be_passed_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(WRITER)).write((Plain(1, []),)) == WRITER.write((Plain(1, []),))


def test_no_results_have_no_receipt() -> None:
    assert WRITER.write(()) is None


def test_a_receipt_is_small_whatever_the_number_of_results() -> None:
    writer = SmallCodec([], 1 << 20)
    receipt = writer.write([bytes(20_000)] * 20)
    assert receipt is not None
    assert [small is not None for small in receipt] == [True] * 3 + [False] * 17
    assert len(pickle.dumps(receipt)) < MAX_BYTES + 1000
    assert writer.write([bytes(MAX_BYTES)]) is None


def test_where_nothing_is_small_nothing_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DataCodec, "encode", None)
    assert SmallCodec([], 0).write([7]) is None
