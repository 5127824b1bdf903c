"""The in-process runtime: tasks on threads, results in memory, the proxies on an event loop of their own.

For unit tests and for the debugger: a whole federation runs in one process, in milliseconds, and a breakpoint in a
task stops there. Values are copied through pickle as Ray copies them, so that a program that shares state by
mistake fails here as it would there. Resource options (CPUs, memory, retries) have no meaning here.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import logging
import math
import pickle
import queue
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

import cloudpickle

from fed.channel import Role
from fed.channel.memory import MemoryDriverEnd, MemoryProxyEnd
from fed.clock import SYSTEM_CLOCK, Clock
from fed.core.failure import Fault, Kind
from fed.core.rendezvous import Key
from fed.errors import ConfigError
from fed.proxy.direct import DirectClients, DirectServer, serve_receiver, serve_sender
from fed.proxy.receiver import NotHere, Receiver
from fed.proxy.sender import Delivery, Sender, announce
from fed.runtime import body as worker
from fed.runtime.contract import (
    ActorBody,
    ActorKilledError,
    Body,
    Call,
    FetchFailed,
    Outcome,
    Proxies,
    Ref,
    Runtime,
    Submission,
    TaskBody,
)
from fed.serde.receipt import SmallCodec
from fed.transport.contract import AddressInUse, Notice

__all__ = ["LocalRuntime"]

logger = logging.getLogger("fed.runtime")

T = TypeVar("T")
P = TypeVar("P", bound="_Proxy")

GRACE_S: Final = 10.0
"""How long a closing runtime waits for user code that is still running."""


class TaskCancelledError(Exception):
    """The coroutine was cancelled, or awaited something that was. Named as in Ray, which cannot tell either."""


class _Blob(NamedTuple):
    """A value out of reach of everybody who might change it."""

    data: bytes
    buffers: tuple[bytes, ...]

    @classmethod
    def of(cls, value: Any) -> _Blob:
        buffers: list[bytes] = []
        data = cloudpickle.dumps(value, protocol=5, buffer_callback=lambda buffer: buffers.append(bytes(buffer.raw())))
        return cls(data, tuple(buffers))

    def value(self) -> Any:
        return pickle.loads(self.data, buffers=self.buffers)  # noqa: S301 - our own bytes


_Future = concurrent.futures.Future[_Blob]


class LocalRuntime(Runtime):
    """Runs one party's tasks on threads of this process.

    Args:
        party: Its name; the threads are named after it.
        sender: Makes the sender, on the event loop it will live on.
        receiver: Makes the receiver, likewise.
        clock: What the proxies live by.
        codec: Makes the receipts of results, and reads what peers send.
    """

    def __init__(
        self,
        party: str,
        sender: Callable[[], Sender],
        receiver: Callable[[], Receiver],
        clock: Clock = SYSTEM_CLOCK,
        codec: SmallCodec = worker.NO_RECEIPTS,
    ) -> None:
        self._party = party
        self._clock = clock
        self._codec = codec
        self._make_sender = sender
        self._make_receiver = receiver
        self._proxies: _LocalProxies | None = None
        self._actors: list[_Actor] = []
        # Task threads that still run. Daemons, because a task that never ends must not keep the process.
        self._tasks: set[threading.Thread] = set()
        # A thread is in the set from before it may leave it, and cannot be joined until it has started.
        self._starting = threading.Lock()
        self._closed = False

    def start(self) -> Proxies:
        """Start the event loop that the proxies live on."""
        self._proxies = _LocalProxies(self._party, self._make_sender, self._make_receiver, self._clock)
        return self._proxies

    def announce(self, notices: Mapping[str, Sequence[Notice]], timeout_s: float) -> None:
        """Tell it from a thread of its own, with a sender that lives for no longer."""
        announce(self._make_sender, notices, timeout_s)

    def hold(self, value: Any) -> Any:
        """Copy it."""
        held: _Future = concurrent.futures.Future()
        held.set_result(_Blob.of(value))
        return held

    def hold_code(self, body: Body) -> None:
        """Nothing: in one process code is what it is."""

    def submit(self, body: TaskBody, call: Call) -> Submission:
        """Run a function on a thread as soon as its arguments are there."""
        results, done = _promises(call.shape.returns)
        call = _copied(call)

        def run() -> None:
            try:
                _settle(results, done, lambda: worker.run(body.code, *_resolved(call), self._codec))
            finally:
                self._tasks.discard(threading.current_thread())

        def start() -> None:
            thread = threading.Thread(target=run, name=f"fed-{self._party}-{body.name}", daemon=True)
            with self._starting:
                self._tasks.add(thread)
                thread.start()

        _when_resolved(call.values, start)
        return Submission(tuple(results), done)

    def create(self, body: ActorBody, call: Call) -> tuple[Any, Ref]:
        """Make an actor on a thread of its own."""
        kind = _LoopActor if any(map(inspect.iscoroutinefunction, body.methods().values())) else _ThreadActor
        actor = kind(f"fed-{self._party}-{body.name}", body, _copied(call), self._codec)
        self._actors.append(actor)
        return actor, actor.created

    def call(self, actor: Any, method: str, call: Call, options: Mapping[str, Any]) -> Submission:
        """Run a method on the actor's thread, after the calls before it."""
        submission: Submission = actor.call(method, _copied(call))
        return submission

    def kill(self, actor: Any) -> None:
        """Let the actor end after the method it is in, which no thread can be made to leave."""
        actor.kill()

    def watch(self, ref: Ref, callback: Callable[[Outcome], None]) -> None:
        """Call back on the thread that resolves the reference."""
        future: _Future = ref
        future.add_done_callback(lambda done: callback(_outcome(done)))

    def fetch(self, refs: Iterable[Ref]) -> list[Any]:
        """Copies of the values."""
        return [_fetched(position, ref) for position, ref in enumerate(refs)]

    def restart_sender(self) -> Ref:
        """Kill the sender, as far as anybody can tell, and start another, as Ray does.

        Resolves to None when the other one is in its place, or when there is none any more.
        """
        return self._restarted(lambda proxies: proxies.restart_sender())

    def restart_receiver(self) -> Ref:
        """Kill the receiver, as far as anybody can tell, and start another, as Ray does.

        Resolves to None when the other one is in its place, or when there is none any more.
        """
        return self._restarted(lambda proxies: proxies.restart_receiver())

    def _restarted(self, restart: Callable[[_LocalProxies], Ref]) -> Ref:
        if self._proxies is not None and not self._closed:
            return restart(self._proxies)
        nothing: _Future = concurrent.futures.Future()
        nothing.set_result(_Blob.of(None))
        return nothing

    def close(self) -> None:
        """End the threads. Idempotent. Warns of user code that does not end, which no thread can be made to do."""
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + GRACE_S
        for actor in self._actors:
            actor.kill()
        running = []
        with self._starting:
            tasks = list(self._tasks)
        for thread in tasks:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                running.append(thread.name)
        running += [actor.name for actor in self._actors if not actor.join(max(0.0, deadline - time.monotonic()))]
        if self._proxies is not None:
            self._proxies.stop()
        if running:
            names = ", ".join(sorted(running))
            warnings.warn(f"party {self._party!r} closed while these still ran: {names}", ResourceWarning, stacklevel=2)


class _Actor:
    """An instance and what runs its methods."""

    def __init__(self, body: ActorBody, codec: SmallCodec) -> None:
        self.name = body.name
        self._reading = codec.without_receipts()
        # Where other calls may change what one returns, there is no second copy of it.
        self._codec = self._reading if body.is_concurrent else codec
        self._code = body.code
        self._instance: Any = None
        self._killed = threading.Event()
        _, self.created = _promises(0)

    def call(self, method: str, call: Call) -> Submission:
        raise NotImplementedError

    def kill(self) -> None:
        raise NotImplementedError

    def join(self, timeout_s: float) -> bool:
        raise NotImplementedError

    def _construct(self, call: Call) -> None:
        def make() -> None:
            self._instance, _ = worker.run(self._code, *_resolved(call), self._reading)

        _settle([], self.created, make)

    def _refusal(self) -> BaseException | None:
        """Why no method can run, None if one can."""
        if self._killed.is_set():
            return ActorKilledError(f"actor {self.name} was killed")
        return self.created.exception()


class _ThreadActor(_Actor):
    """Runs one method at a time, in the order of the calls, on a thread of its own."""

    def __init__(self, name: str, body: ActorBody, call: Call, codec: SmallCodec) -> None:
        super().__init__(body, codec)
        self._lock = threading.Lock()
        self._steps: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._steps.put(lambda: self._construct(call))
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def call(self, method: str, call: Call) -> Submission:
        results, done = _promises(call.shape.returns)

        def step() -> None:
            refusal = self._refusal()
            if refusal is not None:
                _settle(results, done, lambda: _raise(refusal))
            else:
                _settle(results, done, lambda: self._run(method, call))

        with self._lock:
            if not self._killed.is_set():
                self._steps.put(step)
                return Submission(tuple(results), done)
        step()
        return Submission(tuple(results), done)

    def _run(self, method: str, call: Call) -> Any:
        return worker.run(getattr(self._instance, method), *_resolved(call), self._codec)

    def kill(self) -> None:
        # The lock keeps a call from being queued behind the end of the queue.
        with self._lock:
            self._killed.set()
            self._steps.put(None)

    def join(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        # After a kill the loop goes on to the end of the queue, so that every pending call is refused.
        while (step := self._steps.get()) is not None:
            step()


class _LoopActor(_Actor):
    """Runs coroutine methods concurrently on an event loop of its own."""

    def __init__(self, name: str, body: ActorBody, call: Call, codec: SmallCodec) -> None:
        super().__init__(body, codec)
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._over = False
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()
        self._loop.call_soon_threadsafe(self._construct, call)

    def call(self, method: str, call: Call) -> Submission:
        results, done = _promises(call.shape.returns)

        def refuse() -> None:
            if not done.done():
                _settle(results, done, lambda: _raise(ActorKilledError(f"actor {self.name} was killed")))

        running = None
        # The lock keeps a call from being posted to the loop behind its end.
        with self._lock:
            if not self._over:
                running = asyncio.run_coroutine_threadsafe(self._run(method, call, results, done), self._loop)
        if running is None:
            refuse()
        else:
            # One that is cancelled before its first step has not settled anything.
            running.add_done_callback(lambda _: refuse())
        return Submission(tuple(results), done)

    def kill(self) -> None:
        if not self._killed.is_set():
            self._killed.set()
            self._loop.call_soon_threadsafe(self._loop.stop)

    def join(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        self._loop.run_forever()
        with self._lock:
            self._over = True
        self._loop.run_until_complete(_end_tasks())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _run(self, method: str, call: Call, results: list[_Future], done: _Future) -> None:
        try:
            refusal = self._refusal()
            if refusal is not None:
                raise refusal
            code = getattr(self._instance, method)
            arguments = await asyncio.to_thread(_resolved, call)
            runner = worker.run_async if inspect.iscoroutinefunction(code) else _run_inline
            value = await runner(code, *arguments, self._codec)
        except asyncio.CancelledError:
            if not self._killed.is_set():
                _settle(results, done, lambda: _raise(TaskCancelledError(f"a call of actor {self.name} was cancelled")))
                return
            _settle(results, done, lambda: _raise(ActorKilledError(f"actor {self.name} was killed")))
            raise
        except BaseException as error:  # noqa: BLE001 - as in Ray, whatever ends the call is its outcome
            failed = error
            _settle(results, done, lambda: _raise(failed))
        else:
            _settle(results, done, lambda: value)


async def _run_inline(code: Callable[..., Any], *arguments: Any) -> Any:
    """A method that is no coroutine runs on the event loop, as it does in Ray."""
    return worker.run(code, *arguments)


class _Proxy(Protocol):
    """What a sender and a receiver have in common."""

    def validate(self) -> None: ...


class _Host(Generic[P]):
    """One proxy, and the calls of it that have not ended. Belongs to the event loop.

    As Ray does with ``max_restarts=-1`` and ``max_task_retries=-1``, it makes another proxy when one is killed, and
    repeats on that one the calls that had not ended. What the proxy had in memory is gone.

    Args:
        make: Makes the proxy.
        serve: Begins to serve its end of the direct channel.
    """

    def __init__(self, make: Callable[[], P], serve: Callable[[P], DirectServer]) -> None:
        self._make = make
        self._serve = serve
        self._proxy = make()
        self._server = serve(self._proxy)
        # What the proxy began its life with, and begins every later one with.
        self._start: Callable[[P, DirectServer], Coroutine[Any, Any, str | None]] | None = None
        self._trouble: str | None = None
        # What `ended` tells.
        self._ended: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        # Counts restarts: a call that began in an earlier life has no outcome.
        self._life = 0
        self._calls: set[asyncio.Task[Any]] = set()
        self._alive = asyncio.Event()
        self._alive.set()
        self._changing = asyncio.Lock()
        self._closed = False

    async def call(self, method: Callable[[P], Coroutine[Any, Any, T]]) -> T:
        """Run a method, again for every restart that comes before its end."""
        while True:
            await self._alive.wait()
            life = self._life
            # A task of its own, so that a restart can end it without ending this one.
            call = asyncio.ensure_future(method(self._proxy))
            self._calls.add(call)
            try:
                result = await call
            except BaseException:
                if life == self._life or self._closed:
                    raise
            else:
                if life == self._life or self._closed:
                    return result
            finally:
                self._calls.discard(call)

    async def start(self, method: Callable[[P, DirectServer], Coroutine[Any, Any, str | None]]) -> str | None:
        """Run the method that a proxy begins with, in each of its lives once. Returns why it cannot begin."""
        if self._start is None:
            self._trouble = await self.call(lambda proxy: method(proxy, self._server))
            self._start = method
        else:
            await self._alive.wait()
        return self._trouble

    async def restart(self) -> None:
        """End the proxy as a SIGKILL would, as far as anybody can tell, and put another in its place."""
        async with self._changing:
            if self._closed:
                return
            self._life += 1
            self._alive.clear()
            # First the calls, which may not hear of the close; that is for the connections, as the kernel does it.
            calls = tuple(self._calls)
            for call in calls:
                call.cancel()
            await self._server.close()
            await asyncio.gather(*calls, return_exceptions=True)
            self._proxy = self._make()
            self._server = self._serve(self._proxy)
            if self._start is not None:
                self._trouble = await self._start(self._proxy, self._server)
                if self._trouble is not None:
                    self._end(self._trouble)
            self._alive.set()

    async def close(self) -> None:
        """Close the proxy for good."""
        async with self._changing:
            self.abandon()
            await self._server.close()
            self._end(None)
            self._proxy.validate()

    async def ended(self) -> str | None:
        """None when it is closed; before that the sentence that says why another life of it cannot do its work."""
        return await asyncio.shield(self._ended)

    def _end(self, trouble: str | None) -> None:
        if not self._ended.done():
            self._ended.set_result(trouble)

    def abandon(self) -> None:
        """Repeat no call any more: one that is cancelled from now on is meant to end."""
        self._closed = True


class _LocalProxies(Proxies):
    """Sender and receiver on an event loop of their own."""

    def __init__(
        self, party: str, sender: Callable[[], Sender], receiver: Callable[[], Receiver], clock: Clock
    ) -> None:
        self._loop = clock.event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"fed-{party}-proxies", daemon=True)
        self._thread.start()
        self._running: set[concurrent.futures.Future[Any]] = set()
        self.direct = DirectClients()
        self._channel = MemoryDriverEnd(party, clock)
        self.direct.start(self._channel)

        async def make() -> tuple[_Host[Sender], _Host[Receiver]]:
            return (
                _Host(sender, lambda made: serve_sender(MemoryProxyEnd(self._channel, Role.SENDER), made)),
                _Host(receiver, lambda made: serve_receiver(MemoryProxyEnd(self._channel, Role.RECEIVER), made)),
            )

        self._sender, self._receiver = asyncio.run_coroutine_threadsafe(make(), self._loop).result()

    def started(self) -> Ref:
        return self._run(self._receiver.start(_listen))

    def connect(self, timeout_s: float) -> Ref:
        return self._run(self._sender.call(lambda sender: sender.connect(timeout_s)))

    def ended(self) -> Mapping[str, Ref]:
        return {
            "sender": self._run(self._sender.ended(), pending=False),
            "receiver": self._run(self._receiver.ended(), pending=False),
        }

    def take(self, key: Key) -> Submission:
        (result,), done = _promises(1)
        settling = threading.Event()

        async def take() -> None:
            taken = await self._receiver.call(lambda receiver: receiver.take(key))
            loop = asyncio.get_running_loop()
            # From here on a thread settles the references, also if this is cancelled while none is free to begin.
            settling.set()
            await asyncio.shield(loop.run_in_executor(None, _settle, [result], done, lambda: taken))

        task = asyncio.run_coroutine_threadsafe(take(), self._loop)
        self._running.add(task)

        def end(ended: concurrent.futures.Future[None]) -> None:
            self._running.discard(ended)
            error = None if ended.cancelled() else ended.exception()
            if not settling.is_set():
                refusal = error or ConnectionAbortedError("the receiver was closed")
                _settle([result], done, lambda: _raise(refusal))

        task.add_done_callback(end)
        return Submission((result,), done)

    def push(self, deliveries: Sequence[Delivery], refs: Sequence[Ref]) -> Ref:
        async def push(sender: Sender) -> Any:
            # Not waited for on a thread, of which there are few: they may come to be long after this.
            for ref in refs:
                await _done(ref)
            values = await asyncio.to_thread(lambda: [ref.result().value() for ref in refs])
            return await sender.push(deliveries, values)

        return self._run(self._sender.call(push))

    def unclaimed(self) -> Ref:
        async def unclaimed(receiver: Receiver) -> Any:
            return receiver.unclaimed()

        return self._run(self._receiver.call(unclaimed))

    def statistics(self) -> Ref:
        async def statistics(sender: Sender) -> Any:
            return sender.statistics()

        return self._run(self._sender.call(statistics))

    def close(self) -> Sequence[Ref]:
        async def close() -> None:
            await self._sender.close()
            await self._receiver.close()
            for task in list(self._running):
                task.cancel()

        return [self._run(close(), pending=False)]

    def restart_sender(self) -> Ref:
        return self._run(self._sender.restart(), pending=False)

    def restart_receiver(self) -> Ref:
        return self._run(self._receiver.restart(), pending=False)

    def stop(self) -> None:
        """End the event loop and its thread."""

        async def end() -> None:
            self._sender.abandon()
            self._receiver.abandon()
            await _end_tasks()

        self._channel.close()
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, Any], *, pending: bool = True) -> _Future:
        # The driver's references are futures of blobs; a proxy's own answers are small, and are pickled like them.
        future: _Future = concurrent.futures.Future()
        task = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        if pending:
            self._running.add(task)

        def end(ended: concurrent.futures.Future[Any]) -> None:
            self._running.discard(ended)
            if ended.cancelled():
                future.set_exception(ConnectionAbortedError("the proxy was closed"))
            elif ended.exception() is not None:
                future.set_exception(ended.exception())
            else:
                future.set_result(_Blob.of(ended.result()))

        task.add_done_callback(end)
        return future


async def _listen(receiver: Receiver, server: DirectServer) -> str | None:
    """Let a receiver listen. Returns why it cannot."""
    try:
        # Before it knows whom this party has joined it must not be greeted.
        await server.reach(math.inf)
        await receiver.start()
    except (AddressInUse, ConfigError) as error:
        return str(error)
    return None


async def _done(ref: Ref) -> None:
    """Wait until a reference has resolved. To be cancelled while it waits does nothing to the reference."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def resolved(_: object) -> None:
        # The loop may be closed by then, and whoever waited is gone.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(wake)

    ref.add_done_callback(resolved)
    await waiter


async def _end_tasks() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _promises(count: int) -> tuple[list[_Future], _Future]:
    return [concurrent.futures.Future() for _ in range(count)], concurrent.futures.Future()


def _settle(results: list[_Future], done: _Future, make: Callable[[], Any]) -> None:
    """Resolve a call's references from what `make` returns (results, then done's value) or raises."""
    try:
        made = make()
        values = made if results else (made,)
        blobs = [_Blob.of(value) for value in values]
    except BaseException as error:  # noqa: BLE001 - as in Ray, whatever ends the task is its outcome
        failed = _failed(error)
        for future in (*results, done):
            future.set_exception(failed)
        return
    for future, blob in zip((*results, done), blobs, strict=True):
        future.set_result(blob)


def _copied(call: Call) -> Call:
    """The call with the values that it has now, out of reach of the user, who may change them while it waits."""
    values = [value if isinstance(value, concurrent.futures.Future) else _Blob.of(value) for value in call.values]
    return call._replace(values=tuple(values))


def _resolved(call: Call) -> tuple[bytes, list[Any]]:
    """The arguments of `fed.runtime.body.run` after the code. Raises the error of an argument that failed."""
    values = [
        (value.result() if isinstance(value, concurrent.futures.Future) else value).value() for value in call.values
    ]
    return call.shape.to_bytes(), values


def _when_resolved(values: Sequence[Any], then: Callable[[], Any]) -> None:
    """Call `then` when every reference among the values has resolved."""
    pending = [value for value in values if isinstance(value, concurrent.futures.Future)]
    lock = threading.Lock()
    left = len(pending) + 1

    def count(_: object) -> None:
        nonlocal left
        with lock:
            left -= 1
            ready = left == 0
        if ready:
            then()

    for future in pending:
        future.add_done_callback(count)
    count(None)


def _failed(error: BaseException) -> BaseException:
    """The exception as it would arrive from another process."""
    if worker.origin_of(error) is not None:
        return worker.arriving(error)
    if isinstance(
        error, (ActorKilledError, TaskCancelledError, ConnectionAbortedError, NotHere, worker.UndecodableError)
    ):
        return error
    # Raised around the user's code: while its arguments were unpickled, or its results pickled.
    return worker.arriving(worker.departing(error))


def _fetched(position: int, future: _Future) -> Any:
    failed = future.exception()
    if failed is None:
        try:
            return future.result().value()
        except Exception as error:  # noqa: BLE001 - a value of the user's that raises while it is unpickled
            failed = _failed(error)
    raise FetchFailed(position, _fault(failed), failed) from failed


def _outcome(future: _Future) -> Outcome:
    error = future.exception()
    if error is None:
        try:
            return Outcome(future.result().value(), None, None)
        except Exception as unread:  # noqa: BLE001 - as in `_fetched`
            error = _failed(unread)
    return Outcome(None, _fault(error), error)


def _fault(error: BaseException) -> Fault:
    # An error with an origin came from the user's code, whatever its class.
    if worker.origin_of(error) is None:
        if isinstance(error, ActorKilledError):
            return Fault(Kind.ACTOR_DIED, "ActorDiedError", message=str(error))
        if isinstance(error, TaskCancelledError):
            return Fault(Kind.CANCELLED, "TaskCancelledError", message=str(error))
        if isinstance(error, NotHere):
            return Fault(Kind.OBJECT_LOST, "ObjectLostError", message=str(error))
        if isinstance(error, ConnectionAbortedError):
            return Fault(Kind.INTERNAL, type(error).__name__, message=str(error))
    return worker.fault_of_user_error(error)


def _raise(error: BaseException) -> Any:
    raise error
