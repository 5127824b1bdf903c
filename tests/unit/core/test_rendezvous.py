from __future__ import annotations

import dataclasses

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fed.core import rendezvous
from fed.core.failure import Failure, Kind
from fed.core.idset import IdSet
from fed.core.rendezvous import ENTRY_BYTES, Arrival, Key, Rendezvous, Reply, Resolution
from fed.object import ObjectId

KEY = Key("alice", ObjectId(0, 7, 0))
OTHER = Key("bob", ObjectId(0, 7, 0))
FAILURE = Failure("alice/x/1", Kind.TASK, "alice", "ValueError")
GONE = Failure("carol/x/2", Kind.PARTY_LOST, "alice", "PartyLostError")
ROOM = 10_000

Table = Rendezvous[str]


def table(room: int = ROOM, max_object_bytes: int | None = None) -> Table:
    return Rendezvous(room, max_object_bytes)


def later(epoch: int) -> Key:
    return Key("alice", ObjectId(epoch, 7, 0))


def ids(*keys: Key) -> IdSet:
    made = IdSet()
    for key in keys:
        made.add(key.id)
    return made


def of_value(payload: str) -> Arrival[str]:
    return Arrival(Resolution(payload, None))


def of_failure(why: Failure) -> Arrival[str]:
    return Arrival(Resolution(None, why))


NOTHING: Arrival[str] = Arrival()
DELIVERED: Arrival[str] = Arrival(reply=Reply.DELIVERED)
WANTED: Arrival[str] = Arrival(reply=Reply.WANTED)
DEFERRED: Arrival[str] = Arrival(reply=Reply.DEFERRED)


# An object and who waits for it


def test_an_object_that_comes_first_waits_for_the_driver() -> None:
    one = table()
    assert one.arrived(KEY, "value", 5) == NOTHING
    assert one.awaited(KEY) == of_value("value")


def test_a_driver_that_waits_gets_the_object_when_it_arrives() -> None:
    one = table()
    assert one.awaited(KEY) == NOTHING
    assert one.arrived(KEY, "value", 5) == of_value("value")


def test_the_same_id_from_another_party_is_another_object() -> None:
    one = table()
    one.awaited(KEY)
    assert one.arrived(OTHER, "forged", 5) == NOTHING
    assert one.arrived(KEY, "value", 5) == of_value("value")


def test_an_object_is_awaited_until_it_is_here_or_has_failed() -> None:
    one = table()
    assert not one.is_awaited(KEY)
    for key in (KEY, OTHER):
        one.awaited(key)
        assert one.is_awaited(key)
    one.arrived(KEY, "value", 5)
    one.failed(OTHER, FAILURE)
    assert not one.is_awaited(KEY)
    assert not one.is_awaited(OTHER)
    one.confirmed(KEY)
    assert not one.is_awaited(KEY)


def test_what_is_here_without_having_been_asked_for_is_not_awaited() -> None:
    one = table(room=ENTRY_BYTES + 5)
    one.arrived(KEY, "value", 5)
    assert one.arrived(OTHER, "value", 5) == DEFERRED
    assert not one.is_awaited(KEY)
    assert not one.is_awaited(OTHER)
    one.awaited(OTHER)
    assert one.is_awaited(OTHER)


# What the driver asks for again, since it has not got it


def test_what_is_awaited_already_is_not_asked_for_again() -> None:
    one = table()
    one.awaited(KEY)
    assert one.awaited(KEY) == NOTHING
    assert one.statistics().awaited == 1
    assert one.arrived(KEY, "value", 5) == of_value("value")


def test_an_object_that_was_handed_over_in_vain_is_asked_for_again() -> None:
    one = table()
    one.awaited(KEY)
    one.arrived(KEY, "value", 5)
    assert one.awaited(KEY) == WANTED
    assert one.is_awaited(KEY)
    assert one.awaited(KEY) == NOTHING
    assert one.arrived(KEY, "value", 5) == of_value("value")
    assert one.confirmed(KEY) == DELIVERED
    one.validate()


def test_an_object_that_was_stored_and_handed_over_in_vain_is_asked_for_again() -> None:
    one = table()
    one.arrived(KEY, "value", 5)
    assert one.awaited(KEY) == of_value("value")
    assert one.statistics().stored_bytes == 0
    assert one.awaited(KEY) == WANTED
    assert one.arrived(KEY, "value", 5) == of_value("value")


def test_nobody_waits_for_an_object_that_was_delivered() -> None:
    one = table()
    one.awaited(KEY)
    one.arrived(KEY, "value", 5)
    one.confirmed(KEY)
    assert one.awaited(KEY) == NOTHING
    assert not one.is_awaited(KEY)
    assert one.arrived(KEY, "value", 5) == DELIVERED
    one.validate()


# Exactly once


def test_delivered_is_said_after_the_confirmation_and_not_before() -> None:
    one = table()
    one.awaited(KEY)
    assert one.arrived(KEY, "value", 5).reply is None
    assert one.arrived(KEY, "value", 5).reply is None
    assert one.confirmed(KEY) == DELIVERED


def test_a_duplicate_of_an_object_that_was_handed_over_is_dropped() -> None:
    one = table()
    one.awaited(KEY)
    one.arrived(KEY, "first", 5)
    assert one.arrived(KEY, "second", 5) == NOTHING
    assert one.offered(KEY, 5) == NOTHING
    assert one.statistics().duplicates == 2
    assert one.statistics().stored_bytes == 0


def test_a_duplicate_of_a_delivered_object_is_dropped_and_acknowledged_again() -> None:
    one = table()
    one.awaited(KEY)
    one.arrived(KEY, "value", 5)
    one.confirmed(KEY)
    assert one.arrived(KEY, "value", 5) == DELIVERED
    assert one.offered(KEY, 5) == DELIVERED
    assert one.statistics().duplicates == 2


def test_a_duplicate_of_a_stored_object_is_dropped() -> None:
    one = table()
    one.arrived(KEY, "first", 5)
    assert one.arrived(KEY, "second", 5) == NOTHING
    assert one.awaited(KEY) == of_value("first")


def test_a_confirmation_of_something_awaited_is_passed_on() -> None:
    # After a restart of the receiver: the driver had taken the value from the one before, and said so a moment after
    # it had told this one what it waits for.
    one = table()
    one.restore(0, {})
    one.awaited(KEY)
    assert one.confirmed(KEY) == DELIVERED
    assert not one.is_awaited(KEY)
    assert one.arrived(KEY, "pushed again", 5) == DELIVERED
    one.validate()


def test_a_confirmation_of_something_unknown_is_passed_on() -> None:
    # After a restart of the receiver: the value had been handed over by the one before.
    one = table()
    one.arrived(KEY, "pushed again", 5)
    assert one.confirmed(KEY) == DELIVERED
    assert one.statistics().stored_bytes == 0
    assert one.arrived(KEY, "and again", 5) == DELIVERED


# Room


def test_what_nobody_waits_for_is_held_up_to_the_limit_and_left_with_its_owner_beyond() -> None:
    one = table(room=2 * ENTRY_BYTES + 100)
    assert one.arrived(KEY, "fits", 100) == NOTHING
    assert one.arrived(OTHER, "does not", 101) == DEFERRED
    assert one.awaited(OTHER) == WANTED
    assert one.arrived(OTHER, "again", 101) == of_value("again")


def test_what_somebody_waits_for_is_admitted_whatever_the_limit() -> None:
    one = table(room=0)
    one.awaited(KEY)
    assert one.offered(KEY, 10**12).admitted
    assert one.arrived(KEY, "huge", 10**12) == of_value("huge")


def test_tiny_objects_are_charged_for_too() -> None:
    one = table(room=3 * ENTRY_BYTES)
    replies = [one.arrived(Key("alice", ObjectId(0, number, 0)), "", 0).reply for number in range(5)]
    assert replies == [None, None, None, Reply.DEFERRED, Reply.DEFERRED]


def test_an_admitted_offer_holds_its_room_until_it_arrives_or_breaks() -> None:
    one = table(room=1000)
    assert one.offered(KEY, 400).admitted
    assert one.offered(OTHER, 400) == DEFERRED
    one.offer_broken(KEY)
    assert one.offered(OTHER, 400).admitted
    one.validate()
    assert one.statistics().stored_bytes == 400 + ENTRY_BYTES


def test_a_driver_that_asks_while_an_admitted_offer_is_on_its_way_does_not_ask_for_it_twice() -> None:
    one = table()
    one.offered(KEY, 400)
    assert one.awaited(KEY) == NOTHING
    assert one.statistics().stored_bytes == 0
    assert one.awaited(KEY) == NOTHING
    assert one.arrived(KEY, "value", 400) == of_value("value")
    assert one.statistics().stored_bytes == 0


def test_an_admitted_offer_of_something_awaited_that_breaks_is_still_awaited() -> None:
    one = table()
    one.awaited(KEY)
    assert one.offered(KEY, 400) == Arrival(admitted=True)
    one.offer_broken(KEY)
    assert one.is_awaited(KEY)
    assert one.offered(KEY, 400) == Arrival(admitted=True)


def test_a_second_offer_takes_the_room_of_the_first_and_no_more() -> None:
    one = table()
    one.offered(KEY, 1000)
    assert one.offered(KEY, 1000).admitted
    one.validate()
    assert one.statistics().stored_bytes == 1000 + ENTRY_BYTES
    one.offer_broken(KEY)
    assert one.statistics().stored_bytes == 0


def test_an_object_larger_than_allowed_is_refused_before_and_after_it_is_sent() -> None:
    one = table(max_object_bytes=10)
    one.awaited(KEY)
    assert one.offered(KEY, 11) == Arrival(reply=Reply.REFUSED)
    assert one.arrived(KEY, "value", 11) == Arrival(reply=Reply.REFUSED)


def test_what_nobody_has_asked_for_is_counted_for_each_peer() -> None:
    one = table(room=1000)
    deferred, asked = (Key("alice", ObjectId(0, 8, slot)) for slot in range(2))
    one.arrived(KEY, "value", 10)
    one.arrived(OTHER, "value", 10)
    one.arrived(deferred, "value", 1000)
    one.arrived(asked, "value", 1000)
    one.awaited(asked)
    assert one.unclaimed() == {"alice": 2, "bob": 1}
    one.awaited(KEY)
    assert one.unclaimed() == {"alice": 1, "bob": 1}


def test_what_a_driver_had_sent_is_worth_nothing_when_another_one_takes_its_place() -> None:
    one = table(room=1000)
    deferred = Key("alice", ObjectId(0, 8, 0))
    failed = Key("alice", ObjectId(0, 9, 0))
    one.arrived(KEY, "value", 10)
    one.arrived(deferred, "value", 1000)
    one.failed(failed, FAILURE)
    one.arrived(OTHER, "value", 10)
    one.started_anew("alice")
    assert one.unclaimed() == {"bob": 1}
    assert one.awaited(KEY) == NOTHING
    assert one.awaited(failed) == NOTHING
    one.validate()


def test_e44_objects_that_nobody_asks_for_are_named_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "MAX_ENTRIES", 3)
    one = table(room=1)
    keys = [Key("alice", ObjectId(0, number, 0)) for number in range(5)]
    assert [one.arrived(key, "value", 1).reply for key in keys[:4]] == [Reply.DEFERRED] * 3 + [Reply.CROWDED]
    assert one.offered(keys[3], 1) == Arrival(reply=Reply.CROWDED)
    assert not one.takes(keys[3])
    # Those that are known, those that somebody waits for, and those of other peers are not affected.
    assert one.takes(keys[0])
    assert one.arrived(OTHER, "value", 1) == DEFERRED
    assert one.awaited(keys[0]) == WANTED
    assert one.arrived(keys[0], "value", 1) == of_value("value")
    assert one.awaited(keys[4]) == NOTHING
    assert one.arrived(keys[4], "value", 1) == of_value("value")


# Failures


def test_e11_a_failure_that_comes_first_is_kept_for_the_waiter() -> None:
    one = table()
    assert one.failed(KEY, FAILURE) == NOTHING
    assert one.awaited(KEY) == of_failure(FAILURE)
    assert one.awaited(KEY) == of_failure(FAILURE)


def test_a_failure_ends_the_wait() -> None:
    one = table()
    one.awaited(KEY)
    assert one.failed(KEY, FAILURE) == of_failure(FAILURE)
    # Its answer may have been lost.
    assert one.awaited(KEY) == of_failure(FAILURE)
    assert one.failed(KEY, GONE) == NOTHING
    assert one.awaited(KEY) == of_failure(FAILURE)


def test_e12_value_and_failure_exclude_one_another_and_the_first_one_wins() -> None:
    value_first = table()
    value_first.arrived(KEY, "value", 5)
    assert value_first.failed(KEY, FAILURE) == NOTHING
    assert value_first.awaited(KEY) == of_value("value")
    assert value_first.failed(KEY, FAILURE) == NOTHING
    assert value_first.awaited(KEY) == WANTED
    failure_first = table()
    failure_first.failed(KEY, FAILURE)
    assert failure_first.arrived(KEY, "value", 5) == DELIVERED
    assert failure_first.offered(KEY, 5) == DELIVERED
    assert failure_first.awaited(KEY) == of_failure(FAILURE)


def test_a_failure_of_something_deferred_takes_its_place() -> None:
    one = table(room=ENTRY_BYTES + 5)
    one.arrived(KEY, "value", 6)
    assert one.offered(OTHER, 5).admitted
    for key in (KEY, OTHER):
        assert one.failed(key, FAILURE) == NOTHING
        assert one.awaited(key) == of_failure(FAILURE)
    assert one.statistics().stored_bytes == 0
    one.validate()


def test_a_failure_of_something_delivered_comes_too_late() -> None:
    one = table()
    one.confirmed(KEY)
    assert one.failed(KEY, FAILURE) == NOTHING
    assert one.awaited(KEY) == NOTHING
    assert one.arrived(KEY, "value", 5) == DELIVERED
    one.validate()


# A peer that has left


def test_what_is_awaited_of_a_peer_that_leaves_has_failed() -> None:
    one = table()
    second = KEY._replace(id=ObjectId(0, 8, 0))
    for key in (KEY, OTHER, second):
        one.awaited(key)
    assert one.left("alice", GONE) == [KEY, second]
    one.validate()
    assert not one.is_awaited(KEY)
    assert one.is_awaited(OTHER)
    assert one.awaited(KEY) == of_failure(GONE)
    # Told a second time, it is in vain: nobody waits.
    assert one.left("alice", FAILURE) == []
    assert one.awaited(KEY) == of_failure(GONE)
    assert one.arrived(KEY, "value", 5) == DELIVERED
    assert one.arrived(OTHER, "value", 5) == of_value("value")


def test_nothing_is_awaited_of_a_peer_that_has_left_but_what_it_had_sent_is_there_to_be_taken() -> None:
    one = table(room=ENTRY_BYTES + 5)
    stored, deferred, failed, handed, unknown = (Key("alice", ObjectId(0, number, 0)) for number in range(5))
    one.awaited(handed)
    one.arrived(handed, "handed over", 5)
    one.arrived(stored, "stored", 5)
    one.arrived(deferred, "deferred", 5)
    one.failed(failed, FAILURE)
    assert one.left("alice", GONE) == []
    assert one.awaited(stored) == of_value("stored")
    assert one.confirmed(stored) == DELIVERED
    assert one.awaited(failed) == of_failure(FAILURE)
    # It would have to send these again.
    assert one.awaited(deferred) == one.awaited(handed) == one.awaited(unknown) == of_failure(GONE)
    one.validate()
    # That the answer was lost, the driver only believed.
    assert one.confirmed(handed) == DELIVERED


def test_what_a_peer_had_sent_before_it_left_may_arrive_after() -> None:
    one = table()
    one.left("alice", GONE)
    assert one.arrived(KEY, "value", 5) == NOTHING
    assert one.awaited(KEY) == of_value("value")


def test_a_peer_that_left_has_left_in_the_next_epoch_too() -> None:
    one = table()
    one.left("alice", GONE)
    one.reset(1)
    assert one.awaited(later(1)) == of_failure(GONE)


# Epochs


def test_e23_a_reset_lets_go_of_earlier_epochs_and_drops_what_still_comes_of_them() -> None:
    one = table()
    failed = Key("carol", ObjectId(0, 7, 0))
    one.awaited(KEY)
    one.arrived(OTHER, "stored", 5)
    one.failed(failed, FAILURE)
    one.reset(1)
    one.validate()
    assert one.statistics()[:4] == (0, 0, 0, 0)
    assert one.arrived(KEY, "late", 5) == DELIVERED
    assert one.offered(OTHER, 5) == DELIVERED
    assert one.failed(KEY, FAILURE) == NOTHING
    assert one.statistics().stale == 3
    for key in (KEY, OTHER, failed):
        assert one.awaited(key) == NOTHING
        assert not one.is_awaited(key)
    one.validate()


def test_e23_what_was_delivered_in_an_earlier_epoch_is_forgotten() -> None:
    one = table()
    one.confirmed(OTHER)
    one.awaited(KEY)
    one.arrived(KEY, "value", 5)
    one.reset(1)
    assert one.confirmed(KEY) == DELIVERED
    one.validate()
    assert one.statistics().delivered == 1
    # The numbers of its calls begin anew.
    assert one.arrived(later(1)._replace(peer="bob"), "value", 5) == NOTHING


def test_e23_an_offer_that_was_admitted_before_a_reset_gives_its_room_back() -> None:
    one = table()
    assert one.offered(KEY, 1000).admitted
    one.reset(1)
    assert one.statistics().stored_bytes == 0
    assert one.arrived(KEY, "value", 1000) == DELIVERED
    one.offer_broken(KEY)
    one.validate()


def test_e30_a_failure_of_one_epoch_says_nothing_about_the_next() -> None:
    one = table()
    one.failed(KEY, FAILURE)
    one.reset(1)
    assert one.awaited(later(1)) == NOTHING
    assert one.arrived(later(1), "value", 5) == of_value("value")


def test_what_a_peer_sends_for_the_next_epoch_outlives_the_reset() -> None:
    one = table()
    one.arrived(later(1), "early", 5)
    one.failed(Key("bob", ObjectId(1, 7, 0)), FAILURE)
    one.reset(1)
    one.validate()
    assert one.awaited(later(1)) == of_value("early")
    assert one.awaited(later(1)._replace(peer="bob")) == of_failure(FAILURE)


def test_what_a_peer_sends_early_can_be_deferred_and_asked_for() -> None:
    one = table(room=0)
    assert one.arrived(later(1), "early", 5) == DEFERRED
    one.reset(1)
    assert one.awaited(later(1)) == WANTED


def test_a_driver_may_wait_in_the_next_epoch_before_the_table_hears_of_the_reset() -> None:
    one = table()
    one.awaited(KEY)
    assert one.awaited(later(1)) == NOTHING
    one.reset(1)
    assert not one.is_awaited(KEY)
    assert one.is_awaited(later(1))
    assert one.arrived(later(1), "value", 5) == of_value("value")


def test_a_reset_to_an_epoch_that_is_not_later_changes_nothing() -> None:
    one = table()
    one.reset(2)
    one.awaited(later(2))
    one.confirmed(OTHER._replace(id=ObjectId(2, 7, 0)))
    one.reset(2)
    one.reset(1)
    assert one.is_awaited(later(2))
    assert one.arrived(OTHER._replace(id=ObjectId(2, 7, 0)), "value", 5) == DELIVERED
    assert one.arrived(later(1), "late", 5) == DELIVERED
    assert one.statistics().stale == 1


def test_a_late_confirmation_of_an_earlier_epoch_says_nothing_about_this_one() -> None:
    # The driver may begin an epoch before the table hears of the reset.
    one = table()
    one.awaited(KEY)
    one.arrived(KEY, "value", 5)
    one.confirmed(Key("bob", ObjectId(1, 1, 0)))
    assert one.confirmed(KEY) == DELIVERED
    one.confirmed(Key("alice", ObjectId(1, 1, 0)))
    assert one.arrived(later(1), "value", 5) == NOTHING
    assert one.awaited(later(1)) == of_value("value")
    one.validate()


# What the driver has


def test_a_table_that_was_made_anew_acknowledges_what_the_one_before_had_delivered() -> None:
    one = table()
    third = KEY._replace(id=ObjectId(0, 9, 0))
    one.arrived(KEY, "came again", 5)
    one.arrived(OTHER, "not delivered yet", 5)
    assert one.restore(0, {"alice": ids(KEY, third)}) == [KEY]
    assert one.arrived(KEY, "comes again", 5) == DELIVERED
    assert one.arrived(third, "comes again", 5) == DELIVERED
    assert one.awaited(OTHER) == of_value("not delivered yet")
    assert one.awaited(KEY) == NOTHING
    assert one.statistics().stored_bytes == 0
    one.validate()


def test_what_the_driver_has_is_dropped_in_whatever_state_it_is_and_acknowledged() -> None:
    one = table(room=2 * ENTRY_BYTES + 10)
    awaited, handed, stored, offered, deferred, failed, unknown = keys = [
        Key("alice", ObjectId(0, number, 0)) for number in range(7)
    ]
    for key in (awaited, handed):
        one.awaited(key)
    one.arrived(handed, "value", 5)
    one.arrived(stored, "value", 5)
    one.offered(offered, 5)
    assert one.arrived(deferred, "value", 5) == DEFERRED
    one.failed(failed, FAILURE)
    assert set(one.restore(0, {"alice": ids(*keys)})) == set(keys) - {unknown}
    one.validate()
    assert one.statistics()[:4] == (0, 0, 0, 0)
    for key in keys:
        assert one.arrived(key, "value", 5) == DELIVERED
        assert one.awaited(key) == NOTHING
        # Of the offer that was on its way.
        one.offer_broken(key)
    one.validate()


def test_what_a_table_that_was_made_anew_has_delivered_itself_it_still_knows_when_it_is_told_the_rest() -> None:
    one = table()
    one.confirmed(KEY)
    one.restore(0, {"alice": ids(KEY._replace(id=ObjectId(0, 9, 0)))})
    assert one.arrived(KEY, "value", 5) == DELIVERED


def test_who_tells_what_it_has_tells_its_epoch() -> None:
    one = table()
    one.arrived(KEY, "of an epoch that is over", 5)
    one.arrived(later(2), "came again", 5)
    assert one.restore(2, {"alice": ids(later(2))}) == [later(2)]
    assert one.statistics().stored_bytes == 0
    assert one.arrived(KEY, "late", 5) == DELIVERED
    assert one.statistics().stale == 1
    one.validate()
    # Also if it has nothing.
    one.restore(3, {})
    assert one.arrived(later(2), "late", 5) == DELIVERED
    assert one.statistics().stale == 2
    one.validate()


def test_what_was_delivered_in_an_epoch_that_is_over_says_nothing_about_this_one() -> None:
    one = table()
    one.reset(1)
    assert one.restore(0, {"alice": ids(KEY)}) == []
    assert one.arrived(later(1), "value", 5) == NOTHING
    one.validate()


def test_what_comes_early_is_not_what_the_driver_has_of_this_epoch() -> None:
    one = table()
    one.arrived(later(1), "value", 5)
    assert one.restore(0, {"alice": ids(KEY)}) == []
    assert one.awaited(later(1)) == of_value("value")


PEERS = ("alice", "bob")


class RendezvousMachine(RuleBasedStateMachine):
    """Owners that send until they are told DELIVERED, and a driver that waits, with all that may be lost between them.

    What the driver is told is lost with its connection. It begins the next one by what it has and by what it still
    waits for. It takes some values a while after it was told of them. It is in its next epoch before the table is. The
    table may be lost too, and made anew; peers are not heard before it was told what the driver knows.
    """

    # Their epochs are counted from the driver's, in which most of them are.
    places = st.sampled_from(
        [
            Key(peer, ObjectId(epoch, number, 0))
            for epoch in (0, 0, 0, 0, 1, -1)
            for peer in PEERS
            for number in range(3)
        ]
    )

    room = 3 * ENTRY_BYTES + 60

    def __init__(self) -> None:
        super().__init__()
        self.table: Table = self.new_table()
        # Whether it was made anew and peers are not heard yet.
        self.ignorant = False
        # What is in it, as far as that follows from the laws.
        self.table_epoch = 0
        self.stale = 0
        self.awaited: set[Key] = set()
        self.stored: set[Key] = set()
        self.handed: set[Key] = set()
        self.reserved: set[Key] = set()
        self.failures: dict[Key, Failure] = {}
        self.gone: set[str] = set()
        # The driver; what it has in this epoch, and what it ever had.
        self.connected = True
        self.told: list[tuple[Key, Resolution[str]]] = []
        self.epoch = 0
        self.expected: dict[Key, None] = {}
        self.taking: set[Key] = set()
        # Those of them that the table's own life has told of.
        self.here: set[Key] = set()
        self.has: set[Key] = set()
        self.ever_had: set[Key] = set()
        self.outcomes: dict[Key, str | Failure] = {}
        self.missing: dict[Key, Failure] = {}
        self.left: dict[str, Failure] = {}
        # The owners: who waits for a receipt does nothing by itself, and who was told DELIVERED has it no more.
        self.uploading: set[Key] = set()
        self.sent: set[Key] = set()
        self.patient: set[Key] = set()
        self.finished: set[Key] = set()
        self.number = 0

    def new_table(self) -> Table:
        return table(self.room)

    @staticmethod
    def size_of(key: Key) -> int:
        return 20 * key.id.sequence + 20 * (key.id.epoch % 3)

    def cost_of(self, key: Key) -> int:
        return self.size_of(key) + ENTRY_BYTES

    @staticmethod
    def value_of(key: Key) -> str:
        return f"value of {key}"

    def at(self, place: Key) -> Key:
        return place._replace(id=place.id._replace(epoch=max(0, self.epoch + place.id.epoch)))

    def new_failure(self) -> Failure:
        self.number += 1
        return dataclasses.replace(FAILURE, error_id=f"alice/x/{self.number}")

    # What the table says

    def answer(self, key: Key, arrival: Arrival[str]) -> None:
        if arrival.resolution is not None:
            payload, failure = arrival.resolution
            assert (payload is None) != (failure is None)
            assert key in self.awaited
            assert key.id.epoch >= self.table_epoch
            self.awaited.discard(key)
            if payload is not None:
                assert payload == self.value_of(key)
                assert key not in self.failures
                self.stored.discard(key)
                self.handed.add(key)
            if self.connected:
                self.told.append((key, arrival.resolution))
        if arrival.reply is Reply.DELIVERED:
            assert key in self.ever_had or key in self.failures or key.id.epoch < self.epoch
            self.finish(key)
        elif arrival.reply is Reply.WANTED:
            self.patient.discard(key)
        elif arrival.reply is Reply.DEFERRED:
            assert key not in self.awaited | self.stored | self.handed
            assert self.table.statistics().stored_bytes + self.cost_of(key) > self.room
            self.patient.add(key)

    def finish(self, key: Key) -> None:
        self.patient.discard(key)
        self.finished.add(key)

    def forget(self, keys: set[Key]) -> None:
        """These are not in the table any more."""
        for kept in (self.awaited, self.stored, self.handed, self.reserved):
            kept -= keys

    def now_in(self, epoch: int) -> None:
        self.table_epoch = max(self.table_epoch, epoch)
        known = self.awaited | self.stored | self.handed | self.reserved
        self.forget({key for key in known if key.id.epoch < self.table_epoch})

    # The driver

    @rule(peer=st.sampled_from(PEERS))
    def wait_for_all_of(self, peer: str) -> None:
        for number in range(3):
            self.ask_for(Key(peer, ObjectId(self.epoch, number, 0)))

    @rule(place=places)
    def wait(self, place: Key) -> None:
        self.ask_for(self.at(place))

    def ask_for(self, key: Key) -> None:
        if self.connected and (key.id.epoch < self.table_epoch or key in self.has):
            assert self.table.awaited(key) == NOTHING
        if key.id.epoch < self.epoch or key in self.expected or key in self.has:
            return
        self.begin(key.id.epoch)
        self.expected[key] = None
        if self.connected:
            self.say_awaited(key)

    def say_awaited(self, key: Key) -> None:
        again = key in self.awaited
        self.awaited.add(key)
        arrival = self.table.awaited(key)
        if again:
            assert arrival == NOTHING
        elif key in self.failures:
            assert arrival == of_failure(self.failures[key])
        elif key in self.stored:
            assert arrival == of_value(self.value_of(key))
        elif key.peer in self.gone:
            assert arrival == of_failure(self.left[key.peer])
            # It is kept: what comes after that comes too late.
            self.failures[key] = self.left[key.peer]
            self.reserved.discard(key)
            self.handed.discard(key)
        else:
            assert arrival.resolution is None
            self.reserved.discard(key)
            self.handed.discard(key)
        self.answer(key, arrival)

    @precondition(lambda self: self.told)
    @rule()
    def hear(self) -> None:
        for key in self.hear_one():
            self.take(key)

    @precondition(lambda self: self.told)
    @rule()
    def hear_of_what_is_large(self) -> None:
        heard = self.hear_one()
        self.taking.update(heard)
        self.here.update(heard)

    @precondition(lambda self: self.told)
    @rule()
    def hear_and_confirm_in_vain(self) -> None:
        for key in self.hear_one():
            self.disconnect()
            self.take(key)

    def hear_one(self) -> list[Key]:
        """The driver is told of an object. Returns it if it is here and of use."""
        key, (_, failure) = self.told.pop(0)
        if key not in self.expected:
            return []
        if failure is None:
            return [key]
        self.outcomes.setdefault(key, failure)
        return []

    @precondition(lambda self: self.taking)
    @rule(data=st.data())
    def take_slowly(self, data: st.DataObject) -> None:
        self.take(data.draw(st.sampled_from(sorted(self.taking))))

    def take(self, key: Key) -> None:
        assert key not in self.ever_had
        self.taking.discard(key)
        self.here.discard(key)
        self.ever_had.add(key)
        self.outcomes.setdefault(key, self.value_of(key))
        if key in self.expected:
            del self.expected[key]
            self.has.add(key)
        if self.connected:
            assert self.table.confirmed(key) == DELIVERED
            self.forget({key})
            self.finish(key)

    def begin(self, epoch: int) -> None:
        if epoch > self.epoch:
            self.epoch = epoch
            self.expected.clear()
            self.has.clear()

    def hear_of_the_reset(self) -> None:
        # And then of the one before, which changes nothing.
        self.table.reset(self.epoch)
        self.table.reset(self.epoch - 1)
        self.now_in(self.epoch)

    def disconnect(self) -> None:
        self.connected = False
        self.told.clear()

    @precondition(lambda self: not self.connected)
    @rule()
    def connect(self) -> None:
        self.connected = True
        has = {peer: ids(*(key for key in self.has if key.peer == peer)) for peer in PEERS}
        again = set(self.table.restore(self.epoch, has))
        assert (self.awaited | self.stored | self.handed | self.reserved) & self.has <= again <= self.has
        self.now_in(self.epoch)
        self.forget(self.has)
        for key in again:
            self.finish(key)
        for key in self.expected:
            # Of these the receiver tells again by itself; they are here.
            if key not in self.here:
                self.say_awaited(key)

    # The table

    def restart(self) -> None:
        self.disconnect()
        self.table, self.ignorant = self.new_table(), True
        self.table_epoch = self.stale = 0
        self.forget(self.awaited | self.stored | self.handed | self.reserved)
        self.failures.clear()
        self.gone.clear()
        # Some of these were taken in time, though nobody was told so yet; the new table knows nothing of any.
        self.taking = {key for key in self.taking if key.id.sequence}
        self.here.clear()
        for peer in PEERS:
            self.connect_owner(peer)

    @precondition(lambda self: self.ignorant)
    @rule()
    def learn(self) -> None:
        self.ignorant = False
        for key, failure in self.missing.items():
            if key.id.epoch >= self.epoch and key not in self.outcomes:
                self.tell_failed(key, failure)
        for peer in self.left:
            self.tell_left(peer)

    # The owners

    @rule(place=places)
    def arrive(self, place: Key) -> None:
        if not self.ignorant:
            self.bring(self.at(place))

    def bring(self, key: Key) -> None:
        past, awaited = key.id.epoch < self.table_epoch, key in self.awaited
        self.stale += past
        self.sent.add(key)
        self.patient.add(key)
        arrival = self.table.arrived(key, self.value_of(key), self.size_of(key))
        self.answer(key, arrival)
        if awaited:
            assert arrival == of_value(self.value_of(key))
        elif past or key in self.failures or (self.connected and key in self.has):
            assert arrival == DELIVERED
        elif arrival == NOTHING and key not in self.handed:
            self.stored.add(key)
        self.reserved.discard(key)

    @rule(place=places)
    def offer(self, place: Key) -> None:
        key = self.at(place)
        if self.ignorant or key in self.uploading:
            return
        past = key.id.epoch < self.table_epoch
        self.stale += past
        self.patient.add(key)
        arrival = self.table.offered(key, self.size_of(key))
        self.answer(key, arrival)
        assert arrival.admitted or key not in self.awaited
        assert not (past and arrival.admitted)
        if arrival.admitted:
            self.patient.discard(key)
            self.uploading.add(key)
            if key not in self.awaited:
                self.reserved.add(key)

    @precondition(lambda self: self.uploading)
    @rule(data=st.data(), broken=st.booleans())
    def end_upload(self, data: st.DataObject, broken: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.uploading)))
        if broken:
            self.break_upload(key)
        else:
            self.uploading.discard(key)
            self.bring(key)

    def break_upload(self, key: Key) -> None:
        self.uploading.discard(key)
        self.table.offer_broken(key)
        self.reserved.discard(key)
        self.patient.discard(key)

    def connect_owner(self, peer: str) -> None:
        """It sends everything again that it was not told to be delivered."""
        for key in [key for key in self.uploading if key.peer == peer]:
            self.break_upload(key)
        self.patient -= {key for key in self.patient if key.peer == peer}

    def fail(self, key: Key) -> None:
        if self.ignorant:
            return
        self.stale += key.id.epoch < self.table_epoch
        failure = self.new_failure()
        self.missing.setdefault(key, failure)
        self.tell_failed(key, failure)

    def tell_failed(self, key: Key, why: Failure) -> None:
        awaited = key in self.awaited
        arrival = self.table.failed(key, why)
        assert arrival == (of_failure(why) if awaited else NOTHING)
        if key.id.epoch >= max(self.table_epoch, self.epoch) and key not in self.stored | self.handed | self.has:
            self.failures.setdefault(key, why)
        if key.id.epoch >= self.table_epoch:
            self.reserved.discard(key)
        self.answer(key, arrival)

    def leave(self, peer: str) -> None:
        if peer not in self.left:
            self.left[peer] = self.new_failure()
            if not self.ignorant:
                self.tell_left(peer)

    def tell_left(self, peer: str) -> None:
        self.gone.add(peer)
        vain = self.table.left(peer, self.left[peer])
        assert set(vain) == {key for key in self.awaited if key.peer == peer}
        assert len(vain) == len(set(vain))
        for key in vain:
            self.failures[key] = self.left[peer]
            self.answer(key, of_failure(self.left[peer]))

    # What seldom happens

    @rule(
        what=st.sampled_from(
            ["failure", "failure", "connection", "connection", "epoch", "reset", "owner", "table", "peer"]
        ),
        place=places,
    )
    def befall(self, what: str, place: Key) -> None:
        if what == "failure":
            self.fail(self.at(place))
        elif what == "connection":
            self.disconnect()
        elif what == "epoch":
            self.begin(self.epoch + 1)
        elif what == "reset":
            self.hear_of_the_reset()
        elif what == "owner":
            self.connect_owner(place.peer)
        elif what == "table":
            self.restart()
        elif what == "peer":
            self.leave(place.peer)

    # The laws

    @invariant()
    def laws_hold(self) -> None:
        self.table.validate()
        statistics = self.table.statistics()
        assert statistics.stale == self.stale
        assert statistics.awaited == len(self.awaited)
        known = self.awaited | self.stored | self.handed | self.reserved | self.patient | set(self.failures)
        assert set(filter(self.table.is_awaited, known)) == self.awaited
        assert statistics.stored == len(self.stored)
        assert statistics.stored_bytes == sum(map(self.cost_of, self.stored | self.reserved))
        assert statistics.unconfirmed == len(self.handed)
        # Nobody waits for an owner that waits itself.
        assert not self.awaited & self.patient
        assert not any(key.peer in self.gone for key in self.awaited)
        # The driver hears of all that it has not heard of yet, and an owner of all that the driver has.
        if self.connected:
            unheard = {key for key, _ in self.told} | self.taking | set(self.outcomes)
            assert set(self.expected) - unheard <= self.awaited
            assert not self.has & self.patient

    def teardown(self) -> None:
        """Whatever is on its way arrives: the driver gets all that it waits for, and every owner hears of it."""
        if self.ignorant:
            self.learn()
        if not self.connected:
            self.connect()
        for key in sorted(self.awaited & set(self.expected) - set(self.outcomes)):
            assert key not in self.finished
            if key in self.sent or key not in self.missing:
                self.bring(key)
        while self.told:
            self.hear()
        while self.taking:
            self.take(min(self.taking))
        self.laws_hold()
        assert set(self.expected) <= set(self.outcomes)
        for key in self.has:
            self.bring(key)
        assert not self.has & self.patient


RendezvousMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestRendezvousMachine = RendezvousMachine.TestCase
