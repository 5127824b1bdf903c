"""The words of `proto/fed/v1/fed.proto` to and from this package's own values.

Laws:

1. Reading is strict. What is missing, unknown or over its limit is a `MalformedFrame`; nothing is coerced, and
   nothing read is interpreted beyond its framing.
2. Writing a `Failure` or a refusal cannot fail: their text is cut to its limit, since an error that could not be
   sent would be a hang [E25]. The texts of a journal are cut too, because a call is known by its beginning. Writing
   anything else over a limit is a `MalformedFrame` as well.
3. What is written here is read here, whatever the text in it: `read(write(x)) == x` up to the cuts of law 2 and the
   signs that law 4 replaces.
4. Text that is read can be shown: what would control a terminal or hide in a line has become a visible escape, and
   what is shown within a sentence of ours, the name of a class or a task, has no signs of a sentence. A name that
   others are compared with has nothing of the first kind, or its frame is refused.
5. What reading a frame takes is bounded, in memory and time: its size is limited by its kind, and a frame of which more
   could be made than its limits allow is counted before it is parsed.

A name is at most 128 bytes of UTF-8 and never empty. A failure is at most 4 KiB when encoded [E25, E44].
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Final, NamedTuple, TypeVar

from fed.core.failure import (
    MAX_CAUSES,
    MAX_DETAIL_BYTES,
    MAX_HOPS,
    MAX_MESSAGE_BYTES,
    MAX_NAME_BYTES,
    MAX_TRACEBACK_BYTES,
    Failure,
    Kind,
)
from fed.core.stall import MAX_SHOWN, PartyStatus, Wait
from fed.object import ObjectId
from fed.text import cut, plain
from fed.transport import fields
from fed.transport.contract import (
    BUFFER_BYTES,
    MAX_GREETING_BYTES,
    Ack,
    Hello,
    Notice,
    NoticeKind,
    Parcel,
    Receipt,
    Verdict,
)
from fed.transport.fields import MAX_FRAME_BYTES, MalformedFrame
from fed.transport.v1 import fed_pb2 as pb

__all__ = [
    "MAX_ACKS",
    "MAX_BUFFERS",
    "MAX_FAILURE_BYTES",
    "MAX_FRAME_BUFFERS",
    "MAX_FRAME_BYTES",
    "MAX_NOTICE_OBJECTS",
    "MAX_NOTICE_TEXTS",
    "MAX_PARCELS",
    "MAX_TEXT_BYTES",
    "MalformedFrame",
    "Offer",
    "decode_acks",
    "decode_failure",
    "decode_greeting",
    "decode_hello",
    "decode_notice",
    "decode_offer",
    "decode_parcels",
    "decode_result",
    "encode_acks",
    "encode_failure",
    "encode_hello",
    "encode_notice",
    "encode_offer",
    "encode_parcels",
    "encode_refusal",
    "encode_result",
    "encode_welcome",
]

MAX_FAILURE_BYTES: Final = 4096
MAX_REASON_BYTES: Final = 2048
MAX_TYPE_BYTES: Final = 512
"""Of a declared type's name, which includes its module."""
MAX_PARTIES: Final = 1024
MAX_TYPES: Final = 4096
MAX_NOTICE_OBJECTS: Final = 8192
"""Of one frame; a notice with more travels as several."""
MAX_NOTICE_TEXTS: Final = 4096
"""Of one frame; a journal with more travels as several."""
MAX_TEXT_BYTES: Final = 256
"""Of one call in a journal."""
MAX_ACKS: Final = 4096
MAX_PARCELS: Final = 1024
"""Of one frame."""
MAX_BUFFERS: Final = 65_536
"""Of one object. Bounds what the descriptions of empty buffers can make a receiver allocate."""
MAX_FRAME_BUFFERS: Final = 4096
"""Of all objects of one frame together."""
MAX_SEQUENCE: Final = (1 << 63) - 1
MAX_UINT32: Final = (1 << 32) - 1
MAX_UINT64: Final = (1 << 64) - 1
MAX_BYTES: Final = (1 << 62) - 1
"""Of one object: the sum of the sizes in an offer fits a signed 64-bit number."""

UNNAMED: Final = "<unnamed>"
"""Sent in place of a class name that is empty, which Python allows and a reader here does not."""

_E = TypeVar("_E", bound=enum.Enum)


def _numbers(members: type[_E], words: Any) -> dict[_E, Any]:
    """The numbers of an enum's members: in proto, each has the same name behind a prefix."""
    prefix = words.Name(0).removesuffix("UNSPECIFIED")
    return {member: words.Value(prefix + member.name) for member in members}


_KINDS: Final = _numbers(Kind, pb.Kind)
_NOTICE_KINDS: Final = _numbers(NoticeKind, pb.NoticeKind)
_RECEIPTS: Final = _numbers(Receipt, pb.Receipt)
_VERDICTS: Final = _numbers(Verdict, pb.Verdict)
_KIND_OF: Final = {number: kind for kind, number in _KINDS.items()}
_NOTICE_KIND_OF: Final = {number: kind for kind, number in _NOTICE_KINDS.items()}
_RECEIPT_OF: Final = {number: receipt for receipt, number in _RECEIPTS.items()}
_VERDICT_OF: Final = {number: verdict for verdict, number in _VERDICTS.items()}

# Which fields a kind of notice must have, and which it may have besides: the table in `fed.core.notice`. A number may
# be zero, which on the wire is no different from its absence, so none is ever required.
_MUST: Final[Mapping[NoticeKind, Set[str]]] = {
    NoticeKind.FAILURE: {"failure", "objects"},
    NoticeKind.LATCHED: {"failure"},
    NoticeKind.JOURNAL: {"texts"},
    NoticeKind.STANDING: {"standing"},
}
_MAY: Final[Mapping[NoticeKind, Set[str]]] = {
    NoticeKind.PROGRESS: {"calls", "digest"},
    NoticeKind.JOURNAL: {"calls"},
    NoticeKind.RESET: {"calls", "digest"},
    NoticeKind.GOODBYE: {"failure", "calls", "digest"},
    NoticeKind.ASK: {"calls"},
    NoticeKind.STANDING: {"calls"},
}

_OF_LINES: Final = frozenset({"message", "traceback"})
"""Texts of a failure that may have several lines."""


class Offer(NamedTuple):
    """What the first message of an upload announces.

    Attributes:
        id: The object's name.
        header_size: Size of the codec's header, in bytes.
        buffer_sizes: Size of each buffer, in bytes.
    """

    id: ObjectId
    header_size: int
    buffer_sizes: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of header and buffers together, in bytes."""
        return self.header_size + sum(self.buffer_sizes)

    @property
    def overhead(self) -> int:
        """As of the `Parcel` that it announces."""
        return BUFFER_BYTES * len(self.buffer_sizes)


# Hello ---------------------------------------------------------------------------------------------------------


def encode_hello(hello: Hello) -> bytes:
    """A greeting.

    Raises:
        MalformedFrame: A field of it is over its limit.
    """
    return _hello(hello).SerializeToString()


def decode_hello(data: bytes) -> Hello:
    """Read what `encode_hello` wrote.

    Raises:
        MalformedFrame: It is not that.
    """
    return _read_hello(fields.parse(pb.Hello, data, MAX_GREETING_BYTES))


def encode_welcome(hello: Hello) -> bytes:
    """The answer to a greeting that is accepted: the listener's own.

    Raises:
        MalformedFrame: A field of it is over its limit.
    """
    return pb.Greeting(welcome=_hello(hello)).SerializeToString()


def encode_refusal(reason: str) -> bytes:
    """The answer to a greeting that is not. Total."""
    text, _ = cut(reason, MAX_REASON_BYTES)
    return pb.Greeting(refusal=pb.Refusal(reason=text or "no reason given")).SerializeToString()


def decode_greeting(data: bytes) -> Hello | str:
    """Read an answer to a greeting: the listener's own, or its reason to refuse.

    Raises:
        MalformedFrame: It is neither.
    """
    greeting = fields.parse(pb.Greeting, data, MAX_GREETING_BYTES)
    answer = greeting.WhichOneof("answer")
    if answer == "welcome":
        return _read_hello(greeting.welcome)
    if answer == "refusal":
        return fields.read_text(greeting.refusal.reason, "reason of a refusal", MAX_REASON_BYTES, empty=False)
    raise MalformedFrame("a greeting was answered with neither a welcome nor a refusal")


def _hello(hello: Hello) -> pb.Hello:
    try:
        message = pb.Hello(**vars(hello))
    except (ValueError, TypeError) as error:
        raise MalformedFrame(f"a greeting cannot be encoded: {error}") from error
    _read_hello(message)
    # What the answer adds to it is a few bytes.
    if message.ByteSize() > MAX_GREETING_BYTES - 64:
        raise MalformedFrame(
            f"a greeting of {message.ByteSize()} bytes is over the limit of {MAX_GREETING_BYTES}: declare fewer types"
        )
    return message


def _read_hello(message: pb.Hello) -> Hello:
    if message.protocol == 0:
        raise MalformedFrame("a greeting lacks its protocol version")
    return Hello(
        protocol=message.protocol,
        version=fields.read_name(message.version, "version in a greeting"),
        job=fields.read_name(message.job, "job in a greeting"),
        party=fields.read_name(message.party, "party in a greeting"),
        incarnation=fields.read_name(message.incarnation, "incarnation in a greeting"),
        parties=fields.read_names(message.parties, "party in a greeting", MAX_PARTIES),
        types=fields.read_names(message.types, "type in a greeting", MAX_TYPES, MAX_TYPE_BYTES),
        exceptions=fields.read_names(message.exceptions, "exception in a greeting", MAX_TYPES, MAX_TYPE_BYTES),
        expects=fields.read_name(message.expects, "expected incarnation in a greeting") if message.expects else "",
    )


# Failures and notices ------------------------------------------------------------------------------------------


def encode_failure(failure: Failure) -> bytes:
    """A failure in at most 4 KiB, marked as truncated where something had to be cut. Total."""
    return _failure(failure).SerializeToString()


def decode_failure(data: bytes) -> Failure:
    """Read what `encode_failure` wrote.

    Raises:
        MalformedFrame: It is not that.
    """
    return _read_failure(fields.parse(pb.Failure, data))


def encode_notice(notice: Notice) -> tuple[bytes, ...]:
    """A notice as one frame, or as several if it names more objects or calls than one frame may.

    Raises:
        MalformedFrame: A number is out of range, a field is set that its kind does not have, or one is missing.
    """
    return tuple(_notice(part).SerializeToString() for part in _parts(notice))


def decode_notice(data: bytes) -> Notice:
    """Read one frame of what `encode_notice` wrote.

    Raises:
        MalformedFrame: It is not that.
    """
    return _read_notice(fields.parse(pb.Notice, data))


def _failure(failure: Failure) -> pb.Failure:
    truncated = failure.truncated or len(failure.cause_types) > MAX_CAUSES or len(failure.hops) > MAX_HOPS
    message = pb.Failure(kind=_KINDS[failure.kind])
    for field, text, limit in (
        ("error_id", failure.error_id or UNNAMED, MAX_NAME_BYTES),
        ("src_party", failure.src_party or UNNAMED, MAX_NAME_BYTES),
        ("type_name", failure.type_name or UNNAMED, MAX_NAME_BYTES),
        ("task", failure.task, MAX_NAME_BYTES),
        ("detail", failure.detail, MAX_DETAIL_BYTES),
        ("message", failure.message, MAX_MESSAGE_BYTES),
        ("traceback", failure.traceback, MAX_TRACEBACK_BYTES),
    ):
        fitting, cut_field = cut(plain(text, lines=field in _OF_LINES), limit)
        setattr(message, field, fitting)
        truncated |= cut_field
    if failure.sequence >= 0:
        message.sequence = min(failure.sequence, MAX_SEQUENCE)
    for repeated, names in (
        (message.cause_types, failure.cause_types[:MAX_CAUSES]),
        (message.hops, failure.hops[:MAX_HOPS]),
    ):
        for name in names:
            fitting, cut_name = cut(plain(name) or UNNAMED, MAX_NAME_BYTES)
            repeated.append(fitting)
            truncated |= cut_name
    message.truncated = truncated
    # The limits of the fields add up to somewhat more than that of the whole; what says least goes first.
    for field in ("traceback", "cause_types", "message", "hops"):
        if message.ByteSize() <= MAX_FAILURE_BYTES:
            break
        message.ClearField(field)
        message.truncated = True
    return message


def _read_failure(message: pb.Failure) -> Failure:
    if message.ByteSize() > MAX_FAILURE_BYTES:
        raise MalformedFrame(f"a failure of {message.ByteSize()} bytes is over the limit of {MAX_FAILURE_BYTES}")
    if message.sequence > MAX_SEQUENCE:
        raise MalformedFrame(f"sequence {message.sequence} of a failure is out of range")
    return Failure(
        error_id=fields.read_name(message.error_id, "error_id of a failure"),
        kind=fields.member_of(_KIND_OF, message.kind, "kind of a failure"),
        src_party=fields.read_name(message.src_party, "src_party of a failure"),
        type_name=fields.read_label(message.type_name, "type_name of a failure", empty=False),
        task=fields.read_label(message.task, "task of a failure"),
        sequence=message.sequence if message.HasField("sequence") else -1,
        cause_types=fields.read_labels(message.cause_types, "cause of a failure", MAX_CAUSES, empty=False),
        hops=fields.read_names(message.hops, "hop of a failure", MAX_HOPS),
        detail=fields.read_text(message.detail, "detail of a failure", MAX_DETAIL_BYTES),
        message=fields.read_text(message.message, "message of a failure", MAX_MESSAGE_BYTES, lines=True),
        traceback=fields.read_text(message.traceback, "traceback of a failure", MAX_TRACEBACK_BYTES, lines=True),
        truncated=message.truncated,
    )


def _parts(notice: Notice) -> Iterator[Notice]:
    """The same notice, or several that tell the same in frames of the size allowed."""
    objects, texts = notice.objects, notice.texts
    if len(objects) <= MAX_NOTICE_OBJECTS and len(texts) <= MAX_NOTICE_TEXTS:
        yield notice
    elif objects and texts:
        raise MalformedFrame(f"a {notice.kind.value} notice has both objects and texts")
    elif objects:
        for at in range(0, len(objects), MAX_NOTICE_OBJECTS):
            yield dataclasses.replace(notice, objects=objects[at : at + MAX_NOTICE_OBJECTS])
    else:
        for at in range(0, len(texts), MAX_NOTICE_TEXTS):
            yield dataclasses.replace(notice, calls=notice.calls + at, texts=texts[at : at + MAX_NOTICE_TEXTS])


def _notice(notice: Notice) -> pb.Notice:
    message = pb.Notice(kind=_NOTICE_KINDS[notice.kind])
    message.epoch = fields.in_range(notice.epoch, MAX_UINT32, "epoch of a notice")
    if notice.failure is not None:
        message.failure.CopyFrom(_failure(notice.failure))
    for object_id in notice.objects:
        _write_id(message.objects.add(), object_id)
    message.calls = fields.in_range(notice.calls, MAX_SEQUENCE, "number of calls in a notice")
    message.digest = fields.in_range(notice.digest, MAX_UINT64, "digest in a notice")
    for text in notice.texts:
        fitting, _ = cut(text, MAX_TEXT_BYTES)
        message.texts.append(fitting)
    if notice.standing is not None:
        message.standing.CopyFrom(_standing(notice.standing))
    _check_fields(notice.kind, message)
    return message


def _read_notice(message: pb.Notice) -> Notice:
    kind = fields.member_of(_NOTICE_KIND_OF, message.kind, "kind of a notice")
    _check_fields(kind, message)
    if len(message.objects) > MAX_NOTICE_OBJECTS:
        raise MalformedFrame(f"a notice names {len(message.objects)} objects; at most {MAX_NOTICE_OBJECTS} may be")
    if len(message.texts) > MAX_NOTICE_TEXTS:
        raise MalformedFrame(f"a notice has {len(message.texts)} texts; at most {MAX_NOTICE_TEXTS} may be")
    return Notice(
        kind=kind,
        epoch=message.epoch,
        failure=_read_failure(message.failure) if message.HasField("failure") else None,
        objects=tuple(_read_id(object_id) for object_id in message.objects),
        calls=fields.in_range(message.calls, MAX_SEQUENCE, "number of calls in a notice"),
        digest=message.digest,
        texts=tuple(fields.read_text(text, "text of a notice", MAX_TEXT_BYTES) for text in message.texts),
        standing=_read_standing(message.standing) if message.HasField("standing") else None,
    )


def _standing(standing: PartyStatus) -> pb.Standing:
    message = pb.Standing(idle=standing.idle)
    for name in ("moves", "running", "in_flight", "waiting"):
        setattr(message, name, fields.in_range(getattr(standing, name), MAX_SEQUENCE, f"{name} of a standing"))
    message.tasks.extend(cut(task, MAX_NAME_BYTES)[0] for task in standing.tasks[:MAX_SHOWN])
    for wait in standing.waits[:MAX_SHOWN]:
        who, what, party = (cut(text, MAX_NAME_BYTES)[0] for text in wait)
        message.waits.add(who=who, what=what, party=party)
    return message


def _read_standing(message: pb.Standing) -> PartyStatus:
    if max(len(message.tasks), len(message.waits)) > MAX_SHOWN:
        raise MalformedFrame(f"a standing names more than {MAX_SHOWN} tasks or waits")
    return PartyStatus(
        moves=fields.in_range(message.moves, MAX_SEQUENCE, "moves of a standing"),
        idle=message.idle,
        running=fields.in_range(message.running, MAX_SEQUENCE, "running of a standing"),
        in_flight=fields.in_range(message.in_flight, MAX_SEQUENCE, "in_flight of a standing"),
        waiting=fields.in_range(message.waiting, MAX_SEQUENCE, "waiting of a standing"),
        tasks=fields.read_labels(message.tasks, "task of a standing", MAX_SHOWN),
        waits=tuple(
            Wait(*fields.read_labels((wait.who, wait.what, wait.party), "wait of a standing", 3))
            for wait in message.waits
        ),
    )


def _check_fields(kind: NoticeKind, message: pb.Notice) -> None:
    present = {field.name for field, _ in message.ListFields()} - {"kind", "epoch"}
    required = _MUST.get(kind, set())
    missing, strange = required - present, present - required - _MAY.get(kind, set())
    if missing:
        raise MalformedFrame(f"a {kind.value} notice lacks its {min(missing)}")
    if strange:
        raise MalformedFrame(f"a {kind.value} notice has {min(strange)}")


# Parcels, acknowledgements, offers -----------------------------------------------------------------------------


def encode_parcels(parcels: Iterable[Parcel]) -> bytes:
    """Small objects in one frame, whose size in bytes is for the caller to bound.

    Raises:
        MalformedFrame: A name is out of range, or there are too many parcels or buffers.
    """
    frame = pb.Parcels()
    parcels = list(parcels)
    _check_counts(parcels)
    for parcel in parcels:
        message = frame.parcels.add()
        _write_id(message.id, parcel.id)
        message.header = parcel.header
        message.buffers.extend(map(bytes, parcel.buffers))
    return frame.SerializeToString()


def decode_parcels(data: bytes) -> list[Parcel]:
    """Read what `encode_parcels` wrote; the buffers are read-only and do not refer to `data`.

    Raises:
        MalformedFrame: It is not that.
    """
    messages = fields.parse(pb.Parcels, data).parcels
    _check_counts(messages)
    parcels = []
    for message in messages:
        if not message.HasField("id"):
            raise MalformedFrame("a parcel lacks its name")
        parcels.append(Parcel(_read_id(message.id), message.header, tuple(map(memoryview, message.buffers))))
    return parcels


def _check_counts(parcels: Sequence[Any]) -> None:
    if len(parcels) > MAX_PARCELS:
        raise MalformedFrame(f"a frame has {len(parcels)} parcels; at most {MAX_PARCELS} may be")
    buffers = sum(len(parcel.buffers) for parcel in parcels)
    if buffers > MAX_FRAME_BUFFERS:
        raise MalformedFrame(f"a frame has {buffers} buffers; at most {MAX_FRAME_BUFFERS} may be")


def encode_acks(acks: Iterable[Ack]) -> bytes:
    """At most `MAX_ACKS` acknowledgements in one frame.

    Raises:
        MalformedFrame: A name or a limit is out of range.
    """
    frame = pb.Acks()
    for ack in acks:
        message = frame.acks.add()
        _write_id(message.id, ack.id)
        message.receipt = _RECEIPTS[ack.receipt]
        message.limit = fields.in_range(ack.limit, MAX_UINT64, "limit in an acknowledgement")
    return frame.SerializeToString()


def decode_acks(data: bytes) -> list[Ack]:
    """Read what `encode_acks` wrote.

    Raises:
        MalformedFrame: It is not that.
    """
    frame = fields.parse(pb.Acks, data)
    if len(frame.acks) > MAX_ACKS:
        raise MalformedFrame(f"a frame holds {len(frame.acks)} acknowledgements; at most {MAX_ACKS} may be")
    acks = []
    for message in frame.acks:
        if not message.HasField("id"):
            raise MalformedFrame("an acknowledgement lacks the name of its object")
        receipt = fields.member_of(_RECEIPT_OF, message.receipt, "receipt")
        acks.append(Ack(_read_id(message.id), receipt, message.limit))
    return acks


def encode_offer(offer: Offer) -> bytes:
    """The first message of an upload.

    Raises:
        MalformedFrame: The name or a size is out of range, or there are too many buffers.
    """
    message = pb.Offer()
    _write_id(message.id, offer.id)
    message.header_size = fields.in_range(offer.header_size, MAX_BYTES, "size of a header")
    if len(offer.buffer_sizes) > MAX_BUFFERS:
        raise MalformedFrame(
            f"object {offer.id} has {len(offer.buffer_sizes)} buffers (arrays, large bytes), and at most {MAX_BUFFERS} "
            "may be: put some together"
        )
    message.buffer_sizes.extend(offer.buffer_sizes)
    message.total = fields.in_range(offer.nbytes, MAX_BYTES, "size of an object")
    return message.SerializeToString()


def decode_offer(data: bytes) -> Offer:
    """Read what `encode_offer` wrote.

    Raises:
        MalformedFrame: It is not that, or its sizes do not add up.
    """
    message = fields.parse(pb.Offer, data, most=MAX_BUFFERS + 64)
    if not message.HasField("id"):
        raise MalformedFrame("an offer lacks the name of its object")
    if len(message.buffer_sizes) > MAX_BUFFERS:
        raise MalformedFrame(f"an offer has {len(message.buffer_sizes)} buffers; at most {MAX_BUFFERS} may be")
    offer = Offer(_read_id(message.id), message.header_size, tuple(message.buffer_sizes))
    if offer.nbytes > MAX_BYTES or offer.nbytes != message.total:
        raise MalformedFrame(f"the sizes in an offer add up to {offer.nbytes}, not to its total of {message.total}")
    return offer


def encode_result(verdict: Verdict) -> bytes:
    """How an upload ended. Total."""
    return pb.UploadResult(verdict=_VERDICTS[verdict]).SerializeToString()


def decode_result(data: bytes) -> Verdict:
    """Read what `encode_result` wrote.

    Raises:
        MalformedFrame: It is not that.
    """
    return fields.member_of(_VERDICT_OF, fields.parse(pb.UploadResult, data).verdict, "verdict")


def _write_id(message: pb.ObjectId, object_id: ObjectId) -> None:
    message.epoch = fields.in_range(object_id.epoch, MAX_UINT32, "epoch of an object")
    message.sequence = fields.in_range(object_id.sequence, MAX_SEQUENCE, "sequence of an object")
    message.slot = fields.in_range(object_id.slot, MAX_UINT32, "slot of an object")
    message.stamp = fields.in_range(object_id.stamp, MAX_UINT64, "stamp of an object")


def _read_id(message: pb.ObjectId) -> ObjectId:
    if message.sequence > MAX_SEQUENCE:
        raise MalformedFrame(f"sequence {message.sequence} of an object is out of range")
    return ObjectId(message.epoch, message.sequence, message.slot, message.stamp)
