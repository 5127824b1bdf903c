"""What is raised for a failure that no rule is about in particular: as which class, and with which words."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import fed
from tests.support.failing import CANARY, PARTIES, chain, fail_unpicklable, identity, run


def test_the_source_sees_its_own_exception_as_the_cause() -> None:
    error = run(chain).errors["alice"]
    assert isinstance(error.__cause__, ValueError)
    assert str(error.__cause__) == CANARY


def test_an_exception_that_cannot_be_pickled_keeps_its_name() -> None:
    errors = run(lambda: fed.get(fail_unpicklable.party("alice").remote())).errors
    assert {error.type_name for error in errors.values() if isinstance(error, fed.TaskError)} == {"Unpicklable"}


def test_declared_exceptions_can_be_caught_by_their_class_in_every_party() -> None:
    class Overdrawn(Exception):
        pass

    @fed.remote
    def withdraw() -> None:
        raise Overdrawn(CANARY)

    def program() -> Any:
        with pytest.raises(Overdrawn) as caught:
            fed.get(withdraw.party("alice").remote())
        return isinstance(caught.value, fed.TaskError)

    results = run(program, exceptions=[Overdrawn], on_error="isolate")
    assert dict(results) == dict.fromkeys(PARTIES, True)


def test_a_constructor_that_fails_fails_its_methods() -> None:
    @fed.remote
    class Broken:
        def __init__(self) -> None:
            raise ValueError(CANARY)

        def method(self) -> int:
            return 1

    def program() -> Any:
        with pytest.raises(fed.TaskError) as caught:
            fed.get(Broken.party("bob").remote().method.remote())
        return caught.value.type_name, caught.value.party

    # The constructor's own failure was read by nobody, so it is raised where it happened at the end.
    outcome = run(program, on_error="isolate")
    assert {outcome.results[party] for party in ("alice", "carol", "dave")} == {("ValueError", "bob")}


def test_a_result_that_cannot_cross_fails_both_sides_with_the_way_out() -> None:
    class Private:
        pass

    @fed.remote
    def make() -> Any:
        return [1, Private()]

    errors = run(lambda: fed.get(make.party("alice").remote())).errors
    assert {type(error) for error in errors.values()} == {fed.DeliveryError}
    assert "[1]" in str(errors["alice"])
    assert "Private" in str(errors["bob"])
    assert "[1]" not in str(errors["bob"])


def test_an_object_larger_than_the_consumer_accepts_is_named_on_both_sides() -> None:
    errors = run(lambda: fed.get(identity.party("alice").remote(b"x" * 5000)), max_object_bytes=1000).errors
    assert {type(error) for error in errors.values()} == {fed.DeliveryError}
    assert "larger than party" in str(errors["alice"])


def test_a_timeout_names_what_is_missing_and_the_wait_can_go_on() -> None:
    gate = threading.Event()
    all_timed_out = threading.Barrier(len(PARTIES), action=gate.set)

    @fed.remote
    def slow() -> int:
        gate.wait()
        return 1

    def program() -> Any:
        one = slow.party("alice").remote()
        with pytest.raises(
            fed.FedTimeoutError, match=r"<FedObject #0 slow at party 'alice'> did not arrive within 0 s"
        ):
            fed.get(one, timeout=0)
        all_timed_out.wait()
        return fed.get(one)

    assert dict(run(program)) == dict.fromkeys(PARTIES, 1)


def test_a_task_that_returns_another_number_of_results_fails_with_the_reason() -> None:
    def program() -> Any:
        first, _ = identity.options(num_returns=2).party("alice").remote([1, 2, 3])
        return fed.get(first)

    error = run(program).errors["alice"]
    assert "num_returns=2 but returned 3 values" in str(error)
