"""Reading a frame strictly, and writing only what would be read. What is not as it must be raises `MalformedFrame`.

A field of two bytes becomes an object of a hundred, so the fields of a frame are counted, where it could hold too many,
before anything is made of them. The encoding: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError, Message

from fed.core.failure import MAX_NAME_BYTES
from fed.text import cut, is_plain, plain

__all__ = [
    "MAX_FRAME_BYTES",
    "MalformedFrame",
    "check_fields",
    "in_range",
    "member_of",
    "parse",
    "read_label",
    "read_labels",
    "read_name",
    "read_names",
    "read_text",
]

MAX_FRAME_BYTES: Final = 4 << 20
"""No frame of any kind is larger."""
MAX_FIELDS: Final = 1 << 16
"""Of one frame, and of the messages in it. None that respects the limits of its kind has more."""
SMALLEST_COUNTED: Final = 1 << 18
"""A smaller frame has no room for so many fields that it matters."""

_VARINT: Final = 0
_FIXED_64: Final = 1
_BYTES: Final = 2
_FIXED_32: Final = 5

_SMALL: Final = bytes(range(0x80))
"""The bytes of which each ends a number."""

_OF_SENTENCES: Final = str.maketrans(dict.fromkeys("\"'`:;,()", "_"))

_M = TypeVar("_M", bound=Message)
_E = TypeVar("_E")


class MalformedFrame(ValueError):
    """Bytes that no party of this protocol version writes, or a value that the protocol cannot carry."""


def parse(message_type: type[_M], data: bytes, max_bytes: int = MAX_FRAME_BYTES, *, most: int = MAX_FIELDS) -> _M:
    """The message in a frame of at most `max_bytes`, with at most `most` fields in it."""
    if len(data) > max_bytes:
        raise MalformedFrame(f"a {message_type.__name__} of {len(data)} bytes is over the limit of {max_bytes}")
    message = message_type()
    try:
        if len(data) > SMALLEST_COUNTED:
            check_fields(data, message.DESCRIPTOR, most)
        message.ParseFromString(data)
    except (DecodeError, MalformedFrame) as error:
        raise MalformedFrame(f"not a {message_type.__name__}: {error}") from error
    return message


def in_range(number: int, most: int, what: str) -> int:
    """The number, if it is from zero to `most`."""
    if not 0 <= number <= most:
        raise MalformedFrame(f"{what} is out of range: {number}")
    return number


def member_of(members: Mapping[int, _E], number: Any, what: str) -> _E:
    """The member of an enum."""
    member = members.get(number)
    if member is None:
        raise MalformedFrame(f"unknown {what}: {number}")
    return member


def read_name(text: str, what: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    """What others are compared with: nothing in it may be invisible."""
    if not text:
        raise MalformedFrame(f"{what} is missing")
    _check_length(text, what, max_bytes)
    if not is_plain(text):
        raise MalformedFrame(f"{what} has characters that cannot be shown: {cut(plain(text), MAX_NAME_BYTES)[0]}")
    return text


def read_names(names: Sequence[str], what: str, most: int, max_bytes: int = MAX_NAME_BYTES) -> tuple[str, ...]:
    """As `read_name`, at most so many."""
    if len(names) > most:
        raise MalformedFrame(f"{what}: {len(names)} are over the limit of {most}")
    return tuple(read_name(name, what, max_bytes) for name in names)


def read_labels(texts: Sequence[str], what: str, most: int, *, empty: bool = True) -> tuple[str, ...]:
    """As `read_label`, at most so many."""
    if len(texts) > most:
        raise MalformedFrame(f"{what}: {len(texts)} are over the limit of {most}")
    return tuple(read_label(text, what, empty=empty) for text in texts)


def read_label(text: str, what: str, *, empty: bool = True) -> str:
    """The name of a class or a task, as part of a sentence of ours: without what would go on with that sentence."""
    return read_text(text, what, MAX_NAME_BYTES, empty=empty).translate(_OF_SENTENCES)


def read_text(text: str, what: str, max_bytes: int, *, lines: bool = False, empty: bool = True) -> str:
    """Text for people: plain, and cut anew, since an escape takes more room than what it stands for."""
    if not text and not empty:
        raise MalformedFrame(f"{what} is missing")
    _check_length(text, what, max_bytes)
    shown, _ = cut(plain(text, lines=lines), max_bytes)
    return shown


def _check_length(text: str, what: str, max_bytes: int) -> None:
    # A character is one to four bytes, so most texts need not be encoded to be measured.
    if len(text) * 4 > max_bytes and len(text.encode()) > max_bytes:
        raise MalformedFrame(f"{what} is longer than {max_bytes} bytes")


def check_fields(data: bytes, descriptor: Any, most: int) -> None:
    """Count the fields of a message and of the messages in it; a number of a packed field counts as one.

    Args:
        data: An encoded message.
        descriptor: Of its type: `Message.DESCRIPTOR`.
        most: How many there may be.

    Raises:
        MalformedFrame: There are more, or what is there is not the encoding of a message.
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
                raise MalformedFrame(f"a field of the unknown kind {kind}")
        if left < 0:
            raise MalformedFrame(f"more than {most} fields")
        if at > end:
            raise MalformedFrame("a field that is cut off")


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
    raise MalformedFrame("a number that is cut off")
