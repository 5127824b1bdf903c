"""Hostile text in every field of every message: what is read can be shown, or is refused."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from fed.core.failure import Failure, Kind
from fed.core.stall import PartyStatus, Wait
from fed.object import ObjectId
from fed.transport import wire
from fed.transport.contract import Ack, Notice, NoticeKind, Receipt
from fed.transport.grpc.calls import MAX_DETAILS_BYTES, status_error
from fed.transport.v1 import fed_pb2 as pb
from fed.transport.wire import MalformedFrame
from tests.support.hostile import HOSTILE, MARK, NAMES, assert_shown, places, put
from tests.support.profile import times
from tests.support.worlds import hello

FAILURE: Final = Failure("alice/1/0", Kind.TASK, "alice", "E", "#3 f", 3, ("K",), ("bob",), "detail", "text", "trace")
STANDING: Final = PartyStatus(1, True, 1, 1, 1, ("#1 f",), (Wait("#1 f", "#0 g", "bob"),))
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


def texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a value, with the name of the attribute that has it."""
    if isinstance(value, str):
        yield name, value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from texts(getattr(value, field.name), field.name)
    elif isinstance(value, tuple | list):
        for member in value:
            yield from texts(member, name)


def test_hostile_text_is_shown_as_escapes_or_refused_in_every_field() -> None:
    fields, refused = set(), set()
    chosen = random.Random(0)
    for frame_type, frame, decode in FRAMES:
        for number, (_, field, _) in enumerate(places(frame_type.FromString(frame))):
            fields.add(field.full_name)
            for round_ in range(times(20, 100, 1000)):
                message = frame_type.FromString(frame)
                text = HOSTILE if not round_ else "".join(chosen.choices(HOSTILE + "ab \n", k=12))
                put(list(places(message))[number], MARK + text)
                try:
                    read = decode(message.SerializeToString())
                except MalformedFrame as error:
                    refused.add(field.name)
                    assert_shown(str(error))
                    continue
                found = list(texts(read))
                assert any(MARK in text for _, text in found)
                for name, text in found:
                    assert_shown(text, lines=name in ("message", "traceback"))
    # Names are compared with others: they are refused. Everything else is shown.
    assert refused == NAMES
    known = {
        f"{message.full_name}.{field.name}"
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        if field.type == FieldDescriptor.TYPE_STRING
    }
    assert fields == known


def test_a_name_cannot_go_on_with_the_sentence_that_it_stands_in() -> None:
    message = pb.Failure.FromString(wire.encode_failure(FAILURE))
    message.type_name = message.task = "E; party 'bob' was lost: (`go`), \"now\""
    message.cause_types[:] = [message.task]
    failure = wire.decode_failure(message.SerializeToString())
    status = pb.Notice.FromString(wire.encode_notice(Notice(NoticeKind.STANDING, 0, calls=1, standing=STANDING))[0])
    status.standing.tasks[:] = [message.task]
    standing = wire.decode_notice(status.SerializeToString()).standing
    assert standing is not None
    for label in (failure.type_name, failure.task, *failure.cause_types, *standing.tasks):
        assert label == "E_ party _bob_ was lost_ __go___ _now_"


def test_an_escaped_text_keeps_to_its_limit() -> None:
    message = pb.Failure.FromString(wire.encode_failure(FAILURE))
    message.detail, message.message = "\x1b" * 448, "\U000e0041" * 128
    read = wire.decode_failure(message.SerializeToString())
    assert len(read.detail.encode()) <= 448
    assert len(read.message.encode()) <= 512
    assert wire.decode_failure(wire.encode_failure(read)) == read


def test_what_a_status_says_can_be_shown() -> None:
    error = status_error(grpc.StatusCode.INVALID_ARGUMENT, HOSTILE + "x" * 2_000_000, "party 'bob' at host:1")
    assert_shown(str(error))
    assert len(str(error)) < MAX_DETAILS_BYTES + 100
