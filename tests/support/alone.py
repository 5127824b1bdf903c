"""Programs in which one party has the main thread of a process for itself: it alone gets signals, and an exit code.

Each is a function of this module, run in a new interpreter: ``python -m tests.support.alone asleep``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest import mock

import fed
from fed.context import current_job, find_job, set_job_factory
from fed.core.journal import Journal
from fed.engine.job import Job
from fed.testing.simulation import _in_memory, _job
from tests.support.failing import Cell, FailsLate, fail, identity, pass_through

ROOT: Final = Path(__file__).parents[2]
LIMIT_S: Final = 100


class Ended(NamedTuple):
    """A program that has ended.

    Attributes:
        told: The last line that it printed, out of JSON; None without one.
        code: Its exit code.
        output: All that it printed.
    """

    told: Any
    code: int
    output: str


def alone(program: Callable[..., None], *arguments: object) -> Ended:
    """Run a program of this module in an interpreter of its own."""
    command = [sys.executable, "-m", "tests.support.alone", program.__name__, json.dumps(arguments)]
    # One that hangs tells where.
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    lines = ended.stdout.splitlines()
    told = json.loads(lines[-1]) if lines and lines[-1].startswith(("{", "[")) else None
    return Ended(told, ended.returncode, ended.stdout + ended.stderr)


class Others:
    """The parties that have threads: they run a program, and what it raises is kept.

    Args:
        program: Theirs.
        names: All parties; the first one has the main thread, and is made ready to join.
        **arguments: Of every job.
    """

    def __init__(self, program: Callable[[], Any], names: Sequence[str], **arguments: Any) -> None:
        self.errors: dict[str, BaseException] = {}
        place, connect = _in_memory(names)

        def prepare(party: str) -> None:
            set_job_factory(lambda given: _job(party, {**arguments, **given, **place(party)}, connect))

        def play(party: str) -> None:
            prepare(party)
            try:
                with fed.job():
                    program()
            except BaseException as error:
                self.errors[party] = error

        prepare(names[0])
        self._threads = [threading.Thread(target=play, args=(name,), daemon=True) for name in names[1:]]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait for their ends, whatever interrupts the wait."""
        limit = time.monotonic() + 30
        for thread in self._threads:
            while thread.is_alive() and time.monotonic() < limit:
                try:
                    thread.join(1)
                except KeyboardInterrupt:
                    continue
            if thread.is_alive():
                raise RuntimeError(f"{thread.name} hangs")


def press() -> None:
    """Ctrl-C, as the terminal sends it."""
    os.kill(os.getpid(), signal.SIGINT)


def waiting_in_fed(job: Any) -> bool:
    """Whether the main thread waits inside a fed call."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return bool(job.shell.interrupter.inside.depth) and frame is not None and frame.f_code.co_name == "wait"


def spin_until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not holds() and time.monotonic() < limit:
        pass


# Programs


def interrupted_in_get(rounds: int) -> None:
    """Ctrl-C while the driver waits in `fed.get`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    told = []
    for _ in range(rounds):
        gate = threading.Event()
        handled: list[tuple[str, bool]] = []

        @fed.remote
        def slow(gate: threading.Event = gate) -> None:
            pass_through(gate)

        def program() -> Any:
            return fed.get(slow.party("bob").remote())

        def handler(report: fed.FailureReport) -> None:
            on_main = threading.current_thread() is threading.main_thread()
            handled.append((report.party, on_main))  # noqa: B023 - likewise

        others = Others(program, ["alice", "bob"], failure_handler=handler)
        raised: BaseException | None = None
        try:
            with fed.job():
                job = current_job()

                def interrupt(job: Any = job) -> None:
                    spin_until(lambda: waiting_in_fed(job))
                    press()

                threading.Thread(target=interrupt).start()
                program()
        except KeyboardInterrupt as error:
            raised = error
        free = job.shell.lock.acquire(blocking=False)
        # The task of bob's is let go when everyone has been told.
        gate.set()
        others.join()
        told.append([type(raised).__name__, str(others.errors.get("bob")), sorted(handled), free])
    print(json.dumps(told))


def interrupted_with_the_lock_held() -> None:
    """Ctrl-C inside the core, which runs in the main thread with the job's lock held, in each kind of fed call."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    armed = threading.Event()
    original = Journal.note

    def note(journal: Journal, text: str, **more: Any) -> Any:
        if armed.is_set() and threading.current_thread() is threading.main_thread():
            armed.clear()
            if not current_job().shell.lock.locked():
                raise RuntimeError("the lock is not held")
            press()
        return original(journal, text, **more)

    Journal.note = note  # type: ignore[assignment,method-assign]
    calls: dict[str, Callable[[Any], Any]] = {
        "remote": lambda cell: identity.party("alice").remote(1),
        "create": lambda cell: Cell.party("alice").remote(),
        "method": lambda cell: cell.add.remote(1),
        "get": lambda cell: fed.get([]),
        "kill": lambda cell: fed.kill(cell),
        "reset": lambda cell: fed.reset(),
        "leave": lambda cell: None,
    }
    told = []
    for name, call in calls.items():
        handled: list[str] = []

        def program(call: Callable[[Any], Any] = call) -> None:
            cell = Cell.party("alice").remote()
            fed.get(cell.add.remote(1))
            if threading.current_thread() is threading.main_thread():
                armed.set()
            call(cell)

        def handler(report: fed.FailureReport, handled: list[str] = handled) -> None:
            handled.append(report.party)

        others = Others(program, ["alice", "bob"], failure_handler=handler)
        raised: BaseException | None = None
        job = None
        try:
            with fed.job():
                job = current_job()
                program()
        except KeyboardInterrupt as error:
            raised = error
        others.join()
        free = job is not None and job.shell.lock.acquire(blocking=False)
        told.append([name, type(raised).__name__, sorted(handled), free])
    print(json.dumps(told))


def interrupted_at_random(rounds: int, seed: int) -> None:
    """Ctrl-C at random moments of a job in which a task fails."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    choose = random.Random(seed)
    counts: list[int] = []
    raised: set[str] = set()
    for _ in range(rounds):
        handled: list[str] = []

        def program() -> Any:
            values = [identity.party("bob").remote(number) for number in range(5)]
            fed.get(values)
            return fed.get(fail.party("bob").remote())

        def handler(report: fed.FailureReport) -> None:
            handled.append(report.party)  # noqa: B023 - it has ended before the next round

        others = Others(program, ["alice", "bob"], failure_handler=handler)
        spins = choose.randrange(1_000_000)
        joined = threading.Event()

        def interrupt(spins: int = spins, joined: threading.Event = joined) -> None:
            pass_through(joined)
            for _ in range(spins):
                pass
            press()

        presser = threading.Thread(target=interrupt)
        presser.start()
        try:
            with fed.job():
                joined.set()
                program()
        except BaseException as error:
            raised.add(type(error).__name__)
        # It may come so late that it falls in here, where it belongs to nobody.
        while presser.is_alive():
            try:
                presser.join()
            except KeyboardInterrupt:
                continue
        # A Ctrl-C between two steps of the `with` statement leaves the job open, as with any `with`.
        fed.shutdown(KeyboardInterrupt())
        others.join()
        counts.append(handled.count("alice"))
    print(json.dumps([counts, sorted(raised)]))


class Late(FailsLate):
    """A job of two whose task at bob fails when both have said so. `handled` is when alice's handler has run."""

    def __init__(self) -> None:
        super().__init__(2)
        self.handled = threading.Event()

    def call(self) -> None:
        self.task.party("bob").remote()

    def program(self) -> None:
        self.call()
        self.release()

    def handler(self, report: fed.FailureReport) -> None:
        if report.party == "alice":
            self.handled.set()


def asleep(interrupt_driver: bool) -> None:
    """The driver is outside fed when a peer's task fails."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    late = Late()
    others = Others(late.program, ["alice", "bob"], failure_handler=late.handler, interrupt_driver=interrupt_driver)
    steps: list[str] = []
    try:
        with fed.job():
            late.program()
            # Interrupted, it does not come to the end of this; else it does when the job is known to have failed.
            (threading.Event() if interrupt_driver else late.handled).wait(30)
            steps.append("woke by itself")
            fed.get([])
    except BaseException as error:
        aborted, interrupt = isinstance(error, fed.JobAborted), isinstance(error, KeyboardInterrupt)
        steps.append(f"{type(error).__name__} {aborted} {interrupt}")
        steps.append(f"{type(error.__cause__).__name__}")
        steps.append(str(error))
    others.join()
    print(json.dumps(steps))


def asleep_after_a_call() -> None:
    """The job fails during a fed call that has nothing to do with it, and after that the driver is outside."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    late = Late()
    others = Others(late.program, ["alice", "bob"], failure_handler=late.handler)
    steps: list[str] = []

    def held(*arguments: Any) -> Any:
        late.release()
        late.handled.wait(30)
        steps.append("called")
        return result_of(*arguments)

    try:
        with fed.job():
            late.call()
            job = current_job()
            result_of = job.shell.waits.result_of
            with mock.patch.object(job.shell.waits, "result_of", held):
                fed.statistics()
            threading.Event().wait(30)
    except BaseException as error:
        steps.append(type(error).__name__)
    others.join()
    print(json.dumps(steps))


def asleep_after_init(returned: bool) -> None:
    """A party that was quicker has failed before `fed.init` returns; the driver is interrupted after that, or in it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    handled = threading.Event()

    def handler(report: fed.FailureReport) -> None:
        if report.party == "alice":
            handled.set()

    def program() -> None:
        fed.get(fail.party("bob").remote())

    others = Others(program, ["alice", "bob"], failure_handler=handler)
    steps: list[str] = []
    watch = Job.watch

    def held(job: Job) -> None:
        here = threading.current_thread() is threading.main_thread()
        if here:
            handled.wait(30)
        steps.append("watched")
        watch(job)
        if here and not returned:
            threading.Event().wait(30)

    try:
        with mock.patch.object(Job, "watch", held), fed.job():
            threading.Event().wait(30)
    except BaseException as error:
        steps += [type(error).__name__, "left" if find_job() is None else "open"]
    others.join()
    print(json.dumps(steps))


def interrupted_while_leaving() -> None:
    """The job fails when the driver is about to leave it because of an error of its own."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    late = Late()
    shutdown, waits = fed.api.shutdown, [None]

    def held(error: BaseException | None = None) -> None:
        if threading.current_thread() is threading.main_thread() and waits:
            waits.pop()
            late.release()
            threading.Event().wait(30)
        shutdown(error)

    others = Others(late.program, ["alice", "bob"])
    steps: list[str] = []
    try:
        with mock.patch.object(fed.api, "shutdown", held), fed.job():
            late.call()
            raise ValueError
    except BaseException as error:
        steps += [type(error).__name__, type(error.__context__).__name__, "left" if find_job() is None else "open"]
    others.join()
    print(json.dumps(steps))


def goes_on(attempts: int) -> None:
    """A driver that is interrupted outside fed, again and again, and goes on each time."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lates = [FailsLate(2) for _ in range(attempts)]
    handled = threading.Semaphore(0)

    def program(late: FailsLate) -> None:
        late.task.party("bob").remote()
        late.release()

    def handler(report: fed.FailureReport) -> None:
        if report.party == "bob":
            handled.release()

    def end() -> Any:
        return fed.get(identity.party("bob").remote(7))

    def others_program() -> None:
        for late in lates:
            program(late)
            handled.acquire(timeout=30)
            try:
                fed.get([])
            except fed.TaskError:
                fed.reset()
        end()

    others = Others(others_program, ["alice", "bob"], failure_handler=handler)
    told: list[Any] = []
    with fed.job():
        for late in lates:
            try:
                program(late)
                threading.Event().wait(30)
            except fed.JobInterrupted as interruption:
                told.append("fed.reset()" in str(interruption))
                fed.reset()
        told.append(end())
    others.join()
    print(json.dumps([told, len(others.errors)]))


def exit_code(way: str) -> None:
    """A handler that decides what the program ends with."""
    others = Others(
        lambda: fed.get(fail.party("bob").remote()), ["alice", "bob"], failure_handler=lambda _: sys.exit(7)
    )
    if way == "with":
        try:
            with fed.job():
                fed.get(fail.party("bob").remote())
        finally:
            others.join()
            threads = sorted(one.name for one in threading.enumerate() if one.name.startswith("fed-alice"))
            print(json.dumps([threads, {name: type(error).__name__ for name, error in others.errors.items()}]))
    else:
        fed.init()
        try:
            fed.get(fail.party("bob").remote())
        except fed.RemoteError:
            try:
                fed.shutdown()
            finally:
                others.join()
                threads = sorted(one.name for one in threading.enumerate() if one.name.startswith("fed-alice"))
                print(json.dumps([threads, {name: type(error).__name__ for name, error in others.errors.items()}]))


if __name__ == "__main__":
    globals()[sys.argv[1]](*json.loads(sys.argv[2]))
