"""One suite for both runtimes: what `fed.runtime.contract` promises, each keeps.

Whoever imports all of it has the tests, and adds the fixture ``started``.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

import fed
from fed.config import Address, Config
from fed.core.failure import Fault, Kind
from fed.core.rendezvous import Key
from fed.object import ObjectId
from fed.proxy.control import Listener, Snapshot
from fed.proxy.deliveries import Delivery, Pushed
from fed.proxy.events import PeerEvent
from fed.proxy.greeting import hello_of
from fed.proxy.pushing import SenderFailed
from fed.proxy.receiver import Receiver
from fed.proxy.sender import Sender
from fed.runtime.arguments import Nested, Shape, Slot
from fed.runtime.contract import ActorBody, Call, Outcome, Proxies, Ref, Runtime, Submission, TaskBody
from fed.runtime.local import LocalRuntime
from fed.serde.data import DataCodec
from fed.serde.receipt import SmallCodec, SmallValue, read_receipt
from fed.testing.simulation import free_addresses
from fed.transport.memory import MemoryNetwork
from tests.support.eventually import eventually


def local_runtime() -> Runtime:
    network = MemoryNetwork()
    config = Config(job="job", party="alice", addresses={"alice": Address("127.0.0.1", 1)})
    hello = hello_of(config, "x")
    codec = DataCodec()
    return LocalRuntime(
        "alice",
        lambda: Sender(hello, {"bob": network.link("alice", "bob")}, codec, small_object_bytes=1000),
        lambda: Receiver(hello, network.listener("alice"), codec, max_stored_bytes=10**6),
        codec=SmallCodec((), 64 * 1024),
    )


def ray_runtime() -> Runtime:
    from fed.runtime.ray import RayRuntime

    config = Config(job="job", party="alice", addresses=dict(zip(("alice", "bob"), free_addresses(2), strict=True)))
    return RayRuntime(config, hello_of(config, "x"))


def running(runtime: Runtime) -> Iterator[tuple[Runtime, Proxies]]:
    """What the fixture ``started`` yields from."""
    proxies = runtime.start()
    begin(proxies)
    try:
        assert ending(runtime, proxies.started()) == Outcome(None, None, None)
        yield runtime, proxies
    finally:
        for closed in proxies.close():
            ending(runtime, closed)
        runtime.close()


class Deaf:
    """Hears nothing of what a proxy says (`fed.proxy.control.Listener`)."""

    def handle(self, events: Sequence[PeerEvent]) -> None:
        """Nothing."""

    def lives_again(self) -> None:
        """Nothing."""


def begin(proxies: Proxies, listener: Listener | None = None) -> None:
    """What a driver begins with: the proxies wait for it."""
    for client in (proxies.direct.sender, proxies.direct.receiver):
        client.listen(listener or Deaf())


@pytest.fixture
def runtime(started: tuple[Runtime, Proxies]) -> Runtime:
    return started[0]


@pytest.fixture
def proxies(started: tuple[Runtime, Proxies]) -> Proxies:
    return started[1]


def ending(runtime: Runtime, ref: Ref, within_s: float = 60) -> Outcome:
    """How a reference ends."""
    ended = threading.Event()
    outcomes: list[Outcome] = []

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        ended.set()

    runtime.watch(ref, note)
    assert ended.wait(within_s), "the reference did not resolve"
    return outcomes[0]


def task(code: Callable[..., Any], **options: Any) -> TaskBody:
    return TaskBody(code, getattr(code, "__name__", "task"), options)


class Arriving(NamedTuple):
    """An object of a peer, among the values of a call."""

    origin: str
    small: SmallValue


def call(*values: Any, keywords: tuple[str, ...] = (), extras: int = 0, returns: int = 1) -> Call:
    arriving = tuple((at, value.origin) for at, value in enumerate(values) if isinstance(value, Arriving))
    passed = tuple(value.small.to_bytes() if isinstance(value, Arriving) else value for value in values)
    return Call(passed, Shape(keywords, extras, returns, arriving))


def value_of(runtime: Runtime, submission: Submission) -> Any:
    outcome = ending(runtime, submission.done)
    assert outcome.fault is None, outcome
    values = runtime.fetch(submission.results)
    return values[0] if len(values) == 1 else values


def add(first: Any, second: Any = 10) -> Any:
    return first + second


class Boom(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def boom() -> None:
    raise Boom(7, "secret")


def value_error() -> None:
    try:
        dict[str, int]()["missing"]
    except KeyError as error:
        raise ValueError("secret") from error


def test_a_function_runs_with_arguments_by_position_and_by_keyword(runtime: Runtime) -> None:
    assert value_of(runtime, runtime.submit(task(add), call(1))) == 11
    assert value_of(runtime, runtime.submit(task(add), call(1, 2, keywords=("second",)))) == 3


def test_references_resolve_to_values_as_arguments_and_inside_containers(runtime: Runtime) -> None:
    first = runtime.submit(task(add), call(1)).results[0]
    second = runtime.submit(task(add), call(2)).results[0]
    assert value_of(runtime, runtime.submit(task(add), call(first, second))) == 23

    def shape(tree: Any, plain: Any) -> Any:
        return tree["list"][0] + tree["tuple"][1], plain

    nested = Nested({"list": [Slot(0)], "tuple": (0, Slot(1))})
    submitted = runtime.submit(task(shape), call(nested, "plain", first, second, extras=2))
    assert value_of(runtime, submitted) == (23, "plain")


def test_the_end_of_a_task_brings_its_small_results(runtime: Runtime) -> None:
    def several() -> Any:
        return 7, bytes(10_000_000), threading.Lock

    def receipt_of(submission: Submission) -> Any:
        return read_receipt(ending(runtime, submission.done).value)

    eleven, seven = (SmallValue(DataCodec().encode(value).header, ()) for value in (11, 7))
    assert receipt_of(runtime.submit(task(add), call(1))) == (eleven,)
    first, large, no_data = receipt_of(runtime.submit(task(several), call(returns=3)))
    assert (first, large, no_data) == (seven, None, None)
    assert receipt_of(runtime.submit(task(bytes), call(10_000_000))) is None


class Waiter:
    async def wait(self) -> int:
        return 7

    async def same(self, value: int) -> int:
        return value

    def now(self) -> int:
        return 7


@pytest.mark.parametrize("method", ["wait", "now"])
def test_what_other_calls_may_change_before_it_is_taken_has_no_receipt(runtime: Runtime, method: str) -> None:
    actor, _ = runtime.create(ActorBody(Waiter, "Waiter", {}), call())
    submission = runtime.call(actor, method, call(), {})
    assert ending(runtime, submission.done) == Outcome(b"", None, None)
    assert value_of(runtime, submission) == 7
    runtime.kill(actor)


def test_a_small_value_that_no_peer_is_there_for_is_answered_with_the_epoch(proxies: Proxies) -> None:
    pushed = proxies.direct.pushes.push([Delivery(ObjectId(0, 1, 0), ("bob",))], [SmallValue(b"", ())])
    proxies.direct.publish(Snapshot(1, False, False, {}, {}))
    assert pushed.result(60) == Pushed([], [])


def test_what_a_sender_cannot_take_is_answered_and_the_next_push_is_taken(proxies: Proxies) -> None:
    strange = proxies.direct.pushes.push([Delivery(ObjectId(0, 1, 0), ("nobody",))], [SmallValue(b"", ())])
    with pytest.raises(SenderFailed, match="KeyError: 'nobody'"):
        strange.result(60)
    assert proxies.direct.pushes.push([], []).result(60) == Pushed([], [])


def test_several_results_and_none(runtime: Runtime) -> None:
    def three() -> list[int]:
        return [1, 2, 3]

    assert value_of(runtime, runtime.submit(task(three), call(returns=3))) == [1, 2, 3]
    assert runtime.submit(task(three), call(returns=0)).results == ()
    assert ending(runtime, runtime.submit(task(three), call(returns=0)).done) == Outcome(b"", None, None)
    wrong = ending(runtime, runtime.submit(task(three), call(returns=2)).done)
    assert wrong.fault is not None
    assert "num_returns=2 but returned 3 values" in wrong.fault.message


def test_a_result_is_its_own_copy(runtime: Runtime) -> None:
    made = runtime.submit(task(lambda: {"k": [1]}), call())
    value_of(runtime, made)["k"].append(2)
    assert value_of(runtime, made) == {"k": [1]}

    def change(values: Any) -> Any:
        values["k"].append(3)
        return values

    assert value_of(runtime, runtime.submit(task(change), call(made.results[0]))) == {"k": [1, 3]}
    assert value_of(runtime, made) == {"k": [1]}


def test_arrays_arrive_read_only(runtime: Runtime) -> None:
    made = runtime.submit(task(lambda: np.arange(100_000)), call())
    array = value_of(runtime, made)
    assert array.sum() == 4999950000
    assert not array.flags.writeable


def test_a_users_exception_comes_back_as_itself_with_type_causes_text_and_trace(runtime: Runtime) -> None:
    outcome = ending(runtime, runtime.submit(task(value_error), call()).done)
    assert outcome.fault is not None
    assert (outcome.fault.kind, outcome.fault.type_name) == (Kind.TASK, "ValueError")
    assert outcome.fault.cause_types == ("KeyError",)
    assert outcome.fault.message == "secret"
    assert "in value_error" in outcome.fault.traceback
    assert "fed/runtime" not in outcome.fault.traceback
    assert isinstance(outcome.error, ValueError)


def test_an_exception_that_cannot_travel_keeps_its_name(runtime: Runtime) -> None:
    outcome = ending(runtime, runtime.submit(task(boom), call()).done)
    assert outcome.fault is not None
    assert (outcome.fault.type_name, outcome.fault.message) == ("Boom", "secret")


def test_what_is_held_for_a_later_call_is_what_it_was(runtime: Runtime) -> None:
    given = [1]
    nested = Nested({"values": given, "slot": Slot(0)})
    body = task(lambda values, tree: (values, tree["values"], tree["slot"]))
    runtime.hold_code(body)
    held = runtime.hold(given), runtime.hold(nested)
    given.append(2)
    assert value_of(runtime, runtime.submit(body, call(*held, 7, extras=1))) == ([1], [1], 7)
    with pytest.raises(pickle.PicklingError, match=r"an argument \(lock\) cannot be pickled: make it inside the task"):
        runtime.hold(threading.Lock())


def test_code_that_is_held_for_a_later_call_is_what_it_was(runtime: Runtime) -> None:
    if isinstance(runtime, LocalRuntime):
        pytest.skip("in one process code is what it is")
    seen = [1]
    function = task(lambda: list(seen))

    class Seeing:
        def see(self) -> list[int]:
            return list(seen)

    runtime.hold_code(function)
    actor_class = ActorBody(Seeing, "Seeing", {})
    runtime.hold_code(actor_class)
    seen.append(2)
    assert value_of(runtime, runtime.submit(function, call())) == [1]
    actor, _ = runtime.create(actor_class, call())
    assert value_of(runtime, runtime.call(actor, "see", call(), {})) == [1]
    runtime.kill(actor)


class Managed:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...

    def method(self) -> int:
        return 7


def test_what_decides_whether_calls_run_in_order_is_what_may_be_called(runtime: Runtime) -> None:
    assert not ActorBody(Managed, "Managed", {"max_concurrency": None}).is_concurrent
    assert ActorBody(Managed, "Managed", {"max_concurrency": 2}).is_concurrent
    assert ActorBody(Waiter, "Waiter", {}).is_concurrent
    actor, _ = runtime.create(ActorBody(Managed, "Managed", {}), call())
    done = runtime.call(actor, "method", call(), {})
    assert ending(runtime, done.done).value is not None
    runtime.kill(actor)


def test_a_failure_reaches_whatever_depends_on_it(runtime: Runtime) -> None:
    failed = runtime.submit(task(value_error), call()).results[0]
    outcome = ending(runtime, runtime.submit(task(add), call(failed)).done)
    assert outcome.fault is not None
    assert outcome.fault.type_name == "ValueError"


def small(value: Any) -> SmallValue:
    encoded = DataCodec().encode(value)
    return SmallValue(encoded.header, tuple(map(bytes, encoded.buffers)))


def test_what_a_peer_sent_is_decoded_beside_the_code(runtime: Runtime) -> None:
    first, second = (Arriving("an object", small(number)) for number in (1, 2))
    assert value_of(runtime, runtime.submit(task(add), call(first, second, keywords=("second",)))) == 3
    nested = Nested([Slot(0), 3])
    assert value_of(runtime, runtime.submit(task(sum), call(nested, second, extras=1))) == 5
    actor, _ = runtime.create(ActorBody(Counter, "Counter", {}), call(first))
    assert value_of(runtime, runtime.call(actor, "add", call(second), {})) == 3
    runtime.kill(actor)
    awaiting, _ = runtime.create(ActorBody(Waiter, "Waiter", {}), call())
    assert value_of(runtime, runtime.call(awaiting, "same", call(second), {})) == 2
    runtime.kill(awaiting)


def test_what_cannot_be_decoded_keeps_the_code_from_running(runtime: Runtime) -> None:
    bad = Arriving("object #2 from party 'bob'", SmallValue(b"\xc1", ()))
    for packed in (call(bad), call(Nested([Slot(0)]), bad, extras=1)):
        fault = ending(runtime, runtime.submit(task(add), packed).done).fault
        assert fault is not None
        assert (fault.kind, fault.type_name) == (Kind.DELIVERY, "DecodeError")
        assert fault.detail == "object #2 from party 'bob' cannot be decoded"
        assert fault.message
        assert fault.traceback == ""
    # It is not the task's failure for those that depend on it either.
    first = runtime.submit(task(add), call(bad))
    second = ending(runtime, runtime.submit(task(add), call(first.results[0])).done).fault
    assert second is not None
    assert second.kind is Kind.DELIVERY


class Counter:
    def __init__(self, start: int) -> None:
        self.count = start

    def add(self, step: int) -> int:
        self.count += step
        return self.count

    def seen(self) -> int:
        return self.count

    def end(self) -> None:
        os._exit(3)


def test_an_actor_keeps_state_and_the_order_of_calls(runtime: Runtime) -> None:
    actor, created = runtime.create(ActorBody(Counter, "Counter", {}), call(100))
    assert ending(runtime, created) == Outcome(None, None, None)
    slow = runtime.submit(task(add), call(1)).results[0]
    calls = [runtime.call(actor, "add", call(slow if step == 0 else step), {}) for step in range(20)]
    assert [value_of(runtime, submitted) for submitted in calls] == [111 + sum(range(step + 1)) for step in range(20)]
    runtime.kill(actor)


@fed.remote
class Base:
    def __init__(self, start: int) -> None:
        self.start = start

    def value(self) -> int:
        return self.start


class Derived(Base):
    def __init__(self, start: int) -> None:
        super().__init__(2 * start)

    def value(self) -> int:
        return super().value() + isinstance(self, Base)


def test_an_actor_of_a_class_that_derives_from_a_federated_one(runtime: Runtime) -> None:
    actor, _ = runtime.create(ActorBody(Derived, "Derived", {}), call(3))
    assert value_of(runtime, runtime.call(actor, "value", call(), {})) == 7
    runtime.kill(actor)


def test_a_constructor_that_raises_fails_every_method_with_its_error(runtime: Runtime) -> None:
    class Broken:
        def __init__(self) -> None:
            raise ValueError("secret")

        def method(self) -> int:
            return 1

    actor, created = runtime.create(ActorBody(Broken, "Broken", {}), call())
    for ref in (created, runtime.call(actor, "method", call(), {}).done):
        outcome = ending(runtime, ref)
        assert outcome.fault is not None
        assert (outcome.fault.kind, outcome.fault.type_name) == (Kind.TASK, "ValueError")
    runtime.kill(actor)


def test_calls_of_a_killed_actor_end(runtime: Runtime) -> None:
    actor, created = runtime.create(ActorBody(Counter, "Counter", {}), call(0))
    ending(runtime, created)
    runtime.kill(actor)
    faults: list[Fault] = []

    def failed() -> bool:
        fault = ending(runtime, runtime.call(actor, "add", call(1), {}).done).fault
        faults.extend([fault] if fault is not None else [])
        return bool(faults)

    # Ray kills when it gets to it, and until then an actor takes calls.
    assert eventually(failed)
    assert faults[0].kind is Kind.ACTOR_DIED


def test_coroutine_methods_run_concurrently(runtime: Runtime) -> None:
    class Meeting:
        def __init__(self) -> None:
            import asyncio

            self.event = asyncio.Event()

        async def wait(self) -> str:
            await self.event.wait()
            return "met"

        async def come(self) -> None:
            self.event.set()

    actor, _ = runtime.create(ActorBody(Meeting, "Meeting", {}), call())
    waiting = runtime.call(actor, "wait", call(), {})
    runtime.call(actor, "come", call(), {})
    assert value_of(runtime, waiting) == "met"
    runtime.kill(actor)


def test_methods_run_on_as_many_threads_as_the_class_says(runtime: Runtime) -> None:
    class Meeting:
        def __init__(self) -> None:
            self.running = threading.Semaphore(2)
            self.two = threading.Barrier(2)

        def meet(self) -> bool:
            """Whether two, and no more, are here at once."""
            if not self.running.acquire(blocking=False):
                return False
            self.two.wait(60)
            self.running.release()
            return True

    actor, _ = runtime.create(ActorBody(Meeting, "Meeting", {"max_concurrency": 2}), call())
    calls = [runtime.call(actor, "meet", call(), {}) for _ in range(6)]
    assert [value_of(runtime, submitted) for submitted in calls] == [True] * 6
    runtime.kill(actor)


def test_coroutine_methods_run_one_at_a_time_where_the_class_says_so(runtime: Runtime) -> None:
    class Alone:
        running = 0

        async def most(self) -> int:
            import asyncio

            self.running += 1
            for _ in range(10):
                await asyncio.sleep(0)
            found, self.running = self.running, self.running - 1
            return found

    actor, _ = runtime.create(ActorBody(Alone, "Alone", {"max_concurrency": 1}), call())
    calls = [runtime.call(actor, "most", call(), {}) for _ in range(5)]
    assert [value_of(runtime, submitted) for submitted in calls] == [1] * 5
    runtime.kill(actor)


def test_a_task_whose_worker_dies_ends_with_the_kind(runtime: Runtime) -> None:
    if isinstance(runtime, LocalRuntime):
        pytest.skip("threads of this process cannot die apart from it")
    outcome = ending(runtime, runtime.submit(task(lambda: os._exit(3), max_retries=0), call()).done)
    assert outcome.fault is not None
    assert outcome.fault.kind is Kind.WORKER_CRASHED


def test_options_reach_the_runtime(runtime: Runtime) -> None:
    if isinstance(runtime, LocalRuntime):
        pytest.skip("resources have no meaning in one process")
    import ray

    def resources() -> Any:
        return ray.get_runtime_context().get_assigned_resources()

    assert value_of(runtime, runtime.submit(task(resources, num_cpus=2), call()))["CPU"] == 2.0


def test_a_function_is_exported_once_however_often_it_is_called(runtime: Runtime) -> None:
    if isinstance(runtime, LocalRuntime):
        pytest.skip("nothing is exported in one process")
    from unittest import mock

    import ray

    body = task(add)
    value_of(runtime, runtime.submit(body, call(1)))
    other_options = task(add, num_cpus=0.5)
    with mock.patch.object(ray, "remote", side_effect=RuntimeError("exported again")):
        assert value_of(runtime, runtime.submit(body, call(2))) == 12
        assert value_of(runtime, runtime.submit(body, call(3, 4))) == 7
        assert value_of(runtime, runtime.submit(other_options, call(5, 6))) == 11


def test_what_is_not_here_cannot_be_taken(runtime: Runtime, proxies: Proxies) -> None:
    taken = ending(runtime, proxies.take(Key("bob", ObjectId(0, 1, 0))).done)
    assert taken.fault is not None
    assert taken.fault.kind is Kind.OBJECT_LOST


def test_a_push_of_nothing_and_to_nobody_ends(runtime: Runtime, proxies: Proxies) -> None:
    submitted = runtime.submit(task(add), call(1))
    value_of(runtime, submitted)
    done = proxies.push([Delivery(ObjectId(0, 0, 0), ())], submitted.results)
    assert ending(runtime, done).value == Pushed([], [])


def test_a_push_names_what_is_undeliverable_and_what_is_pending(runtime: Runtime, proxies: Proxies) -> None:
    # Nobody listens as bob, so whatever can be sent to him stays pending.
    values = [runtime.submit(task(made), call()) for made in (lambda: 1, object)]
    for submitted in values:
        value_of(runtime, submitted)
    refs = [submitted.results[0] for submitted in values]
    deliveries = [Delivery(ObjectId(1, number, 0), ("bob",)) for number in range(2)]
    pushed = ending(runtime, proxies.push(deliveries, refs)).value
    assert [delivery.id for delivery in pushed.undelivered] == [deliveries[1].id]
    assert pushed.pending == deliveries[:1]
    again = proxies.push(pushed.pending, refs[:1])
    proxies.direct.publish(Snapshot(2, False, False, {}, {}))
    assert ending(runtime, again).value == Pushed([], [])


def test_a_runtime_closes_twice() -> None:
    runtime = local_runtime()
    proxies = runtime.start()
    begin(proxies)
    ending(runtime, proxies.started())
    ended = proxies.ended()
    for closed in proxies.close():
        ending(runtime, closed)
    for end in ended.values():
        assert ending(runtime, end) == Outcome(None, None, None)
    runtime.close()
    runtime.close()
