"""E01 and E03 to E10: an error reaches everyone, out of band, and once."""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import fed
from fed.context import current_job
from fed.core.notice import NoticeKind
from fed.engine import leaving
from fed.engine.cleanup import run_steps
from fed.engine.data_sender import DataSender
from fed.engine.error_queue import ErrorQueue
from tests.support import alone
from tests.support.failing import (
    CANARY,
    PARTIES,
    Cell,
    fail,
    identity,
    pass_through,
    play,
    returned,
    run,
)
from tests.support.wiretap import Wiretap


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Wiretap:
    return Wiretap().attach(monkeypatch)


# E01 the consumer is told


def test_e01_the_consumer_is_told_instead_of_waiting() -> None:
    def program() -> Any:
        return fed.get(identity.party("bob").remote(fail.party("alice").remote()))

    errors = run(program).errors
    assert set(errors) == set(PARTIES)
    assert isinstance(errors["bob"], fed.RemoteError)
    assert (errors["bob"].type_name, errors["bob"].party, errors["bob"].task) == ("ValueError", "alice", "#0 fail")


def as_argument(bad: Any) -> Any:
    return identity.party("bob").remote(bad)


def inside_a_container(bad: Any) -> Any:
    return identity.party("bob").remote({"list": [bad]})


def of_a_method(bad: Any) -> Any:
    return Cell.party("bob").remote(1).add.remote(bad)


def of_a_constructor(bad: Any) -> Any:
    return Cell.party("bob").remote(bad).add.remote(1)


def as_it_is(bad: Any) -> Any:
    return bad


@pytest.mark.parametrize("consume", [as_argument, inside_a_container, of_a_method, of_a_constructor, as_it_is])
def test_e01_every_kind_of_consumer_is_told_in_place_of_the_object(consume: Callable[[Any], Any], tap: Wiretap) -> None:
    """Isolated, so that no latch comes to the help of whoever waits."""

    def program() -> Any:
        with pytest.raises(fed.TaskError) as caught:
            fed.get(consume(fail.party("alice").remote()))
        return caught.value.type_name, caught.value.party, caught.value.task

    outcome = run(program, on_error="isolate", parties=PARTIES[:3])
    # At its source a failure that nobody read is raised at the end; here a read of the consumer is one of it too.
    assert {outcome.results.get(party) for party in ("bob", "carol")} == {("ValueError", "alice", "#0 fail")}
    told = [notice for source, target, notice in tap.told if (source, target) == ("alice", "bob") and notice.objects]
    assert [[str(one) for one in notice.objects] for notice in told] == [["#0"]]
    assert tap.count(NoticeKind.LATCHED) == 0


# E03 out of band


@pytest.mark.parametrize("on_error", ["abort", "isolate"])
@pytest.mark.parametrize("size", [10, 1_000_000])
def test_e03_an_error_arrives_while_data_to_the_same_peer_is_stalled(size: int, on_error: str, tap: Wiretap) -> None:
    stalled: dict[str, int] = {}

    @fed.remote
    def make() -> bytes:
        return b"x" * size

    @fed.remote
    def fail_behind_it() -> None:
        pass_through(tap.network.holds)
        raise ValueError

    everyone = threading.Barrier(3)

    def program() -> Any:
        held = identity.party("bob").remote(make.party("alice").remote())
        everyone.wait(10)
        with pytest.raises(fed.TaskError):
            fed.get(identity.party("bob").remote(fail_behind_it.party("alice").remote()))
        stalled[fed.party()] = tap.network.held("alice", "bob")
        everyone.wait(10)
        tap.network.release("alice", "bob")
        if on_error == "isolate":
            fed.get(held)

    tap.network.hold("alice", "bob")
    outcome = run(program, parties=PARTIES[:3], on_error=on_error)
    assert outcome.errors == {}
    # The stall is still there when each of them has been told.
    assert stalled == dict.fromkeys(PARTIES[:3], 1)


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

    errors = run(program).errors
    assert {type(error) for error in errors.values()} == {fed.TaskError, fed.RemoteError}


# E04 no head-of-line blocking


class Private:
    pass


@fed.remote
def make_unsendable() -> Any:
    return Private()


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


def test_e04_what_cannot_be_sent_is_told_while_an_earlier_object_still_waits_for_its_task() -> None:
    """As above, with a failure that only the data-sending thread finds."""
    gate = threading.Event()
    called, everyone = threading.Barrier(3), threading.Barrier(3, action=gate.set)

    @fed.remote
    def slow() -> int:
        pass_through(gate)
        return 1

    def program() -> Any:
        identity.party("bob").remote(slow.party("alice").remote())
        called.wait(10)
        with pytest.raises(fed.DeliveryError) as caught:
            fed.get(identity.party("bob").remote(make_unsendable.party("alice").remote()))
        everyone.wait(10)
        return caught.value.failure.type_name

    assert returned(run(program, parties=PARTIES[:3])) == dict.fromkeys(PARTIES[:3], "Private")


# E05 everyone is told


def test_e05_everyone_is_told_also_who_waits_for_nothing() -> None:
    def program() -> None:
        identity.party("carol").remote(identity.party("bob").remote(fail.party("alice").remote(1)))

    began = time.monotonic()
    errors = run(program).errors
    assert time.monotonic() - began < 12
    assert set(errors) == set(PARTIES)
    assert type(errors["alice"]) is fed.TaskError
    assert {type(errors[party]) for party in ("bob", "carol", "dave")} == {fed.RemoteError}
    assert len({error.error_id for error in errors.values() if isinstance(error, fed.TaskError)}) == 1


def test_e05_all_latch_while_their_drivers_are_elsewhere(tap: Wiretap) -> None:
    """Nobody waits for anything: no driver is in a fed call until every party has latched."""
    handled = threading.Barrier(len(PARTIES) + 1)
    gates = {party: threading.Event() for party in PARTIES}

    def handler(report: fed.FailureReport) -> None:
        handled.wait(10)

    def program() -> Any:
        identity.party("carol").remote(identity.party("bob").remote(fail.party("alice").remote(1)))
        pass_through(gates[fed.party()])
        return [current_job().shell.life.latched, [failure.type_name for failure in fed.errors()]]

    def release() -> None:
        handled.wait(10)
        for gate in gates.values():
            gate.set()

    releasing = threading.Thread(target=release)
    releasing.start()
    outcome = play(program, failure_handler=handler)
    releasing.join()
    assert set(outcome.errors) == set(PARTIES)
    assert tap.count(NoticeKind.LATCHED, source="alice", target="dave") == 1


# E06 the handler runs exactly once


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


def test_e06_once_also_where_ctrl_c_comes_at_any_moment() -> None:
    ended = alone.alone(alone.interrupted_at_random, 20, 4711)
    assert ended.code == 0, ended.output
    counts, raised = ended.told
    assert set(counts) == {1}, ended.output
    assert "KeyboardInterrupt" in raised


# E07 no deadlock through a signal


def test_e07_a_real_sigint_ends_a_get_and_the_handler_runs_on_the_cleanup_thread() -> None:
    ended = alone.alone(alone.interrupted_in_get, 3)
    assert ended.code == 0, ended.output
    assert len(ended.told) == 3
    for raised, bob, handled, free in ended.told:
        assert raised == "KeyboardInterrupt"
        assert bob == "party 'alice' left before the end: it was interrupted"
        assert handled == [["alice", False], ["bob", False]]
        assert free


def test_e07_a_sigint_that_comes_while_the_lock_is_held_waits_for_the_end_of_the_call() -> None:
    ended = alone.alone(alone.interrupted_with_the_lock_held)
    assert ended.code == 0, ended.output
    names = ["remote", "create", "method", "get", "kill", "reset", "leave"]
    assert ended.told == [[name, "KeyboardInterrupt", ["alice", "bob"], True] for name in names]


# E08 a queue cannot stop itself


@pytest.mark.parametrize(
    ("owner", "handle", "queue"),
    [(DataSender, "_handle_items", lambda queue: queue), (ErrorQueue, "_handle_items", lambda queue: queue)],
    ids=["data", "errors"],
)
def test_e08_a_queue_of_the_job_that_stops_itself_is_refused_and_ends_the_job(
    owner: type, handle: str, queue: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not logged and passed over: the job fails with what was raised."""
    refused: list[str] = []
    joined, stopping = threading.Event(), threading.Event()
    everyone = threading.Barrier(3, action=joined.set)
    original = getattr(owner, handle)

    def stop_itself(of: Any, items: Any) -> None:
        original(of, items)
        if "alice" in threading.current_thread().name and joined.is_set() and not refused:
            try:
                queue(of).stop(1)
            except RuntimeError as error:
                refused.append(str(error))
                stopping.set()
                raise

    monkeypatch.setattr(owner, handle, stop_itself)

    def program() -> Any:
        everyone.wait(10)
        for number in range(50):
            fed.get(identity.party("alice").remote(number))
        # Progress may be the first that the error queue has to tell. A failure is told by the other queue.
        assert stopping.wait(10)
        return fed.get(fail.party("alice").remote())

    errors = run(program, parties=PARTIES[:3]).errors
    assert len(refused) == 1
    assert "cannot stop itself" in refused[0]
    assert set(errors) == set(PARTIES[:3])
    for error in errors.values():
        assert isinstance(error, fed.FailureError)
        assert error.failure.kind is fed.Kind.INTERNAL
        assert error.failure.type_name == "RuntimeError"


# E09 shutdown is one path


def test_e09_intended_and_unintended_shutdown_take_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, list[str]] = {}

    def run_noted(steps: Any, interrupted: Any) -> Any:
        noted = taken.setdefault(threading.current_thread().name.removeprefix("fed-"), [])
        for place, (name, step) in enumerate(list(steps)):

            def step_noted(name: str = name, step: Callable[[], object] = step) -> None:
                noted.append(name)
                step()

            steps[place] = (name, step_noted)
        return run_steps(steps, interrupted)

    monkeypatch.setattr(leaving, "run_steps", run_noted)

    def died() -> None:
        if fed.party() == "alice":
            raise OSError
        fed.get(identity.party("alice").remote(1))

    programs: list[Callable[[], Any]] = [
        lambda: fed.get(identity.party("bob").remote(1)),
        lambda: fed.shutdown(),
        lambda: fed.get(fail.party("alice").remote()),
        lambda: fail.party("alice").remote(),
        died,
        lambda: sys.exit(1),
        lambda: sys.exit(0),
    ]
    orders = set()
    for program in programs:
        taken.clear()
        run(program, parties=PARTIES[:3])
        assert set(taken) == set(PARTIES[:3])
        orders |= {tuple(names) for names in taken.values()}
    assert len(orders) == 1
    order = list(orders.pop())
    steps = ["drain", "say goodbye", "end the data-sending thread", "end the error-queue thread", "close the proxies"]
    assert [name for name in order if name in steps] == steps
    assert len(order) == len(set(order))


def test_e09_there_is_one_public_way_out() -> None:
    """What leaves because of a failure is private: no name of the package does it but `fed.shutdown`."""
    functions = {name for name in fed.__all__ if inspect.isfunction(getattr(fed, name))}
    assert functions == {
        "codec", "errors", "get", "init", "job", "kill",
        "parties", "party", "remote", "reset", "shutdown", "statistics",
    }  # fmt: skip


# E10 a driver outside fed is woken


def test_e10_a_driver_that_sleeps_is_interrupted_with_the_error() -> None:
    ended = alone.alone(alone.asleep, True)
    assert ended.code == 0, ended.output
    raised, cause, text = ended.told
    assert raised == "JobInterrupted True True"
    assert cause == "RemoteError"
    assert text.startswith("the job was aborted: ValueError in task #0 fail_late at party 'bob'")


def test_e10_the_interruption_can_be_switched_off() -> None:
    ended = alone.alone(alone.asleep, False)
    assert ended.code == 0, ended.output
    assert ended.told == [
        "woke by itself",
        "RemoteError False False",
        "NoneType",
        "ValueError in task #0 fail_late at party 'bob'",
    ]


def test_e10_a_failure_during_a_fed_call_that_does_not_tell_of_it_interrupts_the_driver_after_it() -> None:
    ended = alone.alone(alone.asleep_after_a_call)
    assert ended.told == ["called", "JobInterrupted"], ended.output


@pytest.mark.parametrize("returned", [True, False])
def test_e10_a_failure_before_init_returns_interrupts_the_driver_after_it(returned: bool) -> None:
    ended = alone.alone(alone.asleep_after_init, returned)
    assert ended.told == ["watched", "watched", "JobInterrupted", "left"], ended.output


def test_e10_a_driver_that_is_interrupted_on_its_way_out_leaves_all_the_same() -> None:
    ended = alone.alone(alone.interrupted_while_leaving)
    assert ended.told == ["JobInterrupted", "ValueError", "left"], ended.output


def test_e10_e23_an_interrupted_driver_goes_on_after_a_reset() -> None:
    ended = alone.alone(alone.goes_on, 3)
    assert ended.told == [[True, True, True, 7], 0], ended.output


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
        assert "party 'alice' called `sys.exit()`" in str(error)
