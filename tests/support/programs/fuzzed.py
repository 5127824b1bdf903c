"""A job of two honest parties and of carol, whose task sends both of them frames that it has changed at random.

Frames go out in carol's name, and in that of somebody who has a certificate and is not of the job. In carol's name it
sends none that is well-formed and ends the job by what it tells: that she may. Prints, in every party, how many calls
of each kind had which answer, as JSON. The honest parties call one another's actors meanwhile, and check the results.
"""

import asyncio
import collections
import json
import os
import random
import sys
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio

import fed
from fed import api
from fed.core.failure import Failure, Kind
from fed.core.stall import PartyStatus, Wait
from fed.object import ObjectId
from fed.transport import wire
from fed.transport.contract import PROTOCOL_VERSION, Hello, Notice, NoticeKind, Parcel
from fed.transport.grpc.calls import INCARNATION_KEY, PARTY_KEY, SERVICE
from tests.support.changing import changed

PARTIES = ("alice", "bob", "carol")
INCARNATION = "carols-life"
FIRST = 1 << 40
"""The sequence number of carol's objects that nobody waits for."""
ROUNDS = 20
LIMIT_S = 60.0
STANDING = PartyStatus(3, idle=True, running=1, waiting=1, tasks=("train",), waits=(Wait("get", "#3 train", "bob"),))
OF_THIS_END = "Internal error from Core"
"""What gRPC has for an answer that came while the first frame was being written."""
ENDED_FIRST = "(before it was written)"
TRUE = frozenset({NoticeKind.READY, NoticeKind.PING, NoticeKind.ASK})
"""What she may tell without ending the job."""


class Call(NamedTuple):
    """One call: its method and its frames."""

    method: str
    frames: list[bytes]


def hello() -> Hello:
    # Never sent as it is.
    return Hello(PROTOCOL_VERSION, "0.1.0", "test", "carol", INCARNATION, PARTIES, ("a.B",), ("a.C",), "x")


def calls_of_all_kinds() -> list[Call]:
    failure = Failure("carol/x/1", Kind.TASK, "carol", "ValueError", "train", 3, ("KeyError",), ("bob",), "d", "m", "t")
    ids = tuple(ObjectId(0, FIRST + number, 0) for number in range(3))
    parcels = [Parcel(one, b"head", (memoryview(b"abc"), memoryview(b""))) for one in ids]
    notices = [
        Notice(NoticeKind.READY, 0),
        Notice(NoticeKind.PING, 0),
        Notice(NoticeKind.PROGRESS, 0, calls=7, digest=1 << 60),
        Notice(NoticeKind.FAILURE, 0, failure, ids),
        Notice(NoticeKind.LATCHED, 0, failure),
        Notice(NoticeKind.GOODBYE, 0, failure),
        Notice(NoticeKind.RESET, 0, calls=7, digest=9),
        Notice(NoticeKind.JOURNAL, 0, calls=3, texts=("train(1)", "get")),
        Notice(NoticeKind.ASK, 0, calls=1),
        Notice(NoticeKind.STANDING, 0, calls=1, standing=STANDING),
    ]
    offers = [wire.Offer(ids[0], 4, (3, 0)), wire.Offer(ids[1], 0, (1 << 40,)), wire.Offer(ids[2], 0, (0,) * 100)]
    return [
        Call("Greet", [wire.encode_hello(hello())]),
        *(Call("Tell", [frame]) for notice in notices for frame in wire.encode_notice(notice)),
        *(Call("Exchange", [wire.encode_parcels(some)]) for some in (parcels, parcels[:1])),
        *(Call("Upload", [wire.encode_offer(offer), b"head", b"abc"]) for offer in offers),
    ]


def is_a_right(call: Call) -> bool:
    """Whether a member may send it, with an effect on the job: a notice, another life of hers, an object of hers."""
    try:
        match call.method:
            case "Greet":
                wire.decode_hello(call.frames[0])
                return True
            case "Tell":
                return wire.decode_notice(call.frames[0]).kind not in TRUE
            case "Exchange":
                return any(one.id.sequence < FIRST for one in wire.decode_parcels(call.frames[0]))
            case _:
                return wire.decode_offer(call.frames[0]).id.sequence < FIRST
    except wire.MalformedFrame:
        return False


async def answer(channel: Any, call: Call, metadata: Any) -> str:
    method = channel.stream_stream(f"/{SERVICE}/{call.method}")
    sent = method(iter(call.frames), metadata=metadata, timeout=LIMIT_S)
    try:
        while await sent.read() is not grpc.aio.EOF:
            pass
        return str((await sent.code()).name)
    except grpc.aio.AioRpcError as error:
        return ENDED_FIRST if error.details() == OF_THIS_END else str(error.code().name)
    finally:
        # Else one that broke off here stays open there.
        sent.cancel()


async def send_some(seed: int, count: int, target: str, party: str, tls: list[str]) -> collections.Counter[str]:
    """One after another, since a stream ends the calls of its party that are under way."""
    chance = random.Random(f"{seed} {target} {party}")
    ca, cert, key = (Path(one).read_bytes() for one in tls)
    corpus = calls_of_all_kinds()
    answers: collections.Counter[str] = collections.Counter()
    metadata = ((PARTY_KEY, party.encode()), (INCARNATION_KEY, INCARNATION.encode()))
    name, _, address = target.partition("=")
    secrets = grpc.ssl_channel_credentials(ca, key, cert)
    async with grpc.aio.secure_channel(address, secrets, [("grpc.ssl_target_name_override", name)]) as channel:
        while answers.total() < count:
            chosen = chance.choice(corpus)
            frames = list(chosen.frames)
            for place in range(len(frames)):
                if not place or chance.random() < 0.3:
                    frames[place] = changed(chance, frames[place], chance.choice(corpus).frames[0])
            call = Call(chosen.method, frames)
            if party != "carol" or not is_a_right(call):
                answers[f"{call.method} {await answer(channel, call, metadata)}"] += 1
    return answers


@fed.remote
def send_many(seed: int, count: int, targets: list[str], own: list[str], strangers: list[str]) -> dict[str, int]:
    async def everywhere() -> dict[str, int]:
        found = await asyncio.gather(
            *(send_some(seed, count * 2 // 5, target, "carol", own) for target in targets),
            *(send_some(seed, count // 10, target, "erin", strangers) for target in targets),
        )
        return dict(sum(found, collections.Counter()))

    return asyncio.run(everywhere())


@fed.remote
class Sum:
    def __init__(self) -> None:
        self.total = 0

    def add(self, number: int) -> int:
        self.total += number
        return self.total


def main() -> None:
    seed, batches, count = (int(argument) for argument in sys.argv[1:4])
    own, strangers = sys.argv[4:7], sys.argv[7:10]
    targets = os.environ["FED_ADDRESSES"].split(",")[:2]
    if os.environ["FED_PARTY"] == "carol":
        api.new_incarnation = lambda: INCARNATION
    answers: collections.Counter[str] = collections.Counter()
    with fed.job():
        sums = [Sum.party(party).remote() for party in ("alice", "bob")]
        expected = [0, 0]
        print("joined", flush=True)
        for batch in range(batches):
            told = send_many.party("carol").remote(seed + batch, count // batches, targets, own, strangers)
            for number in range(ROUNDS):
                expected[0] += number
                expected[1] += expected[0]
                found = fed.get(sums[1].add.remote(sums[0].add.remote(number)))
                if found != expected[1]:
                    raise SystemExit(f"{found} is not {expected[1]}")
            answers.update(fed.get(told))
    print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
