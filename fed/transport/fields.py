"""How many fields are in a frame, before anything is made of them.

A field of two bytes becomes an object of a hundred, so a frame is counted where it could hold too many to be parsed.
The encoding: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["TooManyFields", "check_fields"]

_VARINT: Final = 0
_FIXED_64: Final = 1
_BYTES: Final = 2
_FIXED_32: Final = 5

_SMALL: Final = bytes(range(0x80))
"""The bytes of which each ends a number."""


class TooManyFields(ValueError):
    """A frame has more fields than it may have, or no whole ones."""


def check_fields(data: bytes, descriptor: Any, most: int) -> None:
    """Count the fields of a message and of the messages in it; a number of a packed field counts as one.

    Args:
        data: An encoded message.
        descriptor: Of its type: `Message.DESCRIPTOR`.
        most: How many there may be.

    Raises:
        TooManyFields: There are more, or what is there is not the encoding of a message.
    """
    left = most
    # Where to go on: the rests of the messages around the present one, from the outside in, and their types.
    todo = [(0, len(data), descriptor.fields_by_number)]
    while todo:
        at, end, fields = todo.pop()
        while at < end:
            left -= 1
            if left < 0:
                break
            tag, at = _varint(data, at, end)
            kind = tag & 7
            if kind == _VARINT:
                _, at = _varint(data, at, end)
            elif kind == _FIXED_64:
                at += 8
            elif kind == _FIXED_32:
                at += 4
            elif kind == _BYTES:
                size, at = _varint(data, at, end)
                field = fields.get(tag >> 3)
                if field is None or at + size > end:
                    pass
                elif field.message_type is not None:
                    todo.append((at + size, end, fields))
                    end, fields = at + size, field.message_type.fields_by_number
                    continue
                elif field.type not in (field.TYPE_BYTES, field.TYPE_STRING):
                    packed = data[at : at + size]
                    left -= size - len(packed.translate(None, _SMALL))
                at += size
            else:
                raise TooManyFields(f"a field of the unknown kind {kind}")
        if left < 0:
            raise TooManyFields(f"more than {most} fields")
        if at > end:
            raise TooManyFields("a field that is cut off")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise TooManyFields("a number that is cut off")
