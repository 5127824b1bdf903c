from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fed.core import rendezvous
from fed.core.failure import Failure, Kind
from fed.core.idset import IdSet
from fed.core.rendezvous import ENTRY_BYTES, Arrival, Key, Rendezvous, Reply, Resolution
from fed.object import ObjectId

KEY = Key("alice", ObjectId(0, 7, 0))
OTHER = Key("bob", ObjectId(0, 7, 0))
FAILURE = Failure("alice/x/1", Kind.TASK, "alice", "ValueError")
ROOM = 10_000

Table = Rendezvous[str, str]


def table(room: int = ROOM, max_object_bytes: int | None = None) -> Table:
    return Rendezvous(room, max_object_bytes)


def test_an_object_that_comes_first_waits_for_its_waiter() -> None:
    one = table()
    assert one.arrived(KEY, "value", 5) == Arrival()
    assert one.awaited(KEY, "waiter") == Arrival(Resolution("waiter", "value", None))


def test_a_waiter_that_comes_first_gets_the_object_when_it_arrives() -> None:
    one = table()
    assert one.awaited(KEY, "waiter") == Arrival()
    assert one.arrived(KEY, "value", 5) == Arrival(Resolution("waiter", "value", None))


def test_the_same_id_from_another_party_is_another_object() -> None:
    one = table()
    one.awaited(KEY, "waiter")
    assert one.arrived(OTHER, "forged", 5) == Arrival()
    assert one.arrived(KEY, "value", 5).resolution == Resolution("waiter", "value", None)


def test_delivered_is_said_after_the_confirmation_and_not_before() -> None:
    one = table()
    one.awaited(KEY, "waiter")
    assert one.arrived(KEY, "value", 5).reply is None
    assert one.arrived(KEY, "value", 5).reply is None
    assert one.confirmed(KEY).reply is Reply.DELIVERED


def test_a_duplicate_of_a_delivered_object_is_dropped_and_acknowledged_again() -> None:
    one = table()
    one.awaited(KEY, "waiter")
    one.arrived(KEY, "value", 5)
    one.confirmed(KEY)
    assert one.arrived(KEY, "value", 5) == Arrival(reply=Reply.DELIVERED)
    assert one.offered(KEY, 5) == Arrival(reply=Reply.DELIVERED)
    assert one.statistics().duplicates == 2


def test_a_duplicate_of_a_stored_object_is_dropped() -> None:
    one = table()
    one.arrived(KEY, "first", 5)
    assert one.arrived(KEY, "second", 5) == Arrival()
    assert one.awaited(KEY, "waiter").resolution == Resolution("waiter", "first", None)


def test_what_nobody_waits_for_is_held_up_to_the_limit_and_left_with_its_owner_beyond() -> None:
    one = table(room=2 * ENTRY_BYTES + 100)
    assert one.arrived(KEY, "fits", 100) == Arrival()
    assert one.arrived(OTHER, "does not", 101) == Arrival(reply=Reply.DEFERRED)
    assert one.awaited(OTHER, "waiter") == Arrival(reply=Reply.WANTED)
    assert one.arrived(OTHER, "again", 101).resolution == Resolution("waiter", "again", None)


def test_what_somebody_waits_for_is_admitted_whatever_the_limit() -> None:
    one = table(room=0)
    one.awaited(KEY, "waiter")
    assert one.offered(KEY, 10**12).admitted
    assert one.arrived(KEY, "huge", 10**12).resolution == Resolution("waiter", "huge", None)


def test_tiny_objects_are_charged_for_too() -> None:
    one = table(room=3 * ENTRY_BYTES)
    replies = [one.arrived(Key("alice", ObjectId(0, number, 0)), "", 0).reply for number in range(5)]
    assert replies == [None, None, None, Reply.DEFERRED, Reply.DEFERRED]


def test_an_admitted_offer_holds_its_room_until_it_arrives_or_breaks() -> None:
    one = table(room=1000)
    assert one.offered(KEY, 400).admitted
    assert one.offered(OTHER, 400) == Arrival(reply=Reply.DEFERRED)
    one.offer_broken(KEY)
    assert one.offered(OTHER, 400).admitted
    one.validate()
    assert one.statistics().stored_bytes == 400 + ENTRY_BYTES


def test_a_waiter_that_comes_while_an_admitted_offer_is_on_its_way_does_not_ask_for_it_twice() -> None:
    one = table()
    one.offered(KEY, 400)
    assert one.awaited(KEY, "waiter") == Arrival()
    assert one.arrived(KEY, "value", 400).resolution == Resolution("waiter", "value", None)
    assert one.statistics().stored_bytes == 0


def test_an_object_larger_than_allowed_is_refused_before_and_after_it_is_sent() -> None:
    one = table(max_object_bytes=10)
    one.awaited(KEY, "waiter")
    assert one.offered(KEY, 11) == Arrival(reply=Reply.REFUSED)
    assert one.arrived(KEY, "value", 11) == Arrival(reply=Reply.REFUSED)


def test_what_nobody_has_asked_for_is_counted_for_each_peer() -> None:
    one = table(room=1000)
    deferred, asked = (Key("alice", ObjectId(0, 8, slot)) for slot in range(2))
    one.arrived(KEY, "value", 10)
    one.arrived(OTHER, "value", 10)
    one.arrived(deferred, "value", 1000)
    one.arrived(asked, "value", 1000)
    one.awaited(asked, "ticket")
    assert one.unasked() == {"alice": 2, "bob": 1}
    one.awaited(KEY, "ticket")
    assert one.unasked() == {"alice": 1, "bob": 1}


def test_what_a_driver_had_sent_is_worth_nothing_when_another_one_takes_its_place() -> None:
    one = table(room=1000)
    deferred = Key("alice", ObjectId(0, 8, 0))
    failed = Key("alice", ObjectId(0, 9, 0))
    one.arrived(KEY, "value", 10)
    one.arrived(deferred, "value", 1000)
    one.failed(failed, FAILURE)
    one.arrived(OTHER, "value", 10)
    one.started_anew("alice")
    assert one.unasked() == {"bob": 1}
    assert one.awaited(KEY, "ticket") == Arrival()
    assert one.awaited(failed, "ticket") == Arrival()
    one.validate()


def test_e44_objects_that_nobody_asks_for_are_named_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "MAX_ENTRIES", 3)
    one: Rendezvous[str, str] = Rendezvous(1)
    keys = [Key("alice", ObjectId(0, number, 0)) for number in range(5)]
    assert [one.arrived(key, "value", 1).reply for key in keys[:4]] == [Reply.DEFERRED] * 3 + [Reply.CROWDED]
    assert one.offered(keys[3], 1) == Arrival(reply=Reply.CROWDED)
    assert not one.takes(keys[3])
    # Those that are known, those that somebody waits for, and those of other peers are not affected.
    assert one.takes(keys[0])
    assert one.arrived(OTHER, "value", 1).reply is Reply.DEFERRED
    assert one.awaited(keys[0], "ticket").reply is Reply.WANTED
    assert one.arrived(keys[0], "value", 1).resolution == Resolution("ticket", "value", None)
    assert one.awaited(keys[4], "other") == Arrival()
    assert one.arrived(keys[4], "value", 1).resolution == Resolution("other", "value", None)


def test_e11_a_failure_that_comes_first_is_kept_for_the_waiter() -> None:
    one = table()
    assert one.failed(KEY, FAILURE) == Arrival()
    assert one.awaited(KEY, "waiter") == Arrival(Resolution("waiter", None, FAILURE))
    assert one.awaited(KEY, "second") == Arrival(Resolution("second", None, FAILURE))


def test_a_failure_ends_the_wait() -> None:
    one = table()
    one.awaited(KEY, "waiter")
    assert one.failed(KEY, FAILURE) == Arrival(Resolution("waiter", None, FAILURE))


def test_e12_value_and_failure_exclude_one_another_and_the_first_one_wins() -> None:
    value_first = table()
    value_first.arrived(KEY, "value", 5)
    value_first.failed(KEY, FAILURE)
    assert value_first.awaited(KEY, "waiter").resolution == Resolution("waiter", "value", None)
    failure_first = table()
    failure_first.failed(KEY, FAILURE)
    assert failure_first.arrived(KEY, "value", 5) == Arrival(reply=Reply.DELIVERED)
    assert failure_first.awaited(KEY, "waiter").resolution == Resolution("waiter", None, FAILURE)


def test_a_failure_of_something_delivered_comes_too_late() -> None:
    one = table()
    one.confirmed(KEY)
    assert one.failed(KEY, FAILURE) == Arrival()
    assert one.arrived(KEY, "value", 5) == Arrival(reply=Reply.DELIVERED)


def test_a_confirmation_of_something_unknown_is_passed_on() -> None:
    # After a restart of the receiver: the value had been handed over by the one before.
    one = table()
    one.arrived(KEY, "pushed again", 5)
    assert one.confirmed(KEY).reply is Reply.DELIVERED
    assert one.statistics().stored_bytes == 0


def test_an_object_that_is_waited_for_again_is_asked_for_again() -> None:
    one = table()
    one.awaited(KEY, "first")
    one.arrived(KEY, "value", 5)
    assert one.awaited(KEY, "second") == Arrival(reply=Reply.WANTED)
    one.arrived(KEY, "value", 5)
    one.confirmed(KEY)
    assert one.awaited(KEY, "third") == Arrival(reply=Reply.WANTED)


def test_e27_an_abort_lets_every_waiter_go_and_every_later_one() -> None:
    one = table()
    one.awaited(KEY, "waiter")
    one.arrived(OTHER, "stored", 5)
    assert one.abort(FAILURE) == (Resolution("waiter", None, FAILURE),)
    assert one.awaited(OTHER, "later") == Arrival(Resolution("later", None, FAILURE))
    assert one.arrived(KEY, "value", 5) == Arrival(reply=Reply.DELIVERED)
    one.validate()


def test_a_second_offer_takes_the_room_of_the_first_and_no_more() -> None:
    one = table()
    one.offered(KEY, 1000)
    assert one.offered(KEY, 1000).admitted
    one.validate()
    assert one.statistics().stored_bytes == 1000 + ENTRY_BYTES
    one.offer_broken(KEY)
    assert one.statistics().stored_bytes == 0


OVER = Failure("bob/x/2", Kind.CANCELLED, "bob", "ResetError")


def later(epoch: int) -> Key:
    return Key("alice", ObjectId(epoch, 7, 0))


def test_e23_a_reset_lets_go_of_earlier_epochs_and_drops_what_still_comes_of_them() -> None:
    one = table()
    one.awaited(KEY, "waiter")
    one.arrived(OTHER, "stored", 5)
    assert one.reset(1, OVER) == (Resolution("waiter", None, OVER),)
    assert one.statistics().stored_bytes == 0
    assert one.arrived(KEY, "late", 5) == Arrival(reply=Reply.DELIVERED)
    assert one.offered(OTHER, 5) == Arrival(reply=Reply.DELIVERED)
    assert one.failed(KEY, FAILURE) == Arrival()
    assert one.statistics().stale == 3
    assert one.awaited(OTHER, "late") == Arrival(Resolution("late", None, OVER))
    one.validate()


def test_e23_what_was_delivered_in_an_earlier_epoch_is_forgotten() -> None:
    one = table()
    one.confirmed(OTHER)
    one.awaited(KEY, "waiter")
    one.arrived(KEY, "value", 5)
    one.reset(1, OVER)
    assert one.confirmed(KEY) == Arrival(reply=Reply.DELIVERED)
    one.validate()
    assert one.statistics().delivered == 1


def test_e23_an_offer_that_was_admitted_before_a_reset_gives_its_room_back() -> None:
    one = table()
    assert one.offered(KEY, 1000).admitted
    one.reset(1, OVER)
    assert one.statistics().stored_bytes == 0
    assert one.arrived(KEY, "value", 1000) == Arrival(reply=Reply.DELIVERED)
    one.offer_broken(KEY)
    one.validate()


def test_e30_a_reset_lifts_the_abort() -> None:
    one = table()
    one.abort(FAILURE)
    one.reset(1, OVER)
    assert one.awaited(later(1), "waiter") == Arrival()
    assert one.arrived(later(1), "value", 5).resolution == Resolution("waiter", "value", None)


def test_what_a_peer_sends_for_the_next_epoch_outlives_abort_and_reset() -> None:
    one = table()
    one.arrived(later(1), "early", 5)
    one.failed(Key("bob", ObjectId(1, 7, 0)), FAILURE)
    one.abort(OVER)
    assert one.arrived(later(1)._replace(peer="carol"), "early too", 5) == Arrival()
    one.validate()
    one.reset(1, OVER)
    assert one.awaited(later(1), "first").resolution == Resolution("first", "early", None)
    assert one.awaited(later(1)._replace(peer="bob"), "second").resolution == Resolution("second", None, FAILURE)
    assert one.awaited(later(1)._replace(peer="carol"), "third").resolution == Resolution("third", "early too", None)


def test_what_a_peer_sends_early_can_be_deferred_and_asked_for() -> None:
    one = table(room=0)
    assert one.arrived(later(1), "early", 5) == Arrival(reply=Reply.DEFERRED)
    one.reset(1, OVER)
    assert one.awaited(later(1), "waiter") == Arrival(reply=Reply.WANTED)


def test_a_peer_that_left_has_left_in_the_next_epoch_too() -> None:
    one = table()
    one.left("alice", FAILURE)
    one.reset(1, OVER)
    assert one.awaited(later(1), "waiter") == Arrival(Resolution("waiter", None, FAILURE))


def test_a_reset_to_an_epoch_that_is_not_later_changes_nothing() -> None:
    one = table()
    one.reset(2, OVER)
    one.awaited(later(2), "waiter")
    one.abort(FAILURE)
    assert one.reset(2, OVER) == one.reset(1, OVER) == ()
    assert one.awaited(later(2), "again") == Arrival(Resolution("again", None, FAILURE))


def test_a_table_that_was_made_anew_learns_the_epoch_from_its_waiters() -> None:
    one = table()
    one.awaited(later(2), "waiter")
    assert one.abort(FAILURE) == (Resolution("waiter", None, FAILURE),)
    assert one.awaited(later(2), "again") == Arrival(Resolution("again", None, FAILURE))


def ids(*keys: Key) -> IdSet:
    made = IdSet()
    for key in keys:
        made.add(key.id)
    return made


def test_a_table_that_was_made_anew_acknowledges_what_the_one_before_had_delivered() -> None:
    one = table()
    third = KEY._replace(id=ObjectId(0, 9, 0))
    one.arrived(KEY, "came again", 5)
    one.arrived(OTHER, "not delivered yet", 5)
    assert one.restore(0, {"alice": ids(KEY, third)}) == [KEY]
    assert one.arrived(third, "comes again", 5) == Arrival(reply=Reply.DELIVERED)
    assert one.awaited(OTHER, "waiter").resolution == Resolution("waiter", "not delivered yet", None)
    assert one.awaited(KEY, "again") == Arrival(reply=Reply.WANTED)
    assert one.statistics().stored_bytes == 0
    one.validate()


def test_what_is_waited_for_anew_is_wanted_though_it_had_been_delivered_before() -> None:
    one = table()
    one.awaited(KEY, "waiter")
    assert one.restore(0, {"alice": ids(KEY)}) == []
    assert one.arrived(KEY, "value", 5).resolution == Resolution("waiter", "value", None)
    one.validate()


def test_what_a_table_that_was_made_anew_has_delivered_itself_it_still_knows_when_it_is_told_the_rest() -> None:
    one = table()
    one.confirmed(KEY)
    one.restore(0, {"alice": ids(KEY._replace(id=ObjectId(0, 9, 0)))})
    assert one.arrived(KEY, "value", 5) == Arrival(reply=Reply.DELIVERED)


def test_what_was_delivered_in_an_epoch_that_is_over_says_nothing_about_this_one() -> None:
    one = table()
    one.reset(1, OVER)
    assert one.restore(0, {"alice": ids(KEY)}) == []
    assert one.arrived(later(1), "value", 5) == Arrival()
    one.validate()


def test_a_late_confirmation_of_an_earlier_epoch_says_nothing_about_this_one() -> None:
    # The first waiter of an epoch may come before the table hears of the reset.
    one = table()
    one.awaited(KEY, "waiter")
    one.arrived(KEY, "value", 5)
    one.confirmed(Key("bob", ObjectId(1, 1, 0)))
    assert one.confirmed(KEY) == Arrival(reply=Reply.DELIVERED)
    one.confirmed(Key("alice", ObjectId(1, 1, 0)))
    assert one.arrived(later(1), "value", 5) == Arrival()
    assert one.awaited(later(1), "waiter").resolution == Resolution("waiter", "value", None)
    one.validate()


class RendezvousMachine(RuleBasedStateMachine):
    """Owners that send again until they are told DELIVERED, against a waiter for every object, in any order.

    Owners are in any epoch, the table's own among them.
    """

    keys = st.sampled_from(
        [Key(peer, ObjectId(epoch, number, 0)) for peer in ("alice", "bob") for epoch in range(3) for number in (0, 1)]
    )

    def __init__(self) -> None:
        super().__init__()
        self.table: Table = self.new_table()
        self.waiting: set[Key] = set()
        self.ended: dict[Key, list[str | Failure | None]] = {}
        self.delivered: set[Key] = set()
        self.handed: set[Key] = set()
        self.epoch = 0
        self.first_epoch = 0
        self.aborted_epoch = -1
        self.stale = 0

    def over(self, key: Key) -> bool:
        return key.id.epoch < self.first_epoch or key.id.epoch <= self.aborted_epoch

    def take(self, key: Key, arrival: Arrival[str, str]) -> None:
        if arrival.resolution is not None:
            ticket, payload, failure = arrival.resolution
            assert ticket == str(key)
            assert (payload is None) != (failure is None)
            assert payload is None or (payload == f"value of {key}" and not self.over(key))
            self.waiting.discard(key)
            self.ended.setdefault(key, []).append(payload or failure)
            if payload is not None:
                self.handed.add(key)
        if arrival.reply is Reply.DELIVERED:
            assert (
                key in self.delivered or isinstance((self.ended.get(key) or [FAILURE])[-1], Failure) or self.over(key)
            )

    @rule(key=keys)
    def wait(self, key: Key) -> None:
        if key in self.waiting or key in self.ended:
            return
        self.waiting.add(key)
        self.take(key, self.table.awaited(key, str(key)))
        if not self.over(key):
            self.epoch = max(self.epoch, key.id.epoch)

    @rule(key=keys, nbytes=st.integers(0, 80))
    def arrive(self, key: Key, nbytes: int) -> None:
        self.stale += key.id.epoch < self.first_epoch
        self.take(key, self.table.arrived(key, f"value of {key}", nbytes))

    @rule(key=keys, nbytes=st.integers(0, 80), broken=st.booleans())
    def offer(self, key: Key, nbytes: int, broken: bool) -> None:
        self.stale += key.id.epoch < self.first_epoch
        arrival = self.table.offered(key, nbytes)
        self.take(key, arrival)
        if arrival.admitted and broken:
            self.table.offer_broken(key)
        elif arrival.admitted:
            self.take(key, self.table.arrived(key, f"value of {key}", nbytes))

    @rule(key=keys)
    def fail(self, key: Key) -> None:
        self.stale += key.id.epoch < self.first_epoch
        self.take(key, self.table.failed(key, FAILURE))

    @rule(key=keys)
    def confirm(self, key: Key) -> None:
        if key in self.handed:
            self.delivered.add(key)
            self.take(key, self.table.confirmed(key))

    @rule(really=st.integers(0, 9))
    def abort(self, really: int) -> None:
        if really:
            return
        self.aborted_epoch = self.epoch
        self.let_go(self.table.abort(FAILURE), set(self.waiting))

    @rule(epoch=st.integers(0, 3), really=st.integers(0, 4))
    def reset(self, epoch: int, really: int) -> None:
        if really:
            return
        self.first_epoch = max(self.first_epoch, epoch)
        self.epoch = max(self.epoch, epoch)
        self.let_go(self.table.reset(epoch, OVER), {key for key in self.waiting if key.id.epoch < self.first_epoch})

    @rule(again=st.lists(keys, max_size=3), early=st.booleans(), really=st.integers(0, 4))
    def restart(self, again: list[Key], early: bool, really: int) -> None:
        """The table is lost, and made anew by what its driver knows; its waiters and some objects come again."""
        if really:
            return
        arrived = {key for key, (end,) in self.ended.items() if isinstance(end, str) and key.id.epoch == self.epoch}
        self.delivered |= arrived
        self.table, self.stale = self.new_table(), 0
        self.table.reset(self.epoch, OVER)
        self.first_epoch = self.epoch
        if early:
            self.come_again(again)
        known = {peer: ids(*(key for key in arrived if key.peer == peer)) for peer in ("alice", "bob")}
        assert set(self.table.restore(self.epoch, known)) <= arrived
        if not early:
            self.come_again(again)
        if self.aborted_epoch == self.epoch:
            self.let_go(self.table.abort(FAILURE), set(self.waiting))

    def come_again(self, again: list[Key]) -> None:
        for key in sorted(self.waiting):
            self.take(key, self.table.awaited(key, str(key)))
        for key in again:
            self.arrive(key, 0)

    @staticmethod
    def new_table() -> Table:
        return table(room=3 * ENTRY_BYTES + 60)

    def let_go(self, resolutions: tuple[Resolution[str, str], ...], expected: set[Key]) -> None:
        assert {resolution.ticket for resolution in resolutions} == {str(key) for key in expected}
        for resolution in resolutions:
            key = next(one for one in self.waiting if str(one) == resolution.ticket)
            self.take(key, Arrival(resolution))

    @invariant()
    def laws_hold(self) -> None:
        self.table.validate()
        assert not any(map(self.over, self.waiting))
        assert self.table.statistics().stale == self.stale
        # Exactly once: a waiter ends once, by a value or by a failure.
        assert all(len(ends) == 1 for ends in self.ended.values())
        assert self.table.statistics().awaited == len(self.waiting)


RendezvousMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestRendezvousMachine = RendezvousMachine.TestCase
