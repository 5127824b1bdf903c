"""How the parties of a job agree: on one root when something fails, on the next epoch, on having run one program.

Events in, instructions out: the job carries the instructions out and calls again with what comes of them. Between
two parties notices keep their order; between three there is none, and none is needed.

The latch, seen by three parties of which A fails::

    A: failed(f) ── LATCHED f ──► B: latches, votes f ── LATCHED f ──► A, C
          │
          └───────── LATCHED f ──► C: latches, votes f ── LATCHED f ──► A, B

Each settles when it has the vote of everyone who is there. A party that fails by itself before it hears of A votes
for its own failure; both votes reach everybody, and `FailureBook` picks the same one everywhere [E29].

Laws:

1. A party votes once in an epoch, and tells its vote to everyone.
2. The root is final when all votes are in, or when the time for them is over; it never changes after that.
3. Notices of an earlier epoch change nothing; those of a later one wait until this party is there too [E23, E30].
4. A party whose program has ended (FINISHED) votes like any other; one that leaves because of a failure has told
   its vote before.
5. After a latch nobody compares programs any more: who has failed calls less than who has not heard of it yet.
6. Without a latch nobody leaves before it knows that every program was the same to its end: a peer whose program has
   ended has FINISHED when this party has come as far, and has made the same calls [E43].
7. The next epoch begins when all parties have asked for it *alike*: all after the same calls, or all after their
   votes. What a party has asked before its vote is void, and it asks again. So who has gone on knows that nobody has
   failed in the old epoch, or that everybody has, and then everybody has all votes [E06, E29, E43].
8. A party that asks for the next epoch has done with the objects of this one: that one of them fails ends nothing any
   more. Else a third party, which had heard it ask, might have gone on, and law 7 would not hold.
9. While it calls, a party tells of it, each time, the next one in the ring of names, and every `OTHERS_EVERY`th time
   one of the others in turn; when it has called nothing since the last time, all who have not been told. Programs that
   differ and go on differ somewhere between two neighbours, and of those that stand still everybody is told; while what
   all tell grows with the parties, not with their pairs. The others in turn find nothing that the ring does not: they
   hear it so that a long journal can forget what all agree on.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from fed.core.failure import Failure, FailureBook, Fault, Kind
from fed.core.instructions import Instruction, Latched, PeerDeparted, SendControl, Settled, Switched
from fed.core.journal import SEGMENT, Journal
from fed.core.lifecycle import Lifecycle, State
from fed.core.notice import Notice, NoticeKind
from fed.core.trace import Trace, traced

__all__ = ["EXIT", "LEAVE", "Coordinator"]

LEAVE: Final = "fed.shutdown()"
EXIT: Final = "sys.exit()"
"""The texts of a program's end, which is a call like any other: all parties must make it at the same place."""

RESET: Final = "fed.reset()"

STANDS_STILL: Final = 2
"""Times that a driver that makes no call tells its progress until it tells everyone. A loop with pauses between its
calls must not count as standing still: that all tell all once in each pause makes a slow loop slower."""

OTHERS_EVERY: Final = 4
"""Every which time that a driver which makes calls tells its progress, it tells one who is not its neighbour too."""

MAX_EARLY: Final = 4096
"""Notices of a later epoch that are kept for it, from one peer."""

MAX_EARLY_OBJECTS: Final = 65_536
"""Objects that these may name, together."""

UNTIMELY: Final = frozenset({NoticeKind.JOURNAL, NoticeKind.ASK, NoticeKind.STANDING})
"""Notices that are of no use in an epoch after theirs; they are told again where they matter."""

OF_OBJECTS: Final = frozenset({kind for kind in Kind if kind.symmetric} | {Kind.DELIVERY, Kind.EGRESS_DENIED})
"""Kinds of failures that concern nobody who has done with the objects."""


class Ask(NamedTuple):
    """How far a party was when it asked for the next epoch."""

    calls: int
    digest: int


VOTED: Final = Ask(0, 0)
"""After its vote. Failed parties have made unequal calls, and say nothing of them."""


class Coordinator:
    """One party's part in the agreement. Not thread-safe; its job guards it.

    Args:
        party: This party.
        peers: The others.
        incarnation: One life of this driver; part of the names of its failures.
        isolate: Whether failures that all parties see alike leave the job running.
        trace: Where what goes in is noted.
    """

    def __init__(
        self,
        party: str,
        peers: Iterable[str],
        incarnation: str,
        *,
        isolate: bool = False,
        trace: Trace | None = None,
    ) -> None:
        self.trace = trace or Trace()
        self.party = party
        self.epoch = 0
        self._peers = tuple(sorted(peers))
        self._incarnation = incarnation
        self._isolate = isolate
        self._failure_count = 0
        self.life = Lifecycle(self._peers, self.trace)
        self._ready = False
        # What this party says of failures of its own that never were.
        self._denial: Failure | None = None
        self.book = FailureBook()
        self.journal = Journal(self._peers)
        self._early: dict[str, list[Notice]] = {peer: [] for peer in self._peers}
        # Peers that told of more failures of a later epoch than are kept.
        self._overflowed: set[str] = set()
        # Peers whose programs have ended, each with the number of its calls; and whether this party's has.
        self._ends: dict[str, int] = {}
        self._ended = False
        # Who has asked for the next epoch, this party among them.
        self._asks: dict[str, Ask] = {}
        # The others as they follow this party in the ring; whose turn it is to be told; and who knows of all calls.
        self._ring = (*[peer for peer in self._peers if peer > party], *[peer for peer in self._peers if peer < party])
        self._turns = collections.deque(self._ring)
        self._informed: set[str] = set()
        # How often progress was told since the last call; before the first call this driver stands still.
        self._tellings = STANDS_STILL
        self._rounds = 0
        self.stale_notices = 0

    # Calls

    @traced
    def call(self, text: str) -> list[Instruction]:
        """The driver makes a fed call."""
        self._informed.clear()
        self._tellings = 0
        return self._noted(text)

    @traced
    def progress(self, *, everyone: bool = False) -> list[Instruction]:
        """Tell how far this party is; now and then, until nothing is left to tell.

        Args:
            everyone: Tell all, also those who have been told before.
        """
        if self.life.latched or self.life.state in (State.JOINING, State.CLOSED):
            return []
        listening = self.life.attentive
        due = [peer for peer in self._turns if peer in listening and (everyone or peer not in self._informed)]
        self._tellings += 1
        if self._tellings < STANDS_STILL and not everyone:
            neighbour = next((peer for peer in self._ring if peer in listening), None)
            others = [peer for peer in due if peer != neighbour] if self._rounds % OTHERS_EVERY == 0 else []
            due = [*(peer for peer in due if peer == neighbour), *others[:1]]
            self._rounds += 1
        for peer in due:
            self._turns.remove(peer)
            self._turns.append(peer)
        self._informed.update(due)
        notice = Notice(NoticeKind.PROGRESS, self.epoch, calls=self.journal.calls, digest=self.journal.digest)
        return [SendControl(peer, notice) for peer in due]

    # Failures

    @traced
    def new_failure(self, fault: Fault, label: str = "", sequence: int = -1) -> Failure:
        """The record of something that went wrong in this party."""
        self._failure_count += 1
        return Failure.of_fault(
            fault,
            error_id=f"{self.party}/{self._incarnation}/{self._failure_count}",
            party=self.party,
            task=label,
            sequence=sequence,
        )

    @traced
    def believed(self, failure: Failure) -> Failure:
        """What this party makes of a record that its receiver has: its own failures it knows better than any peer."""
        known = self.book.find(failure.error_id)
        if failure.hops and known is not None and not known.hops:
            return known
        if failure.origin != self.party or not failure.hops:
            return failure
        # Passed on as its own it would be true for all others. One finding does for all such claims.
        if self._denial is None:
            self._denial = self._denial_of(failure)
        return self._denial

    def _denial_of(self, failure: Failure) -> Failure:
        claim = f"failure {failure.error_id}{failure.hearsay}"
        if not failure.error_id.startswith(f"{self.party}/{self._incarnation}/") and self.life.joining:
            # Of an earlier start: who heard of it may still be about to leave because of it.
            return self.new_failure(Fault(Kind.INIT, failure.type_name, detail=f"{claim} is one of an earlier start"))
        if self.book.forgotten[self.party]:
            # It may be one of those.
            return self.new_failure(Fault(Kind.TASK, failure.type_name, detail=f"{claim} is known here no more"))
        # Who began it cannot be told from here: the others may have believed somebody, and passed it on.
        detail = f"{claim} is none that party {self.party!r} knows of"
        return self.new_failure(Fault(Kind.DIVERGED, "DivergenceError", detail=detail))

    @traced
    def learn(self, failure: Failure, *, ends_job: bool | None = None) -> list[Instruction]:
        """A failure is known, of this party or of another one.

        Args:
            failure: It.
            ends_job: Whether it ends the job. Default: it does if not all parties see it alike, or if no failure
                may be survived; but not if it concerns only objects that this party has done with.
        """
        self.book.record(failure)
        if ends_job is None:
            done_with = self.life.state is State.RESETTING and failure.kind in OF_OBJECTS
            ends_job = not done_with and (not self._isolate or not failure.kind.symmetric)
        if not ends_job or not self.life.latch():
            return []
        self.book.vote(self.party, failure)
        for peer in self._ends:
            self.life.finished(peer)
        told = self._tell_all(NoticeKind.LATCHED, failure=self.book.find(failure.error_id) or failure)
        return [*told, Latched(), *self._settle_if_complete()]

    @traced
    def out_of_time(self) -> list[Instruction]:
        """The time to wait for votes is over; does nothing if they were all in."""
        return self._settle() if self.life.latched else []

    # What peers tell

    @traced
    def ready(self) -> list[Instruction]:
        """This party has finished its own part of joining."""
        self._ready = True
        return self._tell_all(NoticeKind.READY)

    @traced
    def started_anew(self, peer: str) -> list[Instruction]:
        """Before the job has begun here a peer's driver takes the place of another one.

        What that one had said is void, and what it was told this one has not heard.
        """
        self.life.started_anew(peer)
        return [SendControl(peer, Notice(NoticeKind.READY, self.epoch))] if self._ready else []

    @traced
    def heard(self, peer: str, notice: Notice) -> list[Instruction]:
        """A peer has told something."""
        kind = notice.kind
        if kind is NoticeKind.READY:
            self.life.ready(peer)
            return []
        if notice.epoch > self.epoch:
            self._keep_early(peer, notice)
            return []
        if kind is NoticeKind.GOODBYE:
            return self._goodbye(peer, notice)
        if notice.epoch < self.epoch:
            self.stale_notices += 1
            return []
        if kind is NoticeKind.LATCHED and notice.failure is not None:
            # It counts as it was told, since the others count it so; what it makes this party do is another matter.
            self.book.vote(peer, notice.failure)
            return [*self.learn(self.believed(notice.failure), ends_job=True), *self._settle_if_complete()]
        if kind is NoticeKind.FAILURE and notice.failure is not None:
            return self.learn(self.believed(notice.failure))
        if kind is NoticeKind.RESET:
            self.life.asks_for_reset(peer)
            self._asks[peer] = Ask(notice.calls, notice.digest)
            return [*self._hear_progress(peer, notice), *self._switch_if_agreed()]
        if kind is NoticeKind.PROGRESS:
            return self._hear_progress(peer, notice)
        if kind is NoticeKind.JOURNAL:
            return self._hear_journal(peer, notice)
        return []

    def _keep_early(self, peer: str, notice: Notice) -> None:
        if notice.kind in UNTIMELY:
            return
        kept = self._early[peer]
        if notice.kind is NoticeKind.PROGRESS:
            # The last one says all.
            kept[:] = [earlier for earlier in kept if earlier.kind is not NoticeKind.PROGRESS]
        named = sum(len(earlier.objects) for earlier in kept) if notice.objects else 0
        if len(kept) < MAX_EARLY and named + len(notice.objects) <= MAX_EARLY_OBJECTS:
            kept.append(notice)
        elif notice.kind is NoticeKind.FAILURE:
            self._overflowed.add(peer)

    @traced
    def lost(self, peer: str, failure: Failure) -> list[Instruction]:
        """A peer has gone without a goodbye."""
        if not self.life.left(peer):
            return []
        self.journal.forget(peer)
        # Not a vote: each party makes its own record of a loss, and counts only those that it told the others.
        return [PeerDeparted(peer, failure), *self.learn(failure, ends_job=True), *self._settle_if_complete()]

    # Epochs

    @traced
    def reset(self) -> list[Instruction]:
        """This party is ready for the next epoch.

        Raises:
            RuntimeError: The job is not one that could go on.
        """
        self.life.reset()
        found: list[Instruction] = []
        ask = VOTED
        if not self.life.latched:
            ask = Ask(self.journal.calls, self.journal.digest)
            # Asked again because not all did in time, it is the same call.
            if self._asks.get(self.party) != ask:
                found = self.call(RESET)
                ask = Ask(self.journal.calls, self.journal.digest)
        self._asks[self.party] = ask
        told = self._tell_all(NoticeKind.RESET, calls=ask.calls, digest=ask.digest)
        return [*found, *told, *self._switch_if_agreed()]

    @traced
    def not_reset(self) -> None:
        """This party waits no longer for the others to be ready. What it has told them still holds."""
        self.life.not_reset()

    # Leaving

    @traced
    def close(self, text: str | None) -> tuple[bool, list[Instruction]]:
        """The driver leaves.

        Args:
            text: `LEAVE` or `EXIT` for the end of its program; None if it fails.

        Returns:
            Whether it had not begun to leave before, and what is to be done.
        """
        running = self.life.accepts_work
        if not self.life.close():
            return False, []
        if text is None or not running:
            return True, []
        self._ended = True
        return True, self._noted(text, same_as=LEAVE)

    @traced
    def goodbye(self) -> list[Instruction]:
        """Say goodbye: with the root if the job has failed, else as one who has finished.

        To those who have left as well: they may wait to hear that nobody needs them any more.
        """
        if self.life.latched:
            root = self.book.root
            # What others have told of this party must not come from itself.
            told = self._denial if root is not None and root.hops and root.origin == self.party else root
            notice = Notice(NoticeKind.GOODBYE, self.epoch, told or root)
        else:
            calls, digest = self.journal.calls, self.journal.digest
            notice = Notice(NoticeKind.GOODBYE, self.epoch, calls=calls, digest=digest)
        return [SendControl(peer, notice) for peer in self._peers]

    def validate(self) -> None:
        """Check the laws; run at the teardown of tests.

        Raises:
            RuntimeError: A law is broken.
        """
        self.book.validate()
        self.journal.validate()
        if self.life.latched != (self.party in self.book.voted):
            raise RuntimeError("a party votes if and only if its job has latched")
        if self.book.settled and not self.life.latched:
            raise RuntimeError("a root was settled without a latch")
        if any(notice.epoch <= self.epoch for kept in self._early.values() for notice in kept):
            raise RuntimeError("a notice still waits for an epoch that has begun")

    def _tell_all(
        self, kind: NoticeKind, *, failure: Failure | None = None, calls: int = 0, digest: int = 0
    ) -> list[Instruction]:
        notice = Notice(kind, self.epoch, failure, calls=calls, digest=digest)
        return [SendControl(peer, notice) for peer in self.life.attentive]

    def _goodbye(self, peer: str, notice: Notice) -> list[Instruction]:
        past = notice.epoch < self.epoch
        if notice.failure is None and not past:
            if peer in self._ends:
                return []
            self._ends[peer] = notice.calls
            return [PeerDeparted(peer, None), *self._hear_progress(peer, notice), *self._compare_ends()]
        failure = None if notice.failure is None else self.believed(notice.failure)
        if failure is None or past:
            # It left over something that is history here, and must not come back as news [E30].
            fault = Fault(Kind.PARTY_LEFT, "PartyLeftError", detail="before it could begin the epoch after a reset")
            failure = dataclasses.replace(self.new_failure(fault), src_party=peer)
        return self.lost(peer, failure)

    def _settle_if_complete(self) -> list[Instruction]:
        # Who has ended votes on nothing any more.
        if not self.life.latched or not self.book.voted.issuperset(set(self.life.voters) - self.book.ended):
            return []
        return self._settle()

    def _settle(self) -> list[Instruction]:
        if self.book.settled:
            return []
        return [Settled(self.book.settle())]

    def _hear_progress(self, peer: str, notice: Notice) -> list[Instruction]:
        if self.life.latched or not self.journal.heard(peer, notice.calls, notice.digest):
            return []
        return self._compared([peer])

    def _noted(self, text: str, *, same_as: str | None = None) -> list[Instruction]:
        return [*self._compared(self.journal.note(text, same_as=same_as)), *self._compare_ends()]

    def _compare_ends(self) -> list[Instruction]:
        """Of the peers whose programs have ended, tell those that have finished from those that called more."""
        longer = []
        for peer, calls in self._ends.items():
            if self.life.latched or self.journal.agrees(peer, calls):
                self.life.finished(peer)
            elif self._ended and calls > self.journal.calls:
                longer.append(peer)
        return self._compared(longer)

    def _compared(self, differing: Sequence[str]) -> list[Instruction]:
        """Digests differ: tell what was called here, so that the peer finds the first call that does."""
        told: list[Instruction] = []
        if not self.life.latched:
            for peer in differing:
                first, texts = self.journal.segment(peer)
                told.append(SendControl(peer, Notice(NoticeKind.JOURNAL, self.epoch, calls=first, texts=texts)))
        return told

    def _hear_journal(self, peer: str, notice: Notice) -> list[Instruction]:
        if self.life.latched:
            return []
        difference = self.journal.compare(notice.calls, notice.texts)
        end = notice.calls + len(notice.texts)
        if difference is None and len(notice.texts) >= SEGMENT and end < self.journal.calls:
            # A long journal travels in parts: it is in a later one.
            return self._compared([peer]) if self.journal.agree(peer, end) else []
        if difference is None:
            detail = f"the programs of {self.party!r} and {peer!r} differ after call #{end}"
            return self.learn(self.new_failure(Fault(Kind.DIVERGED, "DivergenceError", detail=detail)))
        calls = {self.party: difference.mine, peer: difference.theirs}
        leavers = [party for party, text in calls.items() if text == EXIT]
        kind, name = (Kind.PARTY_LEFT, "PartyLeftError") if leavers else (Kind.DIVERGED, "DivergenceError")
        # In the order of the names, so that both parties say the same, whoever finds it.
        said = ", ".join(f"party {party!r} called {_quoted(calls[party])}" for party in sorted(calls))
        fault = Fault(kind, name, detail=f"call #{difference.call} differs: {said}")
        failure = self.new_failure(fault, sequence=difference.call)
        # Whoever finds it says who it was.
        return self.learn(dataclasses.replace(failure, src_party=leavers[0]) if leavers else failure)

    def _switch_if_agreed(self) -> list[Instruction]:
        own = self._asks.get(self.party)
        # Once this party has voted, its ask from before is void, whatever the others have asked.
        if not self.life.may_switch or self.life.latched != (own == VOTED):
            return []
        differing = [peer for peer in self._peers if self._asks[peer] != own]
        if differing:
            # After a vote nobody compares: those that have not asked after theirs will ask again.
            return self._compared(differing)
        self.epoch += 1
        self._informed.clear()
        self.life.switched()
        self._denial = None
        self.book = FailureBook()
        self.journal = Journal(self._peers)
        self._asks.clear()
        self._ends.clear()
        early = [(peer, notice) for peer, kept in self._early.items() for notice in kept]
        for kept in self._early.values():
            kept.clear()
        found: list[Instruction] = [Switched(self.epoch, tuple(early))]
        for peer, notice in early:
            found += self.heard(peer, notice)
        for peer in sorted(self._overflowed):
            # To forget one of them would let this party wait for its objects for ever.
            detail = f"party {peer!r} told of more failures of the next epoch than are kept for it ({MAX_EARLY})"
            failure = self.new_failure(Fault(Kind.DIVERGED, "DivergenceError", detail=detail))
            found += self.learn(failure, ends_job=True)
        self._overflowed.clear()
        return found


def _quoted(call: str) -> str:
    """What a party says that it called, so that it cannot pass for what somebody else is said to have called."""
    return "`" + call.replace("`", "'") + "`"
