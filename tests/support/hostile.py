"""Text that would control a terminal or hide in a line, in every field of whatever a party sends."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterator
from typing import Any, Final

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from fed.transport import wire
from fed.transport.v1 import fed_pb2 as pb

MARK: Final = "mark"
HOSTILE: Final = (
    "\x1b[2J\x1b]0;x\x07\x9b\r\n\t\x00\x7f\x85\u200b\u200f\u202e\u2066\u2028\u2029\ufeff\u3164\ufe0f\U000e0041"
)

Place = tuple[Message, FieldDescriptor, int | None]


def places(message: Message) -> Iterator[Place]:
    """Every text in a message and in those inside of it: where it is, and its index if it is one of several."""
    for field, value in message.ListFields():
        several = not isinstance(value, str | Message)
        if field.type == FieldDescriptor.TYPE_STRING:
            yield from ((message, field, index) for index in range(len(value))) if several else [(message, field, None)]
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if several else [value]:
                yield from places(inner)


def put(place: Place, text: str) -> None:
    """Have that text there."""
    message, field, index = place
    if index is None:
        setattr(message, field.name, text)
    else:
        getattr(message, field.name)[index] = text


def assert_shown(text: str, *, lines: bool = False) -> None:
    """Nothing in it controls or hides."""
    for one in text:
        known = (lines and one in "\n\t") or (one.isascii() and one.isprintable())
        assert known or (unicodedata.category(one)[0] not in "CZ" and one not in HOSTILE), ascii(text)


def let_lie(monkeypatch: pytest.MonkeyPatch, party: str, *, names: bool = False) -> set[str]:
    """In a simulation over gRPC, have hostile text in all that a party sends.

    Args:
        monkeypatch: Of the test.
        party: Which.
        names: Also in what others are compared with, which is refused.

    Returns:
        The fields that had some, as far as the simulation has come.
    """
    put_in: set[str] = set()

    def corrupted(frame: bytes, frame_type: type[Message]) -> bytes:
        if party not in threading.current_thread().name:
            return frame
        message = frame_type.FromString(frame)
        for place in list(places(message)):
            _, field, _ = place
            if (field.name in NAMES) is names:
                put(place, MARK + HOSTILE)
                put_in.add(field.name)
        return message.SerializeToString()

    for name, frame_type in ENCODERS.items():
        original = getattr(wire, name)

        def encode(*arguments: Any, _original: Any = original, _type: type[Message] = frame_type) -> Any:
            frames = _original(*arguments)
            if isinstance(frames, bytes):
                return corrupted(frames, _type)
            return tuple(corrupted(frame, _type) for frame in frames)

        monkeypatch.setattr(wire, name, encode)
    return put_in


NAMES: Final = frozenset(
    {
        *("version", "job", "party", "incarnation", "parties", "types", "exceptions", "expects"),
        *("error_id", "src_party", "hops"),
    }
)
"""Fields that others are compared with."""

ENCODERS: Final = {
    "encode_hello": pb.Hello,
    "encode_welcome": pb.Greeting,
    "encode_refusal": pb.Greeting,
    "encode_notice": pb.Notice,
}
