"""A driver waits and nothing moves: it asks the others, tells people, and proves a deadlock [E36, E37]."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from fed.core.failure import Fault, Kind
from fed.core.lifecycle import State
from fed.core.notice import Notice, NoticeKind
from fed.core.stall import Due, StallDetector, describe_wait, graph, listed, mermaid
from fed.text import counted

if TYPE_CHECKING:
    from fed.engine.shell import Shell

__all__ = ["StallWatch"]

logger = logging.getLogger("fed")

STALL_S: Final = 30.0
"""How long a driver waits while nothing moves until people are told what for. A line, and never a failure by itself."""


class StallWatch:
    """The questions of one party to the others, and its answers to theirs.

    Args:
        shell: Of its job.
    """

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._detector = StallDetector(shell.party, STALL_S)
        # Whose question about what this party is at is being answered; another one of theirs can wait.
        self._answering: set[str] = set()
        # How far the epoch was when it was looked up what its tasks wait for.
        self._looked_at = -1

    def begin(self) -> None:
        """An epoch has begun. With the lock."""
        self._detector = StallDetector(self._shell.party, STALL_S)
        self._looked_at = -1

    def answered(self, peer: str) -> None:
        """A peer has taken the answer to its question. With the lock."""
        self._answering.discard(peer)

    def hear(self, peer: str, notice: Notice) -> None:
        """A peer asks what this party is at, or has answered. The lock is held."""
        if notice.kind is NoticeKind.ASK and peer in self._answering:
            return
        own = self._shell.running().standing(idle=self._shell.waits.idle, untold=self._shell.errors.untold)
        if notice.kind is NoticeKind.ASK:
            self._answering.add(peer)
            self._shell.send_control(peer, Notice(NoticeKind.STANDING, notice.epoch, calls=notice.calls, standing=own))
        elif notice.standing is not None:
            self._detector.answered(peer, notice.calls, notice.standing)
            standings = self._detector.deadlock(own)
            if standings is not None and not self._shell.life.latched:
                logger.error("nothing will ever move again; who waits for what:\n%s", mermaid(standings))
                fault = Fault(Kind.DEADLOCK, "DeadlockError", detail=graph(standings))
                self._shell.learn(self._shell.new_failure(fault))

    def check(self) -> None:
        """The driver has waited for a moment: if nothing has moved for long, ask why, and tell people [E36]."""
        now = self._shell.clock.monotonic()
        text = ""
        with self._shell.lock:
            epoch = self._shell.epoch
            if epoch is None or not self._shell.joined_at or self._shell.life.latched:
                return
            due = self._detector.look(now, epoch.moves)
            # Before the others ask, who wait as long: they are told what is known by then.
            early = self._looked_at != epoch.moves and self._detector.waited_s(now) >= STALL_S / 4
            self._looked_at = epoch.moves if early else self._looked_at
        if due is not None or early:
            epoch.look_for_room()
        if due is None:
            return
        with self._shell.lock:
            if self._shell.epoch is not epoch or self._shell.life.latched:
                return
            own = epoch.standing(idle=True, untold=self._shell.errors.untold)
            peers = self._shell.life.attentive
            if due is Due.REPORT:
                text = describe_wait(own, peers, self._detector.answers, self._awaited())
            # What a peer was told of this may be lost with a receiver that was killed, and a divergence unseen with it.
            self._shell.carry_out(self._shell.coordinator.progress(everyone=True))
            number = self._detector.ask(peers, own)
            for peer in peers:
                self._shell.send_control(peer, Notice(NoticeKind.ASK, epoch.number, calls=number))
        if text:
            logger.warning("nothing has moved here for %.0f s: %s", self._detector.waited_s(now), text)

    def _awaited(self) -> list[str]:
        """What the driver waits for that no task and no `fed.get` wants, as clauses. With the lock."""
        life = self._shell.life
        if life.state is State.RESETTING and life.unready_for_reset:
            return [f"fed.reset waits for {listed([*life.unready_for_reset])} to call it"]
        if not life.leaving:
            return []
        expected = self._shell.running().arrivals.expected
        awaited = [f"{counted(len(expected), 'object')} of {listed(sorted({key.peer for key in expected}))}"]
        awaited = [*(awaited if expected else []), *([f"{listed([*life.busy])} to finish"] if life.busy else [])]
        return [f"before it leaves, this party waits for {', '.join(awaited)}"] if awaited else []
