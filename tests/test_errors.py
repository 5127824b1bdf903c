"""The error path, rule by rule, on the in-process runtime: gates instead of sleeps, every interleaving held open."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import fed
from fed.testing import Simulation, simulate

PARTIES = ["alice", "bob", "carol", "dave"]
CANARY = "canary-4711"


class Unpicklable(Exception):
    def __init__(self, first: object, second: object) -> None:
        super().__init__(CANARY)
        self.lock = threading.Lock()


@fed.remote
def fail(*_: Any) -> None:
    raise ValueError(CANARY)


@fed.remote
def fail_unpicklable() -> None:
    raise Unpicklable(1, 2)


@fed.remote
def fail_from_cause() -> None:
    try:
        dict[str, int]()["missing"]
    except KeyError as error:
        raise ValueError(CANARY) from error


@fed.remote
def identity(value: Any) -> Any:
    return value


def run(program: Callable[[], Any], **arguments: Any) -> Simulation:
    def main() -> Any:
        with fed.job():
            return program()

    return simulate(main, parties=PARTIES, check=False, timeout_s=20, **arguments)


def chain() -> Any:
    """A fails, B consumes A, C consumes B."""
    a = fail.party("alice").remote(1)
    b = identity.party("bob").remote(a)
    return fed.get(identity.party("carol").remote(b))


def test_e01_the_consumer_is_told_instead_of_waiting() -> None:
    def program() -> Any:
        return fed.get(identity.party("bob").remote(fail.party("alice").remote()))

    errors = run(program).errors
    assert set(errors) == set(PARTIES)
    assert isinstance(errors["bob"], fed.RemoteError)
    assert (errors["bob"].type_name, errors["bob"].party, errors["bob"].task) == ("ValueError", "alice", "#0 fail")


def test_e02_peers_learn_type_and_party_only() -> None:
    errors = run(chain).errors
    for party in ("bob", "carol", "dave"):
        error = errors[party]
        assert isinstance(error, fed.RemoteError)
        assert CANARY not in f"{error} {error!r} {error.failure!r} {error.__cause__!r}"
        assert str(error).startswith("ValueError in task #0 fail at party 'alice'")
    assert CANARY in str(errors["alice"])


@pytest.mark.parametrize(
    ("exposed", "message", "trace"),
    [("type", False, False), ("message", True, False), ("trace", True, True)],
)
def test_e02_what_is_exposed_is_seen_and_no_more(exposed: str, message: bool, trace: bool) -> None:
    error = run(chain, expose_errors=exposed).errors["bob"]
    assert isinstance(error, fed.RemoteError)
    assert (error.failure.message == CANARY) is message
    assert ("raise ValueError" in error.failure.traceback) is trace


def test_e02_exposing_to_one_party_does_not_expose_to_another() -> None:
    errors = run(chain, expose_errors={"bob": "trace"}).errors
    seen = {party: CANARY in repr(error) for party, error in errors.items()}
    assert seen == {"alice": True, "bob": True, "carol": False, "dave": False}


def test_e03_an_error_overtakes_data_that_is_held_up() -> None:
    gate = threading.Event()

    @fed.remote
    def slow() -> int:
        gate.wait()
        return 1

    def program() -> Any:
        held = identity.party("bob").remote(slow.party("alice").remote())
        try:
            return fed.get([identity.party("bob").remote(fail.party("alice").remote()), held])
        finally:
            gate.set()

    began = time.monotonic()
    errors = run(program).errors
    assert {type(error) for error in errors.values()} == {fed.TaskError, fed.RemoteError}
    assert time.monotonic() - began < 10


def test_e04_a_slow_task_does_not_hide_a_later_failure() -> None:
    gate = threading.Event()

    @fed.remote
    def slow() -> int:
        gate.wait()
        return 1

    def program() -> Any:
        first = identity.party("bob").remote(slow.party("alice").remote())
        second = identity.party("bob").remote(fail.party("alice").remote())
        with pytest.raises(fed.TaskError) as caught:
            fed.get(second)
        still_waiting = not gate.is_set()
        fed.parties()
        if fed.party() == "bob":
            gate.set()
        return caught.value.type_name, still_waiting, fed.get(first)

    results = run(program, on_error="isolate")
    assert results["bob"] == ("ValueError", True, 1)


def test_e05_everyone_is_told_also_who_waits_for_nothing() -> None:
    def program() -> None:
        identity.party("carol").remote(identity.party("bob").remote(fail.party("alice").remote(1)))

    began = time.monotonic()
    errors = run(program).errors
    assert time.monotonic() - began < 5
    assert set(errors) == set(PARTIES)
    assert type(errors["alice"]) is fed.TaskError
    assert {type(errors[party]) for party in ("bob", "carol", "dave")} == {fed.RemoteError}
    assert len({error.error_id for error in errors.values() if isinstance(error, fed.TaskError)}) == 1


def test_e06_the_handler_runs_exactly_once_in_every_party_and_knows_the_root() -> None:
    reports: list[fed.FailureReport] = []

    def program() -> Any:
        for _ in range(20):
            identity.party("bob").remote(fail.party("alice").remote())
            identity.party("carol").remote(fail.party("dave").remote())
        return fed.get(identity.party("carol").remote(fail.party("alice").remote()))

    run(program, failure_handler=reports.append)
    assert sorted(report.party for report in reports) == PARTIES
    for report in reports:
        assert report.root in report.failures
        assert isinstance(report.error, fed.FailureError)
        assert report.error.failure == report.root


def test_e06_without_a_failure_the_handler_does_not_run() -> None:
    reports: list[fed.FailureReport] = []
    run(lambda: fed.get(identity.party("bob").remote(1)), failure_handler=reports.append)
    assert reports == []


def test_e45_a_handler_that_raises_does_not_replace_the_root() -> None:
    def handler(report: fed.FailureReport) -> None:
        raise RuntimeError("handler")

    errors = run(chain, failure_handler=handler).errors
    assert isinstance(errors["alice"], fed.TaskError)
    assert errors["alice"].type_name == "ValueError"


def test_e45_a_handler_that_makes_a_fed_call_is_refused() -> None:
    refused: list[str] = []

    def handler(report: fed.FailureReport) -> None:
        with pytest.raises(fed.UsageError) as caught:
            fed.get([])
        refused.append(str(caught.value))

    run(chain, failure_handler=handler)
    assert len(refused) == len(PARTIES)


def test_e10_a_driver_that_dies_tells_the_others() -> None:
    def program() -> Any:
        one = identity.party("alice").remote(1)
        if fed.party() == "alice":
            raise OSError(CANARY)
        return fed.get([identity.party("bob").remote(one), identity.party("alice").remote(2)])

    errors = run(program).errors
    assert isinstance(errors["alice"], OSError)
    for party in ("bob", "carol", "dave"):
        error = errors[party]
        assert isinstance(error, fed.PartyLeftError)
        assert error.failure.kind is fed.Kind.DRIVER
        assert str(error) == "party 'alice' left: its driver raised OSError"


def test_e10_a_driver_that_exits_early_does_not_leave_the_others_waiting() -> None:
    def program() -> Any:
        if fed.party() == "alice":
            sys.exit(0)
        return fed.get(identity.party("alice").remote(1))

    errors = run(program).errors
    for party in PARTIES:
        error = errors[party]
        assert isinstance(error, fed.PartyLeftError)
        assert "party 'alice' called sys.exit()" in str(error)


def test_e11_a_failure_that_came_before_its_reader_is_kept() -> None:
    failed = threading.Event()

    def program() -> Any:
        one = fail.party("alice").remote()
        other = identity.party("bob").remote(one)
        with pytest.raises(fed.TaskError):
            fed.get(other)
        failed.set()
        with pytest.raises(fed.TaskError) as caught:
            fed.get(one)
        return caught.value.error_id

    ids = run(program, on_error="isolate")
    assert len(set(ids.results.values())) == 1
    assert failed.is_set()


def test_e14_a_failure_poisons_only_what_depends_on_it() -> None:
    def program() -> Any:
        good, bad = identity.party("carol").remote(7), fail.party("alice").remote()

        @fed.remote
        def both(first: Any, second: Any) -> Any:
            return first, second

        mixed = both.party("bob").remote(good, bad)
        with pytest.raises(fed.TaskError):
            fed.get(mixed)
        return fed.get([good, identity.party("bob").remote(good)])

    assert dict(run(program, on_error="isolate")) == {party: [7, 7] for party in PARTIES}


def test_e15_a_consumer_of_a_failed_object_never_runs() -> None:
    ran: list[str] = []

    @fed.remote
    def consume(value: Any) -> None:
        ran.append(str(value))

    def program() -> Any:
        bad = fail.party("alice").remote()
        for consumer in (consume.party("alice").remote(bad), consume.party("bob").remote([bad])):
            with pytest.raises(fed.TaskError):
                fed.get(consumer)
        return True

    assert dict(run(program, on_error="isolate")) == dict.fromkeys(PARTIES, True)
    assert ran == []


def test_e16_every_read_tells_the_same() -> None:
    def program() -> Any:
        bad = fail.party("alice").remote()
        derived = identity.party("bob").remote(bad)
        ids = []
        for read in (bad, bad, [bad], derived, {"k": [derived]}):
            with pytest.raises(fed.TaskError) as caught:
                fed.get(read)
            ids.append(caught.value.error_id)
        return set(ids)

    results = run(program, on_error="isolate")
    assert len(set.union(*results.results.values())) == 1


def test_e19_a_failure_that_nobody_read_is_raised_at_the_end() -> None:
    def program() -> Any:
        fail.party("alice").remote()

    errors = run(program).errors
    assert type(errors["alice"]) is fed.TaskError
    assert {type(errors[party]) for party in ("bob", "carol", "dave")} == {fed.RemoteError}


def test_e19_also_when_failures_are_isolated() -> None:
    def program() -> Any:
        fail.party("alice").remote()

    errors = run(program, on_error="isolate").errors
    assert set(errors) == {"alice"}
    assert isinstance(errors["alice"], fed.TaskError)


def test_e20_the_original_first_then_a_named_refusal() -> None:
    def program() -> Any:
        with pytest.raises(fed.TaskError):
            fed.get(fail.party("alice").remote())
        refusals = []
        calls: list[Callable[[], Any]] = [lambda: fed.get([]), lambda: identity.party("alice").remote(1)]
        for call in calls:
            with pytest.raises(fed.JobAborted) as caught:
                call()
            refusals.append((caught.value.root.type_name, "call fed.shutdown()" in str(caught.value)))
        return refusals

    results = run(program)
    assert dict(results) == {party: [("ValueError", True)] * 2 for party in PARTIES}


def test_e26_a_refused_call_takes_no_sequence_number() -> None:
    def program() -> Any:
        with pytest.raises(fed.TaskError):
            fed.get(fail.party("alice").remote())
        before = fed.statistics().calls
        with pytest.raises(fed.JobAborted):
            identity.party("alice").remote(1)
        return fed.statistics().calls - before

    assert dict(run(program)) == dict.fromkeys(PARTIES, 0)


def test_e27_an_abort_ends_what_is_in_flight() -> None:
    gate = threading.Event()

    @fed.remote
    def never() -> None:
        gate.wait()

    def program() -> Any:
        waiting = identity.party("bob").remote(never.party("carol").remote())
        try:
            return fed.get([waiting, fail.party("alice").remote()])
        finally:
            gate.set()

    errors = run(program).errors
    assert set(errors) == set(PARTIES)


def test_e30_a_failed_job_leaves_nothing_to_the_next_one() -> None:
    def main() -> Any:
        with pytest.raises(fed.TaskError), fed.job():
            chain()
        with fed.job():
            return fed.get(identity.party("bob").remote(5)), fed.errors()

    results = simulate(main, parties=PARTIES, timeout_s=20)
    assert dict(results) == dict.fromkeys(PARTIES, (5, ()))


def test_e32_causes_and_hops_are_named() -> None:
    def program() -> Any:
        return fed.get(
            identity.party("carol").remote(identity.party("bob").remote(fail_from_cause.party("alice").remote()))
        )

    reports: dict[str, fed.FailureReport] = {}
    run(program, failure_handler=lambda report: reports.setdefault(report.party, report))
    assert reports["alice"].root.cause_types == ("KeyError",)
    assert reports["carol"].root.cause_types == ("KeyError",)


def test_e33_a_party_that_cannot_start_is_heard() -> None:
    names = iter(["one", "two", "two", "two"])
    lock = threading.Lock()

    def differing() -> Any:
        with lock:
            name = next(names)
        with fed.job(job=name):
            return None

    errors = simulate(differing, parties=PARTIES, check=False, timeout_s=20).errors
    assert set(errors) == set(PARTIES)
    for error in errors.values():
        assert isinstance(error, fed.InitError)
        assert any(why in str(error) for why in ("different job names", "its own start failed", "it left before"))
    assert any("'one'" in str(error) and "'two'" in str(error) for error in errors.values())


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
