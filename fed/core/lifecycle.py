"""The life of one job in one party.

::

    JOINING ── joined ──► RUNNING ── latch ──► LATCHED
       │                     │                    │
       └──── close ──────────┴───── close ────────┴──► CLOSING ── closed ──► CLOSED

Laws:

1. New work is accepted in RUNNING only [E21, E26].
2. The latch falls once; so does the claim to close. Both return whether this caller was the one [E06].
3. The first fed call after the latch raises the root error itself, every later one a refusal that names it [E20].
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

__all__ = ["Lifecycle", "State"]


class State(enum.Enum):
    """Where a job stands in one party."""

    JOINING = "JOINING"
    RUNNING = "RUNNING"
    LATCHED = "LATCHED"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"


class Lifecycle:
    """The state of one job, and which peers are still there. Not thread-safe; its job guards it.

    Args:
        peers: Every party but this one.
    """

    __slots__ = ("_latched", "_present", "_quitters", "_ready", "_told", "state")

    def __init__(self, peers: Iterable[str]) -> None:
        self.state = State.JOINING
        self._present = set(peers)
        self._ready: set[str] = set()
        self._quitters: set[str] = set()
        self._latched = False
        self._told = False

    @property
    def latched(self) -> bool:
        """Whether a root failure has been accepted, also after the job closed."""
        return self._latched

    @property
    def accepts_work(self) -> bool:
        """Whether a fed call may submit something."""
        return self.state is State.RUNNING

    @property
    def awaited(self) -> tuple[str, ...]:
        """Peers that have not said they are ready, sorted."""
        return tuple(sorted(self._present - self._ready))

    @property
    def present(self) -> tuple[str, ...]:
        """Peers that have not said goodbye, sorted."""
        return tuple(sorted(self._present))

    @property
    def quitters(self) -> tuple[str, ...]:
        """Peers that said goodbye without ever having been ready, sorted. One that was ready had joined."""
        return tuple(sorted(self._quitters))

    def ready(self, peer: str) -> None:
        """A peer has finished its own part of joining."""
        self._ready.add(peer)

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
        """A root failure is accepted. Returns whether it is the first."""
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

    @property
    def told(self) -> bool:
        """Whether the root error has been raised to the user."""
        return self._told

    def left(self, peer: str) -> bool:
        """A peer says goodbye. Returns whether it had been present."""
        if peer not in self._present:
            return False
        self._present.discard(peer)
        if peer not in self._ready:
            self._quitters.add(peer)
        return True

    def close(self) -> bool:
        """Claim the shutdown. Returns whether this caller is the one to carry it out."""
        if self.state in (State.CLOSING, State.CLOSED):
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
