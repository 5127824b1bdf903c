from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    KIND_TASK: _ClassVar[Kind]
    KIND_CANCELLED: _ClassVar[Kind]
    KIND_WORKER_CRASHED: _ClassVar[Kind]
    KIND_OUT_OF_MEMORY: _ClassVar[Kind]
    KIND_ACTOR_DIED: _ClassVar[Kind]
    KIND_OBJECT_LOST: _ClassVar[Kind]
    KIND_DELIVERY: _ClassVar[Kind]
    KIND_EGRESS_DENIED: _ClassVar[Kind]
    KIND_PARTY_LOST: _ClassVar[Kind]
    KIND_PARTY_LEFT: _ClassVar[Kind]
    KIND_DRIVER: _ClassVar[Kind]
    KIND_DIVERGED: _ClassVar[Kind]
    KIND_DEADLOCK: _ClassVar[Kind]
    KIND_TIMEOUT: _ClassVar[Kind]
    KIND_INIT: _ClassVar[Kind]
    KIND_INTERNAL: _ClassVar[Kind]
    KIND_UNSERIALIZABLE: _ClassVar[Kind]

class NoticeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOTICE_KIND_UNSPECIFIED: _ClassVar[NoticeKind]
    NOTICE_KIND_READY: _ClassVar[NoticeKind]
    NOTICE_KIND_FAILURE: _ClassVar[NoticeKind]
    NOTICE_KIND_GOODBYE: _ClassVar[NoticeKind]
    NOTICE_KIND_PING: _ClassVar[NoticeKind]
    NOTICE_KIND_LATCHED: _ClassVar[NoticeKind]
    NOTICE_KIND_PROGRESS: _ClassVar[NoticeKind]
    NOTICE_KIND_JOURNAL: _ClassVar[NoticeKind]
    NOTICE_KIND_RESET: _ClassVar[NoticeKind]
    NOTICE_KIND_ASK: _ClassVar[NoticeKind]
    NOTICE_KIND_STANDING: _ClassVar[NoticeKind]

class Receipt(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RECEIPT_UNSPECIFIED: _ClassVar[Receipt]
    RECEIPT_DELIVERED: _ClassVar[Receipt]
    RECEIPT_DEFERRED: _ClassVar[Receipt]
    RECEIPT_WANTED: _ClassVar[Receipt]
    RECEIPT_TOO_LARGE: _ClassVar[Receipt]
    RECEIPT_CROWDED: _ClassVar[Receipt]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_ADMIT: _ClassVar[Verdict]
    VERDICT_DECLINE: _ClassVar[Verdict]
KIND_UNSPECIFIED: Kind
KIND_TASK: Kind
KIND_CANCELLED: Kind
KIND_WORKER_CRASHED: Kind
KIND_OUT_OF_MEMORY: Kind
KIND_ACTOR_DIED: Kind
KIND_OBJECT_LOST: Kind
KIND_DELIVERY: Kind
KIND_EGRESS_DENIED: Kind
KIND_PARTY_LOST: Kind
KIND_PARTY_LEFT: Kind
KIND_DRIVER: Kind
KIND_DIVERGED: Kind
KIND_DEADLOCK: Kind
KIND_TIMEOUT: Kind
KIND_INIT: Kind
KIND_INTERNAL: Kind
KIND_UNSERIALIZABLE: Kind
NOTICE_KIND_UNSPECIFIED: NoticeKind
NOTICE_KIND_READY: NoticeKind
NOTICE_KIND_FAILURE: NoticeKind
NOTICE_KIND_GOODBYE: NoticeKind
NOTICE_KIND_PING: NoticeKind
NOTICE_KIND_LATCHED: NoticeKind
NOTICE_KIND_PROGRESS: NoticeKind
NOTICE_KIND_JOURNAL: NoticeKind
NOTICE_KIND_RESET: NoticeKind
NOTICE_KIND_ASK: NoticeKind
NOTICE_KIND_STANDING: NoticeKind
RECEIPT_UNSPECIFIED: Receipt
RECEIPT_DELIVERED: Receipt
RECEIPT_DEFERRED: Receipt
RECEIPT_WANTED: Receipt
RECEIPT_TOO_LARGE: Receipt
RECEIPT_CROWDED: Receipt
VERDICT_UNSPECIFIED: Verdict
VERDICT_ADMIT: Verdict
VERDICT_DECLINE: Verdict

class ObjectId(_message.Message):
    __slots__ = ("epoch", "sequence", "slot", "stamp")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    STAMP_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    slot: int
    stamp: int
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., slot: _Optional[int] = ..., stamp: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "version", "job", "party", "incarnation", "parties", "types", "exceptions", "expects")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PARTIES_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    EXCEPTIONS_FIELD_NUMBER: _ClassVar[int]
    EXPECTS_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    version: str
    job: str
    party: str
    incarnation: str
    parties: _containers.RepeatedScalarFieldContainer[str]
    types: _containers.RepeatedScalarFieldContainer[str]
    exceptions: _containers.RepeatedScalarFieldContainer[str]
    expects: str
    def __init__(self, protocol: _Optional[int] = ..., version: _Optional[str] = ..., job: _Optional[str] = ..., party: _Optional[str] = ..., incarnation: _Optional[str] = ..., parties: _Optional[_Iterable[str]] = ..., types: _Optional[_Iterable[str]] = ..., exceptions: _Optional[_Iterable[str]] = ..., expects: _Optional[str] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Greeting(_message.Message):
    __slots__ = ("welcome", "refusal")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    welcome: Hello
    refusal: Refusal
    def __init__(self, welcome: _Optional[_Union[Hello, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("error_id", "kind", "src_party", "type_name", "task", "sequence", "cause_types", "hops", "message", "traceback", "truncated", "detail")
    ERROR_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SRC_PARTY_FIELD_NUMBER: _ClassVar[int]
    TYPE_NAME_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_TYPES_FIELD_NUMBER: _ClassVar[int]
    HOPS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    error_id: str
    kind: Kind
    src_party: str
    type_name: str
    task: str
    sequence: int
    cause_types: _containers.RepeatedScalarFieldContainer[str]
    hops: _containers.RepeatedScalarFieldContainer[str]
    message: str
    traceback: str
    truncated: bool
    detail: str
    def __init__(self, error_id: _Optional[str] = ..., kind: _Optional[_Union[Kind, str]] = ..., src_party: _Optional[str] = ..., type_name: _Optional[str] = ..., task: _Optional[str] = ..., sequence: _Optional[int] = ..., cause_types: _Optional[_Iterable[str]] = ..., hops: _Optional[_Iterable[str]] = ..., message: _Optional[str] = ..., traceback: _Optional[str] = ..., truncated: bool = ..., detail: _Optional[str] = ...) -> None: ...

class Wait(_message.Message):
    __slots__ = ("who", "what", "party")
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    who: str
    what: str
    party: str
    def __init__(self, who: _Optional[str] = ..., what: _Optional[str] = ..., party: _Optional[str] = ...) -> None: ...

class Standing(_message.Message):
    __slots__ = ("moves", "idle", "running", "in_flight", "waiting", "tasks", "waits")
    MOVES_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    WAITS_FIELD_NUMBER: _ClassVar[int]
    moves: int
    idle: bool
    running: int
    in_flight: int
    waiting: int
    tasks: _containers.RepeatedScalarFieldContainer[str]
    waits: _containers.RepeatedCompositeFieldContainer[Wait]
    def __init__(self, moves: _Optional[int] = ..., idle: bool = ..., running: _Optional[int] = ..., in_flight: _Optional[int] = ..., waiting: _Optional[int] = ..., tasks: _Optional[_Iterable[str]] = ..., waits: _Optional[_Iterable[_Union[Wait, _Mapping]]] = ...) -> None: ...

class Notice(_message.Message):
    __slots__ = ("kind", "epoch", "failure", "objects", "calls", "digest", "texts", "standing")
    KIND_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    kind: NoticeKind
    epoch: int
    failure: Failure
    objects: _containers.RepeatedCompositeFieldContainer[ObjectId]
    calls: int
    digest: int
    texts: _containers.RepeatedScalarFieldContainer[str]
    standing: Standing
    def __init__(self, kind: _Optional[_Union[NoticeKind, str]] = ..., epoch: _Optional[int] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., objects: _Optional[_Iterable[_Union[ObjectId, _Mapping]]] = ..., calls: _Optional[int] = ..., digest: _Optional[int] = ..., texts: _Optional[_Iterable[str]] = ..., standing: _Optional[_Union[Standing, _Mapping]] = ...) -> None: ...

class Told(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Parcel(_message.Message):
    __slots__ = ("id", "header", "buffers")
    ID_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    id: ObjectId
    header: bytes
    buffers: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, id: _Optional[_Union[ObjectId, _Mapping]] = ..., header: _Optional[bytes] = ..., buffers: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Parcels(_message.Message):
    __slots__ = ("parcels",)
    PARCELS_FIELD_NUMBER: _ClassVar[int]
    parcels: _containers.RepeatedCompositeFieldContainer[Parcel]
    def __init__(self, parcels: _Optional[_Iterable[_Union[Parcel, _Mapping]]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("id", "receipt", "limit")
    ID_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    id: ObjectId
    receipt: Receipt
    limit: int
    def __init__(self, id: _Optional[_Union[ObjectId, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, str]] = ..., limit: _Optional[int] = ...) -> None: ...

class Acks(_message.Message):
    __slots__ = ("acks",)
    ACKS_FIELD_NUMBER: _ClassVar[int]
    acks: _containers.RepeatedCompositeFieldContainer[Ack]
    def __init__(self, acks: _Optional[_Iterable[_Union[Ack, _Mapping]]] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("id", "header_size", "buffer_sizes", "total")
    ID_FIELD_NUMBER: _ClassVar[int]
    HEADER_SIZE_FIELD_NUMBER: _ClassVar[int]
    BUFFER_SIZES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    id: ObjectId
    header_size: int
    buffer_sizes: _containers.RepeatedScalarFieldContainer[int]
    total: int
    def __init__(self, id: _Optional[_Union[ObjectId, _Mapping]] = ..., header_size: _Optional[int] = ..., buffer_sizes: _Optional[_Iterable[int]] = ..., total: _Optional[int] = ...) -> None: ...

class UploadResult(_message.Message):
    __slots__ = ("verdict",)
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ...) -> None: ...
