"""A member floods a real receiver, in a process of its own: what that one grows by, and how long its loop is held."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio
import pytest

from fed.config import TLSConfig
from fed.core.failure import Failure, Kind
from fed.object import ObjectId
from fed.transport import wire
from fed.transport.certificates import Authority, write_credentials
from fed.transport.contract import Notice, NoticeKind, Parcel
from fed.transport.grpc.calls import SERVICE
from fed.transport.grpc.listener import MAX_UNREAD_ACKS
from fed.transport.v1 import fed_pb2 as pb
from fed.transport.wire import Offer
from tests.support.attackers import Raw
from tests.support.profile import times
from tests.support.worlds import LIMIT_S, PARTIES, hello, run

pytestmark = pytest.mark.timeout(600)

ROOT: Final = Path(__file__).parents[3]
MIB: Final = 1 << 20
CONSTANT: Final = 256 * MIB
"""What a peer may make a receiver grow by, beside twice what it is charged; docs/security.md says so."""
HOLD_S: Final = 2.0
"""Alone, a message holds the loop for a tenth of a second at most. Here others want its core too."""
MANY: Final = times(10, 40, 200)


class Told(NamedTuple):
    """What a receiver tells at its end, in bytes and seconds."""

    grown: int
    charged: int
    held_s: float


Attack = Callable[[Raw, list[Any]], Awaitable[None]]


async def _ignoring_refusals(call: Any) -> None:
    try:
        await asyncio.wait_for(call, LIMIT_S)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass


async def _leave_open(raw: Raw, open_calls: list[Any], method: str, *frames: bytes) -> None:
    call = raw.channel.stream_unary(f"/{SERVICE}/{method}")(metadata=raw.metadata)
    open_calls.append(call)
    try:
        for frame in frames:
            await asyncio.wait_for(call.write(frame), 1)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.TimeoutError):
        pass


async def greetings_of_names(raw: Raw, _open: list[Any]) -> None:
    frame = pb.Hello(protocol=1, parties=[""] * (8 * MIB)).SerializeToString()
    for _ in range(max(MANY // 5, 4)):
        await _ignoring_refusals(raw.greet(frame))
        await _ignoring_refusals(raw.greet(frame[: wire.MAX_FRAME_BYTES]))


async def frames_of_empty_parcels(raw: Raw, _open: list[Any]) -> None:
    for _ in range(MANY):
        await _ignoring_refusals(raw.exchange(b"\x0a\x00" * (wire.MAX_FRAME_BYTES // 2)))


async def frames_of_full_parcels(raw: Raw, _open: list[Any]) -> None:
    for number in range(MANY):
        parcels = [
            Parcel(ObjectId(0, number * wire.MAX_PARCELS + n, 0), b"h", (memoryview(b"x"),) * 4)
            for n in range(wire.MAX_PARCELS)
        ]
        await _ignoring_refusals(raw.exchange(wire.encode_parcels(parcels)))


async def answers_that_nobody_reads(raw: Raw, open_calls: list[Any]) -> None:
    call = raw.channel.stream_stream(f"/{SERVICE}/Exchange")(metadata=raw.metadata)
    open_calls.append(call)
    # What does not fit is declined at once. More than are kept.
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.TimeoutError):
        for first in range(0, 2 * MAX_UNREAD_ACKS, wire.MAX_PARCELS):
            objects = [Parcel(ObjectId(0, first + number, 0), b"", ()) for number in range(wire.MAX_PARCELS)]
            await asyncio.wait_for(call.write(wire.encode_parcels(objects)), LIMIT_S)


async def objects_of_empty_buffers(raw: Raw, _open: list[Any]) -> None:
    for number in range(MANY):
        buffers = (memoryview(b""),) * wire.MAX_FRAME_BUFFERS
        await _ignoring_refusals(raw.exchange(wire.encode_parcels([Parcel(ObjectId(0, number, 0), b"", buffers)])))


async def uploads_of_empty_buffers(raw: Raw, _open: list[Any]) -> None:
    for number in range(MANY):
        offer = Offer(ObjectId(0, number, 0), 0, (0,) * wire.MAX_BUFFERS)
        await _ignoring_refusals(raw.upload([wire.encode_offer(offer)]))


async def uploads_that_do_not_end(raw: Raw, open_calls: list[Any]) -> None:
    for number in range(MANY):
        offer = wire.encode_offer(Offer(ObjectId(0, number, 0), 0, (1,) * (wire.MAX_BUFFERS - 1) + (8 * MIB,)))
        await _leave_open(raw, open_calls, "Upload", offer, bytes(2 * MIB))


async def notices_of_many_texts(raw: Raw, _open: list[Any]) -> None:
    (frame,) = wire.encode_notice(Notice(NoticeKind.JOURNAL, 0, texts=("x" * 200,) * wire.MAX_NOTICE_TEXTS))
    for number in range(MANY):
        await _ignoring_refusals(raw.tell(frame))
        await _ignoring_refusals(raw.tell(b"\x22\x00" * (wire.MAX_FRAME_BYTES // 2)))
        # Each character of which is shown as four.
        controls = pb.Notice(kind=pb.NOTICE_KIND_JOURNAL, epoch=0, texts=["\x1b" * 1000] * wire.MAX_NOTICE_TEXTS)
        await _ignoring_refusals(raw.tell(controls.SerializeToString()))
        ready = pb.Notice(kind=pb.NOTICE_KIND_READY, epoch=number).SerializeToString()
        await _ignoring_refusals(raw.tell(ready + b"\x3a\x00" * MIB))


async def failures_of_many_objects(raw: Raw, open_calls: list[Any]) -> None:
    failure = Failure("alice/first/1", Kind.TASK, "alice", "ValueError", "task", 0)
    for number in range(MANY):
        ids = tuple(ObjectId(0, number * 8192 + n, 0) for n in range(wire.MAX_NOTICE_OBJECTS))
        (frame,) = wire.encode_notice(Notice(NoticeKind.FAILURE, 0, failure, ids))
        # Nobody answers, since no driver takes it.
        await _leave_open(raw, open_calls, "Tell", frame)


async def offers_that_never_fit(raw: Raw, _open: list[Any]) -> None:
    for number in range(MANY * 20):
        await _ignoring_refusals(raw.upload([wire.encode_offer(Offer(ObjectId(0, number, 0), 0, (1 << 40,)))]))


async def calls_without_end(raw: Raw, open_calls: list[Any]) -> None:
    for method in ("Tell", "Greet", "Upload"):
        for _ in range(MANY):
            await _leave_open(raw, open_calls, method)


ATTACKS: Final[tuple[Attack, ...]] = (
    greetings_of_names,
    frames_of_empty_parcels,
    frames_of_full_parcels,
    answers_that_nobody_reads,
    objects_of_empty_buffers,
    uploads_of_empty_buffers,
    uploads_that_do_not_end,
    notices_of_many_texts,
    failures_of_many_objects,
    offers_that_never_fit,
    calls_without_end,
)


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, TLSConfig]:
    return write_credentials(tmp_path_factory.mktemp("floods"), [*PARTIES, "mallory"], authority=Authority())


@pytest.mark.parametrize("who", ["alice", "mallory"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_receiver_grows_by_a_constant_and_twice_what_it_charges(
    attack: Attack, who: str, credentials: Mapping[str, TLSConfig]
) -> None:
    """By a member of the job, and by somebody with a certificate who is none."""
    tls = credentials["bob"]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.programs.flooded", str(tls.ca), str(tls.cert), str(tls.key)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as receiver:
        try:
            assert receiver.stdin is not None
            assert receiver.stdout is not None
            run(_play(attack, who, credentials[who], int(receiver.stdout.readline())), LIMIT_S + 2 * MANY)
            receiver.stdin.close()
            told = Told(**json.loads(receiver.stdout.readline()))
            assert receiver.wait(LIMIT_S) == 0
        finally:
            receiver.kill()
    print(
        f"{attack.__name__} by {who}: {told.grown / MIB:.1f} MiB, {told.charged / MIB:.1f} charged, {told.held_s:.3f} s"
    )
    assert told.grown <= CONSTANT + 2 * told.charged
    assert told.held_s < HOLD_S
    if who == "mallory":
        assert told.charged == 0


async def _play(attack: Attack, who: str, tls: TLSConfig, port: int) -> None:
    secrets = grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.key.read_bytes(), tls.cert.read_bytes())
    options = [("grpc.max_send_message_length", -1), ("grpc.ssl_target_name_override", "bob")]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", secrets, options) as channel:
        raw = Raw(channel, who)
        await _ignoring_refusals(raw.greet(wire.encode_hello(hello(who))))
        open_calls: list[Any] = []
        await attack(raw, open_calls)
        # While they are open.
        await asyncio.sleep(0.3)
        for call in open_calls:
            call.cancel()
