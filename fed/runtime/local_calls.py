"""Calls of the in-process runtime: code that runs on threads, and results that are futures of pickled values.

So nobody shares what is in an argument or a result.
"""

from __future__ import annotations

import abc
import asyncio
import concurrent.futures
import inspect
import pickle
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import cloudpickle
from typing_extensions import override

from fed.core.failure import Fault, Kind
from fed.proxy.receiver import NotHere
from fed.runtime import worker
from fed.runtime.contract import (
    ActorBody,
    ActorKilledError,
    Call,
    FetchFailed,
    Outcome,
    Submission,
    UnreadableError,
)
from fed.runtime.pickling import argument_error, held_error, result_error
from fed.serde.receipt import SmallCodec

__all__ = [
    "Actor",
    "Blob",
    "Future",
    "Promise",
    "copied",
    "end_tasks",
    "fetched",
    "held",
    "make_actor",
    "outcome_of",
    "resolved",
    "unpacked",
    "when_resolved",
]


class TaskCancelledError(Exception):
    """The coroutine was cancelled, or awaited something that was. Named as in Ray, which cannot tell either."""


_OWN: Final[Mapping[type[BaseException], tuple[Kind, str]]] = {
    ActorKilledError: (Kind.ACTOR_DIED, "ActorDiedError"),
    TaskCancelledError: (Kind.CANCELLED, "TaskCancelledError"),
    NotHere: (Kind.OBJECT_LOST, "ObjectLostError"),
    ConnectionAbortedError: (Kind.INTERNAL, "ConnectionAbortedError"),
}
"""What this runtime and its proxies raise themselves, by the names that Ray has for it."""


MAX_COROUTINES: Final = 1000
"""Methods of one actor that run at once, as in Ray."""


class Blob(NamedTuple):
    """A value out of reach of everybody who might change it."""

    data: bytes
    buffers: tuple[bytes, ...]

    @classmethod
    def of(cls, value: Any) -> Blob:
        """A copy of the value."""
        buffers: list[bytes] = []
        data = cloudpickle.dumps(value, protocol=5, buffer_callback=lambda buffer: buffers.append(bytes(buffer.raw())))
        return cls(data, tuple(buffers))

    def value(self) -> Any:
        """A copy of it again.

        Raises:
            UnreadableError: Its own code raises.
        """
        try:
            return pickle.loads(self.data, buffers=self.buffers)  # noqa: S301 - our own bytes
        except Exception as error:
            raise UnreadableError(worker.name_of(error), worker.text_of(error)) from error


Future = concurrent.futures.Future[Blob]
"""What a reference is in this runtime."""


class Promise:
    """The references of one call, for whoever runs it. The first end that it is given counts.

    Args:
        returns: How many results it makes.
    """

    def __init__(self, returns: int) -> None:
        self._results: tuple[Future, ...] = tuple(concurrent.futures.Future() for _ in range(returns))
        self.done: Future = concurrent.futures.Future()
        # Held from the end on.
        self._end = threading.Lock()

    @property
    def submission(self) -> Submission:
        """What the caller gets of them."""
        return Submission(self._results, self.done)

    def settle(self, make: Callable[[], Any]) -> None:
        """Resolve the references from what `make` returns (results, then done's value) or raises."""
        if not self._end.acquire(blocking=False):
            return
        try:
            made = make()
            blobs = [_blob_of_result(value) for value in (made if self._results else (made,))]
        except BaseException as error:  # noqa: BLE001 - as in Ray, whatever ends the task is its outcome
            self._reject(error)
            return
        for future, blob in zip((*self._results, self.done), blobs, strict=True):
            future.set_result(blob)

    def fail(self, error: BaseException) -> None:
        """Let the references raise."""
        if self._end.acquire(blocking=False):
            self._reject(error)

    def _reject(self, error: BaseException) -> None:
        failed = _failed(error)
        for future in (*self._results, self.done):
            future.set_exception(failed)


def _blob_of_result(value: Any) -> Blob:
    try:
        return Blob.of(value)
    except Exception as error:  # noqa: BLE001 - whatever the value's own code raises
        raise result_error(value, error, cloudpickle.dumps) from None


def resolved(value: Any) -> Future:
    """A reference to a copy of a value that is there already."""
    future: Future = concurrent.futures.Future()
    future.set_result(Blob.of(value))
    return future


def held(value: Any) -> Future:
    """A reference to a copy of an argument.

    Raises:
        pickle.PicklingError: It cannot be pickled.
    """
    try:
        return resolved(value)
    except Exception:
        refused = held_error(value, cloudpickle.dumps)
        if refused is None:
            raise
        raise refused from None


def copied(call: Call) -> Call:
    """The call with the values that it has now, out of reach of the user, who may change them while it waits.

    Raises:
        pickle.PicklingError: One of them cannot be pickled.
    """
    try:
        values = [value if isinstance(value, concurrent.futures.Future) else Blob.of(value) for value in call.values]
    except Exception:
        refused = argument_error(call, cloudpickle.dumps)
        if refused is None:
            raise
        raise refused from None
    return call._replace(values=tuple(values))


def unpacked(call: Call) -> tuple[bytes, list[Any]]:
    """Of a copied call, the arguments of `fed.runtime.worker.run` after the code.

    Waits for references; raises the error of one that failed.
    """
    blobs = [value.result() if isinstance(value, concurrent.futures.Future) else value for value in call.values]
    return call.shape.to_bytes(), [blob.value() for blob in blobs]


def when_resolved(values: Sequence[Any], then: Callable[[], Any]) -> None:
    """Call `then` when every reference among the values has resolved."""
    waiting = iter([value for value in values if isinstance(value, concurrent.futures.Future)])

    def go_on(_: object) -> None:
        for future in waiting:
            if not future.done():
                future.add_done_callback(go_on)
                return
        then()

    go_on(None)


def fetched(position: int, future: Future) -> Any:
    """A copy of a result.

    Raises:
        FetchFailed: It failed, or cannot be unpickled.
    """
    value, fault, error = outcome_of(future)
    if fault is None or error is None:
        return value
    if isinstance(error, UnreadableError):
        fault = error.as_result
    raise FetchFailed(position, fault, error) from error


def outcome_of(future: Future) -> Outcome:
    """How a reference ended."""
    error = future.exception()
    if error is None:
        try:
            return Outcome(future.result().value(), None, None)
        except UnreadableError as unreadable:
            error = unreadable
    return Outcome(None, _fault(error), error)


def _failed(error: BaseException) -> BaseException:
    """The exception as it would arrive from another process."""
    if worker.origin_of(error) is not None:
        return worker.arriving(error)
    if type(error) in (*_OWN, worker.UndecodableError, UnreadableError):
        return error
    # Raised around the user's code: while its arguments were unpickled, or its results pickled.
    return worker.arriving(worker.departing(error))


def _fault(error: BaseException) -> Fault:
    # An error with an origin came from the user's code, whatever its class.
    if type(error) in _OWN and worker.origin_of(error) is None:
        kind, name = _OWN[type(error)]
        return Fault(kind, name, message=str(error))
    if isinstance(error, UnreadableError):
        return error.as_argument
    return worker.fault_of_user_error(error)


def make_actor(thread_name: str, body: ActorBody, call: Call, codec: SmallCodec) -> Actor:
    """Construct an instance from a copied call, on a thread of its own."""
    kind = _LoopActor if any(map(inspect.iscoroutinefunction, body.methods().values())) else _ThreadActor
    return kind(thread_name, body, call, codec)


class Actor(abc.ABC):
    """An instance, and the threads that run its methods."""

    def __init__(self, thread_name: str, body: ActorBody, codec: SmallCodec) -> None:
        self._name = body.name
        self._code = body.code
        self._reading = codec.without_receipts()
        # Where other calls may change what one returns, there is no second copy of it.
        self._codec = self._reading if body.is_concurrent else codec
        self._instance: Any = None
        # Keeps a call from being handed to the thread behind its end.
        self._lock = threading.Lock()
        self._killed = threading.Event()
        self.created = Promise(0)
        self._thread_name = thread_name
        self.threads: list[threading.Thread] = []
        self._start_thread()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name=self._thread_name, daemon=True)
        self.threads.append(thread)
        thread.start()

    @abc.abstractmethod
    def call(self, method: str, call: Call, promise: Promise) -> None:
        """Run a method, and keep the promise in any case."""

    @abc.abstractmethod
    def kill(self) -> None:
        """End, after what runs now. Idempotent."""

    @abc.abstractmethod
    def _serve(self) -> None:
        """On the thread, from the construction on."""

    def _construct(self, call: Call) -> None:
        def make() -> None:
            self._instance, _ = worker.run(self._code, *unpacked(call), self._reading)

        self.created.settle(make)

    def _check(self) -> None:
        """Raises what keeps methods from running."""
        if self._killed.is_set():
            raise self._killed_error()
        error = self.created.done.exception()
        if error is not None:
            raise error

    def _killed_error(self) -> ActorKilledError:
        return ActorKilledError(f"actor {self._name} was killed")


class _ThreadActor(Actor):
    """Begins methods in the order of the calls, each as soon as a thread is free."""

    def __init__(self, thread_name: str, body: ActorBody, call: Call, codec: SmallCodec) -> None:
        self._steps: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._steps.put(lambda: self._construct(call))
        self._max_threads: int = body.options.get("max_concurrency") or 1
        super().__init__(thread_name, body, codec)

    @override
    def call(self, method: str, call: Call, promise: Promise) -> None:
        def run() -> Any:
            self._check()
            return worker.run(getattr(self._instance, method), *unpacked(call), self._codec)

        with self._lock:
            if not self._killed.is_set():
                self._steps.put(lambda: promise.settle(run))
                if len(self.threads) < self._max_threads:
                    self._start_thread()
                return
        promise.settle(run)

    @override
    def kill(self) -> None:
        with self._lock:
            self._killed.set()
            for _ in self.threads:
                self._steps.put(None)

    @override
    def _serve(self) -> None:
        # After a kill the loop goes on to the end of the queue, so that every pending call is refused.
        while (step := self._steps.get()) is not None:
            step()


class _LoopActor(Actor):
    """Runs coroutine methods concurrently on an event loop."""

    def __init__(self, thread_name: str, body: ActorBody, call: Call, codec: SmallCodec) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.call_soon(self._construct, call)
        self._over = False
        self._slots = asyncio.Semaphore(body.options.get("max_concurrency") or MAX_COROUTINES)
        super().__init__(thread_name, body, codec)

    @override
    def call(self, method: str, call: Call, promise: Promise) -> None:
        with self._lock:
            if not self._over:
                running = asyncio.run_coroutine_threadsafe(self._run(method, call, promise), self._loop)
                # One that is cancelled before its first step has not settled anything.
                running.add_done_callback(lambda _: promise.fail(self._killed_error()))
                return
        promise.fail(self._killed_error())

    @override
    def kill(self) -> None:
        if not self._killed.is_set():
            self._killed.set()
            self._loop.call_soon_threadsafe(self._loop.stop)

    @override
    def _serve(self) -> None:
        self._loop.run_forever()
        with self._lock:
            self._over = True
        self._loop.run_until_complete(end_tasks())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _run(self, method: str, call: Call, promise: Promise) -> None:
        try:
            self._check()
            code = getattr(self._instance, method)
            arguments = await asyncio.to_thread(unpacked, call)
            async with self._slots:
                # A method that is no coroutine runs on the event loop, as it does in Ray.
                if inspect.iscoroutinefunction(code):
                    value = await worker.run_async(code, *arguments, self._codec)
                else:
                    value = worker.run(code, *arguments, self._codec)
        except asyncio.CancelledError:
            if not self._killed.is_set():
                promise.fail(TaskCancelledError(f"a call of actor {self._name} was cancelled"))
                return
            promise.fail(self._killed_error())
            raise
        except BaseException as error:  # noqa: BLE001 - as in Ray, whatever ends the call is its outcome
            promise.fail(error)
        else:
            promise.settle(lambda: value)


async def end_tasks() -> None:
    """End all tasks of this event loop but this one."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
