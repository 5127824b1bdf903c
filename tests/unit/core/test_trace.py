"""The trace of what went into the machines, and what is done with it."""

from __future__ import annotations

import random

import pytest

from fed.core.coordination import Coordinator
from fed.core.dataflow import Dataflow
from fed.core.failure import Failure, Fault, Kind
from fed.core.lifecycle import State
from fed.core.notice import Notice, NoticeKind
from fed.core.trace import SIZE, Trace, replay, trace_lines
from fed.object import ObjectId
from tests.support.cores import Federation


def coordinator(trace: Trace) -> Coordinator:
    return Coordinator("alice", ["bob"], "x", trace=trace)


def test_what_comes_in_is_noted_and_what_a_machine_does_with_itself_is_not() -> None:
    trace = Trace()
    core = coordinator(trace)
    core.life.ready("bob")
    core.life.joined()
    failure = core.new_failure(Fault(Kind.TASK, "ValueError"), "task", 3)
    # It makes use of `learn`, of `believed` and of the life's `latch`.
    core.heard("bob", Notice(NoticeKind.LATCHED, 0, failure.relayed("bob")))
    assert [(event.machine, event.name) for event in trace.events] == [
        ("Lifecycle", "ready"),
        ("Lifecycle", "joined"),
        ("Coordinator", "new_failure"),
        ("Coordinator", "heard"),
    ]


def test_what_is_refused_is_noted_too_and_what_follows_it() -> None:
    trace = Trace()
    core = coordinator(trace)
    with pytest.raises(RuntimeError, match="JOINING cannot become RESET"):
        core.reset()
    core.call("f")
    assert [event.name for event in trace.events] == ["reset", "call"]


def test_it_keeps_the_last_ones() -> None:
    trace = Trace()
    core = coordinator(trace)
    for number in range(SIZE + 10):
        core.call(f"call {number}")
    assert [event.arguments for event in trace.events][:: SIZE - 1] == [("call 10",), (f"call {SIZE + 9}",)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("isolate", [False, True])
def test_the_same_events_put_in_again_do_the_same_again(seed: int, isolate: bool) -> None:
    chance = random.Random(seed)
    federation = Federation(3, isolate=isolate, objects=3, random=chance)
    for _ in range(150):
        enabled = federation.enabled()
        if not enabled:
            break
        federation.step(chance.choice(enabled))
    switched = latched = 0
    for name, party in federation.parties.items():
        events = party.core.trace.events
        assert len(events) < SIZE
        again = Coordinator(name, [peer for peer in federation.names if peer != name], "x", isolate=isolate)
        replay(events, {"Coordinator": again, "Lifecycle": again.life}.__getitem__)
        for core in (again, party.core):
            core.validate()
        assert (again.epoch, again.journal.digest, again.book.root, again.book.all, again.life.state) == (
            party.core.epoch,
            party.core.journal.digest,
            party.core.book.root,
            party.core.book.all,
            party.core.life.state,
        )
        assert (again.life.latched, again.life.attentive) == (party.core.life.latched, party.core.life.attentive)
        switched += again.epoch
        latched += again.life.latched or again.life.state is not State.RUNNING
    assert switched + latched


def test_tasks_and_what_they_need_are_named_and_reasons_are_not_kept() -> None:
    trace = Trace()
    table: Dataflow[int, Exception] = Dataflow(trace, "Dataflow 0")
    needed = ObjectId(0, 1, 0, 77)
    table.add(2, [needed], queue="0#0")
    table.failed(needed, ValueError("text"))
    table.discard("0#0", ValueError("text"))
    assert trace_lines(trace.events) == [
        "      0.000000 Dataflow 0.add(2, (#1), queue='0#0', in_turn=True)",
        "      0.000000 Dataflow 0.failed(#1, 'ValueError')",
        "      0.000000 Dataflow 0.discard('0#0', 'ValueError')",
    ]
    again: Dataflow[int, str] = Dataflow()
    (added, failed, discarded) = replay(trace.events, {"Dataflow 0": again}.__getitem__)
    assert (added, [(said.task, said.reason) for said in failed], discarded) == ([], [(2, "ValueError")], [])


def test_a_line_is_short_and_has_no_text_of_the_users() -> None:
    seconds = iter([5.0, 5.5])
    trace = Trace(lambda: next(seconds))
    core = coordinator(trace)
    failure = Failure(
        "bob/x/1",
        Kind.TASK,
        "bob",
        "ValueError",
        task="#3 train",
        message="canary",
        traceback="canary",
        hops=("carol",),
    )
    core.heard("bob", Notice(NoticeKind.FAILURE, 0, failure, (ObjectId(0, 4, 1),)))
    core.call("f" * 10_000)
    first, second = trace_lines(trace.events)
    assert first == (
        "      0.000000 Coordinator.heard('bob', <FAILURE, epoch 0, "
        "<bob/x/1 TASK ValueError at bob (reported by carol)>, #4.1>)"
    )
    assert second.startswith("      0.500000 Coordinator.call('fff")
    assert len(second) < 200


def test_what_peers_tell_takes_no_more_memory_than_there_is_for_it() -> None:
    trace = Trace()
    core = coordinator(trace)
    for number in range(100):
        # Of a later epoch, so that nothing else keeps it.
        core.heard("bob", Notice(NoticeKind.JOURNAL, 1, calls=number, texts=("x" * 256,) * 4096))
    assert trace.noted == 100
    assert [event.arguments[1].calls for event in trace.events] == [97, 98, 99]
    for _ in range(10):
        core.new_failure(Fault(Kind.TASK, "ValueError", message="m" * 500_000, traceback="t" * 500_000))
    assert len(trace.events) == 4


def test_a_line_is_short_whatever_is_in_it() -> None:
    trace = Trace()
    core = coordinator(trace)
    failure = core.new_failure(Fault(Kind.TASK, "E" * 10_000))
    core.heard("bob", Notice(NoticeKind.FAILURE, 1, failure, tuple(ObjectId(1, number, 0) for number in range(9000))))
    table: Dataflow[int, str] = Dataflow(trace)
    table.add(1, [ObjectId(0, number, 0) for number in range(1000)])
    assert all(len(line) < 250 for line in trace_lines(trace.events))
    assert "(#0, #1, #2, #3, #4, and 995 more)" in trace_lines(trace.events)[-1]
