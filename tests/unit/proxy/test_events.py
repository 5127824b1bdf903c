"""What a proxy keeps for its driver until that has handled it."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed.core.notice import Notice, NoticeKind
from fed.proxy import events
from fed.proxy.events import MAX_BATCH, Batch, EventQueue, PeerEvent, PeerEventKind
from tests.support.worlds import run


def told(calls: int, peer: str = "bob", kind: NoticeKind = NoticeKind.PROGRESS, epoch: int = 0) -> PeerEvent:
    return PeerEvent(PeerEventKind.NOTICE, peer, notice=Notice(kind, epoch, calls=calls))


def greeted(incarnation: str, peer: str = "bob") -> PeerEvent:
    return PeerEvent(PeerEventKind.GREETED, peer, incarnation)


def take(queue: EventQueue) -> list[PeerEvent]:
    """All that the driver is to be told, as it would handle it."""
    taken: list[PeerEvent] = []
    last = 0
    while (batch := queue.batch()) is not None:
        assert batch.number > last
        last = batch.number
        taken += batch.events
        queue.handled(last)
    return taken


def test_one_batch_is_under_way_at_a_time_and_what_happens_meanwhile_waits_for_the_next_one() -> None:
    queue = EventQueue()
    assert queue.batch() is None
    queue.add(told(1))
    queue.add(told(2))
    first = Batch(2, (told(1), told(2)))
    assert queue.batch() == first
    queue.add(told(3))
    queue.add(told(4))
    assert queue.batch() == first
    assert len(queue._waiting) == 2
    queue.handled(2)
    assert queue.batch() == Batch(4, (told(3), told(4)))
    queue.handled(4)
    assert queue.batch() is None


def test_word_of_another_batch_than_the_one_under_way_changes_nothing() -> None:
    queue = EventQueue()
    queue.handled(0)
    queue.add(told(1))
    queue.add(told(2))
    # Before it was taken.
    queue.handled(2)
    first = queue.batch()
    for number in (0, 1, 3):
        queue.handled(number)
    queue.add(told(3))
    assert queue.batch() == first
    queue.handled(2)
    second = queue.batch()
    queue.handled(2)
    assert queue.batch() == second == Batch(3, (told(3),))


def test_a_batch_has_no_more_events_than_may_travel_together() -> None:
    queue = EventQueue()
    for number in range(2 * MAX_BATCH + 1):
        queue.add(told(number))
    for start, count in ((0, MAX_BATCH), (MAX_BATCH, MAX_BATCH), (2 * MAX_BATCH, 1)):
        batch = queue.batch()
        assert batch == Batch(start + count, tuple(told(start + number) for number in range(count)))
        queue.handled(batch.number)
    assert queue.batch() is None


def test_whoever_takes_events_is_woken_for_each_one_until_the_end() -> None:
    queue, woken = EventQueue(), list[int]()
    queue.add(told(1))
    queue.attach(lambda: woken.append(len(queue._waiting)))
    queue.add(told(2))
    queue.add(told(3), renews=True)
    queue.add(told(4), renews=True)
    assert woken == [2, 3, 3]
    queue.close()
    queue.add(told(5))
    assert woken == [2, 3, 3]


# What renews what waits


def test_what_renews_an_event_takes_its_place_at_the_end() -> None:
    queue = EventQueue()
    queue.add(told(1), renews=True)
    queue.add(told(2, kind=NoticeKind.LATCHED))
    queue.add(told(3), renews=True)
    queue.add(told(4), renews=True)
    assert len(queue._waiting) == 2
    assert take(queue) == [told(2, kind=NoticeKind.LATCHED), told(4)]


def test_an_event_renews_those_of_its_kind_and_its_peer_only() -> None:
    queue = EventQueue()
    kept = [
        told(1, kind=NoticeKind.ASK),
        told(2, peer="carol"),
        greeted("a life"),
        PeerEvent(PeerEventKind.ABSENT, "bob"),
        PeerEvent(PeerEventKind.DISAGREED, "bob", reason="its parties differ"),
        PeerEvent(PeerEventKind.DISAGREED, "carol", reason="its parties differ"),
    ]
    for event in kept:
        queue.add(event, renews=True)
    queue.add(told(3), renews=True)
    queue.add(told(4), renews=True)
    assert take(queue) == [*kept, told(4)]


def test_what_is_not_said_to_be_renewed_stays() -> None:
    queue = EventQueue()
    queue.add(told(1))
    queue.add(told(2), renews=True)
    queue.add(told(3))
    queue.add(told(4), renews=True)
    assert take(queue) == [told(1), told(3), told(4)]


def test_what_is_under_way_is_not_renewed_any_more() -> None:
    queue = EventQueue()
    queue.add(greeted("first"), renews=True)
    first = queue.batch()
    queue.add(greeted("second"), renews=True)
    queue.add(greeted("third"), renews=True)
    assert queue.batch() == first == Batch(1, (greeted("first"),))
    queue.handled(1)
    assert queue.batch() == Batch(3, (greeted("third"),))


def test_what_waits_beyond_a_full_batch_is_still_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_BATCH", 1)
    queue = EventQueue()
    queue.add(told(1), renews=True)
    queue.add(told(2, peer="carol"), renews=True)
    assert queue.batch() == Batch(1, (told(1),))
    queue.add(told(3, peer="carol"), renews=True)
    queue.add(told(4), renews=True)
    queue.handled(1)
    assert take(queue) == [told(3, peer="carol"), told(4)]


def test_a_peer_may_say_a_thing_as_often_as_it_likes_and_costs_one_event() -> None:
    queue = EventQueue()
    for number in range(10_000):
        queue.add(told(number), renews=True)
    assert len(queue._waiting) == 1
    assert take(queue) == [told(9999)]
    assert queue._newest == {}


# What is acknowledged


def test_an_event_is_acknowledged_when_its_batch_was_handled_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_BATCH", 2)

    async def scenario() -> None:
        queue = EventQueue()
        answers = [queue.add_acknowledged(told(number)) for number in range(3)]
        assert queue.unacknowledged("bob") == 3
        assert queue.batch() == Batch(2, (told(0), told(1)))
        queue.handled(1)
        assert [answer.done() for answer in answers] == [False, False, False]
        queue.handled(2)
        assert [answer.done() for answer in answers] == [True, True, False]
        assert queue.unacknowledged("bob") == 1
        assert queue.batch() == Batch(3, (told(2),))
        assert not answers[2].done()
        queue.handled(3)
        assert [answer.result() for answer in answers] == [None] * 3
        assert queue.unacknowledged("bob") == 0

    run(scenario())


def test_who_waits_for_an_acknowledgement_is_known_when_the_event_is_taken_at_once() -> None:
    async def scenario() -> None:
        queue, taken = EventQueue(), list[PeerEvent]()
        queue.attach(lambda: taken.extend(take(queue)))
        answer = queue.add_acknowledged(told(1))
        assert answer.result() is None
        assert taken == [told(1)]

    run(scenario())


def test_what_is_not_acknowledged_is_counted_for_each_peer() -> None:
    async def scenario() -> None:
        queue = EventQueue()
        queue.add(told(1))
        for peer in ("bob", "carol", "bob"):
            queue.add_acknowledged(told(2, peer=peer))
        assert [queue.unacknowledged(peer) for peer in ("bob", "carol", "dave")] == [2, 1, 0]
        queue.batch()
        assert queue.unacknowledged("bob") == 2

    run(scenario())


def test_who_waits_no_longer_for_an_acknowledgement_is_no_trouble_and_the_driver_is_told_nevertheless() -> None:
    async def scenario() -> None:
        queue = EventQueue()
        answers = [queue.add_acknowledged(told(number)) for number in range(2)]
        answers[0].cancel()
        assert queue.unacknowledged("bob") == 2
        assert take(queue) == [told(0), told(1)]
        assert answers[1].done()
        assert not answers[1].cancelled()
        assert queue.unacknowledged("bob") == 0

    run(scenario())


def test_what_was_not_handled_is_not_acknowledged_at_the_end() -> None:
    async def scenario() -> None:
        queue = EventQueue()
        handled = queue.add_acknowledged(told(1))
        take(queue)
        under_way = queue.add_acknowledged(told(2))
        batch = queue.batch()
        assert batch is not None
        waiting = queue.add_acknowledged(told(3))
        queue.close()
        assert [answer.cancelled() for answer in (handled, under_way, waiting)] == [False, True, True]
        # Word of it may still come.
        queue.handled(batch.number)

    run(scenario())


# What is dropped


def test_what_is_dropped_is_acknowledged_and_what_is_under_way_stays() -> None:
    async def scenario() -> None:
        queue = EventQueue()
        under_way = queue.add_acknowledged(told(1))
        batch = queue.batch()
        stale, late, early = (queue.add_acknowledged(told(number, epoch=number // 3)) for number in (2, 3, 4))
        queue.add(told(0), renews=True)
        queue.add(greeted("a life"))
        assert queue.drop(lambda notice: notice.epoch < 1) == 2
        assert [answer.done() for answer in (under_way, stale, late, early)] == [False, True, False, False]
        assert stale.result() is None
        assert queue.unacknowledged("bob") == 3
        assert queue.batch() == batch == Batch(1, (told(1),))
        queue.handled(1)
        assert under_way.result() is None
        assert take(queue) == [told(3, epoch=1), told(4, epoch=1), greeted("a life")]
        assert queue.drop(lambda notice: True) == 0

    run(scenario())


def test_what_would_have_renewed_what_was_dropped_is_told_itself() -> None:
    queue = EventQueue()
    queue.add(told(1), renews=True)
    assert queue.drop(lambda notice: True) == 1
    assert queue.batch() is None
    queue.add(told(2), renews=True)
    assert take(queue) == [told(2)]


# All of that, in any order

STEPS = st.one_of(
    st.tuples(st.sampled_from(["add", "add acknowledged", "renew"]), st.sampled_from(["bob", "carol"])),
    st.tuples(st.sampled_from(["take", "say handled", "drop odd ones"]), st.just("")),
)


@given(steps=st.lists(STEPS, max_size=40))
def test_whatever_happens_each_event_is_told_once_and_in_order(steps: list[tuple[str, str]]) -> None:
    async def scenario() -> None:
        queue, numbers = EventQueue(), itertools.count(1)
        waiting: dict[int, PeerEvent] = {}
        under_way: list[int] = []
        renewed: dict[str, int] = {}
        answers: dict[int, asyncio.Future[None]] = {}
        decided: set[int] = set()
        for step, peer in steps:
            if peer:
                number = next(numbers)
                kind = NoticeKind.PROGRESS if step == "renew" else NoticeKind.LATCHED
                event = waiting[number] = told(number, peer, kind)
                if step == "renew":
                    waiting.pop(renewed.get(peer, 0), None)
                    renewed[peer] = number
                    queue.add(event, renews=True)
                elif step == "add":
                    queue.add(event)
                else:
                    answers[number] = queue.add_acknowledged(event)
            elif step == "take":
                batch = queue.batch()
                if not under_way:
                    under_way = list(waiting)[:MAX_BATCH]
                    expected = tuple(waiting.pop(number) for number in under_way)
                    assert batch == (Batch(under_way[-1], expected) if expected else None)
                else:
                    assert batch is not None
                    assert batch.number == under_way[-1]
            elif step == "say handled":
                if under_way:
                    queue.handled(under_way[-1])
                    decided.update(under_way)
                    under_way = []
            else:
                odd = [number for number in waiting if number % 2]
                assert queue.drop(lambda notice: notice.calls % 2 == 1) == len(odd)
                decided.update(odd)
                for number in odd:
                    del waiting[number]
            assert len(queue._waiting) == len(waiting)
            assert {number for number, answer in answers.items() if answer.done()} == decided & set(answers)

    run(scenario())
