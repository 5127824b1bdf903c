"""The data-sending thread: pushes results that are ready, and does what no other thread must be held up by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from fed.clock import Clock
from fed.engine.epoch import Epoch
from fed.engine.queue_thread import QueueThread
from fed.engine.records import Entry, Push
from fed.object import ObjectId

__all__ = ["DataSender"]

PUSH_BATCH: Final = 64
"""Results that are ready together travel to the sender in calls of up to this many: Ray's cost is per call."""


class _Step(NamedTuple):
    """Something that the runtime's or the channel's thread must not be held up by."""

    run: Callable[[], None]


class DataSender:
    """The data-sending thread of one party.

    Args:
        party: Whose, for the thread's name.
        epoch: The current one.
        failed: Called with what was raised on the thread.
        clock: What it waits by.
    """

    def __init__(
        self, party: str, epoch: Callable[[], Epoch], failed: Callable[[BaseException], None], clock: Clock
    ) -> None:
        self._epoch = epoch
        self._thread: QueueThread[Push | _Step] = QueueThread(
            f"fed-{party}-data", self._handle_items, failed, clock=clock
        )

    def push(self, pushes: Sequence[Push]) -> None:
        """Queue results to be sent. Never blocks."""
        for push in pushes:
            self._thread.post(push)

    def run(self, step: Callable[[], None]) -> None:
        """Have something done on the thread. Never blocks."""
        self._thread.post(_Step(step))

    def stop(self, timeout_s: float) -> bool:
        """See `fed.engine.queue_thread.QueueThread.stop`."""
        return self._thread.stop(timeout_s)

    def _handle_items(self, items: list[Push | _Step]) -> None:
        epoch = self._epoch()
        pushes: dict[ObjectId, tuple[Entry, list[str]]] = {}
        for item in items:
            if isinstance(item, Push):
                if item.epoch == epoch.number:
                    pushes.setdefault(item.entry.id, (item.entry, []))[1].extend(item.consumers)
            else:
                item.run()
        ready = list(pushes.values())
        for start in range(0, len(ready), PUSH_BATCH):
            epoch.results.push(ready[start : start + PUSH_BATCH])
