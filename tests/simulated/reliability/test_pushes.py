"""Pushes that are asked for before there is anything to push."""

from __future__ import annotations

import collections
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import fed
from fed.epoch import MAX_EARLY, Epoch
from fed.job import Job
from fed.place import current_job
from fed.runtime.contract import Call, TaskBody
from fed.runtime.local import LocalRuntime
from fed.serde.data import DataCodec
from fed.testing import Simulation, simulate

PARTIES = ["alice", "bob"]


@fed.remote
def identity(value: Any) -> Any:
    return value


@fed.remote
def total(values: list[int]) -> int:
    return sum(values)


def run(program: Callable[[], Any], **arguments: Any) -> Simulation:
    def main() -> Any:
        with fed.job(**arguments):
            return program()

    return simulate(main, parties=PARTIES, check=False, timeout_s=30)


def test_so_many_are_asked_for_early_and_the_rest_when_they_are_there() -> None:
    gate = threading.Event()
    early: list[tuple[int, int]] = []

    @fed.remote
    def held(number: int) -> int:
        gate.wait(20)
        return number

    def program() -> Any:
        parts = [held.party("alice").remote(number) for number in range(3 * MAX_EARLY)]
        one = total.party("bob").remote(parts)
        if fed.party() == "alice":
            epoch = current_job()._running()
            with current_job()._lock:
                # Nothing is on its way: what waits for tasks must not look as if it moved.
                early.append((epoch._early, epoch.standing(idle=True, untold=0).in_flight))
            gate.set()
        return fed.get(one)

    expected = sum(range(3 * MAX_EARLY))
    assert dict(run(program)) == dict.fromkeys(PARTIES, expected)
    assert early == [(MAX_EARLY, 0)]


def test_an_object_is_encoded_for_the_first_that_needs_it_and_once_for_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    four = ["alice", "bob", "carol", "dave"]
    gate = threading.Event()
    encoded: collections.Counter[DataCodec] = collections.Counter()
    encode = DataCodec.encode

    def noted(codec: DataCodec, value: Any) -> Any:
        encoded[codec] += value == "shared"
        return encode(codec, value)

    monkeypatch.setattr(DataCodec, "encode", noted)

    @fed.remote
    def held() -> str:
        gate.wait(20)
        return "shared"

    def program() -> Any:
        one = held.party("alice").remote()
        parts = [identity.party(party).remote(one) for party in four[1:]]
        if fed.party() == "alice":
            gate.set()
        return fed.get([one, *parts])

    played = simulate(lambda: _in_job(program), parties=four, timeout_s=30)
    assert dict(played) == dict.fromkeys(four, ["shared"] * 4)
    # Each of the others sends back what it got.
    assert sorted(encoded.values()) == [1, 1, 1, 2]


def _in_job(program: Callable[[], Any]) -> Any:
    with fed.job():
        return program()


@pytest.mark.parametrize("needs_it", ["alice", "bob"])
def test_e15_what_comes_of_a_call_that_could_not_be_made_is_no_value(
    monkeypatch: pytest.MonkeyPatch, needs_it: str
) -> None:
    gate = threading.Event()
    ran: list[Any] = []
    submit = LocalRuntime.submit

    def refusing(runtime: LocalRuntime, body: TaskBody, call: Call) -> Any:
        if body.name == "refused":
            raise TypeError("cannot pickle")
        return submit(runtime, body, call)

    monkeypatch.setattr(LocalRuntime, "submit", refusing)

    @fed.remote
    def slow() -> int:
        gate.wait(20)
        return 1

    @fed.remote
    def refused(value: int) -> int:
        return value

    @fed.remote
    def use(value: Any) -> Any:
        ran.append(value)
        return value

    def program() -> Any:
        # Its argument is not known to be there when the call is refused.
        bad = refused.party("alice").remote(slow.party("alice").remote())
        used = use.party(needs_it).remote(bad)
        gate.set()
        with pytest.raises(fed.TaskError, match="TypeError"):
            fed.get(used)
        with pytest.raises(fed.TaskError, match="TypeError"):
            fed.get(bad)
        return "done"

    assert dict(run(program, on_error="isolate")) == dict.fromkeys(PARTIES, "done")
    assert ran == []


@pytest.mark.parametrize("fails", [False, True], ids=["", "of one that failed"])
def test_the_end_of_a_push_may_be_told_before_the_end_of_its_task(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    first_known: list[bool] = []
    pushed = threading.Event()
    task_done, pushed_early = Epoch._task_done, Epoch._pushed_early

    def late(epoch: Epoch, *arguments: Any) -> None:
        def later() -> None:
            pushed.wait(10)
            task_done(epoch, *arguments)

        if epoch._party == "alice":
            threading.Thread(target=later).start()
        else:
            task_done(epoch, *arguments)

    def noted(epoch: Epoch, entry: Any, *arguments: Any) -> None:
        pushed_early(epoch, entry, *arguments)
        if epoch._party == "alice":
            first_known.append(bool(entry.early_ends))
            pushed.set()

    monkeypatch.setattr(Epoch, "_task_done", late)
    monkeypatch.setattr(Epoch, "_pushed_early", noted)

    @fed.remote
    def make() -> int:
        if fails:
            raise ValueError
        return 7

    def program() -> Any:
        got = fed.get(identity.party("bob").remote(make.party("alice").remote()))
        fed.get(identity.party("bob").remote(1))
        return got

    played = run(program)
    assert first_known[0]
    if fails:
        for error in played.errors.values():
            assert isinstance(error, fed.TaskError)
            assert error.failure.type_name == "ValueError"
        assert set(played.errors) == set(PARTIES)
    else:
        assert dict(played) == dict.fromkeys(PARTIES, 7)


@pytest.mark.parametrize("late", [False, True], ids=["arrived before", "arrives while leaving"])
def test_who_leaves_confirms_at_once_what_others_wait_for(late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise an arrival is confirmed along the way of the next receive, or when some time has passed."""
    monkeypatch.setattr(sys.modules[Job.__module__], "CONFIRM_S", 1000.0)
    leaving = threading.Event()

    @fed.remote
    def made() -> int:
        if late:
            leaving.wait(20)
        return 1

    def release(job: Job) -> None:
        with job._lock:
            job.changed.wait_for(lambda: job._life.leaving, 20)
        leaving.set()

    def program() -> Any:
        one = identity.party("bob").remote(made.party("alice").remote())
        if not late:
            return fed.get(one)
        if fed.party() == "bob":
            threading.Thread(target=release, args=(current_job(),)).start()
        return None

    began = time.monotonic()
    assert not run(program).errors
    assert time.monotonic() - began < 15
