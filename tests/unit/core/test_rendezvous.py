from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fed.core import rendezvous
from fed.core.idset import IdSet
from fed.core.rendezvous import ENTRY_BYTES, Arrival, Key, Rendezvous, Reply
from fed.object import ObjectId

KEY = Key("alice", ObjectId(0, 7, 0))
OTHER = Key("bob", ObjectId(0, 7, 0))
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
    return Arrival(payload)


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


def test_an_object_is_awaited_until_it_is_here_or_the_driver_has_done_with_it() -> None:
    one = table()
    assert not one.is_awaited(KEY)
    for key in (KEY, OTHER):
        one.awaited(key)
        assert one.is_awaited(key)
    one.arrived(KEY, "value", 5)
    one.confirmed(OTHER)
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
    awaited = Key("alice", ObjectId(0, 9, 0))
    one.arrived(KEY, "value", 10)
    one.arrived(deferred, "value", 1000)
    one.awaited(awaited)
    one.arrived(OTHER, "value", 10)
    one.started_anew("alice")
    assert one.unclaimed() == {"bob": 1}
    assert one.awaited(KEY) == NOTHING
    assert one.awaited(deferred) == NOTHING
    assert one.is_awaited(awaited)
    one.validate()


def test_e44_objects_that_nobody_asks_for_are_named_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "MAX_ENTRIES", 3)
    one = table(room=1)
    keys = [Key("alice", ObjectId(0, number, 0)) for number in range(5)]
    assert [one.arrived(key, "value", 1).reply for key in keys[:4]] == [Reply.DEFERRED] * 3 + [Reply.CROWDED]
    assert one.offered(keys[3], 1) == Arrival(reply=Reply.CROWDED)
    # Those that are known, those that somebody waits for, and those of other peers are not affected.
    assert one.arrived(keys[1], "value", 1) == DEFERRED
    assert one.offered(keys[1], 1) == DEFERRED
    assert one.arrived(OTHER, "value", 1) == DEFERRED
    assert one.awaited(keys[0]) == WANTED
    assert one.offered(keys[0], 1) == Arrival(admitted=True)
    assert one.arrived(keys[0], "value", 1) == of_value("value")
    assert one.awaited(keys[4]) == NOTHING
    assert one.arrived(keys[4], "value", 1) == of_value("value")
    assert one.arrived(keys[3], "value", 1) == Arrival(reply=Reply.CROWDED)
    one.validate()


def test_e44_what_the_driver_has_done_with_makes_room_for_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "MAX_ENTRIES", 2)
    one = table(room=1)
    awaited, deferred, more, evermore = (Key("alice", ObjectId(0, number, 0)) for number in range(4))
    one.awaited(awaited)
    assert one.arrived(deferred, "value", 1) == DEFERRED
    assert one.arrived(more, "value", 1) == Arrival(reply=Reply.CROWDED)
    one.confirmed(awaited)
    assert one.arrived(more, "value", 1) == DEFERRED
    # What was delivered takes no place, and is known however many there are.
    assert one.arrived(awaited, "value", 1) == DELIVERED
    assert one.arrived(evermore, "value", 1) == Arrival(reply=Reply.CROWDED)
    one.confirmed(deferred)
    assert one.offered(evermore, 1) == DEFERRED
    one.validate()


# What the driver has done with, since it will never come


def test_e11_nobody_waits_any_more_for_what_the_driver_has_done_with() -> None:
    one = table()
    one.awaited(KEY)
    one.awaited(OTHER)
    assert one.confirmed(KEY) == DELIVERED
    assert not one.is_awaited(KEY)
    assert one.is_awaited(OTHER)
    assert one.statistics().awaited == 1
    # Also if that was said in the wrong order, or is said again.
    assert one.awaited(KEY) == NOTHING
    assert not one.is_awaited(KEY)
    assert one.confirmed(KEY) == DELIVERED
    one.validate()


def test_e12_what_comes_of_an_object_that_the_driver_has_done_with_is_dropped_and_acknowledged() -> None:
    one = table(max_object_bytes=10)
    one.awaited(KEY)
    one.confirmed(KEY)
    assert one.arrived(KEY, "value", 5) == DELIVERED
    assert one.offered(KEY, 5) == DELIVERED
    # Its owner may forget it, whatever it is.
    assert one.offered(KEY, 11) == DELIVERED
    assert one.statistics().duplicates == 3
    assert one.statistics().stored_bytes == 0
    assert one.awaited(KEY) == NOTHING
    one.validate()


def test_e12_a_value_that_is_here_gives_its_room_back_when_the_driver_has_done_with_it() -> None:
    one = table(room=2 * ENTRY_BYTES + 10)
    stored, offered, deferred = (Key("alice", ObjectId(0, number, 0)) for number in range(3))
    one.arrived(stored, "value", 5)
    assert one.offered(offered, 5).admitted
    assert one.arrived(deferred, "value", 5) == DEFERRED
    for key in (stored, offered, deferred):
        assert one.confirmed(key) == DELIVERED
    assert one.statistics().stored_bytes == 0
    assert one.unclaimed() == {}
    one.validate()
    for key in (stored, offered, deferred):
        assert one.arrived(key, "value", 5) == DELIVERED
        # Of the offer that was on its way.
        one.offer_broken(key)
    one.validate()


def test_what_the_driver_has_done_with_before_anything_came_of_it_is_known_when_it_comes() -> None:
    one = table()
    assert one.confirmed(KEY) == DELIVERED
    assert one.awaited(KEY) == NOTHING
    assert one.arrived(KEY, "value", 5) == DELIVERED
    assert one.arrived(OTHER, "value", 5) == NOTHING
    assert one.statistics().duplicates == 1
    one.validate()


def test_e43_where_programs_differ_a_namesake_of_what_is_done_with_is_never_handed_over_and_goes_with_the_epoch() -> (
    None
):
    one = table()
    namesake, offered = (KEY._replace(id=KEY.id._replace(stamp=stamp)) for stamp in (1, 2))
    one.arrived(namesake, "of another call", 5)
    assert one.offered(offered, 5).admitted
    one.awaited(KEY)
    assert one.confirmed(KEY) == DELIVERED
    for key in (namesake, offered):
        assert one.arrived(key, "of another call", 5) == DELIVERED
        assert one.awaited(key) == NOTHING
    one.validate()
    one.reset(1)
    assert one.statistics().stored_bytes == 0
    one.validate()


# Epochs


def test_e23_a_reset_lets_go_of_earlier_epochs_and_drops_what_still_comes_of_them() -> None:
    one = table()
    done_with = Key("carol", ObjectId(0, 7, 0))
    one.awaited(KEY)
    one.arrived(OTHER, "stored", 5)
    one.awaited(done_with)
    one.confirmed(done_with)
    one.reset(1)
    one.validate()
    assert one.statistics()[:4] == (0, 0, 0, 0)
    assert one.arrived(KEY, "late", 5) == DELIVERED
    assert one.offered(OTHER, 5) == DELIVERED
    assert one.arrived(done_with, "late", 5) == DELIVERED
    assert one.statistics().stale == 3
    for key in (KEY, OTHER, done_with):
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


def test_e30_that_the_driver_has_done_with_an_object_says_nothing_about_the_next_epoch() -> None:
    one = table()
    one.awaited(KEY)
    one.confirmed(KEY)
    one.reset(1)
    assert one.awaited(later(1)) == NOTHING
    assert one.arrived(later(1), "value", 5) == of_value("value")


def test_what_a_peer_sends_for_the_next_epoch_outlives_the_reset() -> None:
    one = table()
    one.arrived(later(1), "early", 5)
    one.reset(1)
    one.validate()
    assert one.awaited(later(1)) == of_value("early")


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
    awaited, handed, stored, offered, deferred, unknown = keys = [
        Key("alice", ObjectId(0, number, 0)) for number in range(6)
    ]
    for key in (awaited, handed):
        one.awaited(key)
    one.arrived(handed, "value", 5)
    one.arrived(stored, "value", 5)
    one.offered(offered, 5)
    assert one.arrived(deferred, "value", 5) == DEFERRED
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
    waits for. It takes some values a while after it was told of them. It hears otherwise of what will never come, which
    may be on its way nevertheless, and has done with that. It is in its next epoch before the table is. The table may
    be lost too, and made anew; peers are not heard before it was told the epoch.
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
        # The driver; what it has in this epoch, and what it ever had.
        self.connected = True
        self.told: list[Key] = []
        self.epoch = 0
        # The last one that it has published.
        self.published = 0
        self.expected: dict[Key, None] = {}
        self.taking: set[Key] = set()
        # Those of them that the table's own life has told of.
        self.here: set[Key] = set()
        self.has: set[Key] = set()
        self.ever_had: set[Key] = set()
        # What it has done with though it never came, and what of that it has told this table in this epoch; and what it
        # heard of, of whatever epoch, before it waited.
        self.given_up: set[Key] = set()
        self.given_up_here: set[Key] = set()
        self.missing: set[Key] = set()
        # The owners: who waits for a receipt does nothing by itself, and who was told DELIVERED has it no more.
        self.uploading: set[Key] = set()
        self.patient: set[Key] = set()
        self.finished: set[Key] = set()

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

    # What the table says

    def answer(self, key: Key, arrival: Arrival[str]) -> None:
        if arrival.payload is not None:
            assert arrival.payload == self.value_of(key)
            assert key in self.awaited
            assert key.id.epoch >= self.table_epoch
            self.awaited.discard(key)
            self.stored.discard(key)
            self.handed.add(key)
            if self.connected:
                self.told.append(key)
        if arrival.reply is Reply.DELIVERED:
            assert key in self.ever_had | self.given_up or key.id.epoch < self.epoch
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
        if self.connected and (key.id.epoch < self.table_epoch or key in self.has | self.given_up_here):
            assert self.table.awaited(key) == NOTHING
        if key.id.epoch < self.epoch or key in self.expected or key in self.has | self.given_up:
            return
        self.begin(key.id.epoch)
        if key in self.missing:
            self.give_up(key)
            return
        self.expected[key] = None
        if self.connected:
            self.say_awaited(key)

    def say_awaited(self, key: Key) -> None:
        again = key in self.awaited
        self.awaited.add(key)
        arrival = self.table.awaited(key)
        if again:
            assert arrival == NOTHING
        elif key in self.stored:
            assert arrival == of_value(self.value_of(key))
        else:
            assert arrival.payload is None
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
        key = self.told.pop(0)
        return [key] if key in self.expected else []

    @precondition(lambda self: self.taking)
    @rule(data=st.data())
    def take_slowly(self, data: st.DataObject) -> None:
        self.take(data.draw(st.sampled_from(sorted(self.taking))))

    def take(self, key: Key) -> None:
        assert key not in self.ever_had
        self.ever_had.add(key)
        self.have_done_with(key)

    def give_up(self, key: Key) -> None:
        """It will never come, and somebody waits for it."""
        self.given_up.add(key)
        if self.connected:
            self.given_up_here.add(key)
        self.have_done_with(key)

    def have_done_with(self, key: Key) -> None:
        self.taking.discard(key)
        self.here.discard(key)
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
            self.given_up_here.clear()

    def hear_of_the_reset(self) -> None:
        self.published = self.epoch
        self.learn()

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
        self.given_up_here.clear()
        # Some of these were taken in time, though nobody was told so yet; the new table knows nothing of any.
        self.taking = {key for key in self.taking if key.id.sequence}
        self.here.clear()
        for peer in PEERS:
            self.connect_owner(peer)

    @precondition(lambda self: self.ignorant)
    @rule()
    def learn(self) -> None:
        self.ignorant = False
        # And then the one before, which changes nothing.
        self.table.reset(self.published)
        self.table.reset(self.published - 1)
        self.now_in(self.published)

    # The owners

    @rule(place=places)
    def arrive(self, place: Key) -> None:
        if not self.ignorant:
            self.bring(self.at(place))

    def bring(self, key: Key) -> None:
        past, awaited = key.id.epoch < self.table_epoch, key in self.awaited
        self.stale += past
        self.patient.add(key)
        arrival = self.table.arrived(key, self.value_of(key), self.size_of(key))
        self.answer(key, arrival)
        if awaited:
            assert arrival == of_value(self.value_of(key))
        elif past or key in self.given_up_here or (self.connected and key in self.has):
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

    # What will never come

    @rule(place=places)
    def fail(self, place: Key) -> None:
        key = self.at(place)
        if key in self.expected:
            self.give_up(key)
        else:
            self.missing.add(key)

    # What seldom happens

    @rule(
        what=st.sampled_from(["connection", "connection", "epoch", "reset", "owner", "table"]),
        place=places,
    )
    def befall(self, what: str, place: Key) -> None:
        if what == "connection":
            self.disconnect()
        elif what == "epoch":
            self.begin(self.epoch + 1)
        elif what == "reset":
            self.hear_of_the_reset()
        elif what == "owner":
            self.connect_owner(place.peer)
        elif what == "table":
            self.restart()

    # The laws

    @invariant()
    def laws_hold(self) -> None:
        self.table.validate()
        statistics = self.table.statistics()
        assert statistics.stale == self.stale
        assert statistics.awaited == len(self.awaited)
        known = self.awaited | self.stored | self.handed | self.reserved | self.patient | self.given_up
        assert set(filter(self.table.is_awaited, known)) == self.awaited
        assert statistics.stored == len(self.stored)
        assert statistics.stored_bytes == sum(map(self.cost_of, self.stored | self.reserved))
        assert statistics.unconfirmed == len(self.handed)
        # Nobody waits for an owner that waits itself.
        assert not self.awaited & self.patient
        # The driver hears of all that it has not heard of yet, and an owner of all that the driver has.
        if self.connected:
            assert set(self.expected) - set(self.told) - self.taking <= self.awaited
            assert not self.has & self.patient

    def teardown(self) -> None:
        """Whatever is on its way arrives: the driver gets all that it waits for, and every owner hears of it."""
        if self.ignorant:
            self.learn()
        if not self.connected:
            self.connect()
        for key in sorted(self.awaited & set(self.expected)):
            assert key not in self.finished
            self.bring(key)
        while self.told:
            self.hear()
        while self.taking:
            self.take(min(self.taking))
        self.laws_hold()
        assert not self.expected
        for key in self.has:
            self.bring(key)
        assert not self.has & self.patient


RendezvousMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestRendezvousMachine = RendezvousMachine.TestCase
