"""E18 to E22: what a failure does to the job that it ends, and to no other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import fed
from fed.core.failure import Kind
from fed.core.notice import Notice, NoticeKind
from fed.core.plan import Plan
from fed.engine.arrivals import Arrivals
from fed.engine.dataflow import Submitter
from fed.engine.dialogue import Dialogue
from fed.engine.queue_thread import QueueThread
from fed.engine.results import Results
from fed.engine.shell import Shell
from fed.proxy.receiver import Receiver
from fed.runtime.local import LocalRuntime
from fed.testing import simulate
from tests.support.failing import PARTIES, Cell, FailsLate, fail, identity, pass_through, play, returned, roots, run
from tests.support.wiretap import Wiretap

THREE = PARTIES[:3]


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Wiretap:
    return Wiretap().attach(monkeypatch)


class Once:
    """Stands before a method and raises instead of it, once, in one party, when it is armed.

    Args:
        owner: The class.
        name: Of the method.
        patch: Puts it there.
        chosen: Whether a call is one to be spoilt, from its arguments.
    """

    def __init__(self, owner: type, name: str, patch: pytest.MonkeyPatch, chosen: Callable[..., bool]) -> None:
        self.armed = threading.Event()
        self.struck = threading.Event()
        self._lock = threading.Lock()
        original = getattr(owner, name)

        def spoilt(*arguments: Any, **more: Any) -> Any:
            with self._lock:
                strikes = self.armed.is_set() and not self.struck.is_set() and chosen(*arguments)
                if strikes:
                    self.struck.set()
            if strikes:
                raise OSError("spoilt")
            return original(*arguments, **more)

        patch.setattr(owner, name, spoilt)


def work(once: Once, everyone: threading.Barrier, reported: threading.Event) -> Any:
    """Some of everything, from when all have joined; what has been spoilt is reported before anybody leaves."""
    everyone.wait(10)
    once.armed.set()
    cell = Cell.party("alice").remote(0)
    for number in range(20):
        one = identity.party("bob").remote(cell.add.remote(identity.party("carol").remote(number)))
        fed.get(identity.party("alice").remote(one))
    large = identity.party("alice").remote(b"x" * 100_000)
    fed.get(identity.party("bob").remote(identity.party("carol").remote(identity.party("alice").remote(large))))
    # One that is there before a party is known to need it.
    there = identity.party("alice").remote(1)
    fed.get(identity.party("alice").remote(there))
    fed.get(identity.party("bob").remote(there))
    with pytest.raises(fed.TaskError):
        fed.get(fail.party("alice").remote())
    pass_through(reported)
    return fed.get(one)


# E18 never throw on a thread that is not the user's


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (Results, "push"),
        (Arrivals, "arrived"),
        (Arrivals, "_took"),
        (Dialogue, "hear"),
        (Shell, "_tell_progress"),
        (Shell, "redacted"),
    ],
)
def test_e18_what_is_raised_on_a_thread_of_the_jobs_is_reported_and_leaves_nobody_waiting(
    owner: type, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_alice(one: Any, *arguments: Any) -> bool:
        notices = [argument for argument in arguments if isinstance(argument, Notice)]
        if notices:
            # A goodbye that is lost is no thread's matter: everybody has come to his end.
            return one.party == "alice" and notices[0].kind is NoticeKind.FAILURE
        return bool((one._state if isinstance(one, (Results, Arrivals)) else one).party == "alice")

    once = Once(owner, method, monkeypatch, of_alice)
    everyone, reported = threading.Barrier(3), threading.Event()
    played = play(
        lambda: work(once, everyone, reported),
        parties=THREE,
        skip_waiting=True,
        on_error="isolate",
        failure_handler=lambda report: reported.set(),
    )
    assert once.struck.is_set()
    assert set(played.errors) == set(THREE)
    assert len(roots(played.errors)) == 1
    for error in played.errors.values():
        assert isinstance(error, fed.FailureError)
        assert (error.failure.kind, error.failure.type_name) == (Kind.INTERNAL, "OSError")


@pytest.mark.parametrize(("owner", "method"), [(Submitter, "_ended"), (Results, "_pushed")])
def test_e18_what_is_raised_in_a_callback_of_the_runtimes_is_reported_and_leaves_nobody_waiting(
    owner: type, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = Once(owner, method, monkeypatch, lambda one, *_: one._state.party == "alice")
    everyone, reported = threading.Barrier(3), threading.Event()
    played = play(
        lambda: work(once, everyone, reported),
        parties=THREE,
        skip_waiting=True,
        on_error="isolate",
        failure_handler=lambda report: reported.set(),
    )
    assert once.struck.is_set()
    assert set(played.errors) == set(THREE)
    for error in played.errors.values():
        assert isinstance(error, fed.FailureError)
        assert (error.failure.kind, error.failure.type_name) == (Kind.INTERNAL, "OSError")


@pytest.mark.parametrize(
    ("method", "transport"), [("on_notice", "memory"), ("on_notice", "grpc"), ("on_parcels", "grpc")]
)
def test_e18_what_is_raised_in_a_proxys_handler_leaves_nobody_waiting(
    method: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = Once(Receiver, method, monkeypatch, lambda receiver, *_: receiver._hello.party == "alice")
    everyone, spoilt = threading.Barrier(3), once.struck
    played = play(lambda: work(once, everyone, spoilt), parties=THREE, on_error="isolate", transport=transport)
    # The frame was sent again.
    assert not played.errors


def test_e18_a_queue_thread_goes_on_after_its_own_report_has_raised() -> None:
    handled: list[int] = []
    reported = threading.Event()

    def handle(items: list[int]) -> None:
        handled.extend(items)
        raise OSError

    def failed(error: BaseException) -> None:
        reported.set()
        raise RuntimeError

    thread: QueueThread[int] = QueueThread("fed-test-queue", handle, failed)
    for number in (1, 2):
        reported.clear()
        thread.post(number)
        assert reported.wait(5)
    assert thread.stop(5)
    assert handled == [1, 2]


# E19 deferred to the next entry


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


@pytest.mark.parametrize("then", ["get", "remote", "kill", "reset", "leave"])
def test_e19_a_failure_that_came_while_the_driver_computed_is_raised_by_its_next_fed_call(then: str) -> None:
    latched = {party: threading.Event() for party in THREE}
    computed: list[str] = []
    late = FailsLate(3)

    def program() -> Any:
        cell = Cell.party("bob").remote()
        late.task.party("alice").remote()
        late.release()
        # Nothing interrupts a computation that is not the main thread's.
        pass_through(latched[fed.party()])
        computed.append(fed.party())
        if then == "get":
            fed.get([])
        elif then == "remote":
            identity.party("bob").remote(1)
        elif then == "kill":
            fed.kill(cell)
        elif then == "reset":
            fed.reset()

    played = play(program, parties=THREE, failure_handler=lambda report: latched[report.party].set())
    assert sorted(computed) == THREE
    assert type(played.errors["alice"]) is fed.TaskError
    assert {type(played.errors[party]) for party in ("bob", "carol")} == {fed.RemoteError}


def test_e19_what_was_read_is_not_raised_again_because_it_came_back_from_another_party(tap: Wiretap) -> None:
    """Alice reads her own failure; later she is told of it again, by bob, as an argument that will not come."""
    read = threading.Event()

    def program() -> Any:
        bad = fail.party("alice").remote()
        with pytest.raises(fed.TaskError):
            fed.get(bad)
        read.set()
        derived = identity.party("bob").remote(bad)
        identity.party("alice").remote([derived])
        if fed.party() == "alice":
            assert tap.wait_for_tell(NoticeKind.FAILURE, source="bob", target="alice")

    assert run(program, parties=THREE, on_error="isolate").errors == {}


# E20 original first, then a named refusal


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


def test_e20_the_root_is_raised_first_also_where_another_failure_was_seen_before() -> None:
    """Alice fails alone, later bob; whoever reads alice's object is told of the root, which is what ended the job."""
    latched = {party: threading.Event() for party in THREE}
    late = FailsLate(3)

    def program() -> Any:
        bad = [late.task.party("bob").remote(), late.task.party("alice").remote()]
        late.release()
        pass_through(latched[fed.party()])
        raised = []
        for one in bad:
            with pytest.raises(fed.FailureError) as caught:
                fed.get(one)
            raised.append(caught.value)
        assert isinstance(raised[0], fed.TaskError)
        assert isinstance(raised[1], fed.JobAborted)
        return raised[0].error_id, raised[1].root.error_id, "fed.reset()" in str(raised[1])

    outcome = run(program, parties=THREE, failure_handler=lambda report: latched[report.party].set())
    assert len({ids for first, second, _ in outcome.values() for ids in (first, second)}) == 1
    assert all(told for _, _, told in outcome.values())


# E21 nothing runs on a latched job


class Counted:
    """Counts what the runtimes are asked to run."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.submitted: list[str] = []
        for name in ("submit", "create", "call", "kill"):
            patch.setattr(LocalRuntime, name, self._counted(getattr(LocalRuntime, name), name))

    def _counted(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def counted(runtime: LocalRuntime, *arguments: Any) -> Any:
            self.submitted.append(f"{runtime._party} {name}")
            return original(runtime, *arguments)

        return counted


def everything(cell: Any) -> list[Callable[[], Any]]:
    """Every fed call that would run something, for every party."""
    calls: list[Callable[[], Any]] = [lambda: cell.add.remote(1), lambda: fed.kill(cell)]
    for party in THREE:
        calls.append(lambda party=party: identity.party(party).remote(1))  # type: ignore[misc]
        calls.append(lambda party=party: Cell.party(party).remote())  # type: ignore[misc]
    return calls


def test_e21_e26_a_latched_job_submits_nothing_and_numbers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    latched = {party: threading.Event() for party in THREE}
    before: list[int] = []
    everyone = threading.Barrier(3, action=lambda: before.append(len(counted.submitted)))
    late = FailsLate(3)

    def program() -> Any:
        cell = Cell.party("bob").remote()
        late.task.party("alice").remote()
        late.release()
        pass_through(latched[fed.party()])
        everyone.wait(10)
        calls = fed.statistics().calls
        for call in everything(cell):
            with pytest.raises(fed.FailureError):
                call()
        return fed.statistics().calls - calls

    outcome = run(program, parties=THREE, failure_handler=lambda report: latched[report.party].set())
    assert returned(outcome) == dict.fromkeys(THREE, 0)
    assert len(counted.submitted) == before[0]


@pytest.mark.parametrize("place", range(8))
def test_e21_a_call_that_the_latch_overtakes_submits_nothing(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job latches when the call has begun: it was found legal, and has its number."""
    latched = {party: threading.Event() for party in THREE}
    armed = threading.Event()
    before: list[int] = []

    def arm() -> None:
        before.append(len(counted.submitted))
        armed.set()

    everyone = threading.Barrier(3, action=arm)
    fails = threading.Event()
    numbered = threading.Barrier(3, action=fails.set)
    original = Plan.task

    def task(plan: Plan, *arguments: Any) -> Any:
        step = original(plan, *arguments)
        if armed.is_set():
            numbered.wait(10)
            pass_through(latched[plan._party])
        return step

    monkeypatch.setattr(Plan, "task", task)
    counted = Counted(monkeypatch)

    @fed.remote
    def fail_late() -> None:
        pass_through(fails)
        raise ValueError

    def program() -> Any:
        cell = Cell.party("bob").remote()
        fail_late.party("alice").remote()
        everyone.wait(10)
        everything(cell)[place]()

    played = play(program, parties=THREE, failure_handler=lambda report: latched[report.party].set())
    assert len(roots(played.errors)) == 1
    assert set(played.errors) == set(THREE)
    assert counted.submitted[before[0] :] == []


# E22 isolation


def test_e22_of_two_jobs_side_by_side_one_aborts_and_the_other_finishes() -> None:
    aborted = threading.Event()
    begun = threading.Event()
    outcomes: dict[str, Any] = {}

    def good() -> Any:
        with fed.job(job="good"):
            one = identity.party("alice").remote(1)
            fed.get(one)
            begun.set()
            pass_through(aborted)
            # Its objects, its actors and its connections are all there.
            return fed.get(Cell.party("carol").remote(1).add.remote(identity.party("bob").remote(one))), fed.errors()

    def bad() -> Any:
        with fed.job(job="bad"):
            pass_through(begun)
            return fed.get(identity.party("bob").remote(fail.party("alice").remote()))

    def simulation(name: str, program: Callable[[], Any]) -> None:
        outcomes[name] = simulate(program, parties=THREE, check=False, timeout_s=20)

    threads = [threading.Thread(target=simulation, args=one) for one in (("good", good), ("bad", bad))]
    for thread in threads:
        thread.start()
    threads[1].join()
    aborted.set()
    threads[0].join()
    assert set(outcomes["bad"].errors) == set(THREE)
    assert dict(outcomes["good"]) == dict.fromkeys(THREE, (2, ()))
