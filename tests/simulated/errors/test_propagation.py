"""E25 to E33: what a failure carries, what ends because of it, and which of several is the root."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import pytest

import fed
from fed.core.coordination import Coordinator
from fed.core.failure import Kind
from fed.core.notice import Notice, NoticeKind
from fed.engine.cleanup import run_steps
from fed.engine.leaving import Leaving
from fed.engine.queue_thread import QueueThread
from fed.engine.shell import Shell
from fed.runtime.local import LocalRuntime
from fed.testing import simulate
from fed.transport import wire
from tests.support.failing import (
    CANARY,
    FIVE,
    PARTIES,
    Cell,
    FailsLate,
    fail,
    fail_from_cause,
    here,
    identity,
    pass_through,
    play,
    returned,
    roots,
    run,
)
from tests.support.wiretap import Wiretap

THREE = PARTIES[:3]


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Wiretap:
    return Wiretap().attach(monkeypatch)


# E25 bounded carrier


class Hostile(Exception):
    """Tells, whoever asks it for anything, where it was asked."""

    asked: list[str] = []  # noqa: RUF012 - of the class on purpose

    def _ask(self) -> Any:
        self.asked.append(threading.current_thread().name)
        raise RuntimeError

    __repr__ = __str__ = _ask

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._ask()


def raise_hostile() -> None:
    raise Hostile


def raise_huge() -> None:
    raise ValueError("x" * 10_000_000)


def raise_surrogates() -> None:
    raise ValueError("\ud800" * 5000)


def raise_deep() -> None:
    error: Exception = ValueError()
    for number in range(100):
        outer = type(f"Error{number}" + "x" * 1000, (Exception,), {})()
        outer.__cause__ = error
        error = outer
    raise error


def raise_nameless() -> None:
    raise type("", (Exception,), {})


def raise_wide() -> None:
    raise type("\N{SNOWMAN}" * 10_000, (Exception,), {})("\N{SNOWMAN}" * 10_000)


@pytest.mark.parametrize(
    ("body", "truncated"),
    [
        (raise_hostile, False),
        (raise_huge, True),
        (raise_surrogates, True),
        (raise_deep, True),
        (raise_nameless, False),
        (raise_wide, True),
    ],
)
@pytest.mark.parametrize("exposed", ["type", "trace"])
@pytest.mark.parametrize("transport", ["memory", "grpc"])
def test_e25_whatever_was_raised_its_record_is_small_and_arrives(
    body: Callable[[], None], truncated: bool, exposed: str, transport: str, tap: Wiretap
) -> None:
    task = fed.remote(body)
    errors = run(
        lambda: fed.get(task.party("alice").remote()), parties=THREE, transport=transport, expose_errors=exposed
    ).errors
    assert set(errors) == set(THREE)
    assert len(roots(errors)) == 1
    failures = [notice.failure for _, _, notice in tap.told if notice.failure is not None]
    for failure in failures:
        assert len(wire.encode_failure(failure)) <= 4096
        for text in (failure.type_name, failure.message, failure.traceback, *failure.cause_types):
            text.encode()
    assert {failure.truncated for failure in failures if failure.src_party == "alice"} == {truncated}


def test_e25_of_a_hostile_exception_nothing_is_asked_outside_the_task_that_raised_it(tap: Wiretap) -> None:
    Hostile.asked.clear()
    task = fed.remote(raise_hostile)
    errors = run(lambda: fed.get(task.party("alice").remote()), parties=THREE).errors
    assert {error.type_name for error in errors.values() if isinstance(error, fed.TaskError)} == {"Hostile"}
    # Where it was raised its text may be asked for; the threads that tell of it ask for nothing.
    assert set(Hostile.asked) <= {"fed-alice-raise_hostile"}


# E26 fail fast on submit


def test_e26_a_refused_call_takes_no_sequence_number() -> None:
    def program() -> Any:
        with pytest.raises(fed.TaskError):
            fed.get(fail.party("alice").remote())
        before = fed.statistics().calls
        with pytest.raises(fed.JobAborted):
            identity.party("alice").remote(1)
        return fed.statistics().calls - before

    assert returned(run(program)) == dict.fromkeys(PARTIES, 0)


# E27 completion fires on failure


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


def test_e16_whose_driver_wakes_late_sees_the_failure_that_all_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others have left because of it by then, which ends the job."""
    wait = Shell.wait
    # Nobody leaves before all have what they wait for: a goodbye may come before a value that was sent earlier.
    everyone = threading.Barrier(3)

    def late(shell: Shell, *arguments: Any) -> bool:
        reached = wait(shell, *arguments)
        everyone.wait(20)
        if shell.party == "alice":
            with shell.lock:
                assert shell.changed.wait_for(lambda: shell.life.latched, 20)
        return reached

    monkeypatch.setattr(Shell, "wait", late)

    def program() -> Any:
        return fed.get([identity.party("bob").remote(1), fail.party("alice").remote()])

    errors = run(program, parties=THREE, on_error="isolate").errors
    assert {party: type(error) for party, error in errors.items()} == {
        "alice": fed.TaskError,
        "bob": fed.RemoteError,
        "carol": fed.RemoteError,
    }
    assert len({error.error_id for error in errors.values() if isinstance(error, fed.FailureError)}) == 1


def test_e27_what_waits_for_other_parties_is_let_go_and_never_runs() -> None:
    gate = threading.Event()
    late = FailsLate(3)
    ran: list[Any] = []

    @fed.remote
    def never() -> None:
        pass_through(gate)

    @fed.remote
    def use(value: Any) -> Any:
        ran.append(value)
        return value

    @fed.remote
    class User:
        def __init__(self, value: Any) -> None:
            ran.append(value)

        def use(self, value: Any) -> Any:
            ran.append(value)
            return value

    def program() -> Any:
        late.task.party("alice").remote()
        slow = never.party("carol").remote()
        used = use.party("bob").remote(slow)
        user = User.party("bob").remote(used)
        results = [used, use.party("alice").remote(used), user.use.remote(1), use.party("bob").remote(used)]
        late.release()
        return fed.get(results)

    def handler(report: fed.FailureReport) -> None:
        # What bob waits for comes when he knows that the job has failed.
        if report.party == "bob":
            gate.set()

    played = play(program, parties=THREE, failure_handler=handler)
    assert set(played.errors) == set(THREE)
    assert len(roots(played.errors)) == 1
    assert ran == []
    for job in played.jobs.values():
        epoch = job.shell.running()
        # In-flight work has reached zero.
        assert (epoch.running, epoch.expected) == (0, 0)
        assert len(epoch._submitter.table) == 0


def test_e27_when_the_job_is_over_nothing_holds_its_objects() -> None:
    kept: list[weakref.ref[Any]] = []
    gate = threading.Event()
    late = FailsLate(3)

    @fed.remote
    def never() -> None:
        pass_through(gate)

    def program() -> Any:
        bad = late.task.party("alice").remote()
        objects = [bad, identity.party("bob").remote(bad), never.party("carol").remote()]
        objects += [identity.party("alice").remote(objects[-1]), identity.party("carol").remote("x" * 100_000)]
        kept.extend(weakref.ref(one) for one in objects)
        late.release()
        fed.get(objects)

    played = play(program, parties=THREE, failure_handler=lambda report: gate.set())
    assert set(played.errors) == set(THREE)
    for error in played.errors.values():
        error.__traceback__ = None
    del played
    gc.collect()
    assert [one() for one in kept if one() is not None] == []


# E28 cleanup never throws midway


def test_e28_every_step_runs_and_what_they_raised_is_kept_in_order() -> None:
    ran: list[int] = []
    interruptions: list[None] = []

    def step(number: int, error: BaseException | None) -> Callable[[], None]:
        def run_it() -> None:
            ran.append(number)
            if error is not None:
                raise error

        return run_it

    errors: list[BaseException | None] = [OSError(), None, KeyboardInterrupt(), ValueError(), SystemExit(3), None]
    steps: deque[tuple[str, Callable[[], object]]] = deque(
        (str(number), step(number, error)) for number, error in enumerate(errors)
    )
    raised = run_steps(steps, lambda: interruptions.append(None))
    assert ran == list(range(len(errors)))
    assert raised == [error for error in errors if error is not None]
    assert len(interruptions) == 2
    assert not steps


STEPS: list[tuple[Any, str]] = [
    (Leaving, "_drain"),
    (Leaving, "_note_statistics"),
    (Leaving, "_say_goodbye"),
    (QueueThread, "stop"),
    (Leaving, "end_cleanup"),
    (Leaving, "_close_proxies"),
    (LocalRuntime, "close"),
    (Leaving, "_report_closed"),
]


@pytest.mark.parametrize(("owner", "method"), STEPS, ids=[method for _, method in STEPS])
@pytest.mark.parametrize("fails", [False, True])
def test_e28_a_step_of_the_shutdown_that_raises_keeps_no_other_from_running(
    owner: Any, method: str, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In alice each step raises when it has done its work. All threads end, which the fixture of all tests looks at."""
    original = getattr(owner, method)
    struck: list[str] = []

    def spoilt(one: Any, *arguments: Any) -> Any:
        done = original(one, *arguments)
        if threading.current_thread().name == "fed-alice":
            struck.append(method)
            raise OSError(f"in {method}")
        return done

    def program() -> Any:
        if fails:
            fed.get(fail.party("alice").remote())
        return fed.get(identity.party("bob").remote(1))

    monkeypatch.setattr(owner, method, spoilt)
    played = play(program, parties=THREE)
    assert struck
    error = played.errors["alice"]
    if fails:
        # What happened in the cleanup never replaces what the job failed of.
        assert type(error) is fed.TaskError
    else:
        assert str(error) == f"in {method}"
        assert set(played.errors) == {"alice"}
    assert played.jobs["alice"].shell.life.state.name == "CLOSED"


# E29 first error wins, the rest are kept


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("first", ["the earliest call", "the latest call"])
def test_e29_of_failures_that_nobody_has_heard_of_the_earliest_call_is_the_root_and_all_are_kept(
    count: int, first: str, tap: Wiretap
) -> None:
    """No word of a failure passes before each party has latched for its own."""
    parties = FIVE[:count]
    everyone = threading.Event()
    latched: set[str] = set()
    gates = {party: threading.Event() for party in parties}

    async def hold(source: str, target: str, notice: Notice) -> None:
        if notice.kind is NoticeKind.LATCHED:
            latched.add(source)
            if len(latched) == count:
                everyone.set()
            # They fail one after another, in this order.
            for gate in gates.values():
                if not gate.is_set():
                    gate.set()
                    break
            await asyncio.to_thread(pass_through, everyone)

    tap.before_tell = hold

    @fed.remote
    def fail_in_turn(party: str) -> None:
        pass_through(gates[party])
        raise ValueError

    def program() -> None:
        for party in parties if first == "the earliest call" else reversed(parties):
            fail_in_turn.party(party).remote(party)
        gates[parties[0]].set()
        fed.get(identity.party(parties[0]).remote(1))

    played = play(program, parties=parties)
    (root,) = roots(played.errors)
    assert len(played.errors) == count
    for job in played.jobs.values():
        assert sorted(failure.src_party for failure in job.failures) == parties
        book = job.shell.coordinator.book
        assert book.root is not None
        assert book.root.task == "#0 fail_in_turn"
        assert book.root.error_id == root


def test_e29_a_party_that_left_because_of_the_failure_is_not_the_root() -> None:
    """A derived failure never becomes root: bob dies of alice's error, and carol, who hears of both, names alice's."""
    late = FailsLate(3)

    def program() -> None:
        bad = late.task.party("alice").remote()
        late.release()
        if fed.party() == "bob":
            fed.get(bad)
        pass_through(told[fed.party()])
        fed.get([])

    told = {party: threading.Event() for party in THREE}
    played = play(program, parties=THREE, failure_handler=lambda report: told[report.party].set())
    assert len(roots(played.errors)) == 1
    assert isinstance(played.errors["carol"], fed.RemoteError)
    for job in played.jobs.values():
        assert {failure.kind for failure in job.failures} == {Kind.TASK}


# E31 the control path is no worse


def test_e31_the_call_of_a_killed_actor_says_what_became_of_it_in_every_party() -> None:
    def program() -> Any:
        cell = Cell.party("alice").remote(1)
        fed.get(cell.add.remote(1))
        fed.kill(cell)
        with pytest.raises(fed.TaskError) as caught:
            fed.get(identity.party("bob").remote(cell.add.remote(1)))
        error = caught.value
        return error.kind, error.type_name, error.party, error.task

    outcome = returned(run(program, parties=THREE, on_error="isolate"))
    assert set(outcome.values()) == {(Kind.ACTOR_DIED, "ActorDiedError", "alice", "#4 Cell.add")}


def test_e31_the_source_of_a_dead_actors_failure_has_its_cause() -> None:
    def program() -> Any:
        cell = Cell.party("alice").remote(1)
        fed.kill(cell)
        with pytest.raises(fed.TaskError) as caught:
            fed.get(cell.add.remote(1))
        return caught.value.__cause__

    outcome = returned(run(program, parties=THREE, on_error="isolate"))
    assert "was killed" in str(outcome["alice"])
    assert outcome["bob"] is None


def test_e31_a_cancelled_call_says_so() -> None:
    @fed.remote
    class Cancelled:
        async def method(self) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.Event().wait()

    def program() -> Any:
        with pytest.raises(fed.TaskError) as caught:
            fed.get(Cancelled.party("alice").remote().method.remote())
        return caught.value.kind, caught.value.type_name, "was cancelled" in str(caught.value)

    expected = (Kind.CANCELLED, "TaskCancelledError", True)
    assert returned(run(program, parties=THREE, on_error="isolate")) == dict.fromkeys(THREE, expected)


def test_e31_a_kill_that_the_runtime_refuses_is_told_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(runtime: LocalRuntime, actor: Any) -> None:
        raise OSError(CANARY)

    monkeypatch.setattr(LocalRuntime, "kill", refuse)

    def program() -> Any:
        cell = Cell.party("alice").remote(1)
        fed.get(cell.add.remote(1))
        fed.kill(cell)
        return fed.get(identity.party("alice").remote(1))

    errors = run(program, parties=THREE).errors
    assert isinstance(errors["alice"], OSError)
    for party in ("bob", "carol"):
        error = errors[party]
        assert isinstance(error, fed.PartyLeftError)
        assert error.failure.type_name == "OSError"


@pytest.mark.parametrize(
    ("differs", "words"),
    [
        ({"job": "another"}, "'another'"),
        ({"types": [Notice]}, "Notice"),
        ({"exceptions": [KeyError]}, "KeyError"),
    ],
)
def test_e31_a_greeting_that_is_refused_says_what_differs_in_every_party(differs: dict[str, Any], words: str) -> None:
    errors = run(lambda: None, parties=THREE, own={"alice": differs}, skip_waiting=True).errors
    assert set(errors) == set(THREE)
    assert {type(error) for error in errors.values()} == {fed.InitError}
    assert words in str(errors["alice"])
    # Of the other two one is refused by alice, or refuses her; the second may hear of the first one's end before.
    heard = [str(errors[party]) for party in ("bob", "carol")]
    assert any(words in text and "'alice'" in text for text in heard)
    assert all("'alice'" in text or "its own start failed" in text or "it left before" in text for text in heard)


# E32 layers are named


def test_e32_causes_and_hops_are_named() -> None:
    def program() -> Any:
        return fed.get(
            identity.party("carol").remote(identity.party("bob").remote(fail_from_cause.party("alice").remote()))
        )

    reports: dict[str, fed.FailureReport] = {}
    run(program, failure_handler=lambda report: reports.setdefault(report.party, report))
    assert reports["alice"].root.cause_types == ("KeyError",)
    assert reports["carol"].root.cause_types == ("KeyError",)


@fed.remote
class Nested:
    """Fails in a method that calls another, each of which says what it was doing."""

    def _innermost(self) -> None:
        raise KeyError(CANARY)

    def _inner(self) -> None:
        try:
            self._innermost()
        except KeyError as error:
            raise OSError(CANARY) from error

    def method(self) -> None:
        try:
            self._inner()
        except OSError as error:
            raise ValueError(CANARY) from error


def test_e32_an_actor_in_a_party_relayed_by_others_is_named_with_each_layer() -> None:
    def program() -> Any:
        bad = Nested.party("alice").remote().method.remote()
        relayed = identity.party("bob").remote(bad)
        again = identity.party("carol").remote([relayed])
        # Not of `bad`: alice would tell all of it herself, and what the source says is shown from then on.
        with pytest.raises(fed.TaskError) as caught:
            fed.get(again)
        error = caught.value
        return error.failure.hops, error.task, error.failure.cause_types, str(error)

    outcome = returned(run(program, parties=PARTIES, on_error="isolate"))
    assert {party: found[0] for party, found in outcome.items()} == {
        "alice": (),
        "bob": (),
        "carol": ("bob",),
        "dave": ("bob", "carol"),
    }
    assert {found[1:3] for found in outcome.values()} == {("#1 Nested.method", ("OSError", "KeyError"))}
    assert outcome["dave"][3] == "ValueError in task #1 Nested.method at party 'alice' (reported by carol via bob)"


# E33 a child that fails to initialise is heard


def test_e33_a_party_that_cannot_start_is_heard() -> None:
    names = iter(["one", "two", "two", "two"])
    lock = threading.Lock()

    def differing() -> Any:
        with lock:
            name = next(names)
        with fed.job(job=name):
            return None

    errors = simulate(differing, parties=PARTIES, check=False, timeout_s=20, skip_waiting=True).errors
    assert set(errors) == set(PARTIES)
    for error in errors.values():
        assert isinstance(error, fed.InitError)
        assert any(why in str(error) for why in ("different job names", "its own start failed", "it left before"))
    assert any("'one'" in str(error) and "'two'" in str(error) for error in errors.values())


@pytest.mark.parametrize("transport", ["memory", "grpc"])
def test_e33_one_that_has_no_proxies_to_say_so_is_named_by_all_at_once(
    transport: Literal["memory", "grpc"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alice's runtime does not start: what is to tell the others is not there either."""
    original = LocalRuntime.start

    def start(runtime: LocalRuntime) -> Any:
        if runtime._party == "alice":
            raise fed.ConfigError(CANARY)
        return original(runtime)

    monkeypatch.setattr(LocalRuntime, "start", start)

    def program() -> None:
        with fed.job(init_timeout_s=60):
            pass

    began = time.monotonic()
    errors = simulate(program, parties=PARTIES, check=False, timeout_s=30, transport=transport).errors
    assert time.monotonic() - began < 15
    assert CANARY in str(errors["alice"])
    for party in PARTIES[1:]:
        assert isinstance(errors[party], fed.InitError)
        assert CANARY not in str(errors[party])
    # Who is told by the other one that it cannot start either is told who that is.
    assert any("'alice': its own start failed (ConfigError)" in str(errors[party]) for party in PARTIES[1:])


@pytest.mark.parametrize("transport", ["memory", "grpc"])
def test_e33_one_that_fails_after_it_was_greeted_is_named_by_all_at_once(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alice has greeted everyone, and then fails in her own start: nobody waits for the whole of his budget."""
    original = Coordinator.ready

    def ready(coordinator: Coordinator) -> Any:
        if coordinator.party == "alice":
            raise OSError(CANARY)
        return original(coordinator)

    monkeypatch.setattr(Coordinator, "ready", ready)
    began = time.monotonic()
    errors = run(lambda: None, parties=THREE, transport=transport, init_timeout_s=100).errors
    assert time.monotonic() - began < 10
    assert isinstance(errors["alice"], OSError)
    for party in ("bob", "carol"):
        assert isinstance(errors[party], fed.InitError)
        assert "party 'alice': " in str(errors[party])
        assert CANARY not in str(errors[party])


def test_e33_one_that_never_comes_is_named_with_the_last_thing_heard_when_the_time_is_over() -> None:
    def main() -> None:
        if here() == "carol":
            return
        with fed.job(init_timeout_s=1, lease_s=1):
            pass

    errors = simulate(main, parties=THREE, check=False, timeout_s=20).errors
    assert set(errors) == {"alice", "bob"}
    assert {type(error) for error in errors.values()} == {fed.InitError}
    # Whoever gives up first says why; the other one may hear of that before his own time is over.
    said = "within 1 s (init_timeout_s): party 'carol' does not listen"
    heard = [str(error) for error in errors.values()]
    assert any(said in text for text in heard)
    assert all(said in text or "its own start failed" in text for text in heard)
