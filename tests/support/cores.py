"""A whole federation as a model: the pure core of each party, and nothing but queues between them.

Notices between two parties keep their order, parcels do not, and everything else may happen at any time. Whoever
drives it chooses one of `enabled` after another, then calls `finish` and `check`.
"""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fed.core.coordination import LEAVE, Coordinator
from fed.core.failure import Failure, Fault, Kind
from fed.core.instructions import Instruction, Latched, SendControl, Settled, Switched
from fed.core.lifecycle import State
from fed.core.notice import Notice, NoticeKind
from fed.core.rendezvous import Arrival, Key, Rendezvous, Reply
from fed.object import ObjectId

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")
OVER = Failure("over", Kind.CANCELLED, "nobody", "EpochOver")

Action = Callable[[], None]
Outcome = str | Failure


class Wait(NamedTuple):
    """The driver waits for an object; a list with what came of it."""

    id: ObjectId
    outcomes: list[Outcome]


class Party:
    """One party: its core, and what its driver has seen."""

    def __init__(self, federation: Federation, name: str, peers: Sequence[str], *, isolate: bool) -> None:
        self.federation = federation
        self.name = name
        self.core = Coordinator(name, peers, "x", isolate=isolate)
        self.table: Rendezvous[str] = Rendezvous(1_000_000)
        self.handled: collections.Counter[int] = collections.Counter()
        self.latched: set[int] = set()
        self.roots: dict[int, Failure] = {}
        self.waits: list[Wait] = []
        # Those of this epoch that nothing has come of yet; and what they get because the job has failed.
        self.expected: dict[Key, Wait] = {}
        self.aborted: Failure | None = None
        # What will not come: nobody has waited for it yet; or somebody has, and the table has not heard.
        self.missing: dict[Key, Failure] = {}
        self.given_up: list[Key] = []
        # Of whatever epoch: objects that have come, or of which a peer has told that they will not.
        self.decided: set[ObjectId] = set()
        self.produced: dict[ObjectId, Failure | None] = {}
        self.waiting_for: set[ObjectId] = set()
        self.asked_reset = False
        self.asked_in_vain = False
        self.said_goodbye = ""
        self.gone = False
        self.silent = False
        for peer in peers:
            self.core.life.ready(peer)
        self.core.life.joined()

    def carry_out(self, instructions: Sequence[Instruction]) -> None:
        for one in instructions:
            if isinstance(one, SendControl):
                self.federation.notices[self.name, one.peer].append(one.notice)
            elif isinstance(one, Latched):
                assert self.core.epoch not in self.latched
                self.latched.add(self.core.epoch)
            elif isinstance(one, Settled):
                self.settle(self.core.epoch, one.root)
                self.aborted = one.root
                for key in list(self.expected):
                    self.not_coming(key, one.root)
            elif isinstance(one, Switched):
                old = one.epoch - 1
                if old in self.latched and old not in self.roots:
                    self.handled[old] += 1
                self.asked_reset = False
                self.waiting_for.clear()
                self.aborted = None
                for key in list(self.expected):
                    self.resolve(key, OVER)
                self.missing.clear()
                self.given_up.clear()
                self.table.reset(one.epoch)
                for peer, notice in one.early:
                    self.note_missing(peer, notice)
        self.core.validate()
        self.table.validate()

    def settle(self, epoch: int, root: Failure) -> None:
        assert epoch not in self.roots
        self.roots[epoch] = root
        self.handled[epoch] += 1

    def resolve(self, key: Key, outcome: Outcome) -> None:
        wait = self.expected.pop(key, None)
        if wait is not None:
            wait.outcomes.append(outcome)
        else:
            # The table tells of an object once, and only whoever was let go meanwhile has no use for it.
            assert self.aborted is not None, (self.name, key)

    def note_missing(self, peer: str, notice: Notice) -> None:
        """What the driver does with word that objects will never come."""
        if notice.failure is None or notice.epoch != self.core.epoch:
            return
        for object_id in notice.objects:
            key = Key(peer, object_id)
            if key in self.expected:
                self.not_coming(key, notice.failure)
            else:
                self.missing.setdefault(key, notice.failure)

    def not_coming(self, key: Key, failure: Failure) -> None:
        self.resolve(key, failure)
        self.given_up.append(key)

    def have_done(self) -> None:
        """The table hears what is waited for no more."""
        while self.given_up:
            key = self.given_up.pop()
            assert self.table.confirmed(key).reply is Reply.DELIVERED
            assert not self.table.is_awaited(key)

    def arrival(self, key: Key, arrival: Arrival[str]) -> None:
        if arrival.payload is not None:
            self.resolve(key, arrival.payload)
            self.table.confirmed(key)
            self.have_done()

    def wait(self, key: Key) -> None:
        wait = Wait(key.id, [])
        self.waits.append(wait)
        self.waiting_for.add(key.id)
        self.expected[key] = wait
        failure = self.missing.pop(key, None) or self.aborted
        if failure is not None:
            self.not_coming(key, failure)
        else:
            self.arrival(key, self.table.awaited(key))
        self.have_done()

    def call(self, text: str) -> None:
        self.carry_out(self.core.call(text))

    def learn(self, failure: Failure) -> None:
        self.carry_out(self.core.learn(failure))

    def hear(self, peer: str, notice: Notice) -> None:
        if self.gone or self.silent:
            return
        if notice.kind is NoticeKind.FAILURE:
            self.decided.update(notice.objects)
            self.note_missing(peer, notice)
        self.carry_out(self.core.heard(peer, notice))
        if notice.failure is not None:
            self.have_done()


class Federation:
    """Some parties, and what is on its way between them.

    Args:
        count: How many parties.
        isolate: Whether failed tasks leave the job running.
        objects: How many objects each epoch has.
        random: Who owns and who needs them.
    """

    def __init__(self, count: int, *, isolate: bool, objects: int, random: random.Random) -> None:
        self.names = NAMES[:count]
        self.notices: dict[tuple[str, str], collections.deque[Notice]] = {
            (one, other): collections.deque() for one in self.names for other in self.names if one != other
        }
        self.parcels: list[tuple[str, str, ObjectId]] = []
        self.isolate = isolate
        self.parties = {
            name: Party(self, name, [peer for peer in self.names if peer != name], isolate=isolate)
            for name in self.names
        }
        self.edges = [
            (random.choice(self.names), random.sample(self.names, random.randint(0, count))) for _ in range(objects)
        ]
        self.crashed: set[str] = set()
        self.log: list[str] = []
        self.impatient = False
        # Epochs in which somebody left who had asked for the next one: others may have gone on to that.
        self.withdrawn: set[int] = set()

    def enabled(self) -> list[tuple[str, Action]]:
        """Everything that may happen next."""
        found: list[tuple[str, Action]] = []
        for (source, target), queue in self.notices.items():
            if queue:
                said = f"{source} -> {target} {queue[0].kind.value}"
                found.append((said, lambda s=source, t=target: self.carry(s, t)))  # type: ignore[misc]
        for place, (source, target, object_id) in enumerate(self.parcels):
            found.append((f"{source} => {target} {object_id}", lambda p=place: self.deliver(p)))  # type: ignore[misc]
        for party in self.parties.values():
            if not party.gone and not party.silent:
                found += self.of_party(party)
        return found

    def of_party(self, party: Party) -> list[tuple[str, Action]]:
        core, name = party.core, party.name
        found: list[tuple[str, Action]] = []
        if core.life.accepts_work:
            found.append((f"{name} calls", lambda: party.call(f"call {core.journal.calls}")))
            found.append((f"{name} tells its progress", lambda: party.carry_out(core.progress())))
            found.append((f"{name} leaves", lambda: self.close(party)))
            for place, (owner, consumers) in enumerate(self.edges):
                object_id = ObjectId(core.epoch, place, 0)
                if name in consumers and name != owner and object_id not in party.waiting_for:
                    found.append((f"{name} waits for {object_id}", lambda o=owner, i=object_id: party.wait(Key(o, i))))  # type: ignore[misc]
        if not core.life.leaving:
            found.append((f"{name} is interrupted", lambda: self.interrupt(party)))
            for place, (owner, _) in enumerate(self.edges):
                object_id = ObjectId(core.epoch, place, 0)
                if owner == name and object_id not in party.produced:
                    for fails in (False, True):
                        said = f"{name} {'fails' if fails else 'makes'} {object_id}"
                        found.append((said, lambda i=object_id, f=fails: self.produce(party, i, fails=f)))  # type: ignore[misc]
        may_go_on = core.life.state is State.RUNNING and (not core.life.latched or core.book.settled)
        if may_go_on and not core.life.gone:
            found.append((f"{name} resets", lambda: self.reset(party)))
        return found

    def step(self, action: tuple[str, Action]) -> None:
        self.log.append(action[0])
        action[1]()
        for party in self.parties.values():
            self.raise_if_due(party)
            self.leave_if_due(party)
            assert all(key.id not in party.decided for key in party.expected), (party.name, self.log[-20:])

    def carry(self, source: str, target: str) -> None:
        self.parties[target].hear(source, self.notices[source, target].popleft())

    def deliver(self, place: int) -> None:
        source, target, object_id = self.parcels.pop(place)
        party = self.parties[target]
        if not party.gone and not party.silent:
            key = Key(source, object_id)
            party.decided.add(object_id)
            party.arrival(key, party.table.arrived(key, f"value of {object_id}", 8))

    def produce(self, party: Party, object_id: ObjectId, *, fails: bool) -> None:
        _, consumers = self.edges[object_id.sequence]
        failure = None
        if fails:
            failure = party.core.new_failure(Fault(Kind.TASK, "ValueError"), "task", object_id.sequence)
        party.produced[object_id] = failure
        for consumer in consumers:
            if consumer == party.name:
                continue
            if failure is None:
                self.parcels.append((party.name, consumer, object_id))
            else:
                notice = Notice(NoticeKind.FAILURE, object_id.epoch, failure, (object_id,))
                self.notices[party.name, consumer].append(notice)
        if failure is not None:
            party.learn(failure)

    def reset(self, party: Party) -> None:
        party.asked_reset = True
        party.asked_in_vain = not party.core.life.latched
        party.carry_out(party.core.reset())

    def raise_if_due(self, party: Party) -> None:
        """What the job does when it fails while the driver asks for the next epoch: raise, so that it may ask again."""
        core = party.core
        if core.life.state is State.RESETTING and core.book.settled and party.asked_in_vain:
            core.not_reset()

    def interrupt(self, party: Party) -> None:
        if party.core.life.state is State.RESETTING:
            self.withdrawn.add(party.core.epoch)
        party.core.not_reset()
        _, found = party.core.close(None)
        party.carry_out(found)
        if not party.core.life.latched:
            party.learn(party.core.new_failure(Fault(Kind.DRIVER, "KeyboardInterrupt")))

    def close(self, party: Party) -> None:
        _, found = party.core.close(LEAVE)
        party.carry_out(found)

    def crash(self, name: str) -> None:
        """A party falls silent; the others will notice, each at its own time."""
        self.parties[name].silent = True
        self.crashed.add(name)
        self.log.append(f"{name} crashes")

    def lose(self, party: Party, peer: str) -> None:
        party.carry_out(party.core.lost(peer, party.core.new_failure(Fault(Kind.PARTY_LOST, "PartyLostError"))))

    def leave_if_due(self, party: Party) -> None:
        """What the job does once it is leaving: say goodbye when the root is known, go when everyone has."""
        life = party.core.life
        if not life.leaving or party.gone or party.silent or (life.latched and not party.core.book.settled):
            return
        undone = life.latched is False and any(
            owner == party.name and ObjectId(party.core.epoch, place, 0) not in party.produced
            for place, (owner, _) in enumerate(self.edges)
        )
        if undone:
            return
        if party.said_goodbye not in ("failed", "clean") or (life.latched and party.said_goodbye == "clean"):
            party.said_goodbye = "failed" if life.latched else "clean"
            party.carry_out(party.core.goodbye())
        if not life.busy:
            party.gone = True
            life.closed()

    def finish(self, random: random.Random) -> None:
        """Let everything come to its end: whatever is on its way arrives, whoever still runs leaves."""
        for _ in range(10_000):
            moving = [action for action in self.enabled() if " -> " in action[0] or " => " in action[0]]
            if moving:
                self.step(random.choice(moving))
                continue
            for party in self.parties.values():
                for name in self.crashed:
                    if not party.gone and not party.silent and name in party.core.life.attentive:
                        self.lose(party, name)
            if any(self.notices.values()):
                continue
            left = [party for party in self.parties.values() if not party.gone and not party.silent]
            if not left:
                return
            told = [party for party in left if party.said_goodbye == "failed"]
            if len(told) == len(left):
                # Whoever waits for a goodbye that is not to come goes without it, after a while.
                self.impatient = self.impatient or len({party.core.epoch for party in self.parties.values()}) == 1
                told[0].gone = True
                told[0].core.life.closed()
                continue
            late = [party for party in left if party.core.life.latched and not party.core.book.settled]
            if late:
                # A vote that is never to come: its party is dead, or has gone on to the next epoch.
                party = random.choice(late)
                party.carry_out(party.core.out_of_time())
                self.raise_if_due(party)
                self.leave_if_due(party)
                continue
            self.finish_one(random.choice([party for party in left if party not in told]), left)
        raise AssertionError(f"it does not end: {self.log[-20:]}")

    def finish_one(self, party: Party, left: Sequence[Party]) -> None:
        core = party.core
        for place, (owner, _) in enumerate(self.edges):
            object_id = ObjectId(core.epoch, place, 0)
            if owner == party.name and object_id not in party.produced and not core.life.latched:
                self.produce(party, object_id, fails=False)
        if core.life.state is State.RESETTING and (
            core.life.gone or all(one.core.life.leaving for one in left if one is not party)
        ):
            # Nobody is left to go on with: fed.reset raises, and the driver leaves.
            self.interrupt(party)
        elif not core.life.leaving and core.life.state is not State.RESETTING:
            if core.life.latched:
                self.interrupt(party)
            else:
                self.close(party)
        elif core.life.state is State.RESETTING and all(
            one.core.life.state is State.RESETTING or one.gone for one in left
        ):
            raise AssertionError(f"everyone waits for the next epoch: {self.log[-20:]}")
        self.leave_if_due(party)

    def check(self) -> None:
        """What holds at the end, whatever happened."""
        alive = [party for party in self.parties.values() if not party.silent]
        for party in alive:
            assert party.gone
            party.core.validate()
            party.table.validate()
            # The handler ran exactly once in each epoch that latched, and in no other.
            assert dict(party.handled) == dict.fromkeys(party.latched, 1), (party.name, party.handled, party.latched)
            for wait in party.waits:
                # One terminal state, and it is the truth.
                assert len(wait.outcomes) <= 1, (party.name, wait)
                owner, _ = self.edges[wait.id.sequence]
                failed = self.parties[owner].produced.get(wait.id)
                for outcome in wait.outcomes:
                    if isinstance(outcome, str):
                        assert outcome == f"value of {wait.id}"
                        assert failed is None
                    else:
                        assert outcome in (failed, party.roots.get(wait.id.epoch), OVER), (party.name, wait)
                # Whoever waits in an epoch that is over, or that failed, has been let go.
                over = wait.id.epoch < party.core.epoch or wait.id.epoch in party.latched
                assert wait.outcomes or not over, (party.name, wait)
            for key in party.table._entries:
                assert key.id.epoch >= party.core.epoch, (party.name, key)
            # The table waits for what the driver waits for, and for nothing else.
            party.have_done()
            assert all(party.table.is_awaited(key) for key in party.expected), (party.name, party.expected)
            assert party.table.statistics().awaited == len(party.expected), (party.name, party.expected)
        if not self.crashed and not any(party.core.life.latched for party in alive):
            programs = {(party.core.epoch, party.core.journal.calls, party.core.journal.digest) for party in alive}
            assert len(programs) == 1, "different programs ended as if they were one"
        if not self.crashed:
            assert not self.impatient, "somebody waited for a goodbye that did not come"
            for epoch in {epoch for party in alive for epoch in party.roots}:
                roots = {party.roots[epoch].error_id for party in alive if epoch in party.roots}
                assert len(roots) == 1, (epoch, roots)
                # Also in whoever has gone on since.
                missing = [party.name for party in alive if party.core.epoch >= epoch and epoch not in party.roots]
                assert not missing or epoch in self.withdrawn, (epoch, missing)
