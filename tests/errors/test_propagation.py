"""E25 to E33: failures that travel far, come together, or happen where errors are forgotten."""

from __future__ import annotations

import collections
import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest

import fed
from fed.cleanup import run_steps
from fed.core.failure import Failure
from fed.testing import simulate
from fed.transport import wire
from tests.errors.programs import (
    FIVE,
    PARTIES,
    Cell,
    chain,
    fail,
    fail_from_cause,
    here,
    identity,
    pass_through,
    play,
    roots,
    run,
)


def test_e25_a_failure_is_a_small_record_whatever_the_exception_held() -> None:
    class Huge(Exception):
        def __str__(self) -> str:
            return "\ud800" + "x" * 1_000_000

    Huge.__name__ = "Ü" * 10_000

    @fed.remote
    def burst() -> None:
        raise Huge from Huge()

    played = run(lambda: fed.get(burst.party("alice").remote()), expose_errors="trace")
    for party, error in played.errors.items():
        assert isinstance(error, fed.TaskError)
        assert error.failure.truncated, party
        assert len(wire.encode_failure(error.failure)) <= wire.MAX_FAILURE_BYTES


def test_e25_recording_a_failure_calls_no_code_of_the_exception() -> None:
    called: list[str] = []

    class Loud(Exception):
        def __repr__(self) -> str:
            called.append("repr")
            raise RuntimeError

        def __eq__(self, other: object) -> bool:
            called.append("eq")
            raise RuntimeError

        def __hash__(self) -> int:
            called.append("hash")
            raise RuntimeError

    @fed.remote
    def raise_loud() -> None:
        raise Loud

    errors = run(lambda: fed.get(raise_loud.party("alice").remote())).errors
    assert {error.type_name for error in errors.values() if isinstance(error, fed.TaskError)} == {"Loud"}
    assert called == []


@pytest.mark.parametrize("call", ["task", "get", "actor", "kill"])
def test_e26_a_refused_call_takes_no_number(call: str) -> None:
    def program() -> Any:
        cell = Cell.party("bob").remote()
        with pytest.raises(fed.TaskError):
            fed.get(fail.party("alice").remote())
        before = fed.statistics().calls
        calls: dict[str, Callable[[], Any]] = {
            "task": lambda: identity.party("alice").remote(1),
            "get": lambda: fed.get([]),
            "actor": lambda: Cell.party("alice").remote(),
            "kill": lambda: fed.kill(cell),
        }
        with pytest.raises(fed.JobAborted):
            calls[call]()
        return fed.statistics().calls - before

    assert dict(run(program)) == dict.fromkeys(PARTIES, 0)


def test_e27_in_flight_work_reaches_zero_before_the_job_is_left() -> None:
    gate = threading.Event()

    @fed.remote
    def never() -> None:
        pass_through(gate)

    def program() -> Any:
        waiting = [identity.party("bob").remote(never.party("carol").remote()) for _ in range(20)]
        try:
            return fed.get([waiting, fail.party("alice").remote()])
        finally:
            gate.set()

    played = play(program)
    assert set(played.errors) == set(PARTIES)
    for job in played.jobs.values():
        # Nobody waits for an object any more: the receives were failed, and not merely forgotten.
        assert job._running().receiving == 0


def test_e28_every_step_runs_whatever_an_earlier_one_raised_and_what_they_raised_is_kept() -> None:
    done: list[int] = []

    def step(number: int) -> None:
        done.append(number)
        if number == 1:
            raise ValueError(number)
        if number == 3:
            raise KeyboardInterrupt

    hurried: list[bool] = []
    steps: collections.deque[tuple[str, Callable[[], object]]] = collections.deque(
        (str(number), functools.partial(step, number)) for number in range(5)
    )
    raised = run_steps(steps, lambda: hurried.append(True))
    assert done == [0, 1, 2, 3, 4]
    assert [type(one) for one in raised] == [ValueError, KeyboardInterrupt]
    assert hurried == [True]
    assert not steps


@pytest.mark.parametrize(("parties", "failing"), [(PARTIES, 2), (FIVE, 5)])
def test_e29_failures_at_the_same_moment_have_one_root_everywhere_and_are_all_kept(
    parties: list[str], failing: int
) -> None:
    for _ in range(40):
        barrier = threading.Barrier(failing)
        reports: dict[str, fed.FailureReport] = {}

        @fed.remote
        def together(barrier: threading.Barrier = barrier) -> None:
            barrier.wait(20)
            raise ValueError

        def program(together: Any = together) -> None:
            for party in parties[:failing]:
                together.party(party).remote()

        def note(report: fed.FailureReport, reports: dict[str, fed.FailureReport] = reports) -> None:
            reports[report.party] = report

        played = play(program, parties=parties, failure_handler=note)
        assert set(reports) == set(parties)
        assert len({report.root.error_id for report in reports.values()}) == 1
        assert roots(played.errors) == {report.root.error_id for report in reports.values()}
        # What latched a party was told to all others, and of those the root is the one of the earliest call.
        told = set.intersection(*({one.error_id for one in report.failures} for report in reports.values()))
        for report in reports.values():
            assert report.root.sequence == min(one.sequence for one in report.failures if one.error_id in told)


def test_e30_a_failed_job_leaves_nothing_to_the_next_one() -> None:
    handled: list[str] = []

    def main() -> Any:
        with pytest.raises(fed.TaskError), fed.job(failure_handler=lambda report: handled.append(report.party)):
            chain()
        with fed.job(failure_handler=lambda report: handled.append("again")):
            return fed.get(identity.party("bob").remote(5)), fed.errors()

    results = simulate(main, parties=PARTIES, timeout_s=20)
    assert dict(results) == dict.fromkeys(PARTIES, (5, ()))
    assert sorted(handled) == PARTIES


def test_e31_a_call_of_a_killed_actor_says_that_it_was_killed_and_where() -> None:
    def program() -> Any:
        cell = Cell.party("bob").remote(1)
        fed.get(cell.add.remote(1))
        fed.kill(cell)
        return fed.get(cell.add.remote(1))

    for error in run(program).errors.values():
        assert isinstance(error, fed.TaskError)
        assert (error.kind, error.party, error.task) == (fed.Kind.ACTOR_DIED, "bob", "#4 Cell.add")


def test_e31_a_refused_greeting_says_what_differs_on_both_sides() -> None:
    jobs = dict(zip(["alice", "bob"], ["one", "two"], strict=True))

    def main() -> None:
        with fed.job(job=jobs[here()]):
            raise AssertionError("the job began")

    errors = simulate(main, parties=["alice", "bob"], check=False, timeout_s=20).errors
    for error in errors.values():
        assert isinstance(error, fed.InitError)
        assert "different job names: party" in str(error)
        assert "'one'" in str(error)
        assert "'two'" in str(error)


def test_e32_causes_and_hops_are_named() -> None:
    def program() -> Any:
        first = fail_from_cause.party("alice").remote()
        relayed = identity.party("carol").remote(identity.party("bob").remote(first))
        with pytest.raises(fed.TaskError) as caught:
            fed.get(relayed)
        failure: Failure = caught.value.failure
        return failure.cause_types, failure.hops, failure.src_party

    results = run(program, on_error="isolate").results
    assert results["dave"] == (("KeyError",), ("bob", "carol"), "alice")


def test_e33_a_party_whose_start_fails_is_heard_at_once() -> None:
    def main() -> Any:
        own: dict[str, Any] = {"exceptions": [ValueError]} if here() == "carol" else {}
        with fed.job(init_timeout_s=300, **own):
            raise AssertionError("the job began")

    errors = simulate(main, parties=PARTIES, check=False, timeout_s=60).errors
    assert set(errors) == set(PARTIES)
    for error in errors.values():
        assert isinstance(error, fed.InitError)
    assert all("carol" in str(error) for error in errors.values())
