"""Waiting: slow is not dead, a line says what a wait is about, and only what can never end is an error [E34 to E39]."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

import fed
from fed.clock import Clock
from fed.context import current_job
from fed.core.coordination import Coordinator
from fed.core.notice import NoticeKind
from fed.engine.error_queue import ErrorQueue
from fed.engine.records import Entry
from fed.engine.results import Results
from fed.engine.signals import Interrupter
from fed.engine.stalling import STALL_S, StallWatch
from fed.runtime.local import LocalRuntime, _Host
from fed.testing import Simulation, simulate, simulation
from fed.testing.clock import SkippingClock
from tests.support.eventually import eventually
from tests.support.failing import here

PARTIES = ["alice", "bob", "carol"]
LEASE_S = 15.0


@fed.remote
def identity(value: Any, *_: Any) -> Any:
    return value


def run(program: Callable[[], Any], lease_s: float = LEASE_S) -> Simulation:
    def main() -> Any:
        with fed.job(lease_s=lease_s):
            return program()

    return simulate(main, parties=PARTIES, check=False, timeout_s=60, skip_waiting=True)


def now_s() -> float:
    """The time on the clock of this job."""
    return current_job().shell.clock.monotonic()


def test_e34_a_party_that_comes_many_leases_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SkippingClock()
    monkeypatch.setattr(simulation, "SkippingClock", lambda: clock)

    def main() -> Any:
        if here() == "carol":
            # The others wait for her meanwhile.
            assert eventually(lambda: clock.monotonic() > 6 * LEASE_S)
        with fed.job(lease_s=LEASE_S, init_timeout_s=1e6):
            return fed.get(identity.party("carol").remote(1))

    assert dict(simulate(main, parties=PARTIES, timeout_s=60, skip_waiting=True)) == dict.fromkeys(PARTIES, 1)


def test_e34_a_party_without_others_waits_for_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fed")

    def main() -> Any:
        with fed.job():
            return fed.get(identity.party("alice").remote(1))

    assert dict(simulate(main, parties=["alice"], timeout_s=30)) == {"alice": 1}
    events = [getattr(record, "fed_event", None) for record in caplog.records]
    assert "joined" in events
    assert "waiting" not in events


def test_e34_a_party_that_is_reached_and_never_ready_is_named_with_what_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = Coordinator.ready
    # Bob cannot reach somebody, say, which his own output tells.
    monkeypatch.setattr(Coordinator, "ready", lambda self: [] if self.party == "bob" else original(self))
    errors = run(lambda: None).errors
    assert str(errors["alice"]) == (
        "the job could not start within 120 s (init_timeout_s): party 'bob': it was reached, but has not said that it "
        "is ready; its output says what it waits for"
    )


@contextlib.contextmanager
def listening(hear: Callable[[str], None]) -> Iterator[None]:
    """Have what the library logs meanwhile heard, on the threads that log it."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            hear(record.getMessage())

    listener = Listener()
    logging.getLogger("fed").addHandler(listener)
    try:
        yield
    finally:
        logging.getLogger("fed").removeHandler(listener)


def test_e36_a_line_says_what_is_waited_for_and_what_the_other_party_is_at(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "fed")
    said = threading.Event()

    def hear(text: str) -> None:
        if "fed.get waits for #1 identity of party 'carol'" in text and "bob runs #0 held" in text:
            said.set()

    @fed.remote
    def held() -> int:
        return int(said.wait(20))

    with listening(hear):
        result = run(lambda: fed.get(identity.party("carol").remote(held.party("bob").remote())))
    assert dict(result) == dict.fromkeys(PARTIES, 1)


def test_e36_what_a_task_cannot_get_of_the_cluster_is_told_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first line on, although all begin to wait at once."""
    told = "CPU=1 of which actors hold 4 of 4 [4 Model]"
    monkeypatch.setattr(LocalRuntime, "held_up", lambda _, submitted: [told] * len(submitted))
    first: dict[str, str] = {}
    said = threading.Event()

    def hear(text: str) -> None:
        if "nothing has moved" in text:
            first.setdefault(here(), text)
        if len(first) == len(PARTIES):
            said.set()

    @fed.remote
    def held() -> int:
        return int(said.wait(20))

    with listening(hear):
        result = run(lambda: fed.get(held.party("bob").remote()))
    assert dict(result) == dict.fromkeys(PARTIES, 1)
    for party, text in first.items():
        whose = "this party" if party == "bob" else "bob"
        assert f"; {whose} runs #0 held as soon as it gets {told}" in text


def lines_of(caplog: pytest.LogCaptureFixture, program: Callable[[], Any], **arguments: Any) -> dict[str, set[str]]:
    """The lines about waiting, by the party that says them."""
    caplog.set_level(logging.WARNING, "fed")

    def main() -> Any:
        with fed.job(**arguments):
            return program()

    simulate(main, parties=PARTIES, timeout_s=60, skip_waiting=True)
    said: dict[str, set[str]] = {}
    for record in caplog.records:
        moved, _, line = record.getMessage().partition(" s: ")
        if moved.startswith("nothing has moved here for "):
            said.setdefault(str(record.threadName).removeprefix("fed-"), set()).add(line)
    return said


def slow_task() -> Any:
    """A task that runs until people were told of it twice."""
    clock = current_job().shell.clock

    @fed.remote
    def slow() -> int:
        assert eventually(lambda: clock.monotonic() > 3 * STALL_S)
        return 1

    return slow.party("alice").remote()


def test_e36_a_party_that_runs_its_last_task_says_so_and_who_waits_for_it_says_whom_it_waits_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def program() -> None:
        slow_task()

    said = lines_of(caplog, program)
    assert {line.split("; ")[0] for line in said["alice"]} == {"this party runs #0 slow"}
    for party, other in (("bob", "carol"), ("carol", "bob")):
        (line,) = said[party]
        assert line == (
            f"before it leaves, this party waits for alice to finish; alice runs #0 slow; {other} has nothing to do"
        )


def test_e36_who_waits_for_a_task_of_its_own_says_that_it_runs(caplog: pytest.LogCaptureFixture) -> None:
    said = lines_of(caplog, lambda: fed.get(slow_task()))
    assert {line.partition("; bob")[0] for line in said["alice"]} == {
        "fed.get waits for #0 slow of party 'alice'; this party runs #0 slow"
    }


def test_e36_who_waits_for_a_reset_says_who_has_not_called_it(caplog: pytest.LogCaptureFixture) -> None:
    def program() -> Any:
        slow = slow_task()
        if fed.party() == "alice":
            current = current_job().shell.clock
            assert eventually(lambda: current.monotonic() > 3 * STALL_S)
        fed.reset()
        del slow

    said = lines_of(caplog, program, init_timeout_s=1e6)
    assert said.keys() == {"bob", "carol"}
    for party in ("bob", "carol"):
        for line in said[party]:
            assert line.startswith(
                "fed.reset waits for alice to call it; alice runs #0 slow and does not wait in a fed"
            )


def test_e36_who_leaves_while_an_object_is_on_its_way_says_of_whom(caplog: pytest.LogCaptureFixture) -> None:
    def program() -> Any:
        with pytest.raises(fed.FedTimeoutError):
            fed.get(slow_task(), timeout=1)

    said = lines_of(caplog, program)
    assert "before it leaves, this party waits for 1 object of alice, " in next(iter(said["bob"]))


def test_e36_what_waits_for_long_is_no_failure() -> None:
    clocks: list[Clock] = []

    @fed.remote
    def slow() -> int:
        assert eventually(lambda: clocks[0].monotonic() > 10 * STALL_S)
        return 1

    def program() -> Any:
        clocks.append(current_job().shell.clock)
        return fed.get(slow.party("bob").remote()), len(fed.errors())

    assert dict(run(program)) == dict.fromkeys(PARTIES, (1, 0))


def lose_one_push(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bob's first result is never sent: a defect that this library should not have, and that must hang nobody."""
    original, lock = Results._post_pushes, threading.Lock()
    lost: list[Entry] = []

    def post(results: Results, entry: Entry, consumers: Sequence[str]) -> None:
        with lock:
            if results._state.party == "bob" and not lost:
                lost.append(entry)
                return
        original(results, entry, consumers)

    monkeypatch.setattr(Results, "_post_pushes", post)


def test_e37_a_deadlock_is_an_error_in_every_party_with_the_graph(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lose_one_push(monkeypatch)
    caplog.set_level(logging.ERROR, "fed")
    took_s: list[float] = []

    def program() -> None:
        began_s = now_s()
        try:
            fed.get(identity.party("alice").remote(identity.party("bob").remote(1)))
        finally:
            took_s.append(now_s() - began_s)

    errors = run(program).errors
    assert {type(error) for error in errors.values()} == {fed.DeadlockError}
    # Two budgets, and a look at it.
    assert max(took_s) <= 2 * STALL_S + 2
    for error in errors.values():
        assert "alice: #1 identity waits for #0 identity of bob" in str(error)
    assert any("graph LR" in record.getMessage() for record in caplog.records)


def test_e37_parties_that_ask_at_the_same_moment_do_not_keep_one_another_from_seeing_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lose_one_push(monkeypatch)
    # What they tell with their questions is told slowly: on its way whenever another party asks.
    original = ErrorQueue._end

    def slowly(*args: Any) -> None:
        threading.Timer(0.02, original, args).start()

    monkeypatch.setattr(ErrorQueue, "_end", slowly)
    errors = run(lambda: fed.get(identity.party("alice").remote(identity.party("bob").remote(1)))).errors
    assert {type(error) for error in errors.values()} == {fed.DeadlockError}


def test_e37_a_driver_in_a_signal_handler_of_the_users_is_outside_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    idle: list[bool] = []

    def deliver(_: Interrupter) -> None:
        idle.append(current_job().shell.waits.idle)

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
    original = StallWatch.hear

    def counted(self: StallWatch, peer: str, notice: Any) -> None:
        original(self, peer, notice)
        if notice.kind is NoticeKind.STANDING:
            standings.append(notice.calls)
            if max(standings) > 3:
                asked.set()

    monkeypatch.setattr(StallWatch, "hear", counted)

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
            until = now_s() + computing_s
            if elsewhere == "after a signal":
                # What a signal handler of hers raises out of a fed call.
                current = current_job().shell
                original, current.changed.wait_for = current.changed.wait_for, _interrupted  # type: ignore[method-assign, assignment]
                with pytest.raises(TimeoutError):
                    fed.statistics()
                current.changed.wait_for = original  # type: ignore[method-assign]
            while now_s() < until:
                if elsewhere == "polling":
                    fed.statistics()
                time.sleep(0.05)
        return fed.get(identity.party("alice").remote(1)), len(fed.errors())

    assert dict(run(program, 5.0)) == dict.fromkeys(PARTIES, (1, 0))


def _interrupted(*_: Any) -> bool:
    raise TimeoutError


def test_e39_a_proxy_that_answers_late_at_the_end_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    original = _Host.ask

    async def ask(host: _Host[Any], method: Callable[[Any], Any]) -> Any:
        # The machine has far too much to do.
        await asyncio.sleep(20)
        return await original(host, method)

    monkeypatch.setattr(_Host, "ask", ask)

    def program() -> Any:
        return fed.get(identity.party("bob").remote(1)), fed.statistics().calls

    assert dict(run(program)) == dict.fromkeys(PARTIES, (1, 2))


def test_e38_times_that_contradict_one_another_are_refused() -> None:
    for name in ("init_timeout_s", "drain_timeout_s"):
        short: Any = {name: 5}
        with pytest.raises(fed.ConfigError, match=rf"{name} \(5\) is below lease_s \(10\)"):
            fed.init(job="x", party="alice", addresses={"alice": "127.0.0.1:1"}, lease_s=10, **short)
