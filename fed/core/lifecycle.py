"""The life of one job in one party, and of each peer as this party sees it: two state machines and a latch, as tables.

`JOB` and `PEER` say all that can happen. What stands in neither has no effect there, or is refused. Beside the job's
state there is its *latch*, which falls when a failure ends the job, in whatever state that is, and is told of once.

Laws:

1. New work is accepted in RUNNING only, and not after the latch has fallen [E21, E26].
2. The latch falls once in an epoch, and the claim to close succeeds once. Both return whether this caller was the one
   [E06].
3. The first fed call after the latch raises the root error itself, every later one a refusal that names it [E20].
4. A peer that has FINISHED still listens, and may still be told of a failure; one that has LEFT does not.
5. A new epoch begins when every party has asked for it, and not while one has LEFT [E23]. Whether all have asked
   alike is for `fed.core.coordination` to judge, and likewise whether a program that has ended has FINISHED.

The form is that of h11's tables of transitions.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final

from fed.core.trace import Trace, traced

__all__ = ["JOB", "PEER", "JobChange", "Lifecycle", "PeerChange", "PeerState", "State"]


class State(enum.Enum):
    """Where a job stands in one party."""

    JOINING = "JOINING"
    RUNNING = "RUNNING"
    RESETTING = "RESETTING"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"


class JobChange(enum.Enum):
    """What changes that."""

    JOINED = "JOINED"
    RESET = "RESET"
    NOT_RESET = "NOT_RESET"
    SWITCHED = "SWITCHED"
    CLOSE = "CLOSE"
    CLOSED = "CLOSED"


JOB: Final[Mapping[State, Mapping[JobChange, State]]] = {
    State.JOINING: {JobChange.JOINED: State.RUNNING, JobChange.CLOSE: State.CLOSING},
    State.RUNNING: {JobChange.RESET: State.RESETTING, JobChange.CLOSE: State.CLOSING},
    State.RESETTING: {
        JobChange.SWITCHED: State.RUNNING,
        JobChange.NOT_RESET: State.RUNNING,
        JobChange.CLOSE: State.CLOSING,
    },
    State.CLOSING: {JobChange.CLOSED: State.CLOSED},
    State.CLOSED: {},
}


class PeerState(enum.Enum):
    """Where a peer stands, as far as this party has heard."""

    AWAITED = "AWAITED"
    READY = "READY"
    FINISHED = "FINISHED"
    LEFT = "LEFT"


class PeerChange(enum.Enum):
    """What changes that."""

    READY = "READY"
    """It has done its part of joining."""

    FINISHED = "FINISHED"
    """Its program has ended, and it waits for the others."""

    LEFT = "LEFT"
    """It is gone, or about to be."""

    STARTED_ANEW = "STARTED_ANEW"
    """Another driver takes the place of its own, while the job is being joined."""


PEER: Final[Mapping[PeerState, Mapping[PeerChange, PeerState]]] = {
    PeerState.AWAITED: {
        PeerChange.READY: PeerState.READY,
        PeerChange.FINISHED: PeerState.FINISHED,
        PeerChange.LEFT: PeerState.LEFT,
    },
    PeerState.READY: {
        PeerChange.STARTED_ANEW: PeerState.AWAITED,
        PeerChange.FINISHED: PeerState.FINISHED,
        PeerChange.LEFT: PeerState.LEFT,
    },
    PeerState.FINISHED: {PeerChange.LEFT: PeerState.LEFT},
    PeerState.LEFT: {},
}


_AWAITED: Final = (PeerState.AWAITED,)
_BUSY: Final = (PeerState.AWAITED, PeerState.READY)
_ATTENTIVE: Final = (PeerState.AWAITED, PeerState.READY, PeerState.FINISHED)
_VOTERS: Final = (PeerState.READY, PeerState.FINISHED)
_GONE: Final = (PeerState.LEFT,)
_GROUPS: Final = (_AWAITED, _BUSY, _ATTENTIVE, _VOTERS, _GONE)


class _Latch(enum.Enum):
    OPEN = "OPEN"
    FALLEN = "FALLEN"
    TOLD = "TOLD"


class Lifecycle:
    """The state of one job, and of its peers. Not thread-safe; its job guards it.

    Args:
        peers: Every party but this one.
        trace: Where what goes in is noted.
    """

    __slots__ = ("_by_states", "_latch", "_peers", "_quitters", "_resetting", "state", "trace")

    def __init__(self, peers: Iterable[str], trace: Trace | None = None) -> None:
        self.trace = trace or Trace()
        self.state = State.JOINING
        self._peers = dict.fromkeys(sorted(peers), PeerState.AWAITED)
        self._quitters: set[str] = set()
        self._resetting: set[str] = set()
        self._latch = _Latch.OPEN
        # They are asked for with each notice and change a few times.
        self._by_states: Mapping[tuple[PeerState, ...], tuple[str, ...]] = self._grouped()

    @property
    def latched(self) -> bool:
        """Whether a root failure has been accepted in this epoch, also after the job closed."""
        return self._latch is not _Latch.OPEN

    @property
    def told(self) -> bool:
        """Whether the root error has been raised to the user."""
        return self._latch is _Latch.TOLD

    @property
    def joining(self) -> bool:
        """Whether the job may still begin, whoever takes whose place."""
        return self.state is State.JOINING and self._latch is _Latch.OPEN

    @property
    def accepts_work(self) -> bool:
        """Whether a fed call may submit something."""
        return self.state is State.RUNNING and self._latch is _Latch.OPEN

    @property
    def leaving(self) -> bool:
        """Whether the shutdown has begun."""
        return self.state in (State.CLOSING, State.CLOSED)

    @property
    def awaited(self) -> tuple[str, ...]:
        """Peers that have not said they are ready, sorted."""
        return self._by_states[_AWAITED]

    @property
    def busy(self) -> tuple[str, ...]:
        """Peers whose program has not ended, sorted."""
        return self._by_states[_BUSY]

    @property
    def attentive(self) -> tuple[str, ...]:
        """Peers that listen, sorted: all that have not left."""
        return self._by_states[_ATTENTIVE]

    @property
    def voters(self) -> tuple[str, ...]:
        """Peers that have a say in what the root is: those that have been ready and have not left."""
        return self._by_states[_VOTERS]

    @property
    def gone(self) -> tuple[str, ...]:
        """Peers that have left, sorted."""
        return self._by_states[_GONE]

    @property
    def quitters(self) -> tuple[str, ...]:
        """Peers that left without ever having been ready, sorted. One that was ready had joined."""
        return tuple(sorted(self._quitters))

    @property
    def unready_for_reset(self) -> tuple[str, ...]:
        """Peers that have not asked for the next epoch, sorted."""
        return tuple(peer for peer in self._peers if peer not in self._resetting)

    @traced
    def ready(self, peer: str) -> None:
        """A peer has finished its own part of joining."""
        self._move_peer(peer, PeerChange.READY)

    @traced
    def started_anew(self, peer: str) -> None:
        """A peer's driver takes the place of one that may have been ready. Without effect once the job has begun."""
        if self.joining:
            self._move_peer(peer, PeerChange.STARTED_ANEW)

    @traced
    def finished(self, peer: str) -> bool:
        """A peer's program has ended. Returns whether that was news."""
        return self._move_peer(peer, PeerChange.FINISHED)

    @traced
    def left(self, peer: str) -> bool:
        """A peer is gone. Returns whether that was news."""
        if self._peers[peer] is PeerState.AWAITED:
            self._quitters.add(peer)
        return self._move_peer(peer, PeerChange.LEFT)

    @traced
    def joined(self) -> None:
        """Every party is ready. One that was quicker may have failed since: then the job stays latched.

        Raises:
            RuntimeError: The job had joined before, or is over.
        """
        self._move(JobChange.JOINED)

    @traced
    def latch(self) -> bool:
        """A root failure is accepted. Returns whether it is the first of this epoch."""
        if self.latched or self.state is State.CLOSED:
            return False
        self._latch = _Latch.FALLEN
        return True

    @traced
    def tell(self) -> bool:
        """The root error is about to be raised. Returns whether nobody was told before.

        Raises:
            RuntimeError: There is none.
        """
        if not self.latched:
            raise RuntimeError("a root error is raised and nothing has failed")
        first = not self.told
        self._latch = _Latch.TOLD
        return first

    @traced
    def reset(self) -> None:
        """This party asks for the next epoch.

        Raises:
            RuntimeError: The job is not one that could go on.
        """
        self._move(JobChange.RESET)

    @traced
    def asks_for_reset(self, peer: str) -> None:
        """A peer asks for the next epoch."""
        self._resetting.add(peer)

    @property
    def may_switch(self) -> bool:
        """Whether every party has asked for the next epoch, this one included, and is still there."""
        return self.state is State.RESETTING and not self.unready_for_reset and not self.gone

    @traced
    def switched(self) -> None:
        """The next epoch begins: what failed in the last one is history."""
        self._move(JobChange.SWITCHED)
        self._resetting.clear()
        self._latch = _Latch.OPEN

    @traced
    def not_reset(self) -> None:
        """The next epoch will not begin after all."""
        if self.state is State.RESETTING:
            self._move(JobChange.NOT_RESET)

    @traced
    def close(self) -> bool:
        """Claim the shutdown. Returns whether this caller is the one to carry it out."""
        if self.leaving:
            return False
        self._move(JobChange.CLOSE)
        return True

    @traced
    def closed(self) -> None:
        """The shutdown is complete.

        Raises:
            RuntimeError: Nobody has claimed it.
        """
        self._move(JobChange.CLOSED)

    def _move(self, change: JobChange) -> None:
        state = JOB[self.state].get(change)
        if state is None:
            raise RuntimeError(f"a job that is {self.state.name} cannot become {change.name}")
        self.state = state

    def _move_peer(self, peer: str, change: PeerChange) -> bool:
        """Returns whether it was news."""
        state = PEER[self._peers[peer]].get(change)
        if state is not None:
            self._peers[peer] = state
            self._by_states = self._grouped()
        return state is not None

    def _grouped(self) -> dict[tuple[PeerState, ...], tuple[str, ...]]:
        return {states: tuple([peer for peer, state in self._peers.items() if state in states]) for states in _GROUPS}
