"""Ways in which a job once hung, lied or leaked. Each test failed before its defect was mended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import fed
from fed.engine.queue_thread import QueueThread
from fed.proxy.sender import Sender
from fed.testing import FaultPlan, Simulation, simulate

PARTIES = ["alice", "bob", "carol"]


@fed.remote
def identity(value: Any) -> Any:
    return value


@fed.remote
def fail() -> None:
    raise ValueError("canary-4711")


def run(program: Callable[[], Any], **arguments: Any) -> Simulation:
    def main() -> Any:
        with fed.job():
            return program()

    return simulate(main, parties=PARTIES, check=False, timeout_s=10, **arguments)


class WithArguments(Exception):
    """An exception whose constructor takes what only its author knows."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")


class WithLayout(OSError):
    """An exception that is laid out in memory in its own way."""


@fed.remote
def raise_declared(kind: str) -> None:
    raise WithArguments(7) if kind == "arguments" else WithLayout(2, "no such thing")


@pytest.mark.parametrize(("kind", "declared"), [("arguments", WithArguments), ("layout", WithLayout)])
def test_a_declared_exception_with_a_constructor_of_its_own_is_raised(kind: str, declared: type[Exception]) -> None:
    errors = run(lambda: fed.get(raise_declared.party("alice").remote(kind)), exceptions=[declared]).errors
    assert set(errors) == set(PARTIES)
    for error in errors.values():
        assert isinstance(error, declared)
        assert isinstance(error, fed.TaskError)
        assert error.type_name == declared.__name__


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_driver_that_dies_of_something_that_has_no_text_still_tells_the_others() -> None:
    def program() -> Any:
        if fed.party() == "alice":
            raise Unspeakable
        return fed.get(identity.party("alice").remote(1))

    errors = run(program).errors
    assert isinstance(errors["alice"], Unspeakable)
    assert str(errors["bob"]) == "party 'alice' left: its driver raised Unspeakable"


def test_after_an_isolated_failure_a_dying_driver_is_the_root_and_ends_the_job() -> None:
    def program() -> Any:
        with pytest.raises(fed.TaskError):
            fed.get(fail.party("bob").remote())
        if fed.party() == "alice":
            raise ZeroDivisionError
        return fed.get(identity.party("alice").remote(1))

    errors = run(program, on_error="isolate").errors
    for party in ("bob", "carol"):
        error = errors[party]
        assert isinstance(error, fed.PartyLeftError)
        assert error.failure.type_name == "ZeroDivisionError"


def test_a_task_error_that_escapes_in_one_party_ends_an_isolated_job_by_its_own_name() -> None:
    def program() -> Any:
        one = fail.party("alice").remote()
        if fed.party() == "alice":
            return fed.get(one)
        with pytest.raises(fed.TaskError):
            fed.get(one)
        return fed.get(identity.party("alice").remote(1))

    errors = run(program, on_error="isolate").errors
    assert str(errors["bob"]) == "party 'alice' left: its driver raised TaskError"


def test_an_isolated_failure_is_not_the_root_of_a_later_one_that_ends_the_job() -> None:
    roots: list[fed.Kind] = []

    def program() -> Any:
        with pytest.raises(fed.TaskError):
            fed.get(fail.party("bob").remote())
        return fed.get(identity.party("alice").remote(bytes(2000)))

    run(
        program,
        on_error="isolate",
        max_object_bytes=1000,
        failure_handler=lambda report: roots.append(report.root.kind),
    )
    assert roots == [fed.Kind.DELIVERY] * 3


@pytest.mark.parametrize("late", [False, True], ids=["", "before a slower party has begun"])
def test_a_proxy_that_fails_ends_the_job_also_when_failures_are_isolated(
    monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    async def exhausted(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(Sender, "push", exhausted)
    plan = FaultPlan(seed=1)
    if late:
        # Bob still waits for carol when alice has begun, failed and left.
        plan.at("broadcast", party="carol", peer="bob", kind="READY").delay(0.5)
    errors = run(lambda: fed.get(identity.party("alice").remote(1)), faults=plan, on_error="isolate").errors
    assert set(errors) == set(PARTIES)
    for error in errors.values():
        assert isinstance(error, fed.FailureError)
        assert error.failure.kind is fed.Kind.INTERNAL


def test_the_handler_runs_also_in_the_party_whose_driver_fails() -> None:
    reports: list[tuple[str, str]] = []

    def program() -> Any:
        if fed.party() == "alice":
            raise OSError
        return fed.get(identity.party("alice").remote(1))

    run(program, failure_handler=lambda report: reports.append((report.party, report.root.type_name)))
    assert sorted(reports) == [(party, "OSError") for party in PARTIES]


def test_a_value_is_not_held_up_by_a_slower_one_that_the_same_task_needs() -> None:
    gate = threading.Event()

    @fed.remote
    def slow() -> int:
        gate.wait(10)
        return 2

    @fed.remote
    def both(first: int, second: int) -> int:
        return first + second

    arrived = threading.Barrier(len(PARTIES), action=gate.set)

    def program() -> Any:
        first, second = identity.party("alice").remote(1), slow.party("carol").remote()
        total = both.party("bob").remote(first, second)
        seen = fed.get(first, timeout=5)
        arrived.wait()
        return seen, fed.get(total)

    assert dict(run(program)) == dict.fromkeys(PARTIES, (1, 3))


def test_a_kill_right_after_the_creation_is_no_failure_of_the_constructor() -> None:
    begun = threading.Event()

    @fed.remote
    class Slow:
        def __init__(self, begun_by: Any) -> None:
            self.value = begun_by

    def program() -> Any:
        actor = Slow.party("alice").remote(identity.party("bob").remote(1))
        fed.kill(actor)
        begun.set()
        return fed.get(identity.party("bob").remote(2))

    assert dict(run(program)) == dict.fromkeys(PARTIES, 2)


def test_a_value_that_refers_to_itself_is_searched_once() -> None:
    import dataclasses

    @dataclasses.dataclass
    class Node:
        child: Any
        parent: Any = None

    @fed.remote
    def child_of(node: Node) -> Any:
        return node.child

    def program() -> Any:
        node = Node(5)
        node.parent = Node(node)
        return fed.get(child_of.party("bob").remote(node))

    assert dict(run(program)) == dict.fromkeys(PARTIES, 5)


def test_an_unlimited_timeout_is_one() -> None:
    assert dict(run(lambda: fed.get(identity.party("bob").remote(1), timeout=float("inf")))) == dict.fromkeys(
        PARTIES, 1
    )


def test_a_job_begun_inside_asyncio_is_the_threads() -> None:
    import asyncio

    async def begin() -> None:
        fed.init()

    def main() -> Any:
        asyncio.run(begin())
        got = fed.get(identity.party("bob").remote(1))
        fed.shutdown()
        return got

    assert dict(simulate(main, parties=PARTIES, timeout_s=10)) == dict.fromkeys(PARTIES, 1)


def test_what_waits_for_a_queue_to_rest_is_not_starved_by_a_busy_one() -> None:
    rested = threading.Event()
    stop = threading.Event()

    def handle(items: list[int]) -> None:
        if not stop.is_set():
            thread.post(1)

    thread: QueueThread[int] = QueueThread("fed-test-queue", handle, lambda error: None, idle=rested.set)
    thread.post(1)
    assert rested.wait(5)
    stop.set()
    assert thread.stop(5)


def test_e08_a_queue_cannot_stop_itself() -> None:
    refused: list[BaseException] = []

    def handle(items: list[int]) -> None:
        try:
            thread.stop(1)
        except RuntimeError as error:
            refused.append(error)

    thread: QueueThread[int] = QueueThread("fed-test-queue", handle, refused.append)
    thread.post(1)
    assert thread.stop(5)
    assert "cannot stop itself" in str(refused[0])


def test_e18_a_queue_survives_what_its_handler_raises() -> None:
    handled: list[int] = []
    failed: list[BaseException] = []

    def handle(items: list[int]) -> None:
        handled.extend(items)
        if 1 in items:
            raise OSError("once")

    thread: QueueThread[int] = QueueThread("fed-test-queue", handle, failed.append)
    thread.post(1)
    thread.post(2)
    assert thread.stop(5)
    assert handled == [1, 2]
    assert [type(error) for error in failed] == [OSError]


def test_ctrl_c_during_the_drain_ends_it() -> None:
    """In one process, as a script of a single party would be: the main thread drains, and is interrupted."""
    program = """
import threading, signal, os, fed
from fed.context import set_job_factory
from fed.testing.simulation import _in_memory, _job

place, connect = _in_memory(["alice"])
set_job_factory(lambda given: _job("alice", {**given, **place("alice")}, connect))
running = threading.Event()

@fed.remote
def slow():
    running.set()
    threading.Event().wait(5)

def interrupt():
    running.wait()
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
try:
    with fed.job(drain_timeout_s=60):
        slow.party("alice").remote()
except KeyboardInterrupt:
    print("interrupted", sorted(t.name for t in threading.enumerate() if "proxies" in t.name))
"""
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "interrupted []\n", ended
    assert time.monotonic() - began < 20


def test_ctrl_c_at_any_moment_leaves_the_lock_free() -> None:
    lock_held = """
import os, queue, signal, sys, threading, time
sys.path.insert(0, ".")
from fed.config import Address, Config
from fed.engine.job import Job
from tests.support.runtimes import local_runtime

job = Job(Config(job="j", party="alice", addresses={"alice": Address("127.0.0.1", 1)}), local_runtime())
ready = queue.SimpleQueue()

def interrupt():
    # One at a time, and only inside of `try`: another one while the first is dealt with would end the program.
    while ready.get():
        time.sleep(0.0005)
        os.kill(os.getpid(), signal.SIGINT)

thread = threading.Thread(target=interrupt)
thread.start()
# A number of interrupts, not of seconds: how many come in a second is the machine's affair.
for interrupts in range(300):
    try:
        ready.put(True)
        while True:
            job.failures
    except KeyboardInterrupt:
        if not job.shell.lock.acquire(timeout=5):
            print("leaked after", interrupts, flush=True)
            os._exit(1)
        job.shell.lock.release()
ready.put(False)
thread.join()
print("free", flush=True)
os._exit(0)
"""
    ended = subprocess.run([sys.executable, "-c", lock_held], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "free\n", ended


def test_a_party_that_did_not_finish_is_named(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()

    def main() -> Any:
        with fed.job(drain_timeout_s=20):
            if fed.party() == "carol":
                gate.wait(10)
        gate.set()

    simulate(main, parties=PARTIES, timeout_s=20, skip_waiting=True)
    assert any("these had not finished: carol" in record.getMessage() for record in caplog.records)


def test_a_child_that_is_forked_in_a_job_is_in_none_and_leaves_none() -> None:
    def program() -> tuple[int, Any]:
        with warnings.catch_warnings():
            # From Python 3.12 on, of threads.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            code = 2
            try:
                fed.shutdown()
                fed.parties()
            except fed.UsageError:
                code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return code, fed.get(identity.party("alice").remote(1))

    assert dict(run(program)) == dict.fromkeys(PARTIES, (0, 1))
