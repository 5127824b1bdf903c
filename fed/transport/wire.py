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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

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
from fed.text import cut, is_plain, plain
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
from fed.transport.fields import TooManyFields, check_fields
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
    "MAX_REASON_BYTES",
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
MAX_FRAME_BYTES: Final = 4 << 20
"""No frame of any kind is larger."""
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
MAX_FIELDS: Final = 1 << 16
"""Of one frame, and of the messages in it. None that respects the limits above has more."""
SMALLEST_COUNTED: Final = 1 << 18
"""A smaller frame has no room for so many fields that it matters."""
MAX_SEQUENCE: Final = (1 << 63) - 1
MAX_UINT32: Final = (1 << 32) - 1
MAX_UINT64: Final = (1 << 64) - 1
MAX_BYTES: Final = (1 << 62) - 1
"""Of one object: the sum of the sizes in an offer fits a signed 64-bit number."""

UNNAMED: Final = "<unnamed>"
"""Sent in place of a class name that is empty, which Python allows and a reader here does not."""

_KINDS: Final[Mapping[Kind, int]] = {
    Kind.TASK: pb.KIND_TASK,
    Kind.CANCELLED: pb.KIND_CANCELLED,
    Kind.WORKER_CRASHED: pb.KIND_WORKER_CRASHED,
    Kind.OUT_OF_MEMORY: pb.KIND_OUT_OF_MEMORY,
    Kind.ACTOR_DIED: pb.KIND_ACTOR_DIED,
    Kind.OBJECT_LOST: pb.KIND_OBJECT_LOST,
    Kind.DELIVERY: pb.KIND_DELIVERY,
    Kind.EGRESS_DENIED: pb.KIND_EGRESS_DENIED,
    Kind.PARTY_LOST: pb.KIND_PARTY_LOST,
    Kind.PARTY_LEFT: pb.KIND_PARTY_LEFT,
    Kind.DRIVER: pb.KIND_DRIVER,
    Kind.DIVERGED: pb.KIND_DIVERGED,
    Kind.DEADLOCK: pb.KIND_DEADLOCK,
    Kind.TIMEOUT: pb.KIND_TIMEOUT,
    Kind.INIT: pb.KIND_INIT,
    Kind.INTERNAL: pb.KIND_INTERNAL,
}
_NOTICE_KINDS: Final[Mapping[NoticeKind, int]] = {
    NoticeKind.READY: pb.NOTICE_KIND_READY,
    NoticeKind.FAILURE: pb.NOTICE_KIND_FAILURE,
    NoticeKind.LATCHED: pb.NOTICE_KIND_LATCHED,
    NoticeKind.PROGRESS: pb.NOTICE_KIND_PROGRESS,
    NoticeKind.JOURNAL: pb.NOTICE_KIND_JOURNAL,
    NoticeKind.RESET: pb.NOTICE_KIND_RESET,
    NoticeKind.GOODBYE: pb.NOTICE_KIND_GOODBYE,
    NoticeKind.PING: pb.NOTICE_KIND_PING,
    NoticeKind.ASK: pb.NOTICE_KIND_ASK,
    NoticeKind.STANDING: pb.NOTICE_KIND_STANDING,
}
_RECEIPTS: Final[Mapping[Receipt, int]] = {
    Receipt.DELIVERED: pb.RECEIPT_DELIVERED,
    Receipt.DEFERRED: pb.RECEIPT_DEFERRED,
    Receipt.WANTED: pb.RECEIPT_WANTED,
    Receipt.TOO_LARGE: pb.RECEIPT_TOO_LARGE,
    Receipt.CROWDED: pb.RECEIPT_CROWDED,
}
_VERDICTS: Final[Mapping[Verdict, int]] = {
    Verdict.ADMIT: pb.VERDICT_ADMIT,
    Verdict.DECLINE: pb.VERDICT_DECLINE,
}
_KIND_OF: Final = {number: kind for kind, number in _KINDS.items()}
_NOTICE_KIND_OF: Final = {number: kind for kind, number in _NOTICE_KINDS.items()}
_RECEIPT_OF: Final = {number: receipt for receipt, number in _RECEIPTS.items()}
_VERDICT_OF: Final = {number: verdict for verdict, number in _VERDICTS.items()}

# Which fields each kind of notice must have, and which it may have besides: the table in `fed.core.notice`. A number
# may be zero, which on the wire is no different from its absence, so none is ever required.
_MUST: Final[Mapping[NoticeKind, frozenset[str]]] = {
    NoticeKind.READY: frozenset(),
    NoticeKind.FAILURE: frozenset({"failure", "objects"}),
    NoticeKind.LATCHED: frozenset({"failure"}),
    NoticeKind.PROGRESS: frozenset(),
    NoticeKind.JOURNAL: frozenset({"texts"}),
    NoticeKind.RESET: frozenset(),
    NoticeKind.GOODBYE: frozenset(),
    NoticeKind.PING: frozenset(),
    NoticeKind.ASK: frozenset(),
    NoticeKind.STANDING: frozenset({"standing"}),
}
_MAY: Final[Mapping[NoticeKind, frozenset[str]]] = {
    NoticeKind.READY: frozenset(),
    NoticeKind.FAILURE: frozenset(),
    NoticeKind.LATCHED: frozenset(),
    NoticeKind.PROGRESS: frozenset({"calls", "digest"}),
    NoticeKind.JOURNAL: frozenset({"calls"}),
    NoticeKind.RESET: frozenset({"calls", "digest"}),
    NoticeKind.GOODBYE: frozenset({"failure", "calls", "digest"}),
    NoticeKind.PING: frozenset(),
    NoticeKind.ASK: frozenset({"calls"}),
    NoticeKind.STANDING: frozenset({"calls"}),
}

_OF_LINES: Final = frozenset({"message", "traceback"})
"""Texts of a failure that may have several lines."""

_OF_SENTENCES: Final = str.maketrans(dict.fromkeys("\"'`:;,()", "_"))

_M = TypeVar("_M", bound=Message)
_E = TypeVar("_E")


class MalformedFrame(ValueError):
    """Bytes that no party of this protocol version writes, or a value that the protocol cannot carry."""


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
    return _read_hello(_parse(pb.Hello, data, MAX_GREETING_BYTES))


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
    greeting = _parse(pb.Greeting, data, MAX_GREETING_BYTES)
    answer = greeting.WhichOneof("answer")
    if answer == "welcome":
        return _read_hello(greeting.welcome)
    if answer == "refusal":
        return _shown(greeting.refusal.reason, "reason of a refusal", MAX_REASON_BYTES, empty=False)
    raise MalformedFrame("a greeting was answered with neither a welcome nor a refusal")


def _hello(hello: Hello) -> pb.Hello:
    message = pb.Hello()
    try:
        message.protocol = hello.protocol
        message.version = hello.version
        message.job = hello.job
        message.party = hello.party
        message.incarnation = hello.incarnation
        message.parties.extend(hello.parties)
        message.types.extend(hello.types)
        message.exceptions.extend(hello.exceptions)
        message.expects = hello.expects
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
        version=_name(message.version, "version in a greeting"),
        job=_name(message.job, "job in a greeting"),
        party=_name(message.party, "party in a greeting"),
        incarnation=_name(message.incarnation, "incarnation in a greeting"),
        parties=_names(message.parties, "party in a greeting", MAX_PARTIES),
        types=_names(message.types, "type in a greeting", MAX_TYPES, MAX_TYPE_BYTES),
        exceptions=_names(message.exceptions, "exception in a greeting", MAX_TYPES, MAX_TYPE_BYTES),
        expects=_name(message.expects, "expected incarnation in a greeting") if message.expects else "",
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
    return _read_failure(_parse(pb.Failure, data))


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
    return _read_notice(_parse(pb.Notice, data))


def _failure(failure: Failure) -> pb.Failure:
    truncated = failure.truncated or len(failure.cause_types) > MAX_CAUSES or len(failure.hops) > MAX_HOPS
    message = pb.Failure(kind=_KINDS[failure.kind])  # type: ignore[arg-type]
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
        error_id=_name(message.error_id, "error_id of a failure"),
        kind=_member(_KIND_OF, message.kind, "kind of a failure"),
        src_party=_name(message.src_party, "src_party of a failure"),
        type_name=_label(message.type_name, "type_name of a failure", empty=False),
        task=_label(message.task, "task of a failure"),
        sequence=message.sequence if message.HasField("sequence") else -1,
        cause_types=_labels(message.cause_types, "cause of a failure", MAX_CAUSES, empty=False),
        hops=_names(message.hops, "hop of a failure", MAX_HOPS),
        detail=_shown(message.detail, "detail of a failure", MAX_DETAIL_BYTES),
        message=_shown(message.message, "message of a failure", MAX_MESSAGE_BYTES, lines=True),
        traceback=_shown(message.traceback, "traceback of a failure", MAX_TRACEBACK_BYTES, lines=True),
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
    message = pb.Notice(kind=_NOTICE_KINDS[notice.kind])  # type: ignore[arg-type]
    message.epoch = _in_range(notice.epoch, MAX_UINT32, "epoch of a notice")
    if notice.failure is not None:
        message.failure.CopyFrom(_failure(notice.failure))
    for object_id in notice.objects:
        _write_id(message.objects.add(), object_id)
    message.calls = _in_range(notice.calls, MAX_SEQUENCE, "number of calls in a notice")
    message.digest = _in_range(notice.digest, MAX_UINT64, "digest in a notice")
    for text in notice.texts:
        fitting, _ = cut(text, MAX_TEXT_BYTES)
        message.texts.append(fitting)
    if notice.standing is not None:
        message.standing.CopyFrom(_standing(notice.standing))
    _check_fields(notice.kind, message)
    return message


def _read_notice(message: pb.Notice) -> Notice:
    kind = _member(_NOTICE_KIND_OF, message.kind, "kind of a notice")
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
        calls=_in_range(message.calls, MAX_SEQUENCE, "number of calls in a notice"),
        digest=message.digest,
        texts=tuple(_shown(text, "text of a notice", MAX_TEXT_BYTES) for text in message.texts),
        standing=_read_standing(message.standing) if message.HasField("standing") else None,
    )


def _standing(standing: PartyStatus) -> pb.Standing:
    message = pb.Standing(idle=standing.idle)
    for name in ("moves", "running", "in_flight", "waiting"):
        setattr(message, name, _in_range(getattr(standing, name), MAX_SEQUENCE, f"{name} of a standing"))
    message.tasks.extend(cut(task, MAX_NAME_BYTES)[0] for task in standing.tasks[:MAX_SHOWN])
    for wait in standing.waits[:MAX_SHOWN]:
        who, what, party = (cut(text, MAX_NAME_BYTES)[0] for text in wait)
        message.waits.add(who=who, what=what, party=party)
    return message


def _read_standing(message: pb.Standing) -> PartyStatus:
    if max(len(message.tasks), len(message.waits)) > MAX_SHOWN:
        raise MalformedFrame(f"a standing names more than {MAX_SHOWN} tasks or waits")
    return PartyStatus(
        moves=_in_range(message.moves, MAX_SEQUENCE, "moves of a standing"),
        idle=message.idle,
        running=_in_range(message.running, MAX_SEQUENCE, "running of a standing"),
        in_flight=_in_range(message.in_flight, MAX_SEQUENCE, "in_flight of a standing"),
        waiting=_in_range(message.waiting, MAX_SEQUENCE, "waiting of a standing"),
        tasks=_labels(message.tasks, "task of a standing", MAX_SHOWN),
        waits=tuple(Wait(*_labels((one.who, one.what, one.party), "wait of a standing", 3)) for one in message.waits),
    )


def _check_fields(kind: NoticeKind, message: pb.Notice) -> None:
    present = {field.name for field, _ in message.ListFields()} - {"kind", "epoch"}
    missing, strange = _MUST[kind] - present, present - _MUST[kind] - _MAY[kind]
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
    _check_counts(len(parcels), sum(len(parcel.buffers) for parcel in parcels))
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
    messages = _parse(pb.Parcels, data).parcels
    _check_counts(len(messages), 0)
    _check_counts(0, sum(len(message.buffers) for message in messages))
    parcels = []
    for message in messages:
        if not message.HasField("id"):
            raise MalformedFrame("a parcel lacks its name")
        parcels.append(Parcel(_read_id(message.id), message.header, tuple(map(memoryview, message.buffers))))
    return parcels


def _check_counts(parcels: int, buffers: int) -> None:
    if parcels > MAX_PARCELS:
        raise MalformedFrame(f"a frame has {parcels} parcels; at most {MAX_PARCELS} may be")
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
        message.receipt = _RECEIPTS[ack.receipt]  # type: ignore[assignment]
        message.limit = _in_range(ack.limit, MAX_UINT64, "limit in an acknowledgement")
    return frame.SerializeToString()


def decode_acks(data: bytes) -> list[Ack]:
    """Read what `encode_acks` wrote.

    Raises:
        MalformedFrame: It is not that.
    """
    frame = _parse(pb.Acks, data)
    if len(frame.acks) > MAX_ACKS:
        raise MalformedFrame(f"a frame holds {len(frame.acks)} acknowledgements; at most {MAX_ACKS} may be")
    acks = []
    for message in frame.acks:
        if not message.HasField("id"):
            raise MalformedFrame("an acknowledgement lacks the name of its object")
        receipt = _member(_RECEIPT_OF, message.receipt, "receipt")
        acks.append(Ack(_read_id(message.id), receipt, message.limit))
    return acks


def encode_offer(offer: Offer) -> bytes:
    """The first message of an upload.

    Raises:
        MalformedFrame: The name or a size is out of range, or there are too many buffers.
    """
    message = pb.Offer()
    _write_id(message.id, offer.id)
    message.header_size = _in_range(offer.header_size, MAX_BYTES, "size of a header")
    if len(offer.buffer_sizes) > MAX_BUFFERS:
        raise MalformedFrame(
            f"object {offer.id} has {len(offer.buffer_sizes)} buffers (arrays, large bytes), and at most {MAX_BUFFERS} "
            "may be: put some together"
        )
    message.buffer_sizes.extend(offer.buffer_sizes)
    message.total = _in_range(offer.nbytes, MAX_BYTES, "size of an object")
    return message.SerializeToString()


def decode_offer(data: bytes) -> Offer:
    """Read what `encode_offer` wrote.

    Raises:
        MalformedFrame: It is not that, or its sizes do not add up.
    """
    message = _parse(pb.Offer, data, most=MAX_BUFFERS + 64)
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
    return pb.UploadResult(verdict=_VERDICTS[verdict]).SerializeToString()  # type: ignore[arg-type]


def decode_result(data: bytes) -> Verdict:
    """Read what `encode_result` wrote.

    Raises:
        MalformedFrame: It is not that.
    """
    return _member(_VERDICT_OF, _parse(pb.UploadResult, data).verdict, "verdict")


# Shared by all -------------------------------------------------------------------------------------------------


def _parse(message_type: type[_M], data: bytes, max_bytes: int = MAX_FRAME_BYTES, *, most: int = MAX_FIELDS) -> _M:
    if len(data) > max_bytes:
        raise MalformedFrame(f"a {message_type.__name__} of {len(data)} bytes is over the limit of {max_bytes}")
    message = message_type()
    try:
        if len(data) > SMALLEST_COUNTED:
            check_fields(data, message.DESCRIPTOR, most)
        message.ParseFromString(data)
    except (DecodeError, TooManyFields) as error:
        raise MalformedFrame(f"not a {message_type.__name__}: {error}") from error
    return message


def _write_id(message: pb.ObjectId, object_id: ObjectId) -> None:
    message.epoch = _in_range(object_id.epoch, MAX_UINT32, "epoch of an object")
    message.sequence = _in_range(object_id.sequence, MAX_SEQUENCE, "sequence of an object")
    message.slot = _in_range(object_id.slot, MAX_UINT32, "slot of an object")
    message.stamp = _in_range(object_id.stamp, MAX_UINT64, "stamp of an object")


def _read_id(message: pb.ObjectId) -> ObjectId:
    if message.sequence > MAX_SEQUENCE:
        raise MalformedFrame(f"sequence {message.sequence} of an object is out of range")
    return ObjectId(message.epoch, message.sequence, message.slot, message.stamp)


def _in_range(number: int, most: int, what: str) -> int:
    if not 0 <= number <= most:
        raise MalformedFrame(f"{what} is out of range: {number}")
    return number


def _member(members: Mapping[int, _E], number: Any, what: str) -> _E:
    member = members.get(number)
    if member is None:
        raise MalformedFrame(f"unknown {what}: {number}")
    return member


def _name(text: str, what: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    """What others are compared with: nothing in it may be invisible."""
    if not text:
        raise MalformedFrame(f"{what} is missing")
    _check_length(text, what, max_bytes)
    if not is_plain(text):
        raise MalformedFrame(f"{what} has characters that cannot be shown: {cut(plain(text), MAX_NAME_BYTES)[0]}")
    return text


def _names(names: Sequence[str], what: str, most: int, max_bytes: int = MAX_NAME_BYTES) -> tuple[str, ...]:
    if len(names) > most:
        raise MalformedFrame(f"{what}: {len(names)} are over the limit of {most}")
    return tuple(_name(name, what, max_bytes) for name in names)


def _labels(texts: Sequence[str], what: str, most: int, *, empty: bool = True) -> tuple[str, ...]:
    if len(texts) > most:
        raise MalformedFrame(f"{what}: {len(texts)} are over the limit of {most}")
    return tuple(_label(text, what, empty=empty) for text in texts)


def _label(text: str, what: str, *, empty: bool = True) -> str:
    """The name of a class or a task, as part of a sentence of ours: without what would go on with that sentence."""
    return _shown(text, what, MAX_NAME_BYTES, empty=empty).translate(_OF_SENTENCES)


def _shown(text: str, what: str, max_bytes: int, *, lines: bool = False, empty: bool = True) -> str:
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
