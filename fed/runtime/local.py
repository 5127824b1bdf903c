"""The in-process runtime: tasks and actors on threads, the proxies on an event loop of their own.

For unit tests and for the debugger: a whole federation runs in one process, in milliseconds, and a breakpoint in a
task stops there. Values are copied through pickle as Ray copies them, so that a program that shares state by
mistake fails here as it would there. Resource options (CPUs, memory, retries) have no meaning here.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from fed.channel import Role
from fed.channel.memory import MemoryDriverEnd, MemoryProxyEnd
from fed.clock import SYSTEM_CLOCK, Clock
from fed.core.rendezvous import Key
from fed.errors import ConfigError
from fed.proxy.deliveries import Delivery
from fed.proxy.direct import DirectClients, DirectServer, serve_receiver, serve_sender
from fed.proxy.receiver import Receiver
from fed.proxy.sender import Sender, announce
from fed.runtime import local_calls as calls
from fed.runtime import worker
from fed.runtime.contract import ActorBody, Body, Call, Outcome, Proxies, Ref, Runtime, Submission, TaskBody
from fed.runtime.local_calls import Blob, Future, Promise
from fed.serde.receipt import SmallCodec
from fed.transport.contract import AddressInUse, Notice

__all__ = ["LocalRuntime"]

T = TypeVar("T")
P = TypeVar("P", bound=Sender | Receiver)

GRACE_S: Final = 10.0
"""How long a closing runtime waits for user code that is still running."""


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
        self._actors: list[calls.Actor] = []
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
        return calls.held(value)

    def hold_code(self, body: Body) -> None:
        """Nothing: in one process code is what it is."""

    def submit(self, body: TaskBody, call: Call) -> Submission:
        """Run a function on a thread as soon as its arguments are there."""
        promise = Promise(call.shape.returns)
        call = calls.copied(call)

        def run() -> None:
            try:
                promise.settle(lambda: worker.run(body.code, *calls.unpacked(call), self._codec))
            finally:
                self._tasks.discard(threading.current_thread())

        def start() -> None:
            thread = threading.Thread(target=run, name=f"fed-{self._party}-{body.name}", daemon=True)
            with self._starting:
                self._tasks.add(thread)
                thread.start()

        calls.when_resolved(call.values, start)
        return promise.submission

    def create(self, body: ActorBody, call: Call) -> tuple[Any, Ref]:
        """Make an actor on a thread of its own."""
        actor = calls.make_actor(f"fed-{self._party}-{body.name}", body, calls.copied(call), self._codec)
        self._actors.append(actor)
        return actor, actor.created.done

    def call(self, actor: Any, method: str, call: Call, options: Mapping[str, Any]) -> Submission:
        """Run a method on the actor's thread, after the calls before it."""
        promise = Promise(call.shape.returns)
        actor.call(method, calls.copied(call), promise)
        return promise.submission

    def kill(self, actor: Any) -> None:
        """Let the actor end after the method it is in, which no thread can be made to leave."""
        actor.kill()

    def watch(self, ref: Ref, callback: Callable[[Outcome], None]) -> None:
        """Call back on the thread that resolves the reference."""
        future: Future = ref
        future.add_done_callback(lambda done: callback(calls.outcome_of(done)))

    def fetch(self, refs: Iterable[Ref]) -> list[Any]:
        """Copies of the values."""
        return [calls.fetched(position, ref) for position, ref in enumerate(refs)]

    def held_up(self, submitted: Sequence[tuple[Body, Any]]) -> list[str]:
        """Nothing: there are as many threads as tasks."""
        return [""] * len(submitted)

    def restart_sender(self) -> Ref:
        """Kill the sender, as far as anybody can tell, and start another, as Ray does.

        Resolves to None when the other one is in its place, or when there is none any more.
        """
        return self._restart(Role.SENDER)

    def restart_receiver(self) -> Ref:
        """As `restart_sender`."""
        return self._restart(Role.RECEIVER)

    def _restart(self, role: Role) -> Ref:
        return calls.resolved(None) if self._proxies is None or self._closed else self._proxies.restart(role)

    def close(self) -> None:
        """End the threads. Idempotent. Warns of user code that does not end, which no thread can be made to do."""
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + GRACE_S
        for actor in self._actors:
            actor.kill()
        with self._starting:
            threads = [*self._tasks, *(thread for actor in self._actors for thread in actor.threads)]
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        running = sorted(thread.name for thread in threads if thread.is_alive())
        if self._proxies is not None:
            self._proxies.stop()
        if running:
            names = ", ".join(running)
            warnings.warn(f"party {self._party!r} closed while these still ran: {names}", ResourceWarning, stacklevel=2)


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

    async def ask(self, method: Callable[[P], T]) -> T:
        """Run a method that does not wait."""
        await self._alive.wait()
        return method(self._proxy)

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
            under_way = tuple(self._calls)
            for call in under_way:
                call.cancel()
            await self._server.close()
            await asyncio.gather(*under_way, return_exceptions=True)
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
        promise = Promise(1)

        async def take() -> None:
            taken = await self._receiver.call(lambda receiver: receiver.take(key))
            # On a thread, as it may be large.
            await asyncio.to_thread(promise.settle, lambda: taken)

        def end(ended: concurrent.futures.Future[None]) -> None:
            error = None if ended.cancelled() else ended.exception()
            promise.fail(error or ConnectionAbortedError("the receiver was closed"))

        self._begin(take()).add_done_callback(end)
        return promise.submission

    def push(self, deliveries: Sequence[Delivery], refs: Sequence[Ref]) -> Ref:
        there = asyncio.Event()

        def wake() -> None:
            # The loop may be closed by then, and whoever waited is gone.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(there.set)

        async def push(sender: Sender) -> Any:
            # Not waited for on a thread, of which there are few: they may come to be long after this.
            calls.when_resolved(refs, wake)
            await there.wait()
            values = await asyncio.to_thread(lambda: [ref.result().value() for ref in refs])
            return await sender.push(deliveries, values)

        return self._run(self._sender.call(push))

    def unclaimed(self) -> Ref:
        return self._run(self._receiver.ask(Receiver.unclaimed))

    def statistics(self) -> Ref:
        return self._run(self._sender.ask(Sender.statistics))

    def close(self) -> Sequence[Ref]:
        async def close() -> None:
            await self._sender.close()
            await self._receiver.close()
            for task in list(self._running):
                task.cancel()

        return [self._run(close(), pending=False)]

    def restart(self, role: Role) -> Ref:
        """Kill a proxy, as far as anybody can tell, and start another."""
        host = self._sender if role is Role.SENDER else self._receiver
        return self._run(host.restart(), pending=False)

    def stop(self) -> None:
        """End the event loop and its thread."""

        async def end() -> None:
            self._sender.abandon()
            self._receiver.abandon()
            await calls.end_tasks()

        self._channel.close()
        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start what ends when the proxies are closed."""
        task = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _run(self, coroutine: Coroutine[Any, Any, Any], *, pending: bool = True) -> Future:
        # The driver's references are futures of blobs; a proxy's own answers are small, and are pickled like them.
        future: Future = concurrent.futures.Future()

        def end(ended: concurrent.futures.Future[Any]) -> None:
            if ended.cancelled():
                future.set_exception(ConnectionAbortedError("the proxy was closed"))
            elif ended.exception() is not None:
                future.set_exception(ended.exception())
            else:
                future.set_result(Blob.of(ended.result()))

        task = self._begin(coroutine) if pending else asyncio.run_coroutine_threadsafe(coroutine, self._loop)
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
