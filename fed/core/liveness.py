"""Who is still there: one lease for each peer, renewed by whatever is heard of it.

::

    AWAITED ── heard ──► ALIVE ◄── heard ── SUSPECT
                           │                   ▲ │
                           └── half the lease ─┘ └── the whole lease ──► LOST
    any but LOST ── left ──► LEFT

Laws:

1. Any frame is a sign of life, so a long transfer or a driver in a heavy computation is never taken for dead.
2. LOST and LEFT are for ever: the dead stay dead [E40, E41].
3. Quick evidence (a refused connection, a new incarnation) shortens the wait and never decides alone, since both
   proxies may just be restarting: there is always `restart_s` for that. What it was is told with the loss.
4. A party that did not run for a while has heard nobody, and that says nothing about the others. It finds out by being
   late in looking at the clock, which it does every now and then (`BEATS_PER_LEASE`). What it was late by is no
   silence, and where that is much, every lease begins anew.

All times are seconds on one monotonic clock, which the caller reads.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["Change", "Health", "Liveness"]

RESTART_S: Final = 10.0
"""What a killed proxy may need until it is heard again: Ray notices, starts a worker, and the peers greet anew. One
second, up to five on a busy machine, and twice that to be sure (docs/reliability.md)."""


BEATS_PER_LEASE: Final = 8
"""How often a party looks at the clock within a lease, also if nothing is due: whose turn comes late again and again,
by a little each time, hears of the others as late."""


class Health(enum.Enum):
    """What is known of a peer."""

    AWAITED = "AWAITED"
    ALIVE = "ALIVE"
    SUSPECT = "SUSPECT"
    LOST = "LOST"
    LEFT = "LEFT"


class Change(NamedTuple):
    """A peer's health has changed.

    Attributes:
        peer: Whose.
        health: What it is now.
        silent_s: For how long nothing was heard of it.
        evidence: What has shortened its lease, as a clause about it; empty if nothing has.
    """

    peer: str
    health: Health
    silent_s: float
    evidence: str = ""


class _Lease:
    __slots__ = ("deadline", "evidence", "health", "heard")

    def __init__(self) -> None:
        self.health = Health.AWAITED
        self.heard = 0.0
        self.deadline = 0.0
        self.evidence = ""

    def prolong(self, seconds: float) -> None:
        """So long nobody was there to hear it."""
        self.heard += seconds
        self.deadline += seconds

    def renew(self, now: float, lease_s: float) -> None:
        """It begins anew."""
        self.health, self.heard, self.deadline, self.evidence = Health.ALIVE, now, now + lease_s, ""


class Liveness:
    """The leases of all peers. Not thread-safe.

    Args:
        peers: Whose.
        lease_s: How long one may be silent.
        restart_s: How long a proxy may take to restart; what quick evidence shortens the wait to.
    """

    def __init__(self, peers: Iterable[str], lease_s: float, restart_s: float = RESTART_S) -> None:
        self._lease_s = lease_s
        self._restart_s = min(restart_s, lease_s)
        self._leases = {peer: _Lease() for peer in sorted(peers)}
        self._due: float | None = None
        # When it looked at the clock last.
        self._looked = 0.0

    def health(self, peer: str) -> Health:
        """What is known of a peer."""
        return self._leases[peer].health

    def heard(self, peer: str, now: float) -> Change | None:
        """A frame of a peer has come."""
        lease = self._leases[peer]
        before, lease_heard = lease.health, lease.heard
        if before in (Health.LOST, Health.LEFT):
            return None
        lease.renew(now, self._lease_s)
        if self._due is None:
            self._looked = now
        return Change(peer, Health.ALIVE, now - lease_heard) if before is Health.SUSPECT else None

    def evidence(self, peer: str, now: float, what: str) -> None:
        """Something says that a peer may be dead.

        Args:
            peer: Who.
            now: The time.
            what: What says so, as a clause: ``its port refused connections``.
        """
        lease = self._leases[peer]
        deadline = max(lease.heard, now) + self._restart_s
        if lease.health in (Health.ALIVE, Health.SUSPECT) and deadline < lease.deadline:
            lease.deadline, lease.evidence = deadline, what

    def left(self, peer: str) -> None:
        """A peer has said goodbye: nothing more is expected of it."""
        lease = self._leases[peer]
        if lease.health is not Health.LOST:
            lease.health = Health.LEFT

    def lost(self, peer: str) -> None:
        """A peer was given up before, as one who knew it says."""
        self._leases[peer].health = Health.LOST

    def due(self) -> float | None:
        """When to call `tick` next; None: when somebody was heard."""
        times = [self._next(lease) for lease in self._leases.values() if lease.health in (Health.ALIVE, Health.SUSPECT)]
        self._due = min(*times, self._looked + self._lease_s / BEATS_PER_LEASE) if times else None
        return self._due

    def tick(self, now: float) -> list[Change]:
        """Time has passed."""
        late_s = 0.0 if self._due is None else max(0.0, now - self._due)
        self._looked = now
        if late_s > self._lease_s / 4:
            self._renew(now)
            return []
        changes = []
        for peer, lease in self._leases.items():
            if lease.health not in (Health.ALIVE, Health.SUSPECT):
                continue
            # Not beyond now: who was heard since has been silent for less.
            lease.prolong(min(late_s, now - lease.heard))
            if now < self._next(lease):
                continue
            lost = now >= lease.deadline
            lease.health = Health.LOST if lost else Health.SUSPECT
            changes.append(Change(peer, lease.health, now - lease.heard, lease.evidence))
        return changes

    def validate(self) -> None:
        """Check the laws; run at the teardown of tests.

        Raises:
            RuntimeError: A law is broken.
        """
        for peer, lease in self._leases.items():
            if lease.health in (Health.ALIVE, Health.SUSPECT) and lease.deadline < lease.heard + self._restart_s:
                raise RuntimeError(f"{peer!r} would be lost before a proxy of its could restart")

    def _next(self, lease: _Lease) -> float:
        if lease.health is Health.SUSPECT:
            return lease.deadline
        return lease.heard + (lease.deadline - lease.heard) / 2

    def _renew(self, now: float) -> None:
        for lease in self._leases.values():
            if lease.health in (Health.ALIVE, Health.SUSPECT):
                lease.renew(now, self._lease_s)
