from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from fed.core.outbox import Outbox
from fed.object import ObjectId


def oid(number: int) -> ObjectId:
    return ObjectId(0, number, 0)


def filled(count: int, nbytes: int = 10) -> Outbox[str]:
    outbox: Outbox[str] = Outbox()
    for number in range(count):
        assert outbox.put(oid(number), f"payload {number}", nbytes)
    return outbox


def ids(outbox: Outbox[str], max_bytes: int = 1000) -> list[int]:
    return [taken.id.sequence for taken in outbox.take(max_bytes)]


def test_objects_leave_oldest_first_and_once() -> None:
    outbox = filled(3)
    assert ids(outbox) == [0, 1, 2]
    assert ids(outbox) == []
    assert len(outbox) == 3


def test_a_batch_is_bounded_but_never_empty() -> None:
    outbox = filled(3, nbytes=100)
    assert ids(outbox, max_bytes=250) == [0, 1]
    assert ids(outbox, max_bytes=1) == [2]


def test_a_second_put_of_the_same_object_changes_nothing() -> None:
    outbox = filled(1)
    assert not outbox.put(oid(0), "other", 1)
    assert outbox.take(1000)[0].payload == "payload 0"


def test_what_is_acknowledged_is_forgotten() -> None:
    outbox = filled(2)
    outbox.take(1000)
    assert outbox.finished(oid(0)) == "payload 0"
    assert outbox.finished(oid(0)) is None
    assert len(outbox) == 1


def test_what_is_deferred_waits_until_it_is_wanted() -> None:
    outbox = filled(1)
    outbox.take(1000)
    outbox.deferred(oid(0))
    assert ids(outbox) == []
    assert outbox.wanted(oid(0))
    assert ids(outbox) == [0]


def test_after_a_reconnect_everything_unacknowledged_goes_out_again_in_its_old_order() -> None:
    outbox = filled(4)
    ids(outbox, max_bytes=20)
    outbox.deferred(oid(1))
    outbox.finished(oid(0))
    outbox.reconnected()
    assert ids(outbox) == [1, 2, 3]


def test_a_want_of_something_unknown_is_no_reason_to_send() -> None:
    assert not filled(0).wanted(oid(9))


def test_e23_a_reset_forgets_earlier_epochs_in_every_state() -> None:
    outbox: Outbox[str] = Outbox()
    for number in range(3):
        outbox.put(oid(number), "old", 10)
    outbox.take(20)
    outbox.deferred(oid(1))
    new = ObjectId(1, 0, 0)
    outbox.put(new, "new", 10)
    assert outbox.reset(1) == (oid(0), oid(1), oid(2))
    outbox.validate()
    assert not outbox.wanted(oid(1))
    assert [taken.id for taken in outbox.take(1000)] == [new]
    assert outbox.reset(1) == ()


class OutboxMachine(RuleBasedStateMachine):
    """Whatever happens, in whatever order, an object is there until it is finished."""

    objects = Bundle("objects")

    def __init__(self) -> None:
        super().__init__()
        self.outbox: Outbox[int] = Outbox()
        self.there: dict[ObjectId, int] = {}

    @rule(target=objects, number=st.integers(0, 30), nbytes=st.integers(0, 50))
    def put(self, number: int, nbytes: int) -> ObjectId:
        assert self.outbox.put(oid(number), number, nbytes) == (oid(number) not in self.there)
        self.there.setdefault(oid(number), number)
        return oid(number)

    @rule(target=objects, number=st.integers(0, 30))
    def put_early(self, number: int) -> ObjectId:
        early = ObjectId(1, number, 0)
        self.outbox.put(early, number, 10)
        self.there.setdefault(early, number)
        return early

    @rule(epoch=st.integers(0, 2), really=st.integers(0, 9))
    def reset(self, epoch: int, really: int) -> None:
        if really:
            return
        past = {object_id for object_id in self.there if object_id.epoch < epoch}
        assert set(self.outbox.reset(epoch)) == past
        for object_id in past:
            del self.there[object_id]

    @rule(max_bytes=st.integers(0, 100))
    def take(self, max_bytes: int) -> None:
        taken = self.outbox.take(max_bytes)
        assert all(self.there[one.id] == one.payload for one in taken)

    @rule(object_id=objects)
    def finish(self, object_id: ObjectId) -> None:
        assert self.outbox.finished(object_id) == self.there.pop(object_id, None)

    @rule(object_id=objects)
    def defer(self, object_id: ObjectId) -> None:
        self.outbox.deferred(object_id)

    @rule(object_id=objects)
    def want(self, object_id: ObjectId) -> None:
        assert self.outbox.wanted(object_id) == (object_id in self.there)

    @rule()
    def reconnect(self) -> None:
        self.outbox.reconnected()
        assert {one.id for one in self.outbox.take(10**9)} == set(self.there)
        self.outbox.reconnected()

    @invariant()
    def holds(self) -> None:
        self.outbox.validate()
        assert len(self.outbox) == len(self.there)
        assert all(object_id in self.outbox for object_id in self.there)


TestOutboxMachine = OutboxMachine.TestCase
