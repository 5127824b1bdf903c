"""The life of one job in one party, and of each peer as this party sees it.

The job::

    JOINING ── joined ──► RUNNING ◄── switched ── RESETTING
       │                   │   │                   ▲    │
       │ latch             │   └────── reset ──────┤    │ latch: stays, and is latched
       │                   ▼ latch                 │    │
       └──────────────► LATCHED ────── reset ──────┘    │
       any of these ─── close ──► CLOSING ── closed ──► CLOSED

A peer::

    AWAITED ── ready ──► READY ── finished ──► FINISHED     its program has ended; it waits for the others
       ▲                   │                      │
       ├───── started anew ┘ while the job is JOINING
       │                   │                      │
       └───────────────────┴──── left ────────────┴──► LEFT  it is gone, or about to be

Laws:

1. New work is accepted in RUNNING only [E21, E26].
2. The latch falls once in an epoch, and the claim to close succeeds once. Both return whether this caller was the one
   [E06].
3. The first fed call after the latch raises the root error itself, every later one a refusal that names it [E20].
4. A peer that has FINISHED still listens, and may still be told of a failure; one that has LEFT does not.
5. A new epoch begins when every party has asked for it, and not while one has LEFT [E23]. Whether all have asked
   alike is for `fed.core.coordination` to judge, and likewise whether a program that has ended has FINISHED.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

__all__ = ["Lifecycle", "PeerState", "State"]


class State(enum.Enum):
    """Where a job stands in one party."""

    JOINING = "JOINING"
    RUNNING = "RUNNING"
    LATCHED = "LATCHED"
    RESETTING = "RESETTING"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"


class PeerState(enum.Enum):
    """Where a peer stands, as far as this party has heard."""

    AWAITED = "AWAITED"
    READY = "READY"
    FINISHED = "FINISHED"
    LEFT = "LEFT"


class Lifecycle:
    """The state of one job, and of its peers. Not thread-safe; its job guards it.

    Args:
        peers: Every party but this one.
    """

    __slots__ = ("_latched", "_peers", "_quitters", "_resetting", "_told", "state")

    def __init__(self, peers: Iterable[str]) -> None:
        self.state = State.JOINING
        self._peers = dict.fromkeys(sorted(peers), PeerState.AWAITED)
        self._quitters: set[str] = set()
        self._resetting: set[str] = set()
        self._latched = False
        self._told = False

    @property
    def latched(self) -> bool:
        """Whether a root failure has been accepted in this epoch, also after the job closed."""
        return self._latched

    @property
    def accepts_work(self) -> bool:
        """Whether a fed call may submit something."""
        return self.state is State.RUNNING

    @property
    def leaving(self) -> bool:
        """Whether the shutdown has begun."""
        return self.state in (State.CLOSING, State.CLOSED)

    @property
    def awaited(self) -> tuple[str, ...]:
        """Peers that have not said they are ready, sorted."""
        return self._in(PeerState.AWAITED)

    @property
    def busy(self) -> tuple[str, ...]:
        """Peers whose program has not ended, sorted."""
        return self._in(PeerState.AWAITED, PeerState.READY)

    @property
    def attentive(self) -> tuple[str, ...]:
        """Peers that listen, sorted: all that have not left."""
        return self._in(PeerState.AWAITED, PeerState.READY, PeerState.FINISHED)

    @property
    def voters(self) -> tuple[str, ...]:
        """Peers that have a say in what the root is: those that have been ready and have not left."""
        return self._in(PeerState.READY, PeerState.FINISHED)

    @property
    def gone(self) -> tuple[str, ...]:
        """Peers that have left, sorted."""
        return self._in(PeerState.LEFT)

    @property
    def quitters(self) -> tuple[str, ...]:
        """Peers that left without ever having been ready, sorted. One that was ready had joined."""
        return tuple(sorted(self._quitters))

    @property
    def unready_for_reset(self) -> tuple[str, ...]:
        """Peers that have not asked for the next epoch, sorted."""
        return tuple(peer for peer in self._peers if peer not in self._resetting)

    @property
    def told(self) -> bool:
        """Whether the root error has been raised to the user."""
        return self._told

    def ready(self, peer: str) -> None:
        """A peer has finished its own part of joining."""
        if self._peers[peer] is PeerState.AWAITED:
            self._peers[peer] = PeerState.READY

    def started_anew(self, peer: str) -> None:
        """A peer's driver takes the place of one that may have been ready. Without effect once the job has begun."""
        if self.state is State.JOINING and self._peers[peer] is PeerState.READY:
            self._peers[peer] = PeerState.AWAITED

    def finished(self, peer: str) -> bool:
        """A peer's program has ended. Returns whether that was news."""
        if self._peers[peer] in (PeerState.FINISHED, PeerState.LEFT):
            return False
        self._peers[peer] = PeerState.FINISHED
        return True

    def left(self, peer: str) -> bool:
        """A peer is gone. Returns whether that was news."""
        if self._peers[peer] is PeerState.LEFT:
            return False
        if self._peers[peer] is PeerState.AWAITED:
            self._quitters.add(peer)
        self._peers[peer] = PeerState.LEFT
        return True

    def joined(self) -> None:
        """Every party is ready. One that was quicker may have failed since: then the job stays latched.

        Raises:
            RuntimeError: The job had joined before, or is over.
        """
        if self.state is State.JOINING:
            self.state = State.RUNNING
        elif self.state is not State.LATCHED:
            raise RuntimeError(f"cannot join in state {self.state.name}")

    def latch(self) -> bool:
        """A root failure is accepted. Returns whether it is the first of this epoch."""
        if self._latched or self.state is State.CLOSED:
            return False
        self._latched = True
        if self.state in (State.JOINING, State.RUNNING):
            self.state = State.LATCHED
        return True

    def tell(self) -> bool:
        """The root error is about to be raised. Returns whether nobody was told before."""
        first = not self._told
        self._told = True
        return first

    def reset(self) -> None:
        """This party asks for the next epoch.

        Raises:
            RuntimeError: The job is not one that could go on.
        """
        if self.state not in (State.RUNNING, State.LATCHED):
            raise RuntimeError(f"cannot reset in state {self.state.name}")
        self.state = State.RESETTING

    def asks_for_reset(self, peer: str) -> None:
        """A peer asks for the next epoch."""
        self._resetting.add(peer)

    @property
    def may_switch(self) -> bool:
        """Whether every party has asked for the next epoch, this one included, and is still there."""
        return self.state is State.RESETTING and not self.unready_for_reset and not self.gone

    def switched(self) -> None:
        """The next epoch begins: what failed in the last one is history."""
        self.state = State.RUNNING
        self._resetting.clear()
        self._latched = self._told = False

    def not_reset(self) -> None:
        """The next epoch will not begin after all."""
        if self.state is State.RESETTING:
            self.state = State.LATCHED if self._latched else State.RUNNING

    def close(self) -> bool:
        """Claim the shutdown. Returns whether this caller is the one to carry it out."""
        if self.leaving:
            return False
        self.state = State.CLOSING
        return True

    def closed(self) -> None:
        """The shutdown is complete."""
        self.state = State.CLOSED

    def validate(self) -> None:
        """Check the laws; run at the teardown of tests.

        Raises:
            RuntimeError: A law is broken.
        """
        if self.state is State.LATCHED and not self._latched:
            raise RuntimeError("state LATCHED without a latch")
        if self.state is State.RUNNING and self._latched:
            raise RuntimeError("a latched job runs on")
        if self._told and not self._latched:
            raise RuntimeError("a root was raised without a latch")

    def _in(self, *states: PeerState) -> tuple[str, ...]:
        return tuple(peer for peer, state in self._peers.items() if state in states)
