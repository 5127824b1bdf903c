"""The session with one peer, on a link that a test holds in its hands."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence

from typing_extensions import override

from fed.object import ObjectId
from fed.proxy.events import EventQueue
from fed.proxy.peer_session import PeerSession
from fed.transport.contract import (
    Ack,
    Hello,
    Link,
    LinkStatistics,
    Notice,
    Parcel,
    PeerUnreachable,
    Receipt,
    Verdict,
)
from tests.support.worlds import LIMIT_S, hello, parcel, run


class HeldLink(Link):
    """Breaks when the first connection has been given so many objects to send at once; acknowledges all on the next."""

    def __init__(self, breaks_after: int) -> None:
        self.sent: list[tuple[int, list[ObjectId]]] = []
        self._connects = 0
        self._breaks_after = breaks_after
        self._acks: asyncio.Queue[Sequence[Ack] | None] = asyncio.Queue()

    @property
    @override
    def peer(self) -> str:
        return "bob"

    @override
    async def connect(self, hello: Hello, *, timeout_s: float) -> Hello:
        self._connects += 1
        self._acks = asyncio.Queue()
        return hello

    @override
    async def send(self, parcels: Sequence[Parcel]) -> None:
        raise PeerUnreachable("all goes at once here")

    @override
    def send_now(self, parcels: Sequence[Parcel]) -> bool:
        self.sent.append((self._connects, [each.id for each in parcels]))
        if self._connects > 1:
            self._acks.put_nowait([Ack(each.id, Receipt.DELIVERED) for each in parcels])
        elif len(self.sent) == self._breaks_after:
            self._acks.put_nowait(None)
        return True

    @override
    async def upload(self, parcel: Parcel) -> Verdict:
        raise NotImplementedError

    @override
    async def acks(self) -> AsyncIterator[Sequence[Ack]]:
        acks = self._acks
        while (told := await acks.get()) is not None:
            yield told
        raise PeerUnreachable("broken")

    @override
    async def tell(self, notice: Notice, *, timeout_s: float) -> None:
        raise NotImplementedError

    @override
    async def close(self) -> None:
        """Nothing is open."""

    @override
    def statistics(self) -> LinkStatistics:
        raise NotImplementedError


def test_what_went_at_once_goes_again_when_the_link_broke_with_it_on_its_way() -> None:
    async def scenario() -> None:
        link = HeldLink(breaks_after=2)
        session = PeerSession(link, hello("alice"), 1 << 20, math.inf, EventQueue())
        assert await session.join(LIMIT_S) is None
        parcels = [parcel(number) for number in range(3)]
        outcomes = [session.put(each) for each in parcels]
        assert await asyncio.wait_for(asyncio.gather(*outcomes), LIMIT_S) == [None] * 3
        names = [each.id for each in parcels]
        assert link.sent == [*[(1, [name]) for name in names], (2, names)]
        assert len(session.outbox) == 0
        session.outbox.validate()
        await session.close()

    run(scenario())
