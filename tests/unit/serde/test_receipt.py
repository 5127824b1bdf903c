"""Receipts: small results in bytes."""

from __future__ import annotations

import dataclasses
import pickle
import threading
from typing import Any

import numpy as np
import pytest

from fed.serde.data import DataCodec
from fed.serde.receipt import MAX_BYTES, Receipt, SmallCodec, SmallValue, read_receipt
from tests.support.values import Plain

WRITER = SmallCodec([Plain], 1000)
CODEC = DataCodec([Plain])


def value_of(small: SmallValue | None) -> Any:
    assert small is not None
    return CODEC.decode(small.header, tuple(map(memoryview, small.buffers)))


def receipt_of(*results: Any, writer: SmallCodec = WRITER) -> Receipt:
    return read_receipt(writer.write(results))


@pytest.mark.parametrize("value", [7, None, "text", {"a": [1, (2,)]}, Plain(1, [2]), b"x" * 900], ids=str)
def test_a_small_value_is_in_it_as_the_codec_writes_it(value: Any) -> None:
    (small,) = receipt_of(value) or (None,)
    assert value_of(small) == value


def test_a_small_array_is_copied() -> None:
    array = np.arange(50)
    data = WRITER.write((array,))
    array[:] = 0
    (small,) = read_receipt(data) or (None,)
    assert (value_of(small) == np.arange(50)).all()


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
    assert receipt_of(value) is None
    receipt = receipt_of(value, 7)
    assert receipt is not None
    assert (receipt[0], value_of(receipt[1])) == (None, 7)


def test_a_writer_can_be_passed_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(WRITER)).write((Plain(1, []),)) == WRITER.write((Plain(1, []),))


def test_no_results_have_no_receipt() -> None:
    assert receipt_of() is None


def test_a_receipt_is_small_whatever_the_number_of_results() -> None:
    writer = SmallCodec([], 1 << 20)
    receipt = receipt_of(*[bytes(20_000)] * 20, writer=writer)
    assert receipt is not None
    assert [small is not None for small in receipt] == [True] * 3 + [False] * 17
    assert len(writer.write([bytes(20_000)] * 20)) < MAX_BYTES + 1000
    assert receipt_of(bytes(MAX_BYTES), writer=writer) is None


def test_where_nothing_is_small_nothing_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DataCodec, "encode", None)
    assert receipt_of(7, writer=SmallCodec([], 0)) is None
