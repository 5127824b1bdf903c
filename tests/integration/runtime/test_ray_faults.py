"""Whatever can end a task, told by kind and by the name of its class: really provoked wherever that can be done.

What a thread can do too is asked of both runtimes. A thread cannot be killed, cancelled or crash apart from its
process, and has neither nodes nor an object store: those tests are Ray's alone.
"""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import copyreg
import functools
import importlib
import inspect
import os
import pickle
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NoReturn
from unittest import mock

import pytest
import ray
import ray.exceptions

from fed.core.failure import MAX_CAUSES, Fault, Kind
from fed.object import ObjectId
from fed.proxy.deliveries import Delivery, Pushed
from fed.runtime import faults, worker
from fed.runtime.arguments import Nested, Slot
from fed.runtime.contract import ActorBody, Call, FetchFailed, Outcome, Proxies, Ref, Runtime, UnreadableError
from tests.support.eventually import eventually
from tests.support.runtimes import add, call, ending, local_runtime, ray_runtime, running, task, value_of

TELLTALE = "the text"


@pytest.fixture(scope="module")
def ray_started(ray_cluster: object) -> Iterator[tuple[Runtime, Proxies]]:
    yield from running(ray_runtime())


@pytest.fixture(scope="module")
def local_started() -> Iterator[tuple[Runtime, Proxies]]:
    yield from running(local_runtime())


@pytest.fixture(scope="module")
def ray_alone(ray_started: tuple[Runtime, Proxies]) -> Runtime:
    return ray_started[0]


@pytest.fixture(scope="module")
def local_alone(local_started: tuple[Runtime, Proxies]) -> Runtime:
    return local_started[0]


@pytest.fixture(scope="module", params=["local", "ray"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    chosen: Runtime = request.getfixturevalue("ray_alone" if request.param == "ray" else "local_alone")
    return chosen


def fault_at(runtime: Runtime, ref: Ref) -> Fault:
    fault = ending(runtime, ref).fault
    assert fault is not None
    return fault


def outcome_of_task(runtime: Runtime, code: Callable[..., Any], *values: Any, **options: Any) -> Outcome:
    return ending(runtime, runtime.submit(task(code, **options), call(*values)).done)


def named(fault: Fault | None) -> tuple[Kind, str]:
    assert fault is not None
    return fault.kind, fault.type_name


def is_ray(runtime: Runtime) -> bool:
    return type(runtime).__name__ == "RayRuntime"


# --- exceptions that travel badly


class Plain(Exception):
    pass


class HoldsALock(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class TwoArguments(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)


class UnpicklingRaises(Exception):
    def __setstate__(self, state: object) -> None:
        raise RuntimeError("no")

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.state = 1


class ReduceRaises(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("no")


class ReduceExits(Exception):
    def __reduce__(self) -> Any:
        raise SystemExit(9)


class ReducesToAnother(Exception):
    def __reduce__(self) -> Any:
        return ValueError, ("another",)


class ReducesToNoException(Exception):
    def __reduce__(self) -> Any:
        return str, ("nothing",)


class GetattrRaises(Exception):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no")


class GetattributeRaises(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no")


class SetattrRaises(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError("no")


class SetattrIgnores(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        pass


class ClassRaises(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("no")


class ClassLies(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return int


class CannotBeDerivedFrom(Exception):
    def __init_subclass__(cls) -> None:
        raise RuntimeError("no")


class NotesRaise(Exception):
    @property
    def __notes__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no")


class ReprRaises(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no")


class NotAnException(BaseException):
    pass


class CausedByHostile(Exception):
    pass


class ReduceDropsVariables(Exception):
    """As many hand-written ones do, it is made again from its arguments, and nothing put on it survives."""

    def __init__(self, text: str, code: int = 7) -> None:
        super().__init__(text)
        self.code = code

    def __reduce__(self) -> Any:
        return type(self), (self.args[0], self.code)


class StrRaises(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class StrExits(Exception):
    def __str__(self) -> str:
        raise SystemExit(9)


class StrIsNone(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]


def raising(make: Callable[[], BaseException]) -> Callable[[], NoReturn]:
    def code() -> NoReturn:
        if make is caused_by_hostile:
            raise make() from GetattrRaises("no")
        raise make()

    return code


def caused_by_hostile() -> CausedByHostile:
    return CausedByHostile(TELLTALE)


ARRIVING = [Plain, ReduceDropsVariables]
LOST = [
    NotesRaise,
    HoldsALock,
    UnpicklingRaises,
    ReduceRaises,
    ReduceExits,
    ReducesToAnother,
    ReducesToNoException,
    GetattrRaises,
    GetattributeRaises,
    SetattrIgnores,
    ClassRaises,
    ClassLies,
    NotAnException,
    ReprRaises,
]


def test_what_the_users_code_raises_is_told_whatever_it_is(runtime: Runtime) -> None:
    # All at once, since each takes a worker, which the hostile ones used to kill.
    makers: dict[str, Callable[[], BaseException]] = {
        cls.__name__: lambda cls=cls: cls(TELLTALE)  # type: ignore[misc]
        for cls in (*ARRIVING, *LOST, SetattrRaises, CannotBeDerivedFrom)
    }
    makers["TwoArguments"] = lambda: TwoArguments(1, TELLTALE)
    makers["CausedByHostile"] = caused_by_hostile
    done = {name: runtime.submit(task(raising(make), max_retries=0), call()).done for name, make in makers.items()}
    for name, ref in done.items():
        fault = fault_at(runtime, ref)
        assert named(fault) == (Kind.TASK, name)
        assert fault.message == TELLTALE, name
        assert "in code" in fault.traceback, name


@pytest.mark.parametrize("cls", [StrRaises, StrExits, StrIsNone])
def test_an_exception_without_a_text_is_told_all_the_same(runtime: Runtime, cls: type[Exception]) -> None:
    fault = outcome_of_task(runtime, raising(lambda: cls(TELLTALE)), max_retries=0).fault
    assert named(fault) == (Kind.TASK, cls.__name__)
    assert fault is not None
    assert fault.message.startswith("<its __str__ raised ")
    assert "in code" in fault.traceback


@pytest.mark.parametrize("cls", ARRIVING)
def test_an_exception_that_survives_pickling_arrives_as_itself(runtime: Runtime, cls: type[Exception]) -> None:
    outcome = outcome_of_task(runtime, raising(lambda: cls(TELLTALE)))
    assert type(outcome.error) is cls
    assert outcome.error.args == (TELLTALE,)


@pytest.mark.parametrize("cls", [HoldsALock, UnpicklingRaises, ReduceRaises, GetattrRaises])
def test_in_place_of_one_that_does_not_a_record_of_it_arrives(runtime: Runtime, cls: type[Exception]) -> None:
    error = outcome_of_task(runtime, raising(lambda: cls(TELLTALE))).error
    assert type(error) is worker.LostError
    assert str(error) == f"{cls.__name__}: {TELLTALE} (the original exception could not leave its worker)"


def test_a_class_of_the_driver_that_cannot_be_imported_comes_back_as_that_class(runtime: Runtime) -> None:
    class Local(Exception):
        pass

    outcome = outcome_of_task(runtime, raising(lambda: Local(TELLTALE)))
    assert named(outcome.fault) == (Kind.TASK, "Local")
    assert type(outcome.error) is Local


def raise_from() -> NoReturn:
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise OSError("second")  # noqa: B904 - the context counts too
    except OSError as error:
        raise ReduceDropsVariables(TELLTALE) from error


def test_causes_text_and_trace_of_one_that_drops_its_variables_hold_at_any_depth(runtime: Runtime) -> None:
    first = runtime.submit(task(raise_from), call())
    second = runtime.submit(task(add), call(first.results[0]))
    third = runtime.submit(task(add), call(second.results[0]))
    outcomes = [ending(runtime, submission.done) for submission in (first, second, third)]
    for outcome in outcomes:
        assert named(outcome.fault) == (Kind.TASK, "ReduceDropsVariables")
        assert outcome.fault is not None
        assert outcome.fault.cause_types == ("OSError", "KeyError")
        assert outcome.fault.message == TELLTALE
        assert "in raise_from" in outcome.fault.traceback
        assert isinstance(outcome.error, ReduceDropsVariables)
        assert outcome.error.code == 7
    assert outcomes[0].fault == outcomes[1].fault == outcomes[2].fault


def raise_again(times: int) -> NoReturn:
    error = HoldsALock(TELLTALE)
    for _ in range(times):
        try:
            worker.run(raising(lambda: error), b"", ())
        except HoldsALock:
            pass
    raise error


def test_an_exception_may_be_raised_any_number_of_times(runtime: Runtime) -> None:
    fault = outcome_of_task(runtime, raise_again, 3).fault
    assert named(fault) == (Kind.TASK, "HoldsALock")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are new in Python 3.11")
def test_a_group_tells_the_classes_of_its_members(runtime: Runtime) -> None:
    group: Any = getattr(builtins, "ExceptionGroup", None)

    def code() -> NoReturn:
        raise group(TELLTALE, [ValueError(1), group("inner", [KeyError(2), ValueError(3)]), Plain(4)]) from OSError()

    outcome = outcome_of_task(runtime, code)
    assert named(outcome.fault) == (Kind.TASK, "ExceptionGroup")
    assert outcome.fault is not None
    assert outcome.fault.cause_types == ("ValueError", "KeyError", "Plain", "OSError")
    assert isinstance(outcome.error, group)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are new in Python 3.11")
def test_of_a_large_group_as_many_classes_are_told_as_a_failure_keeps(runtime: Runtime) -> None:
    group: Any = getattr(builtins, "ExceptionGroup", None)

    def code() -> NoReturn:
        members = [type(f"Error{number}", (Exception,), {})() for number in range(20)]
        raise RuntimeError(TELLTALE) from group("many", members)

    fault = outcome_of_task(runtime, code).fault
    assert fault is not None
    assert fault.cause_types == ("ExceptionGroup", *(f"Error{number}" for number in range(MAX_CAUSES - 1)))


# --- exits and interrupts


def exit_now() -> NoReturn:
    sys.exit(3)


def interrupt() -> NoReturn:
    raise KeyboardInterrupt(TELLTALE)


def test_an_exit_in_a_task_is_a_failed_task(runtime: Runtime) -> None:
    fault = outcome_of_task(runtime, exit_now, max_retries=0).fault
    assert named(fault) == (Kind.TASK, "SystemExit")
    assert fault is not None
    assert fault.message == "3"


def test_an_interrupt_in_a_task_is_what_a_cancellation_looks_like(runtime: Runtime) -> None:
    fault = outcome_of_task(runtime, interrupt, max_retries=0).fault
    # Ray cancels by interrupting the main thread, where nobody can tell the two apart. A thread is never cancelled.
    expected = (Kind.CANCELLED, "TaskCancelledError") if is_ray(runtime) else (Kind.TASK, "KeyboardInterrupt")
    assert named(fault) == expected


class Worker:
    """An actor without coroutine methods."""

    def exit(self) -> NoReturn:
        sys.exit(3)

    def interrupt(self) -> NoReturn:
        raise KeyboardInterrupt(TELLTALE)

    def leave(self) -> None:
        ray.actor.exit_actor()

    def crash(self) -> None:
        os._exit(3)

    def pid(self) -> int:
        return os.getpid()

    def own(self) -> list[Any]:
        return [ray.put(TELLTALE)]

    def block(self, running: Path) -> None:
        running.touch()
        # In steps, since a cancellation only sets a flag that is looked at between two instructions.
        while True:
            threading.Event().wait(0.01)


class AsyncWorker:
    """An actor with coroutine methods."""

    async def exit(self) -> NoReturn:
        sys.exit(3)

    async def interrupt(self) -> NoReturn:
        raise KeyboardInterrupt(TELLTALE)

    def interrupt_plainly(self) -> NoReturn:
        raise KeyboardInterrupt(TELLTALE)

    async def cancel_itself(self) -> None:
        never = asyncio.get_running_loop().create_future()
        never.cancel()
        await never

    async def leave(self) -> None:
        ray.actor.exit_actor()

    async def hostile(self) -> NoReturn:
        raise GetattrRaises(TELLTALE)

    async def block(self, running: Path) -> None:
        running.touch()
        await asyncio.get_running_loop().create_future()

    async def pid(self) -> int:
        return os.getpid()


@pytest.fixture
def make_actor(runtime: Runtime) -> Iterator[Callable[..., Any]]:
    yield from actor_maker(runtime)


@pytest.fixture
def make_ray_actor(ray_alone: Runtime) -> Iterator[Callable[..., Any]]:
    yield from actor_maker(ray_alone)


def actor_maker(runtime: Runtime) -> Iterator[Callable[..., Any]]:
    actors: list[Any] = []

    def make(code: type, **options: Any) -> Any:
        actor, created = runtime.create(ActorBody(code, code.__name__, options), call())
        actors.append(actor)
        assert ending(runtime, created) == Outcome(None, None, None)
        return actor

    yield make
    for actor in actors:
        runtime.kill(actor)


def test_an_exit_in_a_method_leaves_the_actor_alive(runtime: Runtime, make_actor: Callable[..., Any]) -> None:
    # With coroutine methods it used to end the event loop in Ray, and neither call ever ended.
    for code in (Worker, AsyncWorker):
        actor = make_actor(code)
        assert named(fault_at(runtime, runtime.call(actor, "exit", call(), {}).done)) == (Kind.TASK, "SystemExit")
        assert value_of(runtime, runtime.call(actor, "pid", call(), {})) > 0


def test_an_interrupt_in_a_coroutine_method_leaves_the_actor_alive(
    runtime: Runtime, make_actor: Callable[..., Any]
) -> None:
    actor = make_actor(AsyncWorker)
    for method in ("interrupt", "interrupt_plainly"):
        fault = fault_at(runtime, runtime.call(actor, method, call(), {}).done)
        assert named(fault) == (Kind.TASK, "KeyboardInterrupt")
    assert value_of(runtime, runtime.call(actor, "pid", call(), {})) > 0


def test_a_hostile_exception_in_a_coroutine_method_is_told(runtime: Runtime, make_actor: Callable[..., Any]) -> None:
    actor = make_actor(AsyncWorker)
    fault = fault_at(runtime, runtime.call(actor, "hostile", call(), {}).done)
    assert named(fault) == (Kind.TASK, "GetattrRaises")
    assert value_of(runtime, runtime.call(actor, "pid", call(), {})) > 0


def test_a_coroutine_method_that_awaits_what_is_cancelled_is_cancelled(
    runtime: Runtime, make_actor: Callable[..., Any]
) -> None:
    actor = make_actor(AsyncWorker)
    fault = fault_at(runtime, runtime.call(actor, "cancel_itself", call(), {}).done)
    assert named(fault) == (Kind.CANCELLED, "TaskCancelledError")
    assert value_of(runtime, runtime.call(actor, "pid", call(), {})) > 0


@pytest.mark.parametrize("cls", [Plain, HoldsALock, ReduceDropsVariables, GetattrRaises])
def test_what_a_constructor_raises_is_told_by_every_method(runtime: Runtime, cls: type[Exception]) -> None:
    class Broken:
        def __init__(self) -> None:
            raise cls(TELLTALE)

        def method(self) -> int:
            return 1

    actor, created = runtime.create(ActorBody(Broken, "Broken", {}), call())
    for ref in (created, runtime.call(actor, "method", call(), {}).done):
        fault = fault_at(runtime, ref)
        assert named(fault) == (Kind.TASK, cls.__name__)
        assert fault.message == TELLTALE
    runtime.kill(actor)


def test_a_constructor_whose_argument_failed(runtime: Runtime) -> None:
    class Fed:
        def __init__(self, value: object) -> None:
            pass

        def method(self) -> int:
            return 1

    failed = runtime.submit(task(raise_from), call())
    actor, created = runtime.create(ActorBody(Fed, "Fed", {}), call(failed.results[0]))
    # Ray says no more than that the actor never began; whoever submitted it knows which argument failed.
    expected = (Kind.ACTOR_DIED, "ActorDiedError") if is_ray(runtime) else (Kind.TASK, "ReduceDropsVariables")
    for ref in (created, runtime.call(actor, "method", call(), {}).done):
        fault = fault_at(runtime, ref)
        assert named(fault) == expected
        assert "in raise_from" in fault.traceback
        assert "in raise_from" not in fault.message
    runtime.kill(actor)


def test_a_constructor_that_exits_is_one_that_raises(runtime: Runtime) -> None:
    class Broken:
        def __init__(self) -> None:
            sys.exit(3)

    actor, created = runtime.create(ActorBody(Broken, "Broken", {}), call())
    assert named(fault_at(runtime, created)) == (Kind.TASK, "SystemExit")
    runtime.kill(actor)


# --- around the user's code: arguments and results


class CannotBeLoaded:
    def __reduce__(self) -> Any:
        return int, ("no number",)


class CannotBeDumped:
    def __reduce__(self) -> Any:
        raise Plain(TELLTALE)


def test_a_wrong_number_of_results(runtime: Runtime) -> None:
    fault = fault_at(runtime, runtime.submit(task(lambda: (1, 2)), call(returns=3)).done)
    assert named(fault) == (Kind.TASK, "ValueError")
    assert "num_returns=3 but returned 2 values" in fault.message


@pytest.mark.parametrize(("make", "name"), [(threading.Lock, "TypeError"), (CannotBeDumped, "Plain")])
def test_a_result_that_cannot_be_pickled(runtime: Runtime, make: Callable[[], object], name: str) -> None:
    fault = outcome_of_task(runtime, lambda: make()).fault
    assert named(fault) == (Kind.TASK, "PicklingError")
    assert fault is not None
    assert fault.message.startswith("the result ")
    assert ("lock" if name == "TypeError" else f"Plain: {TELLTALE}") in fault.message
    assert "return plain data" in fault.message or name == "Plain"
    assert "\x1b" not in fault.traceback


class RaisesWhenLoaded:
    """Its class is everywhere, and it raises in another process than the one that made it."""

    def __init__(self) -> None:
        self.state = 1

    def __setstate__(self, state: object) -> None:
        raise ZeroDivisionError(TELLTALE)


class OnlyInAWorker:
    def __reduce__(self) -> Any:
        return importlib.import_module, ("no_such_module",)


UNREADABLE = [
    (CannotBeLoaded, "ValueError", "no number"),
    (RaisesWhenLoaded, "ZeroDivisionError", TELLTALE),
    (OnlyInAWorker, "ModuleNotFoundError", "No module named 'no_such_module'"),
]


@pytest.mark.parametrize(("make", "name", "text"), UNREADABLE)
def test_a_value_that_cannot_be_unpickled_fails_its_consumer(
    runtime: Runtime, make: Callable[[], object], name: str, text: str
) -> None:
    made = runtime.submit(task(make), call())
    outcome = ending(runtime, runtime.submit(task(add), call(made.results[0])).done)
    assert named(outcome.fault) == (Kind.TASK, "UnpicklingError")
    assert outcome.fault is not None
    assert outcome.fault.cause_types == (name,)
    assert outcome.fault.message.startswith(f"an argument cannot be unpickled in another process ({name}): ")
    assert text in outcome.fault.message
    assert type(outcome.error) is UnreadableError


@pytest.mark.parametrize(("make", "name", "text"), UNREADABLE)
def test_what_pushes_and_fetches_a_value_that_cannot_be_unpickled_is_told_so(
    request: pytest.FixtureRequest,
    runtime: Runtime,
    make: Callable[[], object],
    name: str,
    text: str,
) -> None:
    _, proxies = request.getfixturevalue("ray_started" if is_ray(runtime) else "local_started")
    submitted = [runtime.submit(task(code), call()) for code in (add_one, make)]
    for submission in submitted:
        assert ending(runtime, submission.done).fault is None
    refs = [submission.results[0] for submission in submitted]
    deliveries = [Delivery(ObjectId(1, number, 0), ()) for number in range(2)]
    assert type(ending(runtime, proxies.push(deliveries, refs)).error) is UnreadableError
    # The sender lives, and takes what can be read.
    assert ending(runtime, proxies.push(deliveries[:1], refs[:1])).value == Pushed([], [])
    with pytest.raises(FetchFailed) as unreadable:
        runtime.fetch(refs)
    assert unreadable.value.position == 1
    assert named(unreadable.value.fault) == (Kind.UNSERIALIZABLE, name)
    assert unreadable.value.fault.detail == f"it cannot be unpickled in another process ({name})"
    assert text in unreadable.value.fault.message


def test_a_constructor_that_cannot_be_given_an_argument_is_told_so(runtime: Runtime) -> None:
    class Fed:
        def __init__(self, value: object) -> None: ...

    made = runtime.submit(task(RaisesWhenLoaded), call())
    actor, created = runtime.create(ActorBody(Fed, "Fed", {}), call(made.results[0]))
    fault = fault_at(runtime, created)
    if is_ray(runtime):
        assert named(fault) == (Kind.ACTOR_DIED, "ActorDiedError")
        assert fault.detail == "its constructor could not be given its arguments"
    else:
        assert named(fault) == (Kind.TASK, "UnpicklingError")
    runtime.kill(actor)


def add_one() -> int:
    return 1


def lock_around() -> Callable[[], Any]:
    lock = threading.Lock()
    return lambda: lock.locked()


def with_default(value: object) -> Callable[[], Any]:
    def code(given: object = value) -> object:
        return given

    return code


class Model:
    def __init__(self) -> None:
        self.parts = {"guard": [threading.Lock()]}


class Takes:
    def __init__(self, value: object = None) -> None: ...


IN_THE_CODE: list[tuple[Callable[[], Any], str]] = [
    (lock_around, "its variable lock (lock) cannot be pickled: make it inside the task"),
    (lambda: with_default(Model()), "its variable given.parts['guard'][0] (lock) cannot be pickled: make it"),
    (lambda: with_default(threading.Thread()), "its variable given (Thread) cannot be pickled: make it"),
    (lambda: functools.partial(add, threading.Lock()), "its variable [1] (lock) cannot be pickled: make it"),
    (
        lambda: with_default(CannotBeDumped()),
        f"its variable given (CannotBeDumped) cannot be pickled: Plain: {TELLTALE}",
    ),
]


@pytest.mark.parametrize(("make", "sentence"), IN_THE_CODE)
def test_code_that_cannot_be_pickled_says_which_variable_and_what_to_do(
    ray_alone: Runtime, make: Callable[[], Any], sentence: str
) -> None:
    """In one process code is what it is."""
    submits: list[Callable[[Any], object]] = [ray_alone.hold_code, lambda body: ray_alone.submit(body, call())]
    for submit in submits:
        with pytest.raises(pickle.PicklingError) as refused:
            submit(task(make()))
        assert str(refused.value).startswith(sentence)


def test_a_class_that_cannot_be_pickled_says_which_attribute(ray_alone: Runtime) -> None:
    class Local:
        mine: ClassVar = [threading.Lock()]

    with pytest.raises(
        pickle.PicklingError, match=r"its variable mine\[0\] \(lock\) cannot be pickled: make it inside"
    ):
        ray_alone.create(ActorBody(Local, "Local", {}), call())


ARGUMENTS: list[tuple[Call, str]] = [
    (call(1, threading.Lock()), "argument 2 (lock) cannot be pickled: make it inside the task"),
    (call(threading.Lock(), keywords=("first",)), "argument 'first' (lock) cannot be pickled: make it inside the task"),
    (
        call({"a": [Model()]}),
        "['a'][0].parts['guard'][0] of argument 1 (lock) cannot be pickled: make it inside the task",
    ),
    (call(item for item in "ab"), "argument 1 (generator) cannot be pickled: make it inside the task"),
    (call(CannotBeDumped()), f"argument 1 (CannotBeDumped) cannot be pickled: Plain: {TELLTALE}"),
    (call(Nested([Slot(0), threading.Lock()]), 1, extras=1), "[1] of argument 1 (lock) cannot be pickled"),
]


@pytest.mark.parametrize(("packed", "sentence"), ARGUMENTS)
def test_an_argument_that_cannot_be_pickled_is_named_with_what_to_do(
    runtime: Runtime, packed: Call, sentence: str
) -> None:
    actor, _ = runtime.create(ActorBody(Worker, "Worker", {}), call())
    submits: list[Callable[[], object]] = [
        lambda: runtime.submit(task(add), packed),
        lambda: runtime.create(ActorBody(Takes, "Takes", {}), packed),
        lambda: runtime.call(actor, "pid", packed, {}),
    ]
    for submit in submits:
        with pytest.raises(pickle.PicklingError) as refused:
            submit()
        assert str(refused.value).startswith(sentence)
    runtime.kill(actor)
    held = next(value for value in packed.values if type(value) is not int)
    with pytest.raises(pickle.PicklingError) as refused:
        runtime.hold(held)
    assert str(refused.value).startswith(re.sub(r"argument \S+", "an argument", sentence))


def generate() -> Iterator[int]:
    yield 1


async def coroutine() -> int:
    return 1


class ReturnsStreams:
    def generator(self) -> Any:
        return generate()

    def coroutine(self) -> Any:
        return coroutine()


@pytest.mark.parametrize("name", ["generator", "coroutine"])
def test_a_stream_that_is_returned_says_what_to_return(runtime: Runtime, name: str) -> None:
    actor, _ = runtime.create(ActorBody(ReturnsStreams, "ReturnsStreams", {}), call())
    code = task(getattr(ReturnsStreams(), name))
    done = [runtime.call(actor, name, call(), {}).done, runtime.submit(code, call()).done]
    for ref in done:
        fault = fault_at(runtime, ref)
        assert named(fault) == (Kind.TASK, "PicklingError")
        assert fault.message.startswith(f"the result ({name}) cannot be pickled: ")
    runtime.kill(actor)


def test_a_fetch_that_fails_says_which_and_why(runtime: Runtime) -> None:
    good = runtime.submit(task(add), call(1))
    bad = runtime.submit(task(CannotBeLoaded), call())
    failed = runtime.submit(task(raise_from), call())
    ending(runtime, failed.done)
    with pytest.raises(FetchFailed) as unreadable:
        runtime.fetch([good.results[0], bad.results[0], failed.results[0]])
    assert unreadable.value.position == 1
    assert named(unreadable.value.fault) == (Kind.UNSERIALIZABLE, "ValueError")
    assert isinstance(unreadable.value.cause.__cause__, ValueError)
    assert unreadable.value.__cause__ is unreadable.value.cause
    with pytest.raises(FetchFailed, match=r"result 0 cannot be fetched: TASK \(ReduceDropsVariables\)") as refused:
        runtime.fetch([failed.results[0], good.results[0]])
    assert (refused.value.position, refused.value.fault) == (0, fault_at(runtime, failed.done))
    assert runtime.fetch(good.results) == [11]


# --- Ray alone


def test_a_failed_task_that_the_task_called_itself(ray_alone: Runtime) -> None:
    def innermost() -> NoReturn:
        raise Plain(TELLTALE)

    def nested() -> Any:
        inner = ray.remote(innermost)
        middle = ray.remote(lambda: ray.get(inner.remote()))
        return ray.get(middle.remote())

    def nested_in_handler() -> Any:
        try:
            nested()
        except Plain as error:
            raise ValueError("outer") from error

    outcome = outcome_of_task(ray_alone, nested)
    assert named(outcome.fault) == (Kind.TASK, "Plain")
    assert outcome.fault is not None
    assert outcome.fault.message == TELLTALE
    assert "in innermost" in outcome.fault.traceback
    assert type(outcome.error) is Plain
    outer = outcome_of_task(ray_alone, nested_in_handler).fault
    assert named(outer) == (Kind.TASK, "ValueError")
    assert outer is not None
    assert outer.cause_types == ("Plain",)


def test_a_failed_task_of_its_own_that_cannot_be_pickled_is_told_as_failed(ray_alone: Runtime) -> None:
    """Ray itself drops the name of the class before the outer task, and with it the library, sees the exception."""

    def nested() -> Any:
        return ray.get(ray.remote(raising(lambda: HoldsALock(TELLTALE))).remote())

    fault = outcome_of_task(ray_alone, nested).fault
    assert named(fault) == (Kind.TASK, "RayTaskError")
    assert fault is not None
    assert "HoldsALock" in fault.traceback
    assert fault.message == ""


def test_what_a_tasks_own_use_of_ray_raises_is_a_failed_task(ray_alone: Runtime) -> None:
    # A budget or an actor of the user's own: nothing that the parties could disagree about.
    def impatient() -> Any:
        return ray.get(ray.remote(lambda: threading.Event().wait(5)).remote(), timeout=0)

    def bereft() -> Any:
        crashing = ray.remote(max_retries=0)(lambda: os._exit(3))
        return ray.get(crashing.remote())

    assert named(outcome_of_task(ray_alone, impatient).fault) == (Kind.TASK, "GetTimeoutError")
    assert named(outcome_of_task(ray_alone, bereft).fault) == (Kind.TASK, "WorkerCrashedError")


def attempts(path: Path, make: Callable[[], BaseException]) -> Callable[[], NoReturn]:
    def code() -> NoReturn:
        with path.open("a") as file:
            file.write("x")
        raise make()

    return code


@pytest.mark.parametrize(
    ("make", "retried"),
    [
        (lambda: Plain(TELLTALE), [Plain]),
        (lambda: ReduceDropsVariables(TELLTALE), [ReduceDropsVariables]),
        (lambda: HoldsALock(TELLTALE), [HoldsALock]),
        (lambda: TwoArguments(1, TELLTALE), [TwoArguments]),
        (lambda: UnpicklingRaises(TELLTALE), [Exception]),
    ],
)
def test_retry_exceptions_sees_the_users_exception(
    ray_alone: Runtime, tmp_path: Path, make: Callable[[], BaseException], retried: list[type[Exception]]
) -> None:
    matching, other = tmp_path / "matching", tmp_path / "other"
    first = outcome_of_task(ray_alone, attempts(matching, make), max_retries=2, retry_exceptions=retried)
    second = outcome_of_task(ray_alone, attempts(other, make), max_retries=2, retry_exceptions=[ZeroDivisionError])
    assert named(first.fault) == named(second.fault) == (Kind.TASK, type(make()).__name__)
    assert (matching.read_text(), other.read_text()) == ("xxx", "x")


@pytest.mark.parametrize("retried", [Plain, ray.exceptions.RayTaskError])
def test_retry_exceptions_sees_what_a_task_of_its_own_raised(
    ray_alone: Runtime, tmp_path: Path, retried: type[Exception]
) -> None:
    path = tmp_path / "attempts"

    def nested() -> Any:
        with path.open("a") as file:
            file.write("x")
        return ray.get(ray.remote(raising(lambda: Plain(TELLTALE))).remote())

    fault = outcome_of_task(ray_alone, nested, max_retries=1, retry_exceptions=[retried]).fault
    assert named(fault) == (Kind.TASK, "Plain")
    assert path.read_text() == "xx"


class Registered(HoldsALock):
    """Registered in the worker that raises it, where it stays so."""


def test_an_exception_with_a_serializer_of_the_users_arrives_as_itself(ray_alone: Runtime) -> None:
    def code() -> NoReturn:
        ray.util.register_serializer(Registered, serializer=lambda error: error.args[0], deserializer=Registered)
        raise Registered(TELLTALE)

    outcome = outcome_of_task(ray_alone, code)
    assert named(outcome.fault) == (Kind.TASK, "Registered")
    assert type(outcome.error) is Registered
    # Pickled past what the library attaches, so that Ray's text is what there is.
    assert outcome.fault is not None
    assert TELLTALE in outcome.fault.traceback


def crash() -> NoReturn:
    os._exit(3)


def block(running: Path) -> NoReturn:
    running.write_text(str(os.getpid()))
    while True:
        threading.Event().wait(0.01)


def wait_for(path: Path) -> None:
    assert eventually(lambda: path.exists() and bool(path.read_text()), 60)


def test_a_worker_that_exits_and_what_depends_on_it(ray_alone: Runtime) -> None:
    failed = ray_alone.submit(task(crash, max_retries=0), call())
    downstream = ray_alone.submit(task(add), call(failed.results[0]))
    further = ray_alone.submit(task(add), call(downstream.results[0]))
    for submission in (failed, downstream, further):
        assert named(fault_at(ray_alone, submission.done)) == (Kind.WORKER_CRASHED, "WorkerCrashedError")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed(ray_alone: Runtime, tmp_path: Path, number: signal.Signals) -> None:
    running = tmp_path / "running"
    submission = ray_alone.submit(task(block, max_retries=0), call(running))
    wait_for(running)
    os.kill(int(running.read_text()), number)
    assert named(fault_at(ray_alone, submission.done)) == (Kind.WORKER_CRASHED, "WorkerCrashedError")


@pytest.mark.parametrize("force", [False, True])
def test_a_cancelled_task_and_what_depends_on_it(ray_alone: Runtime, tmp_path: Path, force: bool) -> None:
    running = tmp_path / "running"
    submission = ray_alone.submit(task(block, num_cpus=8, max_retries=0), call(running))
    wait_for(running)
    queued = ray_alone.submit(task(block, num_cpus=8), call(tmp_path / "never"))
    downstream = ray_alone.submit(task(add), call(submission.results[0]))
    for cancelled in (queued, submission):
        ray.cancel(cancelled.done, force=force)
    expected = {(Kind.CANCELLED, "TaskCancelledError")}
    assert {named(fault_at(ray_alone, queued.done))} == expected
    if force:
        # Older releases of Ray do not tell what is cancelled by force from a crash.
        expected.add((Kind.WORKER_CRASHED, "WorkerCrashedError"))
    assert named(fault_at(ray_alone, submission.done)) in expected
    assert named(fault_at(ray_alone, downstream.done)) in expected
    assert not (tmp_path / "never").exists()


def test_a_cancelled_call_of_an_actor_with_coroutine_methods(
    ray_alone: Runtime, make_ray_actor: Callable[..., Any], tmp_path: Path
) -> None:
    actor = make_ray_actor(AsyncWorker)
    running = tmp_path / "running"
    submission = ray_alone.call(actor, "block", call(running), {})
    assert eventually(running.exists)
    ray.cancel(submission.done)
    assert named(fault_at(ray_alone, submission.done)) == (Kind.CANCELLED, "TaskCancelledError")
    assert value_of(ray_alone, ray_alone.call(actor, "pid", call(), {})) > 0


@pytest.mark.parametrize("code", [Worker, AsyncWorker])
def test_an_actor_that_leaves(ray_alone: Runtime, make_ray_actor: Callable[..., Any], code: type) -> None:
    actor = make_ray_actor(code)
    for method in ("leave", "pid"):
        fault = fault_at(ray_alone, ray_alone.call(actor, method, call(), {}).done)
        assert named(fault) == (Kind.ACTOR_DIED, "ActorDiedError")


@pytest.mark.parametrize("how", ["kill", "ray.kill", "SIGKILL", "crash"])
def test_an_actor_that_is_killed_and_what_depends_on_it(
    ray_alone: Runtime, make_ray_actor: Callable[..., Any], tmp_path: Path, how: str
) -> None:
    actor = make_ray_actor(Worker)
    pid = value_of(ray_alone, ray_alone.call(actor, "pid", call(), {}))
    running = tmp_path / "running"
    if how == "crash":
        pending = ray_alone.call(actor, "crash", call(), {})
    else:
        pending = ray_alone.call(actor, "block", call(running), {})
        assert eventually(running.exists)
    downstream = ray_alone.submit(task(add), call(pending.results[0]))
    if how == "kill":
        ray_alone.kill(actor)
    elif how == "ray.kill":
        ray.kill(actor)
    elif how == "SIGKILL":
        os.kill(pid, signal.SIGKILL)
    for ref in (pending.done, downstream.done, ray_alone.call(actor, "pid", call(), {}).done):
        assert named(fault_at(ray_alone, ref)) == (Kind.ACTOR_DIED, "ActorDiedError")


def test_a_call_that_a_restarting_actor_loses(
    ray_alone: Runtime, make_ray_actor: Callable[..., Any], tmp_path: Path
) -> None:
    actor = make_ray_actor(Worker, max_restarts=1)
    pid = value_of(ray_alone, ray_alone.call(actor, "pid", call(), {}))
    running = tmp_path / "running"
    pending = ray_alone.call(actor, "block", call(running), {"max_task_retries": 0})
    assert eventually(running.exists)
    os.kill(pid, signal.SIGKILL)
    assert named(fault_at(ray_alone, pending.done)) == (Kind.ACTOR_DIED, "ActorUnavailableError")


def test_a_value_whose_owner_died(ray_alone: Runtime, make_ray_actor: Callable[..., Any]) -> None:
    actor = make_ray_actor(Worker)
    [lost] = value_of(ray_alone, ray_alone.call(actor, "own", call(), {}))
    good = ray_alone.submit(task(add), call(1))
    ray_alone.kill(actor)
    # The node learns of the owner's death on its own way, and hands the value out until then.
    assert eventually(lambda: ending(ray_alone, lost).fault is not None)
    assert named(fault_at(ray_alone, lost)) == (Kind.OBJECT_LOST, "OwnerDiedError")
    with pytest.raises(FetchFailed) as failed:
        ray_alone.fetch([good.results[0], lost])
    assert failed.value.position == 1
    assert named(failed.value.fault) == (Kind.OBJECT_LOST, "OwnerDiedError")
    assert type(failed.value.cause) is ray.exceptions.OwnerDiedError
    downstream = ray_alone.submit(task(add), call(lost))
    assert named(fault_at(ray_alone, downstream.done)) == (Kind.OBJECT_LOST, "OwnerDiedError")


def test_a_call_that_can_run_nowhere(ray_alone: Runtime) -> None:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nowhere = NodeAffinitySchedulingStrategy(node_id="0" * 56, soft=False)
    fault = outcome_of_task(ray_alone, crash, scheduling_strategy=nowhere).fault
    assert named(fault) == (Kind.TASK, "TaskUnschedulableError")
    _, created = ray_alone.create(ActorBody(Worker, "Worker", {"scheduling_strategy": nowhere}), call())
    assert named(fault_at(ray_alone, created)) == (Kind.ACTOR_DIED, "ActorUnschedulableError")


def test_what_no_node_has_is_refused_at_the_call_and_what_one_has_is_looked_up_once(ray_alone: Runtime) -> None:
    for options, takes in (({"num_gpus": 1}, "CPU=1, GPU=1"), ({"num_cpus": 9}, "CPU=9")):
        with pytest.raises(ray.exceptions.TaskUnschedulableError, match=f"it takes {takes}, and no node .*CPU=8"):
            ray_alone.submit(task(add, **options), call(1))
        with pytest.raises(ray.exceptions.ActorUnschedulableError, match=f"it takes {takes}, and no node .*CPU=8"):
            ray_alone.create(ActorBody(Worker, "Worker", options), call())
    with mock.patch.object(ray, "nodes", wraps=ray.nodes) as nodes:
        for _ in range(2):
            assert value_of(ray_alone, ray_alone.submit(task(add, num_cpus=0.25), call(1))) == 11
    assert nodes.call_count == 1


def test_what_actors_keep_from_a_task_is_known(ray_alone: Runtime, make_ray_actor: Callable[..., Any]) -> None:
    body, light = task(add), ActorBody(Worker, "Worker", {})
    large = ActorBody(Worker, "Worker", {"num_cpus": 5})
    assert ray_alone.held_up([(body, None), (light, None)]) == ["", ""]
    for cpus in (4, 3, 1):
        make_ray_actor(Worker, num_cpus=cpus)
    waiting, created = ray_alone.create(large, call())
    submission = ray_alone.submit(body, call(1))
    kept = "of which actors hold 8 of 8 [3 Worker]"
    expected = [f"CPU=1 {kept}", f"CPU=5 {kept}"]
    # What is in use the cluster tells a moment later.
    assert eventually(lambda: ray_alone.held_up([(body, None), (large, waiting)]) == expected)
    ray_alone.kill(waiting)
    assert named(fault_at(ray_alone, created))[0] is Kind.ACTOR_DIED
    ray.cancel(submission.done)
    assert ending(ray_alone, submission.done).fault is not None


# --- the table

ERRORS = {
    name: found
    for name, found in vars(ray.exceptions).items()
    if inspect.isclass(found) and issubclass(found, BaseException) and found.__module__ == "ray.exceptions"
}


def test_every_exception_of_ray_has_a_place_of_its_own_or_of_a_base() -> None:
    assert len(ERRORS) > 25
    catch_all = ray.exceptions.RayError
    assert issubclass(ray.exceptions.RayTaskError, catch_all)
    known = {found for name, found in ERRORS.items() if name in faults.KINDS} - {catch_all}
    unplaced = {
        name
        for name, found in ERRORS.items()
        if found is not catch_all and not any(base in known for base in found.__mro__)
    }
    assert not unplaced


NEWER_THAN_2_44 = {
    "ActorAlreadyExistsError",
    "ActorHandleNotFoundError",
    "AuthenticationError",
    "StreamingGeneratorReplayInconsistentError",
    "UnserializableException",
}
"""Of the names in the table, those that the oldest release supported does not have. Any other is misspelled."""


def test_every_name_in_the_table_that_ray_has_is_an_exception() -> None:
    strange = {name for name in faults.KINDS if name not in ERRORS}
    assert strange <= NEWER_THAN_2_44
    assert not any(hasattr(ray.exceptions, name) for name in strange)


def resolved(error: BaseException) -> Outcome:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    future.set_exception(error)
    return faults.outcome_of(future)


LOST_VALUE = {"object_ref_hex": "00", "owner_address": None, "call_site": ""}
SIMULATED: list[tuple[str, Any, Kind]] = [
    ("OutOfMemoryError", "no room", Kind.OUT_OF_MEMORY),
    ("ObjectStoreFullError", "no room", Kind.OUT_OF_MEMORY),
    ("OutOfDiskError", "no room", Kind.OUT_OF_MEMORY),
    ("NodeDiedError", "node", Kind.WORKER_CRASHED),
    ("LocalRayletDiedError", None, Kind.WORKER_CRASHED),
    ("ObjectLostError", LOST_VALUE, Kind.OBJECT_LOST),
    ("ObjectReconstructionFailedError", LOST_VALUE, Kind.OBJECT_LOST),
    ("ObjectFetchTimedOutError", LOST_VALUE, Kind.OBJECT_LOST),
    ("ObjectFreedError", LOST_VALUE, Kind.OBJECT_LOST),
    ("ReferenceCountingAssertionError", LOST_VALUE, Kind.OBJECT_LOST),
    ("PlasmaObjectNotAvailable", "value", Kind.OBJECT_LOST),
    ("RuntimeEnvSetupError", "pip", Kind.TASK),
    ("TaskPlacementGroupRemoved", None, Kind.TASK),
    ("ActorPlacementGroupRemoved", None, Kind.ACTOR_DIED),
    ("UnserializableException", "trace", Kind.TASK),
    ("UserCodeException", "udf", Kind.TASK),
    ("PendingCallsLimitExceeded", "full", Kind.TASK),
    ("GetTimeoutError", "late", Kind.TIMEOUT),
    ("RaySystemError", "raylet", Kind.INTERNAL),
    ("RayChannelTimeoutError", "channel", Kind.INTERNAL),
    ("RpcError", "rpc", Kind.INTERNAL),
]
"""Name of the class, what it is made from, and the kind."""


@pytest.mark.parametrize(("name", "made_from", "kind"), SIMULATED, ids=[name for name, _, _ in SIMULATED])
def test_what_cannot_be_provoked_is_told_by_kind(name: str, made_from: Any, kind: Kind) -> None:
    """Simulated at the boundary, with an instance of Ray's class.

    Memory, disk and nodes cannot be exhausted or lost on a machine that the test shares; the rest needs a private
    interface of Ray, or a failure within it.
    """
    if name not in ERRORS:
        pytest.skip(f"this release of Ray has no {name}")
    if made_from is None:
        error = ERRORS[name]()
    else:
        error = ERRORS[name](**made_from) if isinstance(made_from, dict) else ERRORS[name](made_from)
    outcome = resolved(error)
    assert named(outcome.fault) == (kind, name)
    assert outcome.error is error
    # A text goes where its content may be shown: a traceback is not a message.
    assert outcome.fault is not None
    assert bool(outcome.fault.traceback) == (name == "UnserializableException")
    assert bool(outcome.fault.message) != bool(outcome.fault.traceback)
    wrapped = ray.exceptions.RayTaskError("task", "Traceback ...", error, "process", 1, "address")
    assert resolved(wrapped.as_instanceof_cause()).fault == outcome.fault


def test_an_error_of_a_later_release_is_internal() -> None:
    later = type("LaterError", (ray.exceptions.RayError,), {})
    assert named(resolved(later("x")).fault) == (Kind.INTERNAL, "LaterError")


def test_what_is_neither_rays_nor_a_tasks_is_internal() -> None:
    assert named(resolved(ConnectionError("x")).fault) == (Kind.INTERNAL, "ConnectionError")


def test_a_reference_that_was_dropped_is_internal() -> None:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    future.cancel()
    assert named(faults.outcome_of(future).fault) == (Kind.INTERNAL, "RaySystemError")


def test_an_exception_whose_class_is_registered_with_copyreg_travels_as_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(copyreg.dispatch_table, HoldsALock, lambda error: (HoldsALock, error.args))
    error = HoldsALock(TELLTALE)
    assert worker.departing(error) is error
