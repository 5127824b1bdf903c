"""Tasks wait in the driver for what they need from other parties."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import fed
from fed.channel.memory import MemoryProxyEnd
from fed.core.failure import Kind
from fed.engine.dataflow import Submitter
from fed.engine.results import Results
from fed.runtime.local import LocalRuntime
from fed.serde.receipt import SmallCodec
from fed.testing import FaultPlan, simulate
from tests.support.failing import identity, pass_through, run

PARTIES = ("alice", "bob")
VALUES = pytest.mark.parametrize("size", [10, 100_000], ids=["small", "large"])


class Held:
    """A task of alice's that ends when it is let go, and makes bytes."""

    def __init__(self, size: int = 10) -> None:
        self.gate = threading.Event()

        @fed.remote
        def held() -> bytes:
            pass_through(self.gate)
            return b"x" * size

        self._task = held

    def call(self) -> Any:
        return self._task.party("alice").remote()


@fed.remote
class Log:
    """Tells in which order its calls ran."""

    def __init__(self, *_: Any) -> None:
        self.calls: list[int] = []

    def note(self, number: int, _: Any = None) -> list[int]:
        self.calls.append(number)
        return self.calls


@fed.remote
class Concurrent:
    def __init__(self, *_: Any) -> None:
        self.calls: list[int] = []

    async def note(self, number: int, _: Any = None) -> list[int]:
        self.calls.append(number)
        return self.calls


def everywhere(program: Callable[[], Any], **arguments: Any) -> Any:
    """What a program returns in both parties, which is the same."""
    simulation = run(program, parties=PARTIES, **arguments)
    assert not simulation.errors
    assert simulation["alice"] == simulation["bob"]
    return simulation["alice"]


@VALUES
def test_a_call_that_waits_holds_up_the_later_ones_of_its_actor_and_no_other(size: int) -> None:
    held = Held(size)

    def program() -> Any:
        log, other = Log.party("bob").remote(), Log.party("bob").remote()
        slow = held.call()
        calls = [
            log.note.remote(0),
            log.note.remote(1, slow),
            log.note.remote(2),
            log.note.remote(3, identity.party("bob").remote(slow)),
        ]
        assert fed.get(calls[0]) == [0]
        assert fed.get(other.note.remote(7)) == [7]
        assert fed.get(identity.party("bob").remote(8)) == 8
        held.gate.set()
        calls.append(log.note.remote(4))
        return fed.get(calls[-1])

    assert everywhere(program) == [0, 1, 2, 3, 4]


def test_a_call_that_waits_does_not_hold_up_those_of_an_actor_that_runs_several_at_once() -> None:
    held = Held()

    def program() -> Any:
        log = Concurrent.party("bob").remote()
        first = log.note.remote(1, held.call())
        assert fed.get(log.note.remote(2)) == [2]
        held.gate.set()
        return fed.get(first)

    assert everywhere(program) == [2, 1]


@pytest.mark.parametrize("actor_class", [Log, Concurrent])
def test_a_constructor_that_waits_holds_up_every_call(actor_class: Any) -> None:
    held = Held()

    @fed.remote
    class After:
        def __init__(self, _: Any) -> None:
            self.was_open = held.gate.is_set()

        def early(self) -> bool:
            return self.was_open

        async def early_too(self) -> bool:
            return self.was_open

    def program() -> Any:
        slow = held.call()
        one, two = After.party("bob").remote(slow), actor_class.party("bob").remote(slow)
        calls = [two.note.remote(number) for number in range(3)]
        early = [one.early.remote(), one.early_too.remote()]
        # What does not wait is here before the gate opens.
        fed.get(identity.party("bob").remote(0))
        held.gate.set()
        return fed.get(early), sorted(fed.get(calls[-1]))

    assert everywhere(program) == ([True, True], [0, 1, 2])


@pytest.mark.parametrize("actor_class", [Log, Concurrent])
@pytest.mark.parametrize("constructing", [True, False], ids=["constructor waits", "call waits"])
def test_a_kill_ends_what_waits(actor_class: Any, constructing: bool) -> None:
    held = Held()

    def program() -> Any:
        slow = held.call()
        log = actor_class.party("bob").remote(*([slow] if constructing else []))
        waiting = [log.note.remote(1, slow), log.note.remote(2, identity.party("bob").remote(slow))]
        fed.kill(log)
        late = log.note.remote(3)
        kinds = []
        for one in (*waiting, late):
            with pytest.raises(fed.TaskError, match="was killed") as caught:
                fed.get(one)
            kinds.append(caught.value.kind)
        held.gate.set()
        assert fed.get(identity.party("bob").remote(slow)) == b"x" * 10
        return kinds

    assert everywhere(program, on_error="isolate") == [Kind.ACTOR_DIED] * 3


def test_an_actor_whose_constructor_waited_when_its_epoch_ended_is_dead_in_the_next() -> None:
    held = Held()

    def program() -> Any:
        log = Log.party("bob").remote(held.call())
        fed.reset()
        with pytest.raises(fed.TaskError) as caught:
            fed.get(log.note.remote(1))
        held.gate.set()
        return caught.value.kind

    assert everywhere(program, on_error="isolate") == Kind.ACTOR_DIED


@VALUES
def test_a_driver_that_computes_takes_what_comes_and_its_tasks_go_on(size: int) -> None:
    """Bob's driver is outside fed all the time that a chain goes to and fro between the parties."""
    held, arrived = Held(size), threading.Event()

    @fed.remote
    def last(_: Any) -> None:
        arrived.set()

    def program() -> Any:
        one = held.call()
        for number in range(6):
            one = identity.party(PARTIES[number % 2]).remote(one)
        end = last.party("bob").remote(one)
        held.gate.set()
        if fed.party() == "bob":
            pass_through(arrived)
        return fed.get(end)

    assert everywhere(program) is None


def test_what_waits_for_several_objects_runs_when_the_last_one_is_here() -> None:
    helds = [Held(size) for size in (1, 100_000, 2)]

    @fed.remote
    def sizes(*values: bytes, nested: Any) -> list[int]:
        return [*map(len, values), len(nested["one"][0])]

    def program() -> Any:
        slow = [held.call() for held in helds]
        own = identity.party("bob").remote(b"own")
        result = sizes.party("bob").remote(slow[0], own, slow[1], nested={"one": [slow[2]]})
        for held in reversed(helds):
            held.gate.set()
        return fed.get(result)

    assert everywhere(program) == [1, 3, 100_000, 2]


@fed.remote
class Taker:
    def __init__(self, values: Any = (), _: Any = None) -> None:
        self.values = list(values)

    def take(self, values: Any, _: Any = None) -> Any:
        return [*self.values, *values]


def test_a_call_that_waits_has_the_arguments_that_it_was_given() -> None:
    """The program goes on to change them, as it may where nothing waits."""
    held = Held()

    @fed.remote
    def take(values: Any, nested: Any, _: Any = None) -> Any:
        return [*values, *nested["more"]]

    def program() -> Any:
        given: list[int] = []
        slow, calls = held.call(), []
        taker = Taker.party("bob").remote(given, slow)
        for number in range(3):
            given.append(number)
            calls.append(take.party("bob").remote(given, {"more": given, "slow": slow}))
            # This one waits for its turn only.
            calls.append(taker.take.remote(given))
        held.gate.set()
        return fed.get(calls)

    expected = [list(range(number + 1)) for number in range(3)]
    assert everywhere(program) == [one for values in expected for one in (2 * values, values)]


def test_a_call_that_need_not_wait_is_submitted_by_the_thread_that_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread that looks for what is ready just then must not take it: the program goes on, and changes it."""
    submitting: list[tuple[str, str]] = []
    submit, apply = LocalRuntime.submit, Submitter.apply

    def noted(runtime: LocalRuntime, body: Any, given: Any) -> Any:
        submitting.append((body.name, threading.current_thread().name))
        return submit(runtime, body, given)

    def contended(submitter: Submitter, instructions: Any) -> None:
        apply(submitter, instructions)
        # As soon as the lock is free.
        thread = threading.Thread(target=submitter.submit_ready, name="another")
        threads.append(thread)
        thread.start()

    threads: list[threading.Thread] = []
    monkeypatch.setattr(LocalRuntime, "submit", noted)
    monkeypatch.setattr(Submitter, "apply", contended)

    @fed.remote
    def free(value: Any) -> Any:
        return value

    assert everywhere(lambda: fed.get([free.party("bob").remote([number]) for number in range(50)])) == [
        [number] for number in range(50)
    ]
    for thread in threads:
        thread.join()
    assert set(submitting) == {("free", "fed-bob")}


class Unpicklable:
    """Raises when it is pickled what ends a thread."""

    def __reduce__(self) -> Any:
        raise SystemExit("odd")


@pytest.mark.parametrize("waits", [True, False])
def test_an_argument_that_cannot_be_pickled_fails_its_task_and_nothing_else(waits: bool) -> None:
    held = Held()

    def program() -> Any:
        slow = held.call()
        bad = identity.party("bob").remote({"odd": Unpicklable(), "slow": slow if waits else 1})
        after = identity.party("bob").remote(slow)
        with pytest.raises(fed.TaskError, match="SystemExit"):
            fed.get(bad)
        held.gate.set()
        return fed.get(after)

    assert everywhere(program, on_error="isolate") == b"x" * 10


def test_whatever_the_runtime_raises_on_a_thread_of_the_jobs_fails_the_task_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submit = LocalRuntime.submit

    def refusing(runtime: LocalRuntime, body: Any, given: Any) -> Any:
        if body.name == "refused" and "channel" in threading.current_thread().name:
            raise SystemExit("odd")
        return submit(runtime, body, given)

    monkeypatch.setattr(LocalRuntime, "submit", refusing)

    @fed.remote
    def refused(value: Any) -> Any:
        return value

    def program() -> Any:
        held = Held()
        slow = held.call()
        bad = refused.party("bob").remote(slow)
        held.gate.set()
        with pytest.raises(fed.TaskError, match="SystemExit"):
            fed.get(bad)
        return fed.get(identity.party("bob").remote(identity.party("alice").remote(1)))

    assert everywhere(program, on_error="isolate") == 1


@pytest.mark.parametrize("what", ["call", "create"])
def test_e23_what_is_being_submitted_when_an_epoch_ends_comes_before_what_is_called_in_the_next(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bob's channel is just handing a call of the old epoch to the runtime."""
    held, release = threading.Event(), threading.Event()
    original = getattr(LocalRuntime, what)

    def slow(runtime: LocalRuntime, *arguments: Any) -> Any:
        if "channel" in threading.current_thread().name and not held.is_set():
            held.set()
            pass_through(release)
        return original(runtime, *arguments)

    monkeypatch.setattr(LocalRuntime, what, slow)

    def program() -> Any:
        other = identity.party("alice").remote(1)
        log = Log.party("bob").remote(*([other] if what == "create" else []))
        if what == "call":
            log.note.remote(1, other)
        pass_through(held)
        threading.Timer(0.2, release.set).start()
        fed.reset()
        return fed.get([log.note.remote(2), log.note.remote(3)])[-1]

    assert everywhere(program) == ([1, 2, 3] if what == "call" else [2, 3])


def test_e37_a_call_that_waits_for_its_turn_does_not_count_as_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect loses an object, so the call before it never runs."""
    lock, lost = threading.Lock(), list[Any]()
    post = Results._post_pushes

    def lose_one(results: Results, entry: Any, consumers: Any) -> None:
        with lock:
            loses = results._state.party == "bob" and not lost
            lost.extend([entry] if loses else [])
        if not loses:
            post(results, entry, consumers)

    monkeypatch.setattr(Results, "_post_pushes", lose_one)

    def program() -> Any:
        log = Log.party("alice").remote()
        log.note.remote(1, identity.party("bob").remote(1))
        return fed.get(log.note.remote(2))

    errors = run(program, parties=PARTIES, skip_waiting=True).errors
    assert {type(error) for error in errors.values()} == {fed.DeadlockError}, errors
    assert all("#3 Log.note" in str(error) for error in errors.values())


def test_a_value_that_was_made_here_is_as_equal_as_it_is_elsewhere() -> None:
    """A value that refers to one list twice arrives with two; so it does where it was made."""

    @fed.remote
    def twice() -> list[list[int]]:
        one = [1]
        return [one, one]

    def program() -> Any:
        first, second = fed.get(twice.party("alice").remote())
        first.append(2)
        return second

    assert everywhere(program) == [1]


def test_what_is_small_is_decoded_where_it_is_used_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    decoding: list[str] = []
    read = SmallCodec.read

    def noted(codec: SmallCodec, small: Any) -> Any:
        decoding.append(threading.current_thread().name)
        return read(codec, small)

    monkeypatch.setattr(SmallCodec, "read", noted)
    assert everywhere(lambda: fed.get(identity.party("bob").remote(identity.party("alice").remote(5)))) == 5
    assert sorted(decoding) == ["fed-alice", "fed-bob", "fed-bob-identity"]


@pytest.mark.parametrize("read_by", ["task", "actor", "get"])
@VALUES
def test_what_cannot_be_decoded_ends_the_job_and_says_what_it_was(
    read_by: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []

    @fed.remote
    def use(value: Any) -> None:
        ran.append(value)

    @fed.remote
    class User:
        def __init__(self, value: Any) -> None:
            ran.append(value)

        def method(self) -> None: ...

    def program() -> Any:
        bad = identity.party("alice").remote(b"x" * size)
        if read_by == "task":
            return fed.get(use.party("bob").remote(bad))
        if read_by == "actor":
            return fed.get(User.party("bob").remote(bad).method.remote())
        return fed.get(bad)

    plan = FaultPlan()
    plan.at("send", party="alice").corrupt()

    def main() -> Any:
        with fed.job(expose_errors="message"):
            return program()

    errors = simulate(main, parties=PARTIES, check=False, faults=plan).errors
    assert set(errors) == set(PARTIES)
    for error in errors.values():
        assert isinstance(error, fed.FailureError)
        assert (error.failure.kind, error.failure.src_party, error.failure.task) == (Kind.DELIVERY, "bob", "")
        assert error.failure.detail == "object #0 from party 'alice' cannot be decoded"
    assert ran == []


@VALUES
def test_what_is_lost_with_the_channel_is_told_again(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and then the connection between a proxy and its driver breaks, in the same lives of both."""
    sent, send = [0], MemoryProxyEnd.send

    def breaking(end: MemoryProxyEnd, lane: Any, *frames: bytes) -> None:
        sent[0] += 1
        if sent[0] % 3:
            send(end, lane, *frames)
        else:
            # What was to be sent is lost with the connection.
            end._connections[lane].close()

    monkeypatch.setattr(MemoryProxyEnd, "send", breaking)

    def program() -> Any:
        one = identity.party("alice").remote(b"x" * size)
        for number in range(30):
            one = identity.party(PARTIES[number % 2]).remote(one)
        return len(fed.get(one))

    # Nor does anybody wait in vain at the end: the simulation would not be over in time.
    assert everywhere(program) == size
    assert sent[0] > 30
