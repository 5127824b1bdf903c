from __future__ import annotations

from typing import Any

import pytest

from fed.serde.contract import DecodeError, EncodeError
from tests.support.values import CODEC, roundtrip

torch = pytest.importorskip("torch", reason="torch is not installed: make test-torch tests tensors")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).reshape(2, 3),
        torch.arange(6).reshape(2, 3).T,
        torch.tensor(5),
        torch.zeros(0, 3),
        torch.tensor([True, False]),
        torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        torch.tensor([1 + 2j]).conj(),
        torch.tensor([1 + 2j]).conj().imag,
    ],
    ids=lambda tensor: f"{tensor.dtype}{tuple(tensor.shape)}",
)
def test_a_tensor_arrives_as_it_was(tensor: Any) -> None:
    arrived = roundtrip([tensor])[0]
    assert type(arrived) is torch.Tensor
    assert arrived.dtype == tensor.dtype
    assert arrived.shape == tensor.shape
    torch.testing.assert_close(arrived, tensor.resolve_conj().resolve_neg(), rtol=0, atol=0, equal_nan=True)


def test_a_contiguous_tensor_is_not_copied_to_encode_and_is_writable_when_it_arrives() -> None:
    tensor = torch.zeros(10)
    encoded = CODEC.encode(tensor)
    tensor[0] = 1
    arrived = CODEC.decode(*encoded)
    assert arrived[0] == 1
    arrived += 1
    assert tensor[0] == 1


@pytest.mark.parametrize(
    ("tensor", "way_out"),
    [
        (torch.zeros(2, requires_grad=True), ".detach()"),
        (torch.nn.Parameter(torch.zeros(2)), ".detach()"),
        (torch.zeros(2).to_sparse(), "no plain memory"),
        (torch.nn.Linear(1, 1), "state_dict()"),
    ],
    ids=lambda part: type(part).__name__,
)
def test_what_is_more_than_its_memory_is_refused(tensor: Any, way_out: str) -> None:
    with pytest.raises(EncodeError) as caught:
        CODEC.encode({"w": tensor})
    assert caught.value.where == "['w']"
    assert way_out in str(caught.value)


def test_a_false_size_is_refused() -> None:
    encoded = CODEC.encode(torch.zeros(3))
    with pytest.raises(DecodeError, match="another size"):
        CODEC.decode(encoded.header, [memoryview(bytes(11))])
