from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from fed.core.failure import MAX_NAME_BYTES, Failure, Kind
from fed.core.stall import MAX_SHOWN, PartyStatus
from fed.object import ObjectId
from fed.text import plain
from fed.transport import wire
from fed.transport.contract import Ack, Notice, NoticeKind, Parcel, Receipt, Verdict
from fed.transport.v1 import fed_pb2 as pb
from fed.transport.wire import MAX_FAILURE_BYTES, MalformedFrame, Offer
from tests.support.notices import digests, failures, ids, notices
from tests.support.worlds import content, hello, parcel

FAILURE = Failure(
    "alice/1/0", Kind.TASK, "alice", "ValueError", "#3 train", 3, ("KeyError",), ("bob",), "detail", "text", "trace"
)

# Any text that Python can hold, lone surrogates included.
anything = st.text(st.characters(), max_size=300)
DECODERS: list[Callable[[bytes], object]] = [
    wire.decode_acks,
    wire.decode_failure,
    wire.decode_greeting,
    wire.decode_hello,
    wire.decode_notice,
    wire.decode_offer,
    wire.decode_parcels,
    wire.decode_result,
]


def test_every_enum_has_a_word_for_each_member_and_the_other_way_round() -> None:
    tables: list[tuple[Any, Mapping[Any, int]]] = [
        (pb.Kind, wire._KINDS),
        (pb.NoticeKind, wire._NOTICE_KINDS),
        (pb.Receipt, wire._RECEIPTS),
        (pb.Verdict, wire._VERDICTS),
    ]
    for words, table in tables:
        (enum_type,) = {type(member) for member in table}
        assert set(table) == set(enum_type.__members__.values())
        assert set(table.values()) == set(words.values()) - {0}
        prefix = words.Name(0).removesuffix("UNSPECIFIED")
        assert {words.Name(number) for number in table.values()} == {prefix + member.name for member in table}


@settings(deadline=None)
@given(failures)
def test_a_failure_is_read_as_it_was_written(failure: Failure) -> None:
    assert wire.decode_failure(wire.encode_failure(failure)) == failure


@settings(deadline=None)
@given(
    st.builds(
        Failure,
        error_id=anything,
        kind=st.sampled_from(Kind),
        src_party=anything,
        type_name=anything,
        task=anything,
        sequence=st.integers(),
        cause_types=st.lists(anything, max_size=20).map(tuple),
        hops=st.lists(anything, max_size=40).map(tuple),
        detail=st.text(st.characters(), max_size=5000),
        message=st.text(st.characters(), max_size=5000),
        traceback=st.text(st.characters(), max_size=5000),
    )
)
def test_e25_any_failure_can_be_written_small_enough_and_read(failure: Failure) -> None:
    data = wire.encode_failure(failure)
    assert len(data) <= MAX_FAILURE_BYTES
    read = wire.decode_failure(data)
    assert read.kind is failure.kind
    kept = dataclasses.replace(read, truncated=False)
    assert read.truncated or kept.message == plain(failure.message, lines=True)
    assert read.truncated or kept.detail == plain(failure.detail)


def test_e25_a_failure_full_to_all_its_limits_fits_and_says_that_it_was_cut() -> None:
    name = "n" * 128
    full = Failure(name, Kind.TASK, name, name, name, 1, (name,) * 8, (name,) * 16, "d" * 448, "m" * 512, "t" * 1024)
    data = wire.encode_failure(full)
    read = wire.decode_failure(data)
    assert len(data) <= MAX_FAILURE_BYTES
    assert read == dataclasses.replace(full, traceback="", cause_types=(), truncated=True)


@pytest.mark.parametrize(
    "change",
    [
        {"error_id": ""},
        {"error_id": "x" * 129},
        {"kind": 0},
        {"kind": 99},
        {"src_party": ""},
        {"src_party": "é" * 65},
        {"type_name": ""},
        {"type_name": "x" * 129},
        {"task": "x" * 129},
        {"sequence": 1 << 63},
        {"cause_types": ["x"] * 9},
        {"cause_types": [""]},
        {"cause_types": ["x" * 129]},
        {"hops": ["x"] * 17},
        {"hops": ["x" * 129]},
        {"detail": "x" * 449},
        {"message": "x" * 513},
        {"traceback": "x" * 1025},
    ],
    ids=str,
)
def test_e44_a_failure_beyond_its_limits_is_refused(change: dict[str, Any]) -> None:
    message = pb.Failure.FromString(wire.encode_failure(FAILURE))
    for field, value in change.items():
        if isinstance(value, list):
            del getattr(message, field)[:]
            getattr(message, field).extend(value)
        else:
            setattr(message, field, value)
    with pytest.raises(MalformedFrame):
        wire.decode_failure(message.SerializeToString())
    notice = pb.Notice(kind=pb.NOTICE_KIND_LATCHED, failure=message)
    with pytest.raises(MalformedFrame):
        wire.decode_notice(notice.SerializeToString())


def test_e44_a_failure_padded_with_unknown_fields_is_refused() -> None:
    padding = b"\xfa\x7f" + b"\x80\x20" + bytes(4096)
    with pytest.raises(MalformedFrame, match="over the limit"):
        wire.decode_failure(wire.encode_failure(FAILURE) + padding)


def test_unknown_fields_within_the_limits_are_ignored() -> None:
    assert wire.decode_failure(wire.encode_failure(FAILURE) + b"\xfa\x7f\x01x") == FAILURE


@settings(deadline=None)
@given(notices)
def test_a_notice_is_read_as_it_was_written(notice: Notice) -> None:
    (frame,) = wire.encode_notice(notice)
    assert wire.decode_notice(frame) == notice


def test_a_notice_of_many_objects_becomes_several() -> None:
    objects = tuple(ObjectId(0, number, 0) for number in range(wire.MAX_NOTICE_OBJECTS + 1))
    frames = wire.encode_notice(Notice(NoticeKind.FAILURE, 5, FAILURE, objects))
    read = [wire.decode_notice(frame) for frame in frames]
    assert [len(notice.objects) for notice in read] == [wire.MAX_NOTICE_OBJECTS, 1]
    assert tuple(object_id for notice in read for object_id in notice.objects) == objects
    assert {(notice.kind, notice.epoch, notice.failure) for notice in read} == {(NoticeKind.FAILURE, 5, FAILURE)}
    assert max(map(len, frames)) < 2 << 20


def test_a_notice_of_many_calls_becomes_several_each_with_the_number_of_its_first() -> None:
    texts = tuple(f"call {number}" for number in range(7, 7 + 2 * wire.MAX_NOTICE_TEXTS + 1))
    frames = wire.encode_notice(Notice(NoticeKind.JOURNAL, 5, calls=7, texts=texts))
    read = [wire.decode_notice(frame) for frame in frames]
    assert [(notice.calls, len(notice.texts)) for notice in read] == [(7, 4096), (7 + 4096, 4096), (7 + 8192, 1)]
    assert tuple(text for notice in read for text in notice.texts) == texts
    assert {(notice.kind, notice.epoch) for notice in read} == {(NoticeKind.JOURNAL, 5)}


def test_e25_a_long_call_is_cut_and_any_text_can_be_written() -> None:
    (frame,) = wire.encode_notice(Notice(NoticeKind.JOURNAL, 0, texts=("ü" * 500, "", "\udc80", "x" * 256)))
    assert wire.decode_notice(frame).texts == ("ü" * 128, "", "?", "x" * 256)


SET: dict[str, Any] = {
    "failure": FAILURE,
    "objects": (ObjectId(0, 0, 0),),
    "calls": 1,
    "digest": 1,
    "texts": ("call",),
    "standing": PartyStatus(moves=1),
}
NEEDS = {
    NoticeKind.FAILURE: {"failure", "objects"},
    NoticeKind.LATCHED: {"failure"},
    NoticeKind.JOURNAL: {"texts"},
    NoticeKind.STANDING: {"standing"},
}
ALLOWS = {
    NoticeKind.PROGRESS: {"calls", "digest"},
    NoticeKind.JOURNAL: {"calls"},
    NoticeKind.ASK: {"calls"},
    NoticeKind.STANDING: {"calls"},
    NoticeKind.RESET: {"calls", "digest"},
    NoticeKind.GOODBYE: {"failure", "calls", "digest"},
}


@pytest.mark.parametrize("kind", NoticeKind)
def test_a_notice_has_what_its_kind_needs_and_nothing_that_it_does_not_know(kind: NoticeKind) -> None:
    needs = NEEDS.get(kind, set())
    allows = ALLOWS.get(kind, set()) | needs
    # As bytes and past the writer, who would refuse it: a field of a message put behind another one is merged in.
    as_bytes = {
        "failure": pb.Notice(failure=pb.Failure.FromString(wire.encode_failure(FAILURE))),
        "objects": pb.Notice(objects=[pb.ObjectId()]),
        "calls": pb.Notice(calls=1),
        "digest": pb.Notice(digest=1),
        "texts": pb.Notice(texts=["call"]),
        "standing": pb.Notice(standing=pb.Standing(moves=1)),
    }
    for fields in itertools.chain.from_iterable(itertools.combinations(SET, count) for count in range(len(SET) + 1)):
        notice = Notice(kind, 7, **{name: SET[name] for name in fields})
        data = pb.Notice(kind=wire._NOTICE_KINDS[kind], epoch=7).SerializeToString()
        data += b"".join(as_bytes[name].SerializeToString() for name in fields)
        if needs <= set(fields) <= allows:
            assert wire.encode_notice(notice) == (data,)
            assert wire.decode_notice(data) == notice
        else:
            with pytest.raises(MalformedFrame, match=kind.value):
                wire.encode_notice(notice)
            with pytest.raises(MalformedFrame, match=kind.value):
                wire.decode_notice(data)


@pytest.mark.parametrize(
    "notice",
    [
        Notice(NoticeKind.PROGRESS, 0, calls=-1),
        Notice(NoticeKind.PROGRESS, 0, calls=1 << 63),
        Notice(NoticeKind.PROGRESS, 0, digest=-1),
        Notice(NoticeKind.PROGRESS, 0, digest=1 << 64),
        Notice(NoticeKind.FAILURE, 0, None, (ObjectId(0, 0, 0),) * (wire.MAX_NOTICE_OBJECTS + 1), texts=("call",)),
        Notice(NoticeKind.FAILURE, 0),
        Notice(NoticeKind.FAILURE, 0, FAILURE),
        Notice(NoticeKind.READY, 0, FAILURE),
        Notice(NoticeKind.PING, 0, calls=1),
        Notice(NoticeKind.READY, 0, None, (ObjectId(0, 0, 0),)),
        Notice(NoticeKind.GOODBYE, 0, None, (ObjectId(0, 0, 0),)),
        Notice(NoticeKind.READY, -1),
        Notice(NoticeKind.READY, 1 << 32),
        Notice(NoticeKind.FAILURE, 0, FAILURE, (ObjectId(0, -1, 0),)),
    ],
)
def test_a_notice_that_makes_no_sense_is_not_written(notice: Notice) -> None:
    with pytest.raises(MalformedFrame):
        wire.encode_notice(notice)


@pytest.mark.parametrize(
    "message",
    [
        pb.Notice(),
        pb.Notice(kind=99),  # type: ignore[arg-type]
        pb.Notice(kind=pb.NOTICE_KIND_PROGRESS, calls=1 << 63),
        pb.Notice(kind=pb.NOTICE_KIND_JOURNAL, texts=["x" * 257]),
        pb.Notice(kind=pb.NOTICE_KIND_JOURNAL, texts=["x"] * 4097),
        pb.Notice(kind=pb.NOTICE_KIND_STANDING, standing=pb.Standing(moves=1 << 63)),
        pb.Notice(kind=pb.NOTICE_KIND_STANDING, standing=pb.Standing(tasks=["x"] * (MAX_SHOWN + 1))),
        pb.Notice(kind=pb.NOTICE_KIND_STANDING, standing=pb.Standing(waits=[pb.Wait()] * (MAX_SHOWN + 1))),
        pb.Notice(kind=pb.NOTICE_KIND_STANDING, standing=pb.Standing(tasks=["x" * (MAX_NAME_BYTES + 1)])),
        pb.Notice(kind=pb.NOTICE_KIND_FAILURE),
        pb.Notice(kind=pb.NOTICE_KIND_READY, failure=pb.Failure()),
        pb.Notice(kind=pb.NOTICE_KIND_READY, objects=[pb.ObjectId()]),
        pb.Notice(kind=pb.NOTICE_KIND_GOODBYE, objects=[pb.ObjectId()]),
        pb.Notice(kind=pb.NOTICE_KIND_GOODBYE, failure=pb.Failure()),
    ],
)
def test_a_notice_that_makes_no_sense_is_refused(message: pb.Notice) -> None:
    with pytest.raises(MalformedFrame):
        wire.decode_notice(message.SerializeToString())


def test_greetings_are_read_as_they_were_written() -> None:
    assert wire.decode_hello(wire.encode_hello(hello("alice"))) == hello("alice")
    assert wire.decode_greeting(wire.encode_welcome(hello("bob"))) == hello("bob")
    assert wire.decode_greeting(wire.encode_refusal("another job")) == "another job"


@settings(deadline=None)
@given(anything)
def test_any_refusal_can_be_written_and_read(reason: str) -> None:
    assert wire.decode_greeting(wire.encode_refusal(reason * 20))


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": 0},
        {"version": ""},
        {"job": ""},
        {"job": "x" * 129},
        {"party": ""},
        {"party": "\udc80"},
        {"incarnation": ""},
        {"incarnation": "x" * 129},
        {"parties": ("",)},
        {"parties": ("x",) * 1025},
        {"types": ("x",) * 4097},
        {"types": ("x" * 513,)},
        {"exceptions": ("",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_greeting_beyond_its_limits_is_neither_written_nor_read(change: dict[str, Any]) -> None:
    bad = dataclasses.replace(hello("alice"), **change)
    with pytest.raises(MalformedFrame):
        wire.encode_hello(bad)
    if "\udc80" not in bad.party:
        data = pb.Hello(**dataclasses.asdict(bad)).SerializeToString()
        with pytest.raises(MalformedFrame):
            wire.decode_hello(data)


@pytest.mark.parametrize("message", [pb.Greeting(), pb.Greeting(refusal=pb.Refusal()), pb.Greeting(welcome=pb.Hello())])
def test_an_answer_to_a_greeting_that_says_nothing_is_refused(message: pb.Greeting) -> None:
    with pytest.raises(MalformedFrame):
        wire.decode_greeting(message.SerializeToString())


@settings(deadline=None)
@given(st.lists(st.tuples(ids, st.binary(max_size=20), st.lists(st.binary(max_size=20), max_size=3)), max_size=5))
def test_parcels_are_read_as_they_were_written(sent: list[tuple[ObjectId, bytes, list[bytes]]]) -> None:
    parcels = [Parcel(object_id, header, tuple(map(memoryview, buffers))) for object_id, header, buffers in sent]
    read = wire.decode_parcels(wire.encode_parcels(parcels))
    assert [content(each) for each in read] == [content(each) for each in parcels]
    assert all(buffer.readonly for each in read for buffer in each.buffers)


def test_frames_of_parcels_put_end_to_end_are_one_frame() -> None:
    first, second = [parcel(1, b"a")], [parcel(2, b"b"), parcel(3)]
    joined = wire.decode_parcels(wire.encode_parcels(first) + wire.encode_parcels(second))
    assert [content(each) for each in joined] == [content(each) for each in first + second]


@pytest.mark.parametrize(
    "object_id",
    [
        ObjectId(-1, 0, 0),
        ObjectId(1 << 32, 0, 0),
        ObjectId(0, 1 << 63, 0),
        ObjectId(0, 0, 1 << 32),
        ObjectId(0, 0, 0, -1),
        ObjectId(0, 0, 0, 1 << 64),
    ],
)
def test_a_name_out_of_range_is_not_written(object_id: ObjectId) -> None:
    with pytest.raises(MalformedFrame):
        wire.encode_parcels([Parcel(object_id, b"", ())])
    with pytest.raises(MalformedFrame):
        wire.encode_acks([Ack(object_id, Receipt.WANTED)])
    with pytest.raises(MalformedFrame):
        wire.encode_offer(Offer(object_id, 0, ()))


def test_too_many_buffers_are_neither_written_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    many = parcel(1, b"", b"", b"", b"", header=b"")
    frame, offer = wire.encode_parcels([many]), wire.encode_offer(Offer(many.id, 0, (0,) * 4))
    monkeypatch.setattr(wire, "MAX_BUFFERS", 3)
    monkeypatch.setattr(wire, "MAX_FRAME_BUFFERS", 3)
    with pytest.raises(MalformedFrame):
        wire.encode_parcels([many])
    with pytest.raises(MalformedFrame):
        wire.encode_offer(Offer(many.id, 0, (0,) * 4))
    with pytest.raises(MalformedFrame):
        wire.decode_parcels(frame)
    with pytest.raises(MalformedFrame):
        wire.decode_offer(offer)


@settings(deadline=None)
@given(st.lists(st.builds(Ack, ids, st.sampled_from(Receipt), digests)))
def test_acks_are_read_as_they_were_written(acks: list[Ack]) -> None:
    assert wire.decode_acks(wire.encode_acks(acks)) == acks


@settings(deadline=None)
@given(st.builds(Offer, ids, st.integers(0, 1 << 40), st.lists(st.integers(0, 1 << 40), max_size=5).map(tuple)))
def test_offers_are_read_as_they_were_written(offer: Offer) -> None:
    assert wire.decode_offer(wire.encode_offer(offer)) == offer


@pytest.mark.parametrize("verdict", Verdict)
def test_results_are_read_as_they_were_written(verdict: Verdict) -> None:
    assert wire.decode_result(wire.encode_result(verdict)) is verdict


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (wire.decode_parcels, pb.Parcels(parcels=[pb.Parcel(header=b"x")])),
        (wire.decode_parcels, pb.Parcels(parcels=[pb.Parcel(id=pb.ObjectId(sequence=1 << 63))])),
        (wire.decode_acks, pb.Acks(acks=[pb.Ack(receipt=pb.RECEIPT_WANTED)])),
        (wire.decode_acks, pb.Acks(acks=[pb.Ack(id=pb.ObjectId())])),
        (wire.decode_acks, pb.Acks(acks=[pb.Ack(id=pb.ObjectId(), receipt=77)])),  # type: ignore[arg-type]
        (wire.decode_acks, pb.Acks(acks=[pb.Ack(id=pb.ObjectId(), receipt=pb.RECEIPT_WANTED)] * 16_385)),
        (wire.decode_offer, pb.Offer(header_size=1, total=1)),
        (wire.decode_offer, pb.Offer(id=pb.ObjectId(), header_size=1, total=2)),
        (wire.decode_offer, pb.Offer(id=pb.ObjectId(), header_size=1, buffer_sizes=[5], total=5)),
        (wire.decode_offer, pb.Offer(id=pb.ObjectId(), header_size=1 << 63, buffer_sizes=[1 << 63], total=0)),
        (wire.decode_offer, pb.Offer(id=pb.ObjectId(), header_size=1 << 62, total=1 << 62)),
        (wire.decode_result, pb.UploadResult()),
        (wire.decode_result, pb.UploadResult(verdict=5)),  # type: ignore[arg-type]
    ],
)
def test_e44_what_no_party_writes_is_refused(decode: Callable[[bytes], object], message: Message) -> None:
    with pytest.raises(MalformedFrame):
        decode(message.SerializeToString())


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(DECODERS))
def test_e44_any_bytes_are_read_or_refused(data: bytes, decode: Callable[[bytes], object]) -> None:
    try:
        decode(data)
    except MalformedFrame:
        pass


@settings(deadline=None)
@given(failures, st.data())
def test_e44_a_damaged_frame_is_read_or_refused(failure: Failure, data: st.DataObject) -> None:
    (frame,) = wire.encode_notice(Notice(NoticeKind.FAILURE, 1, failure, (ObjectId(1, 2, 3),)))
    at = data.draw(st.integers(0, len(frame) - 1))
    damaged = frame[:at] + data.draw(st.binary(min_size=1, max_size=3)) + frame[at + 1 :]
    for decode in DECODERS:
        try:
            decode(damaged)
        except MalformedFrame:
            pass
