"""Hostile text in every field of every message: what is read can be shown, or is refused."""

from __future__ import annotations

import dataclasses
import random
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from fed.core.failure import Failure, Kind
from fed.core.stall import Standing, Wait
from fed.object import ObjectId
from fed.transport import wire
from fed.transport.contract import Ack, Notice, NoticeKind, Receipt
from fed.transport.grpc.calls import MAX_DETAILS_BYTES, status_error
from fed.transport.v1 import fed_pb2 as pb
from fed.transport.wire import MalformedFrame
from tests.support.profile import times
from tests.support.worlds import hello

HOSTILE: Final = (
    "\x1b[2J\x1b]0;x\x07\x9b\r\n\t\x00\x7f\x85\u200b\u200f\u202e\u2066\u2028\u2029\ufeff\u3164\ufe0f\U000e0041"
)
FAILURE: Final = Failure("alice/1/0", Kind.TASK, "alice", "E", "#3 f", 3, ("K",), ("bob",), "detail", "text", "trace")
STANDING: Final = Standing(1, True, 1, 1, 1, ("#1 f",), (Wait("#1 f", "#0 g", "bob"),))
ID: Final = ObjectId(0, 1, 0)

FRAMES: Final[list[tuple[type[Message], bytes, Callable[[bytes], object]]]] = [
    (
        pb.Hello,
        wire.encode_hello(dataclasses.replace(hello("alice"), types=("a.B",), exceptions=("c.D",), expects="x")),
        wire.decode_hello,
    ),
    (pb.Greeting, wire.encode_welcome(hello("alice")), wire.decode_greeting),
    (pb.Greeting, wire.encode_refusal("no"), wire.decode_greeting),
    (pb.Failure, wire.encode_failure(FAILURE), wire.decode_failure),
    (pb.Notice, wire.encode_notice(Notice(NoticeKind.FAILURE, 0, FAILURE, (ID,)))[0], wire.decode_notice),
    (pb.Notice, wire.encode_notice(Notice(NoticeKind.JOURNAL, 0, calls=1, texts=("f", "g")))[0], wire.decode_notice),
    (pb.Notice, wire.encode_notice(Notice(NoticeKind.STANDING, 0, calls=1, standing=STANDING))[0], wire.decode_notice),
    (pb.Acks, wire.encode_acks([Ack(ID, Receipt.TOO_LARGE, 9)]), wire.decode_acks),
]


def places(message: Message) -> Iterator[tuple[Message, FieldDescriptor, int | None]]:
    """Every text in a message and in those inside of it: where it is, and its index if it is one of several."""
    for field, value in message.ListFields():
        several = not isinstance(value, str | Message)
        if field.type == FieldDescriptor.TYPE_STRING:
            yield from ((message, field, index) for index in range(len(value))) if several else [(message, field, None)]
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if several else [value]:
                yield from places(inner)


def texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a value, with the name of the attribute that has it."""
    if isinstance(value, str):
        yield name, value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from texts(getattr(value, field.name), field.name)
    elif isinstance(value, tuple | list):
        for one in value:
            yield from texts(one, name)


def put(frame_type: type[Message], frame: bytes, place: int, text: str) -> bytes:
    message = frame_type.FromString(frame)
    inner, field, index = list(places(message))[place]
    if index is None:
        setattr(inner, field.name, text)
    else:
        getattr(inner, field.name)[index] = text
    return message.SerializeToString()


def check(text: str, *, lines: bool = False) -> None:
    for one in text:
        assert unicodedata.category(one)[0] not in "CZ" or one == " " or (lines and one in "\n\t"), ascii(text)
        assert one not in HOSTILE or (lines and one in "\n\t") or (one.isascii() and one.isprintable()), ascii(text)


def test_hostile_text_is_shown_as_escapes_or_refused_in_every_field() -> None:
    fields, refused = set(), set()
    chosen = random.Random(0)
    for frame_type, frame, decode in FRAMES:
        for place in range(len(list(places(frame_type.FromString(frame))))):
            _, field, _ = list(places(frame_type.FromString(frame)))[place]
            fields.add(field.full_name)
            for round_ in range(times(20, 100, 1000)):
                text = "mark" + HOSTILE if not round_ else "mark" + "".join(chosen.choices(HOSTILE + "ab \n", k=12))
                try:
                    read = decode(put(frame_type, frame, place, text))
                except MalformedFrame as error:
                    refused.add(field.name)
                    check(str(error))
                    continue
                found = list(texts(read))
                assert any("mark" in one for _, one in found)
                for name, one in found:
                    check(one, lines=name in ("message", "traceback"))
    # Names are compared with others: they are refused. Everything else is shown.
    assert refused == {
        *("version", "job", "party", "incarnation", "parties", "types", "exceptions", "expects"),
        *("error_id", "src_party", "hops"),
    }
    known = {
        f"{message.full_name}.{field.name}"
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        if field.type == FieldDescriptor.TYPE_STRING
    }
    assert fields == known


def test_an_escaped_text_keeps_to_its_limit() -> None:
    message = pb.Failure.FromString(wire.encode_failure(FAILURE))
    message.detail, message.message = "\x1b" * 448, "\U000e0041" * 128
    read = wire.decode_failure(message.SerializeToString())
    assert len(read.detail.encode()) <= 448
    assert len(read.message.encode()) <= 512
    assert wire.decode_failure(wire.encode_failure(read)) == read


def test_what_a_status_says_can_be_shown() -> None:
    error = status_error(grpc.StatusCode.INVALID_ARGUMENT, HOSTILE + "x" * 2_000_000, "party 'bob' at host:1")
    check(str(error))
    assert len(str(error)) < MAX_DETAILS_BYTES + 100
