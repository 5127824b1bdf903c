"""Waiting: slow is not dead, a line says what a wait is about, and only what can never end is an error [E34 to E39]."""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import fed
from fed.core.notice import NoticeKind
from fed.epoch import Entry, Epoch
from fed.interruption import Interrupter
from fed.job import Job
from fed.place import current_job
from fed.testing import Simulation, simulate
from tests.errors.programs import here

PARTIES = ["alice", "bob", "carol"]
LEASE_S = 0.5
STALL_S = 0.4


@fed.remote
def identity(value: Any, *_: Any) -> Any:
    return value


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["fed.job"], "STALL_S", STALL_S)
    monkeypatch.setattr(sys.modules["fed.job"], "SIGNAL_CHECK_S", 0.05)


def run(program: Callable[[], Any], lease_s: float = LEASE_S) -> Simulation:
    def main() -> Any:
        with fed.job(lease_s=lease_s):
            return program()

    return simulate(main, parties=PARTIES, check=False, timeout_s=60)


def test_e34_a_party_that_comes_many_leases_late_is_waited_for() -> None:
    def main() -> Any:
        if here() == "carol":
            time.sleep(6 * LEASE_S)
        with fed.job(lease_s=LEASE_S):
            return fed.get(identity.party("carol").remote(1))

    assert dict(simulate(main, parties=PARTIES, timeout_s=60)) == dict.fromkeys(PARTIES, 1)


@pytest.mark.slow
def test_e39_no_skew_and_no_slowness_is_taken_for_a_failure() -> None:
    # Long enough for a ping to get through on a machine that is busy with other things.
    lease_s = 2.0

    @fed.remote
    def step(value: int, pause_s: float) -> int:
        time.sleep(pause_s)
        return value + 1

    for seed in range(30):
        chance = random.Random(seed)
        skew = {party: chance.uniform(0, 0.2) for party in PARTIES}
        # One party is slow, and now and then for longer than a lease: in a task, or in its driver.
        slow, pause_s = chance.choice(PARTIES), 1.2 * lease_s if seed % 6 == 0 else chance.uniform(0, 0.3)
        in_driver = chance.random() < 0.5

        def program(
            skew: dict[str, float] = skew, slow: str = slow, pause_s: float = pause_s, in_driver: bool = in_driver
        ) -> Any:
            time.sleep(skew[fed.party()] + (pause_s if in_driver and fed.party() == slow else 0))
            value: Any = 0
            for party in PARTIES:
                value = step.party(party).remote(value, skew[party] + (pause_s if party == slow else 0))
            return fed.get(value), len(fed.errors())

        assert dict(run(program, lease_s)) == dict.fromkeys(PARTIES, (3, 0)), f"seed {seed}"


def test_e36_a_line_says_what_is_waited_for_and_what_the_other_party_is_at(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "fed")
    said = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if "fed.get waits for #1 identity of party 'carol'" in text and "bob runs #0 held" in text:
                said.set()

    @fed.remote
    def held() -> int:
        return int(said.wait(20))

    listener = Listener()
    logging.getLogger("fed").addHandler(listener)
    try:
        result = run(lambda: fed.get(identity.party("carol").remote(held.party("bob").remote())))
    finally:
        logging.getLogger("fed").removeHandler(listener)
    assert dict(result) == dict.fromkeys(PARTIES, 1)


def test_e36_what_waits_for_long_is_no_failure() -> None:
    @fed.remote
    def slow() -> int:
        time.sleep(10 * STALL_S)
        return 1

    result = run(lambda: (fed.get(slow.party("bob").remote()), len(fed.errors())))
    assert dict(result) == dict.fromkeys(PARTIES, (1, 0))


def lose_one_push(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bob's first result is never sent: a defect that this library should not have, and that must hang nobody."""
    original, lock = Epoch._post_pushes, threading.Lock()
    lost: list[Entry] = []

    def post(epoch: Epoch, entry: Entry, consumers: Sequence[str]) -> None:
        with lock:
            if epoch._party == "bob" and not lost:
                lost.append(entry)
                return
        original(epoch, entry, consumers)

    monkeypatch.setattr(Epoch, "_post_pushes", post)


def test_e37_a_deadlock_is_an_error_in_every_party_with_the_graph(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lose_one_push(monkeypatch)
    caplog.set_level(logging.ERROR, "fed")
    began = time.monotonic()
    errors = run(lambda: fed.get(identity.party("alice").remote(identity.party("bob").remote(1)))).errors
    assert {type(error) for error in errors.values()} == {fed.DeadlockError}
    # Two budgets, and what a busy machine adds.
    assert time.monotonic() - began < 2 * STALL_S + 5
    for error in errors.values():
        assert "alice: #1 identity waits for #0 identity of bob" in str(error)
    assert any("graph LR" in record.getMessage() for record in caplog.records)


def test_e37_parties_that_ask_at_the_same_moment_do_not_keep_one_another_from_seeing_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lose_one_push(monkeypatch)
    # What they tell with their questions is told slowly: on its way whenever another party asks.
    original = Job._told

    def slowly(*args: Any) -> None:
        threading.Timer(STALL_S / 4, original, args).start()

    monkeypatch.setattr(Job, "_told", slowly)
    errors = run(lambda: fed.get(identity.party("alice").remote(identity.party("bob").remote(1)))).errors
    assert {type(error) for error in errors.values()} == {fed.DeadlockError}


def test_e37_a_driver_in_a_signal_handler_of_the_users_is_outside_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    idle: list[bool] = []

    def deliver(_: Interrupter) -> None:
        idle.append(current_job()._idle)

    # For each party's first look: a Ctrl-C has come, and the user's handler returns.
    monkeypatch.setattr(Interrupter, "interrupted", property(lambda _: len(idle) < len(PARTIES)))
    monkeypatch.setattr(Interrupter, "deliver", deliver)
    result = run(lambda: fed.get(identity.party("bob").remote(1)))
    assert dict(result) == dict.fromkeys(PARTIES, 1)
    assert len(idle) >= len(PARTIES)
    assert not any(idle)


def test_e37_one_task_that_runs_keeps_it_from_being_a_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    lose_one_push(monkeypatch)
    running, asked = threading.Event(), threading.Event()
    standings: list[int] = []
    original = Job._handle_question

    def counted(self: Job, peer: str, notice: Any) -> None:
        original(self, peer, notice)
        if notice.kind is NoticeKind.STANDING:
            standings.append(notice.calls)
            if max(standings) > 3:
                asked.set()

    monkeypatch.setattr(Job, "_handle_question", counted)

    @fed.remote
    def held() -> None:
        running.set()
        # Several rounds have come and gone, and nobody has called it a deadlock.
        asked.wait(20)

    def program() -> Any:
        lost = identity.party("alice").remote(identity.party("bob").remote(1))
        held.party("carol").remote()
        return fed.get(lost)

    errors = run(program).errors
    assert running.is_set()
    assert asked.is_set()
    assert {type(error) for error in errors.values()} == {fed.DeadlockError}


@pytest.mark.parametrize("elsewhere", ["polling", "after a signal"])
def test_e37_a_driver_that_is_busy_outside_fed_keeps_it_from_being_a_deadlock(elsewhere: str) -> None:
    """Alice computes for several rounds while the others wait for a call that she has not made yet."""
    computing_s = 8 * STALL_S

    def program() -> Any:
        if fed.party() == "alice":
            until = time.monotonic() + computing_s
            if elsewhere == "after a signal":
                # What a signal handler of hers raises out of a fed call.
                current = current_job()
                original, current.changed.wait_for = current.changed.wait_for, _interrupted  # type: ignore[method-assign, assignment]
                with pytest.raises(TimeoutError):
                    fed.statistics()
                current.changed.wait_for = original  # type: ignore[method-assign]
            while time.monotonic() < until:
                if elsewhere == "polling":
                    fed.statistics()
                time.sleep(0.001)
        return fed.get(identity.party("alice").remote(1)), len(fed.errors())

    assert dict(run(program, 5.0)) == dict.fromkeys(PARTIES, (1, 0))


def _interrupted(*_: Any) -> bool:
    raise TimeoutError


def test_e38_times_that_contradict_one_another_are_refused() -> None:
    for name in ("init_timeout_s", "drain_timeout_s"):
        short: Any = {name: 5}
        with pytest.raises(fed.ConfigError, match=rf"{name} \(5\) is below lease_s \(10\)"):
            fed.init(job="x", party="alice", addresses={"alice": "127.0.0.1:1"}, lease_s=10, **short)
