"""Tasks that wait for what they need."""

from __future__ import annotations

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
    assert [(task, set(pending)) for task, pending in table.waiting] == [(1, {"a", "b"})]
    assert table.arrived("b") == []
    assert table.arrived("b") == []
    assert table.arrived("a") == [Submit(1)]
    assert list(table.waiting) == []


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


class Dataflows(RuleBasedStateMachine):
    """Beside a model that looks at everything anew after each event."""

    def __init__(self) -> None:
        super().__init__()
        self.table: Table = Dataflow()
        # By task: what it needs, its queue, and whether it is being submitted.
        self.there: dict[int, tuple[set[Hashable], str | None, bool]] = {}
        self.settled: set[Hashable] = set()
        self.count = 0

    def carry_out(self, instructions: list[Instruction[int, str]], *, failing: Collection[int] = ()) -> None:
        assert sorted(one.task for one in instructions if isinstance(one, Fail)) == sorted(failing)
        for task in failing:
            del self.there[task]
        submitted = [one.task for one in instructions if isinstance(one, Submit)]
        due = []
        for task, (needs, queue, submitting) in self.there.items():
            first = next(other for other, row in self.there.items() if queue is None or row[1] == queue)
            if not needs and not submitting and (queue is None or first == task):
                due.append(task)
        assert sorted(submitted) == due
        for task in due:
            self.there[task] = (set(), self.there[task][1], True)

    def settle(self, node: Hashable) -> None:
        self.settled.add(node)
        for needs, _, _ in self.there.values():
            needs.discard(node)

    def doomed(self, nodes: Collection[Hashable]) -> set[int]:
        found: set[int] = set()
        while True:
            more = {
                task for task, (needs, _, _) in self.there.items() if not needs.isdisjoint([*nodes, *found])
            } - found
            if not more:
                return found
            found |= more

    @rule(objects=st.sets(st.sampled_from("abcdef"), max_size=3), data=st.data())
    def add(self, objects: set[str], data: st.DataObject) -> None:
        earlier = data.draw(st.sets(st.sampled_from(sorted(self.there)), max_size=2)) if self.there else set()
        queue = data.draw(st.sampled_from([None, None, "x", "y"]))
        needs: set[Hashable] = {one for one in (*objects, *earlier) if one not in self.settled}
        self.count += 1
        self.there[self.count] = (set(needs), queue, False)
        self.carry_out(self.table.add(self.count, needs, queue=queue))

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

    @precondition(lambda self: any(row[2] for row in self.there.values()))
    @rule(data=st.data(), well=st.booleans())
    def end_submission(self, data: st.DataObject, well: bool) -> None:
        task = data.draw(st.sampled_from(sorted(task for task, row in self.there.items() if row[2])))
        del self.there[task]
        if well:
            self.settle(task)
            self.carry_out(self.table.submitted(task))
        else:
            self.carry_out(self.table.failed(task, "why"), failing=self.doomed({task}))

    @rule(queue=st.sampled_from("xy"))
    def discard(self, queue: str) -> None:
        ended = {task for task, row in self.there.items() if row[1] == queue and not row[2]}
        self.carry_out(self.table.discard(queue, "why"), failing=ended | self.doomed(ended))

    @invariant()
    def laws_hold(self) -> None:
        self.table.validate()
        assert len(self.table) == len(self.there)
        assert {task: set(pending) for task, pending in self.table.waiting} == {
            task: needs for task, (needs, _, _) in self.there.items() if needs
        }


TestDataflows = Dataflows.TestCase
