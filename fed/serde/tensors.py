"""How codec ``data`` carries torch tensors. Importing this module imports torch.

A tensor is its dtype and shape in the header, and its memory as a buffer. Decoding copies it once: torch knows no
read-only tensors, and one that shares the receiver's memory could be written to.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch

from fed.serde.contract import DecodeError
from fed.serde.tags import Tag
from fed.serde.tree import Reader, ReadRule, Refused, Writer, WriteRule, head

__all__ = ["READ_RULES", "rule_for"]

_NAMES: Final = (
    "bool",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "float8_e4m3fn",
    "float8_e5m2",
    "complex32",
    "complex64",
    "complex128",
)
_DTYPES: Final[dict[str, Any]] = {name: getattr(torch, name) for name in _NAMES if hasattr(torch, name)}
_DTYPE_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}


def _write_tensor(writer: Writer, value: Any, room: int) -> Any:
    if value.requires_grad:
        # Dropping the flag in silence would end a training that goes on over there.
        raise Refused(type(value), "it requires grad, and the graph behind it stays here; send value.detach()")
    if value.device.type != "cpu":
        raise Refused(type(value), "it is not in main memory; send value.cpu()", str(value.device))
    if value.layout is not torch.strided or value.dtype not in _DTYPE_NAMES:
        raise Refused(type(value), "its layout or dtype has no plain memory", f"{value.layout}, {value.dtype}")
    plain = value.resolve_conj().resolve_neg().contiguous().reshape(-1)
    # One that holds a single item counts as contiguous whatever its stride, and can then not be viewed as bytes.
    plain = plain if plain.numel() != 1 else plain.as_strided((1,), (1,))
    memory = plain.view(torch.uint8).numpy() if plain.numel() else b""
    writer.buffers.append(memoryview(memory))
    return [_TENSOR, _DTYPE_NAMES[value.dtype], *value.shape]


def _read_tensor(reader: Reader, args: list[Any], room: int) -> Any:
    name, *shape = args or [None]
    if type(name) is not str or name not in _DTYPES:
        raise DecodeError(f"a tensor has a dtype that torch {torch.__version__}, installed here, does not know")
    if len(shape) > 64 or any(type(size) is not int or not 0 <= size < 1 << 62 for size in shape):
        raise DecodeError("a tensor has a malformed shape")
    dtype = _DTYPES[name]
    buffer = reader.buffer()
    if math.prod(shape) * dtype.itemsize != len(buffer):
        raise DecodeError(f"a tensor of {len(buffer)} bytes has a shape or dtype of another size")
    if not len(buffer):
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(buffer), dtype=dtype).reshape(shape)


_TENSOR: Final = head(Tag.TORCH_TENSOR)

READ_RULES: Final[dict[Tag, ReadRule]] = {Tag.TORCH_TENSOR: _read_tensor}
"""What follows the mark of torch."""


def rule_for(cls: type) -> WriteRule | None:
    """How to write the instances of a class, None if it is not torch's.

    Raises:
        Refused: It is a tensor class that means more than its memory says.
    """
    if cls is torch.Tensor:
        return _write_tensor
    if issubclass(cls, torch.Tensor):
        raise Refused(cls, "a subclass of Tensor; send value.detach(), or its data as a plain tensor")
    if issubclass(cls, torch.nn.Module):
        raise Refused(cls, "a module is code; send its state_dict() as a plain dict")
    return None
