"""Tasks that wait for what they need."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Hashable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fed.core.dataflow import Dataflow, Fail, Instruction, Submit

Table = Dataflow[int, str]


def test_a_task_that_needs_nothing_is_submitted_at_once() -> None:
    table: Table = Dataflow()
    assert table.add(1) == [Submit(1)]
    assert 1 in table
    assert table.submitted(1) == []
    assert len(table) == 0
    table.validate()


def test_a_task_is_submitted_when_the_last_of_what_it_needs_is_here() -> None:
    table: Table = Dataflow()
    assert table.add(1, ["a", "b"]) == []
    assert table.arrived("b") == []
    assert table.arrived("b") == []
    assert table.arrived("a") == [Submit(1)]
    assert table.arrived("a") == []


def test_one_object_releases_all_that_need_it_in_the_order_of_their_calls() -> None:
    table: Table = Dataflow()
    for task in range(5):
        assert table.add(task, ["a"]) == []
    assert table.arrived("a") == [Submit(task) for task in range(5)]


def test_a_task_that_uses_another_ones_result_waits_until_that_one_is_submitted() -> None:
    table: Table = Dataflow()
    table.add(1, ["a"])
    assert table.add(2, [1]) == []
    assert table.arrived("a") == [Submit(1)]
    assert table.submitted(1) == [Submit(2)]


def test_a_failed_object_fails_what_needs_it_however_long_the_chain() -> None:
    table: Table = Dataflow()
    table.add(0, ["a", "b"])
    for task in range(1, 5000):
        table.add(task, [task - 1])
    table.add(5000, ["b"])
    assert table.failed("a", "why") == [Fail(task, "why") for task in range(5000)]
    assert table.arrived("b") == [Submit(5000)]
    table.validate()


def test_a_task_that_could_not_be_submitted_fails_what_needs_it_and_is_not_told_again() -> None:
    table: Table = Dataflow()
    table.add(1)
    table.add(2, [1])
    assert table.failed(1, "why") == [Fail(2, "why")]
    assert len(table) == 0


def test_calls_of_one_actor_keep_their_order_and_go_one_at_a_time() -> None:
    table: Table = Dataflow()
    assert table.add(1, ["a"], queue="actor") == []
    assert table.add(2, queue="actor") == []
    assert table.add(3, queue="other") == [Submit(3)]
    assert table.add(4) == [Submit(4)]
    assert table.arrived("a") == [Submit(1)]
    # Handed over by one thread, it must not be overtaken by what another one hands over.
    assert table.add(5, queue="actor") == []
    assert table.submitted(1) == [Submit(2)]
    assert table.submitted(2) == [Submit(5)]


def test_a_call_that_fails_holds_up_nobody() -> None:
    table: Table = Dataflow()
    table.add(1, ["a"], queue="actor")
    table.add(2, ["b"], queue="actor")
    table.add(3, queue="actor")
    assert table.failed("b", "why") == [Fail(2, "why")]
    assert table.failed("a", "why") == [Fail(1, "why"), Submit(3)]
    table.validate()
    assert table.failed(3, "why") == []
    assert len(table) == 0
    # A queue that was empty for a while.
    assert table.add(4, queue="actor") == [Submit(4)]


def test_what_a_call_of_the_same_actor_needs_of_an_earlier_one_is_no_deadlock() -> None:
    table: Table = Dataflow()
    table.add(1, ["a"], queue="actor")
    table.add(2, [1], queue="actor")
    assert table.arrived("a") == [Submit(1)]
    assert table.submitted(1) == [Submit(2)]


def test_an_actor_that_is_ended_fails_its_calls_that_wait_and_what_needs_them() -> None:
    table: Table = Dataflow()
    assert table.add(0, queue="actor") == [Submit(0)]
    table.add(1, ["a"], queue="actor")
    table.add(2, queue="actor")
    table.add(3, [2])
    table.add(4, ["a"], queue="other")
    table.add(5, queue="other")
    assert table.discard("actor", "ended") == [Fail(1, "ended"), Fail(2, "ended"), Fail(3, "ended")]
    table.validate()
    # The runtime has the other one, or will.
    assert table.submitted(0) == []
    assert table.arrived("a") == [Submit(4)]
    assert table.discard("unknown", "ended") == []


def test_calls_of_an_actor_that_runs_several_at_once_do_not_wait_for_one_another() -> None:
    table: Table = Dataflow()
    assert table.add(1, ["a"], queue="actor", in_turn=False) == []
    assert table.add(2, queue="actor", in_turn=False) == [Submit(2)]
    assert table.add(3, ["b"], queue="actor", in_turn=False) == []
    # Whichever has what it needs goes, also while others are being submitted.
    assert table.add(4, queue="actor", in_turn=False) == [Submit(4)]
    assert table.arrived("b") == [Submit(3)]
    table.validate()
    assert table.submitted(4) == table.submitted(2) == table.failed(3, "why") == []
    assert table.arrived("a") == [Submit(1)]
    assert table.submitted(1) == []
    assert len(table) == 0


def test_an_actor_that_runs_several_at_once_is_ended_with_all_its_calls_that_wait() -> None:
    table: Table = Dataflow()
    table.add(1, ["a"], queue="actor", in_turn=False)
    assert table.add(2, queue="actor", in_turn=False) == [Submit(2)]
    table.add(3, ["b"], queue="actor", in_turn=False)
    table.add(4, [3])
    table.add(5, ["a"], queue="other", in_turn=False)
    assert table.discard("actor", "ended") == [Fail(1, "ended"), Fail(3, "ended"), Fail(4, "ended")]
    table.validate()
    assert table.submitted(2) == []
    assert table.arrived("b") == []
    assert table.arrived("a") == [Submit(5)]


def test_what_nobody_needs_may_be_told() -> None:
    table: Table = Dataflow()
    assert table.arrived("a") == table.failed("b", "why") == []


def test_a_task_is_called_and_submitted_once() -> None:
    table: Table = Dataflow()
    table.add(1, ["a"])
    with pytest.raises(ValueError, match="added before"):
        table.add(1)
    with pytest.raises(ValueError, match="was not to be submitted"):
        table.submitted(1)
    with pytest.raises(ValueError, match="was not to be submitted"):
        table.submitted(2)


@dataclasses.dataclass
class Task:
    """One as the model knows it."""

    needs: set[Hashable]
    queue: str | None
    in_turn: bool
    submitting: bool = False


class Dataflows(RuleBasedStateMachine):
    """Beside a model that looks at everything anew after each event."""

    def __init__(self) -> None:
        super().__init__()
        self.table: Table = Dataflow()
        self.there: dict[int, Task] = {}
        self.settled: set[Hashable] = set()
        self.count = 0

    def carry_out(self, instructions: list[Instruction[int, str]], *, failing: Collection[int] = ()) -> None:
        assert sorted(one.task for one in instructions if isinstance(one, Fail)) == sorted(failing)
        for task in failing:
            del self.there[task]
        submitted = [one.task for one in instructions if isinstance(one, Submit)]
        due = []
        for task, row in self.there.items():
            first = next(other for other, one in self.there.items() if one.queue == row.queue)
            if not row.needs and not row.submitting and (row.queue is None or not row.in_turn or first == task):
                due.append(task)
        assert sorted(submitted) == due
        for task in due:
            self.there[task].submitting = True

    def settle(self, node: Hashable) -> None:
        self.settled.add(node)
        for row in self.there.values():
            row.needs.discard(node)

    def doomed(self, nodes: Collection[Hashable]) -> set[int]:
        found: set[int] = set()
        while True:
            more = {task for task, row in self.there.items() if not row.needs.isdisjoint([*nodes, *found])} - found
            if not more:
                return found
            found |= more

    @rule(objects=st.sets(st.sampled_from("abcdef"), max_size=3), data=st.data())
    def add(self, objects: set[str], data: st.DataObject) -> None:
        earlier = data.draw(st.sets(st.sampled_from(sorted(self.there)), max_size=2)) if self.there else set()
        # The calls of z wait for no turn; of x and y most do, so that one that does not is among others that do.
        queue = data.draw(st.sampled_from([None, None, "x", "y", "z", "z"]))
        in_turn = queue != "z" and data.draw(st.integers(0, 4)) > 0
        needs: set[Hashable] = {one for one in (*objects, *earlier) if one not in self.settled}
        self.count += 1
        self.there[self.count] = Task(set(needs), queue, in_turn)
        self.carry_out(self.table.add(self.count, needs, queue=queue, in_turn=in_turn))

    @rule(node=st.sampled_from("abcdef"))
    def arrive(self, node: str) -> None:
        self.settle(node)
        self.carry_out(self.table.arrived(node))
        # It is one of a name that may be needed again.
        self.settled.discard(node)

    @rule(node=st.sampled_from("abcdef"))
    def fail(self, node: str) -> None:
        failing = self.doomed({node})
        self.carry_out(self.table.failed(node, "why"), failing=failing)

    @precondition(lambda self: any(row.submitting for row in self.there.values()))
    @rule(data=st.data(), well=st.booleans())
    def end_submission(self, data: st.DataObject, well: bool) -> None:
        task = data.draw(st.sampled_from(sorted(task for task, row in self.there.items() if row.submitting)))
        del self.there[task]
        if well:
            self.settle(task)
            self.carry_out(self.table.submitted(task))
        else:
            self.carry_out(self.table.failed(task, "why"), failing=self.doomed({task}))

    @rule(queue=st.sampled_from("xyz"))
    def discard(self, queue: str) -> None:
        ended = {task for task, row in self.there.items() if row.queue == queue and not row.submitting}
        self.carry_out(self.table.discard(queue, "why"), failing=ended | self.doomed(ended))

    @invariant()
    def laws_hold(self) -> None:
        self.table.validate()
        assert len(self.table) == len(self.there)
        for task, row in self.there.items():
            first = next(other for other, one in self.there.items() if one.queue == row.queue)
            held_up = row.queue is not None and row.in_turn and first != task
            assert self.table.held_up_by(task) == (first if held_up else None)
        queues = {row.queue for row in self.there.values()}
        assert all(self.table.has_queue(queue) == (queue in queues) for queue in "xyz")


TestDataflows = Dataflows.TestCase
