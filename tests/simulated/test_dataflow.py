"""Tasks wait in the driver for what they need from other parties."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import fed
from fed.channel.memory import MemoryProxyEnd
from fed.core.failure import Kind
from fed.serde.receipt import SmallCodec
from fed.testing import FaultPlan, simulate
from tests.support.failing import identity, pass_through, run
from tests.support.worlds import LIMIT_S

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
    opened: dict[str, bool] = {}

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
        # Nothing of these can have run.
        fed.get(identity.party("bob").remote(0))
        opened[fed.party()] = held.gate.is_set()
        held.gate.set()
        return fed.get(early), sorted(fed.get(calls[-1]))

    assert everywhere(program) == ([True, True], [0, 1, 2])
    assert not any(opened[party] for party in list(opened)[:1])


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

    began = time.monotonic()
    assert everywhere(program) == size
    # Nobody waited for anybody in vain at the end.
    assert time.monotonic() - began < LIMIT_S
    assert sent[0] > 30
