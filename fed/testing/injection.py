"""The faults of one party: wrappers around its proxies, its runtime, its job and its failure handler.

Each keeps the contract of what it wraps, so that the party cannot tell an injected fault from a real one. Where a
fault has nothing to do, the call goes through. What the wire suffers is in `fed.testing.links`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import itertools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from typing_extensions import override

from fed.core.failure import Fault, Kind
from fed.engine.cleanup import FailureReport
from fed.engine.job import Job
from fed.errors import FedTimeoutError
from fed.proxy.arriving import Arrived
from fed.proxy.deliveries import Delivery, Pushed
from fed.proxy.receiver import Receiver
from fed.proxy.sender import Sender
from fed.runtime.contract import ActorBody, Call, Outcome, Proxies, Ref, Submission, TaskBody
from fed.runtime.local import LocalRuntime
from fed.testing.fault_run import FaultRun, InjectedFault, InjectionPoint
from fed.transport.contract import Hello

__all__ = ["FaultyJob", "FaultyReceiver", "FaultyRuntime", "FaultySender", "faulty_handler"]

P = ParamSpec("P")
T = TypeVar("T")


# The proxies


class FaultySender(Sender):
    """A sender whose driver's calls suffer.

    Args:
        run: The plan in this simulation.
        hello: As for `Sender`, and likewise the rest.
        *arguments: Likewise.
        **options: Likewise.
    """

    def __init__(self, run: FaultRun, hello: Hello, *arguments: Any, **options: Any) -> None:
        super().__init__(hello, *arguments, **options)
        self._run = run
        self._party = hello.party

    @override
    async def push(self, deliveries: Sequence[Delivery], values: Sequence[Any]) -> Pushed:
        points = [
            InjectionPoint("push", self._party, peer, delivery.id.sequence, slot=delivery.id.slot)
            for delivery in deliveries
            for peer in delivery.consumers
        ]
        for fault in list(map(self._run.fault_at, points)):
            if fault is not None:
                await _suffer(fault)
        return await super().push(deliveries, values)


class FaultyReceiver(Receiver):
    """A receiver at which what it hands to its driver suffers.

    Args:
        run: The plan in this simulation.
        *arguments: As for `Receiver`.
        **options: Likewise.
    """

    def __init__(self, run: FaultRun, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._run = run
        self._late: set[asyncio.Task[None]] = set()

    @override
    def _deliver(self, arrived: Arrived) -> None:
        peer, object_id = arrived.key
        point = InjectionPoint("deliver", self._hello.party, peer, object_id.sequence, slot=object_id.slot)
        fault = self._run.fault_at(point)
        if fault is None:
            super()._deliver(arrived)
            return
        delivering = asyncio.ensure_future(self._deliver_late(arrived, fault))
        self._late.add(delivering)
        delivering.add_done_callback(self._late.discard)

    async def _deliver_late(self, arrived: Arrived, fault: InjectedFault) -> None:
        await _suffer(fault)
        super()._deliver(arrived)

    @override
    async def close(self) -> None:
        for delivering in self._late:
            delivering.cancel()
        await super().close()


async def _suffer(fault: InjectedFault) -> None:
    """Let what a proxy does suffer a fault."""
    if not await fault.inject_async():
        # The end of the proxy ends this too.
        await asyncio.get_running_loop().create_future()


# The runtime


class InjectedKillError(Exception):
    """Raised in place of the user's code by a worker that was killed, since a thread cannot be killed.

    Attributes:
        kind: As what the runtime is to find it.
    """

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self.kind = kind

    def __str__(self) -> str:
        return "the worker was killed by an injected fault"


_TYPE_NAMES: Final = {
    Kind.WORKER_CRASHED: "WorkerCrashedError",
    Kind.OUT_OF_MEMORY: "OutOfMemoryError",
    Kind.OBJECT_LOST: "ObjectLostError",
    Kind.CANCELLED: "TaskCancelledError",
    Kind.ACTOR_DIED: "ActorDiedError",
}
"""As Ray calls them."""


class FaultyRuntime(LocalRuntime):
    """The in-process runtime, with tasks that suffer and proxies that are killed.

    Args:
        run: The plan in this simulation.
        party: As for `LocalRuntime`, and likewise the rest.
        *arguments: Likewise.
    """

    def __init__(self, run: FaultRun, party: str, *arguments: Any) -> None:
        super().__init__(party, *arguments)
        self._run = run
        # The actors are kept, so that the id of one is never that of another.
        self._bodies: dict[int, tuple[Any, ActorBody]] = {}
        self._numbers = itertools.count(1)
        run.kill[party, "sender"] = self.restart_sender
        run.kill[party, "receiver"] = self.restart_receiver

    @override
    def start(self) -> Proxies:
        self._run.gates.enter(self._party)
        return super().start()

    @override
    def submit(self, body: TaskBody, call: Call) -> Submission:
        fault = self._fault_of(body.name, call)
        if fault is not None:
            kill = functools.partial(InjectedKillError, fault.loss)
            body = dataclasses.replace(body, code=_behind(fault, body.code, kill))
        return super().submit(body, call)

    @override
    def create(self, body: ActorBody, call: Call) -> tuple[Any, Ref]:
        if not self._run.watches("produce"):
            return super().create(body, call)
        fault = self._fault_of(f"{body.name}.__init__", call)
        # A class of its own for each actor, which can be changed: that is how single calls get their faults.
        user: Any = body.code
        names = {"__module__": user.__module__, "__qualname__": user.__qualname__}
        code: Any = types.new_class(user.__name__, (user,), exec_body=lambda members: members.update(names))
        if fault is not None:
            code.__init__ = _behind(fault, code.__init__, functools.partial(InjectedKillError, Kind.ACTOR_DIED))
        body = dataclasses.replace(body, code=code)
        actor, created = super().create(body, call)
        self._bodies[id(actor)] = (actor, body)
        return actor, created

    @override
    def call(self, actor: Any, method: str, call: Call, options: Mapping[str, Any]) -> Submission:
        _, body = self._bodies.get(id(actor), (None, None))
        fault = None if body is None else self._fault_of(f"{body.name}.{method}", call)
        if body is None or fault is None:
            return super().call(actor, method, call, options)

        def kill() -> Exception:
            self.kill(actor)
            return InjectedKillError(Kind.ACTOR_DIED)

        def faulty(instance: Any) -> Callable[..., Any]:
            return _behind(fault, getattr(instance, method), kill)

        # Under a name of its own, so that the other calls of this method do not suffer.
        name = f"{method} {next(self._numbers)}"
        setattr(body.code, name, property(faulty))
        return super().call(actor, name, call, options)

    @override
    def watch(self, ref: Ref, callback: Callable[[Outcome], None]) -> None:
        super().watch(ref, lambda outcome: callback(_as_ray_finds_it(outcome)))

    @override
    def close(self) -> None:
        # First, because what hangs in a task would keep the runtime from closing.
        self._run.gates.leave(self._party)
        super().close()

    def _fault_of(self, task: str, call: Call) -> InjectedFault | None:
        return self._run.fault_at(InjectionPoint("produce", self._party, call=call.sequence, task=task))


def _as_ray_finds_it(outcome: Outcome) -> Outcome:
    error = outcome.error
    if not isinstance(error, InjectedKillError):
        return outcome
    return Outcome(None, Fault(error.kind, _TYPE_NAMES[error.kind], message=str(error)), error)


def _behind(fault: InjectedFault, code: Callable[..., Any], kill: Callable[[], Exception]) -> Callable[..., Any]:
    """The user's code, behind what goes wrong."""
    if inspect.iscoroutinefunction(code):

        @functools.wraps(code)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            if not await fault.inject_async():
                raise kill()
            return await code(*args, **kwargs)

        return run_async

    @functools.wraps(code)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not fault.inject():
            raise kill()
        return code(*args, **kwargs)

    return run


# The driver


def _fed_call(call: Callable[Concatenate[FaultyJob, P], T]) -> Callable[Concatenate[FaultyJob, P], T]:
    """A method of the job that is a fed call, behind what goes wrong in the driver."""

    @functools.wraps(call)
    def make(job: FaultyJob, /, *args: P.args, **kwargs: P.kwargs) -> T:
        fault = job._fault_run.fault_at(InjectionPoint("driver", job.party, call=job.shell.running().calls))
        if fault is not None and not fault.inject():
            raise FedTimeoutError("the simulation was over before an injected fault let the driver go on")
        return call(job, *args, **kwargs)

    return make


class FaultyJob(Job):
    """A job whose driver suffers when it makes a fed call.

    Args:
        run: The plan in this simulation.
        *arguments: As for `Job`.
    """

    def __init__(self, run: FaultRun, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._fault_run = run

    run = _fed_call(Job.run)
    create = _fed_call(Job.create)
    call = _fed_call(Job.call)
    kill = _fed_call(Job.kill)
    get = _fed_call(Job.get)


def faulty_handler(
    run: FaultRun, party: str, handler: Callable[[FailureReport], object]
) -> Callable[[FailureReport], object]:
    """The failure handler of a party, behind what goes wrong in it."""

    def handle(report: FailureReport) -> None:
        fault = run.fault_at(InjectionPoint("handler", party))
        if fault is None or fault.inject():
            handler(report)

    return handle
