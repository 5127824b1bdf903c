"""Plays scenarios in one job, one after another, each in an epoch of its own.

Each line of the input is a JSON list: a number, a scenario's name, its arguments. A line is printed for what came of
it, once the next epoch has begun. Scenarios that end with the program are the exception.
"""

import functools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray

import fed
from fed.context import current_job

REPORTS: list[fed.FailureReport] = []
"""What the failure handler was given in this epoch."""

HANDLER_EXITS: dict[str, int] = {}
"""With which code the handlers are to end the program, by party."""


@fed.remote
def fail(text: str, gate: str = "") -> Any:
    pass_through(gate)
    raise ValueError(text)


@fed.remote
def identity(value: Any, gate: str = "") -> Any:
    pass_through(gate)
    return value


@fed.remote
def total(*values: Any) -> Any:
    return sum(values)


@fed.remote
def mark(path: str, *values: Any) -> None:
    """Leaves a trace of having run."""
    Path(path).touch()


@fed.remote
def zeros(nbytes: int) -> Any:
    return np.zeros(nbytes, dtype=np.uint8)


@fed.remote
def size(array: Any) -> int:
    return int(array.nbytes)


@fed.remote
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self, step: int) -> int:
        self.count += step
        return self.count


class Secret(Exception):
    """Carries more than its message."""

    def __init__(self, canary: str) -> None:
        super().__init__(f"{canary}-message", f"{canary}-argument")
        self.attribute = f"{canary}-attribute"

    def __str__(self) -> str:
        return str(self.args[0])


class Unpicklable(Secret):
    def __init__(self, canary: str) -> None:
        super().__init__(canary)
        self.lock = threading.Lock()


class Undeclared:
    pass


@fed.remote
def leak(kind: str, canary: str) -> Any:
    local = f"{canary}-local"
    if kind == "crash":
        os.write(2, local.encode())
        os._exit(3)
    if kind == "nested":
        return ray.get(raise_within.remote(canary))
    if kind == "refused":
        # May not cross; and where in the value it is, is the party's own business too.
        return {f"{canary}-message": Undeclared()}
    try:
        raise KeyError(f"{canary}-argument")
    except KeyError as error:
        secret = Unpicklable(canary) if kind == "unpicklable" else Secret(canary)
        raise secret from error  # canary-line


@ray.remote  # type: ignore[untyped-decorator]
def raise_within(canary: str) -> Any:
    raise Secret(canary)  # canary-line


@fed.remote
class Leaking:
    def __init__(self, canary: str) -> None:
        raise Secret(canary)  # canary-line

    def method(self) -> None:
        pass


@ray.remote  # type: ignore[untyped-decorator]
def wait_at(gate: str) -> None:
    pass_through(gate)


def pass_through(gate: str) -> None:
    """Wait until the test has opened a named pipe, and closed it again."""
    if gate:
        Path(gate).read_bytes()


def say(line: str) -> None:
    # In one call, since handlers speak on a thread of their own.
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def told(error: BaseException) -> dict[str, Any]:
    """What an error tells the program."""
    failure = getattr(error, "failure", None)
    return {
        "error": type(error).__name__,
        "text": str(error),
        "cause": repr(error.__cause__),
        "is_task_error": isinstance(error, fed.TaskError),
        "error_id": getattr(failure, "error_id", None),
        "kind": failure.kind.name if failure else None,
        "type": getattr(failure, "type_name", None),
        "party": getattr(failure, "src_party", None),
    }


def outcome(call: Callable[[], Any]) -> dict[str, Any]:
    """What a call comes to. KeyboardInterrupt is what an interruption comes to in calls of Ray's own."""
    try:
        return {"value": call()}
    except (fed.FedError, KeyboardInterrupt) as error:
        return told(error)


def until_known() -> None:
    """Wait, outside fed calls, until a failure is known here."""
    deadline = time.monotonic() + 60
    while not fed.errors():
        if time.monotonic() > deadline:
            raise TimeoutError("no failure became known")
        time.sleep(0.005)


def until_failed() -> None:
    """Wait, outside fed calls, for the interruption by a failure; where there is none, until one is known."""
    if os.environ.get("FED_INTERRUPT_DRIVER") == "false":
        until_known()
    else:
        time.sleep(60)


def drained() -> bool:
    """Whether everything that is in flight here comes to its end."""
    epoch = current_job().shell.running()
    deadline = time.monotonic() + 60
    while not epoch.drained and time.monotonic() < deadline:
        time.sleep(0.005)
    return epoch.drained


def consumer_is_told() -> Any:
    return outcome(lambda: fed.get(identity.party("bob").remote(fail.party("alice").remote("canary-4711"))))


def goes_on_without_what_cannot_cross() -> Any:
    value = leak.party("alice").remote("refused", "canary-4711")
    errors = [outcome(lambda: fed.get(identity.party("bob").remote(value)))]
    errors.append(outcome(lambda: fed.get(value)))
    return errors, fed.get(identity.party("bob").remote(4))


def later_failure(gate: str) -> Any:
    def calls() -> Any:
        identity.party("bob").remote(identity.party("alice").remote(1, gate))
        return fed.get(identity.party("bob").remote(fail.party("alice").remote("canary-4711")))

    return outcome(calls)


def nobody_waits(gate: str) -> Any:
    """Alice fails, bob consumes that, carol consumes bob's, dave has no part in it; and no driver is in a fed call."""

    def calls() -> None:
        broken = fail.party("alice").remote("canary-4711", gate)
        identity.party("carol").remote(identity.party("bob").remote(broken))
        say("called")
        until_failed()

    return [outcome(calls), outcome(lambda: fed.get([])), outcome(lambda: fed.get([]))]


def many_failures() -> Any:
    def calls() -> Any:
        tasks = []
        for _ in range(5):
            tasks.append(identity.party("bob").remote(fail.party("alice").remote("canary-4711")))
            tasks.append(identity.party("carol").remote(fail.party("dave").remote("canary-4711")))
        return fed.get(tasks)

    return outcome(calls)


def interrupted_call(delay_s: float) -> Any:
    """A SIGINT to alice's driver, which does little else than make fed calls."""
    sent: list[float] = []

    def interrupt() -> None:
        # At whatever moment that is.
        time.sleep(delay_s)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    def calls() -> None:
        try:
            if fed.party() == "alice":
                interrupter.start()
            count_on()
        except KeyboardInterrupt:
            if not sent:
                raise
            raised.append(time.monotonic() - sent[0])
        # Nobody else knows of it, but all are to begin anew.
        fed.get(fail.party("alice").remote("canary-4711"))

    interrupter = threading.Thread(target=interrupt)
    raised: list[float] = []
    return [outcome(calls), *raised]


def count_on() -> None:
    """Fed calls of every sort, without end."""
    while True:
        counter = Counter.party("alice").remote()
        steps = [counter.add.remote(total.party("bob").remote(1, 2)) for _ in range(3)]
        fed.get(steps)
        fed.statistics()
        fed.kill(counter)


def until_interrupted(gate: str) -> None:
    """Ends the program while a task runs: leaving waits for it."""
    identity.party("alice").remote(1, gate)
    say("waiting")
    sys.exit()


def outside(gate: str, waiting: str) -> Any:
    """No driver is in a fed call when alice's task fails: three are in something endless, dave's ends when told to."""
    broken = fail.party("alice").remote("canary-4711", gate)
    first = outcome(lambda: stay_outside(waiting))
    say("inside")
    return [first, outcome(lambda: fed.get(broken)), outcome(lambda: fed.get(broken))]


def stay_outside(waiting: str) -> None:
    say("outside")
    if fed.party() == "alice":
        ray.get(wait_at.options(num_cpus=0).remote(waiting))
    elif fed.party() == "bob":
        time.sleep(60)
    elif fed.party() == "carol":
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            sum(range(1000))
    else:
        sys.stdin.readline()


def outside_to_the_end(gate: str, waiting: str, forever: str) -> None:
    """As `outside`, and no driver catches anything. Bob waits for a task of dave's that does not end."""
    HANDLER_EXITS["carol"] = 7
    identity.party("bob").remote(identity.party("dave").remote(1, forever))
    fail.party("alice").remote("canary-4711", gate)
    stay_outside(waiting)
    sys.exit()


def queued_consumers(gate: str, folder: str) -> Any:
    broken = fail.party("alice").remote("canary-4711", gate)
    consumers = [mark.party(party).remote(f"{folder}/{party}", broken) for party in fed.parties()]
    nested = mark.party("bob").remote(f"{folder}/nested", [broken])
    say("queued")
    return [*[outcome(functools.partial(fed.get, one)) for one in (*consumers, nested)], drained()]


def nothing_runs(folder: str) -> Any:
    good = identity.party("alice").remote(1)
    first = outcome(lambda: fed.get(fail.party("alice").remote("canary-4711")))
    before = fed.statistics().calls
    calls: list[Callable[[], Any]] = [
        lambda: mark.party(fed.party()).remote(f"{folder}/{fed.party()}"),
        lambda: Counter.party(fed.party()).remote(),
        lambda: fed.get(good),
        lambda: fed.get([]),
    ]
    later = [outcome(call) for call in calls]
    return [first, *later, fed.statistics().calls - before]


def sum_of_all() -> Any:
    """A task in every party, one after another."""
    return fed.get(total.party("alice").remote(*[identity.party(party).remote(1) for party in fed.parties()]))


def one_finishes(gate: str) -> Any:
    """Part of a job that goes well, whatever becomes of another one in the same cluster."""
    first = fed.get(identity.party("bob").remote(identity.party("alice").remote(20)))
    say("halfway")
    second = identity.party("alice").remote(22, gate)
    return [fed.get(total.party("bob").remote(first, second)), len(fed.errors())]


def what_a_reset_leaves(gate: str, failing_gate: str) -> Any:
    counter = Counter.party("bob").remote()
    counted = fed.get(counter.add.remote(1))
    slow = identity.party("bob").remote(identity.party("alice").remote(1, gate))
    late = identity.party("carol").remote(fail.party("alice").remote("canary-late", failing_gate))
    first = outcome(lambda: fed.get(identity.party("dave").remote(fail.party("alice").remote("canary-4711"))))
    fed.reset()
    REPORTS.clear()
    clean = {"errors": len(fed.errors()), "calls": fed.statistics().calls}
    say("reset")
    # By then what is left of the last epoch comes.
    sys.stdin.readline()
    values = [fed.get(total.party("carol").remote(identity.party("alice").remote(step), 1)) for step in range(20)]
    counted_on = fed.get(counter.add.remote(1))
    dead = []
    for one in (slow, late):
        try:
            fed.get(one)
        except fed.UsageError as error:
            dead.append(str(error))
    return {
        "first": first,
        "clean": clean,
        "values": values,
        "counts": [counted, counted_on],
        "dead": dead,
        "errors": len(fed.errors()),
    }


def pending_receives(gate: str, failing_gate: str) -> Any:
    """Receives are pending, and tasks wait for them, when another task fails."""

    def calls() -> Any:
        slow = [identity.party("dave").remote(step, gate if step == 0 else "") for step in range(20)]
        waiting = [total.party(party).remote(*slow) for party in ("bob", "carol")]
        broken = fail.party("alice").remote("canary-4711", failing_gate)
        say("pending")
        return fed.get([*waiting, broken])

    return [outcome(calls), fed.party() != "dave" and drained()]


def two_fail(gates: dict[str, str]) -> Any:
    tasks = [fail.party(party).remote("canary-4711", gate) for party, gate in gates.items()]
    say("two")
    return [outcome(lambda: fed.get(tasks)), outcome(lambda: fed.get([]))]


def differing(what: str) -> Any:
    """One party's program differs from the others' in its second call, or makes one call less."""
    here = fed.party()

    def calls() -> None:
        one, two = identity.party("alice").remote(1), identity.party("alice").remote(2)
        if what == "function":
            fed.get((total if here == "carol" else identity).party("bob").remote(one))
        elif what == "argument":
            fed.get(identity.party("bob").remote(two if here == "dave" else one))
        elif here != "bob":
            fed.get(identity.party("bob").remote(one))
        fed.get(identity.party("carol").remote(two))
        until_failed()

    return [outcome(calls), outcome(lambda: fed.get([]))]


def leaked(kind: str, canary: str) -> Any:
    def calls() -> Any:
        if kind == "actor":
            broken = Leaking.party("alice").remote(canary).method.remote()
        else:
            broken = leak.options(max_retries=0).party("alice").remote(kind, canary)
        return fed.get(identity.party("carol").remote(identity.party("bob").remote(broken)))

    return outcome(calls)


def leaked_by_the_driver(canary: str) -> Any:
    one = identity.party("alice").remote(1)
    if fed.party() == "alice":
        raise Secret(canary)  # canary-line
    return fed.get([one, identity.party("alice").remote(2)])


def overtaken(nbytes: int, gate: str) -> Any:
    held_up = size.party("bob").remote(zeros.party("alice").remote(nbytes))
    broken = identity.party("bob").remote(fail.party("alice").remote("canary-4711", gate))
    del held_up
    return outcome(lambda: fed.get(broken))


def known_before_it_is_read(gate: str) -> Any:
    broken = fail.party("alice").remote("canary-4711", gate)
    if fed.party() == "bob":
        # Alice runs ahead and tells; only then does anybody here wait for it.
        until_known()
    derived = identity.party("bob").remote(broken)
    return [outcome(lambda: fed.get(derived)), outcome(lambda: fed.get(broken)), outcome(lambda: fed.get([derived]))]


def another_evaluation(gate: str, folder: str) -> Any:
    broken = fail.party("alice").remote("canary-4711", gate)
    dependent = total.party("bob").remote(broken, 1)
    consumer = mark.party("bob").remote(f"{folder}/consumer", broken)
    good = [fed.get(total.party("bob").remote(identity.party("alice").remote(step), 1)) for step in range(3)]
    say("queued")
    failed = [outcome(lambda: fed.get(dependent))]
    good += [fed.get(total.party("alice").remote(identity.party("bob").remote(step), 1)) for step in range(3)]
    failed += [outcome(lambda: fed.get(consumer)), outcome(lambda: fed.get(broken))]
    return [good, failed]


def handle(report: fed.FailureReport) -> None:
    REPORTS.append(report)
    if report.party in HANDLER_EXITS:
        sys.exit(HANDLER_EXITS[report.party])


def handled() -> list[dict[str, Any]]:
    reports = [{"here": one.party, "failures": len(one.failures), **told(one.error)} for one in REPORTS]
    REPORTS.clear()
    return reports


def begin_anew() -> None:
    try:
        fed.reset()
    except fed.FailureError:
        # What nobody has read yet is raised first.
        fed.reset()


def main() -> None:
    with fed.job(failure_handler=handle):
        say("joined")
        for line in iter(sys.stdin.readline, ""):
            number, name, *arguments = json.loads(line)
            result = globals()[name](*arguments)
            begin_anew()
            say(f"answer {number} " + json.dumps({"result": result, "handled": handled()}))


if __name__ == "__main__":
    main()
