"""The error queue: what peers are told of failures and of progress, in order for each of them, apart from data.

Each peer is told one batch at a time, which the sender proxy repeats until the peer has it; what comes up meanwhile
waits here, and of what a later notice says better only that one [E42].
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from fed.clock import Clock
from fed.condition import PredicateCondition
from fed.core.notice import Notice, NoticeKind
from fed.engine.queue_thread import QueueThread

__all__ = ["QUESTIONS", "QueueServices", "ErrorQueue"]

MAX_BATCH: Final = 64
"""Notices that a peer is told together."""

QUESTIONS: Final = frozenset({NoticeKind.ASK, NoticeKind.STANDING})
"""Notices about what others are told, which nobody waits for."""

_NO_NEWS: Final = frozenset({NoticeKind.PROGRESS} | QUESTIONS)
"""Notices that do not count as being on their way. Who asks tells its progress first, and in that order both arrive:
who answers has compared what both have called, and counts what it has to say of that. If progress counted, parties that
ask at the same moment would each find the others' on its way, round after round [E37]."""

_SAID_ANEW: Final = frozenset({NoticeKind.READY, NoticeKind.PROGRESS, NoticeKind.JOURNAL} | QUESTIONS)
"""Notices that make an earlier one of their kind worthless."""


class QueueServices(Protocol):
    """What the queue needs of its job."""

    changed: PredicateCondition
    """Guards every state; notified when one changed."""

    def exposed(self, peer: str, notice: Notice) -> Notice | None:
        """What of a notice a peer may see now; None if it is to hear no more of this. With the lock."""
        ...

    def send(self, peer: str, notices: Sequence[Notice]) -> concurrent.futures.Future[str]:
        """Have a peer told; see `fed.proxy.control.ControlClient.send`."""
        ...

    def acknowledged(self, peer: str, notices: Sequence[Notice], reason: str) -> None:
        """A peer has been told; the reason is why not, if it was not. With the lock."""
        ...


class _Tell(NamedTuple):
    peer: str
    notice: Notice


class _Acknowledged(NamedTuple):
    """A peer has taken its batch, or never will."""

    peer: str


class _Step(NamedTuple):
    """Something else for the thread to do."""

    run: Callable[[], None]


class ErrorQueue:
    """The error queue of one party, with its thread.

    Attributes:
        untold: How many notices are still to be told that somebody may wait for. Guarded by the job's lock.

    Args:
        party: Whose, for the name of its thread.
        services: The job.
        idle: Called when nothing has been told for `idle_s`, and as often while there is always something.
        idle_s: Seconds.
        failed: Called with what one of the above raised.
        clock: What it waits by.
    """

    def __init__(
        self,
        party: str,
        services: QueueServices,
        idle: Callable[[], None],
        idle_s: float,
        failed: Callable[[BaseException], None],
        clock: Clock,
    ) -> None:
        self.untold = 0
        self._services = services
        # Belong to the thread.
        self._waiting: dict[str, list[Notice]] = {}
        self._under_way: set[str] = set()
        self._thread: QueueThread[_Tell | _Acknowledged | _Step] = QueueThread(
            f"fed-{party}-errors", self._handle_items, failed, idle=idle, idle_s=idle_s, clock=clock
        )

    def send_control(self, peer: str, notice: Notice) -> None:
        """Queue something to tell a peer. With the lock. Never blocks."""
        self.untold += notice.kind not in _NO_NEWS
        self._thread.post(_Tell(peer, notice))

    def run(self, step: Callable[[], None]) -> None:
        """Have something done on the thread. Never blocks; safe in signal context."""
        self._thread.post(_Step(step))

    def rest(self) -> None:
        """Have `idle` called in `idle_s`, also if nothing is told until then. Never blocks."""
        self._thread.rest()

    def stop(self, timeout_s: float) -> bool:
        """See `fed.engine.queue_thread.QueueThread.stop`."""
        return self._thread.stop(timeout_s)

    def _handle_items(self, items: list[_Tell | _Acknowledged | _Step]) -> None:
        failed: BaseException | None = None
        for item in items:
            if isinstance(item, _Tell):
                self._queue(item)
            elif isinstance(item, _Acknowledged):
                self._under_way.discard(item.peer)
            else:
                try:
                    item.run()
                # The others are told all the same.
                except BaseException as error:  # noqa: BLE001
                    failed = error
        # Peers do not wait for one another.
        for peer in [peer for peer in self._waiting if peer not in self._under_way]:
            self._tell_peer(peer)
        if failed is not None:
            raise failed

    def _queue(self, item: _Tell) -> None:
        """Of what a later one says better, only that: a peer may ask for it faster than it takes it."""
        waiting = self._waiting.setdefault(item.peer, [])
        kind = item.notice.kind
        older = [notice for notice in waiting if notice.kind is kind] if kind in _SAID_ANEW else ()
        for notice in older:
            waiting.remove(notice)
        self._count_down(older)
        waiting.append(item.notice)

    def _tell_peer(self, peer: str) -> None:
        waiting = self._waiting.pop(peer)
        notices, rest = waiting[:MAX_BATCH], waiting[MAX_BATCH:]
        if rest:
            self._waiting[peer] = rest
        self._under_way.add(peer)
        try:
            with self._services.changed:
                shown = [self._services.exposed(peer, notice) for notice in notices]
            told = [notice for notice in shown if notice is not None]
            answer = self._services.send(peer, told) if told else None
        except BaseException as error:
            # Whoever waits for these is let go, and the next ones are told.
            self._end(peer, notices, str(error))
            raise
        if answer is None:
            self._end(peer, notices, "")
        else:
            answer.add_done_callback(lambda answer: self._end(peer, notices, answer.result()))

    def _end(self, peer: str, notices: Sequence[Notice], reason: str) -> None:
        """On the thread, or on that of the direct channel."""
        self._count_down(notices)
        with self._services.changed:
            self._services.acknowledged(peer, notices, reason)
            self._services.changed.notify_all()
        self._thread.post(_Acknowledged(peer))

    def _count_down(self, notices: Sequence[Notice]) -> None:
        news = sum(notice.kind not in _NO_NEWS for notice in notices)
        if news:
            with self._services.changed:
                self.untold -= news
