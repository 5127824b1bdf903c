"""What does the faults of a plan to one party: wrappers around its links, listener, proxies, runtime, job and handler.

Each keeps the contract of what it wraps, so that the party cannot tell an injected fault from a real one. Where a
fault has nothing to do, the call goes through.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import inspect
import itertools
import types
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from typing_extensions import override

from fed.clock import SYSTEM_CLOCK, Clock
from fed.core.failure import Fault, Kind
from fed.engine.cleanup import FailureReport
from fed.engine.job import Job
from fed.errors import FedTimeoutError
from fed.object import ObjectId
from fed.proxy.arriving import Arrived
from fed.proxy.receiver import Receiver
from fed.proxy.sender import Delivery, Sender
from fed.runtime.body import NO_RECEIPTS
from fed.runtime.contract import ActorBody, Call, Outcome, Proxies, Ref, Submission, TaskBody
from fed.runtime.local import LocalRuntime
from fed.serde.receipt import SmallCodec
from fed.testing.faults import FaultRun, InjectedFault, InjectionPoint, Place
from fed.transport.contract import (
    Ack,
    Handler,
    Hello,
    Link,
    LinkStatistics,
    Listener,
    ListenerStatistics,
    Notice,
    NoticeKind,
    NotNow,
    Parcel,
    PeerUnreachable,
    TransportError,
    Verdict,
)

__all__ = ["FaultyJob", "FaultyLink", "FaultyListener", "FaultyReceiver", "FaultyRuntime", "FaultySender", "Injector"]

T = TypeVar("T")

REORDER_S: Final = 0.05
"""How long something that is to come after the next one waits for that: there may be none."""


class Injector:
    """The faults of one run of a plan in one party.

    Args:
        run: The run.
        party: The party.
    """

    def __init__(self, run: FaultRun, party: str) -> None:
        self.run = run
        self.party = party
        # Set by the runtime, which hosts the proxies.
        self.kill_sender: Callable[[], object] = _nothing
        self.kill_receiver: Callable[[], object] = _nothing

    def strike(self, place: Place, *, note: bool = True, **what: Any) -> InjectedFault | None:
        """The fault that strikes what happens here, if one does.

        Args:
            place: Where.
            note: Count it as injected at once. Otherwise that is for the caller.
            **what: Fields of `fed.testing.faults.InjectionPoint`.
        """
        strike = self.run.strike(InjectionPoint(place, self.party, **what))
        if strike is not None and note:
            strike.note()
        return strike

    def failure_handler(self, handler: Callable[[FailureReport], object]) -> Callable[[FailureReport], object]:
        """The failure handler, with what goes wrong in it."""

        def handle(report: FailureReport) -> None:
            strike = self.strike("handler")
            if strike is not None and strike.action == "raises":
                raise strike.error()
            if strike is None or strike.block():
                handler(report)

        return handle


# The transport


class _Session:
    """What one greeting of a link made, as far as the faults are concerned. Belongs to the link's event loop."""

    def __init__(self) -> None:
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Held by what hangs, and so by all that is behind it: data and notices apart, as on a wire.
        self.data = asyncio.Lock()
        self.notices = asyncio.Lock()
        # Set when a parcel has gone, for the one that is to go after it.
        self.gone = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    def end(self) -> None:
        """Break: what is under way is lost."""
        if not self.broken.done():
            self.broken.set_result(None)
        for task in self.tasks:
            task.cancel()


class FaultyLink(Link):
    """A link on which parcels and notices suffer.

    Args:
        inner: The link.
        injector: The faults of its party.
    """

    def __init__(self, inner: Link, injector: Injector) -> None:
        self._inner = inner
        self._injector = injector
        self._session: _Session | None = None
        self._dead = False
        self._closed = False

    @property
    @override
    def peer(self) -> str:
        return self._inner.peer

    @override
    async def connect(self, hello: Hello, *, timeout_s: float) -> Hello:
        strike = self._injector.strike("connect", peer=self.peer)
        if strike is not None:
            await self._within(timeout_s, self._before_greeting(strike))
        if self._dead:
            raise self._unreachable("is closed")
        self._end_session()
        welcome = await self._inner.connect(hello, timeout_s=timeout_s)
        self._session = session = _Session()
        loop = asyncio.get_running_loop()

        def break_from_anywhere() -> None:
            # The loop is closed where the party has left already.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(session.end)

        self._injector.run.breakers[self._injector.party, self.peer] = break_from_anywhere
        return welcome

    @override
    async def send(self, parcels: Sequence[Parcel]) -> None:
        session = self._connected()
        strikes = [self._strike(parcel) for parcel in parcels]
        async with session.data:
            ready: list[Parcel] = []
            for parcel, strike in zip(parcels, strikes, strict=True):
                if strike is None:
                    ready.append(parcel)
                    continue
                strike.note()
                if strike.action == "corrupt":
                    ready.append(_corrupted(parcel))
                elif strike.action == "duplicate":
                    ready += (parcel, parcel)
                elif strike.action == "delay":
                    self._later(session, strike.pause, parcel)
                elif strike.action == "reorder":
                    self._later(session, functools.partial(_overtaken, session.gone), parcel)
                else:
                    await self._pass_on(session, ready)
                    ready = []
                    await self._stop(session, strike)
                    ready.append(parcel)
            await self._pass_on(session, ready)

    @override
    async def upload(self, parcel: Parcel) -> Verdict:
        session = self._connected()
        strike = self._strike(parcel)
        action = None
        if strike is not None:
            strike.note()
            action = strike.action
        if strike is not None and action == "delay":
            await self._unless_broken(session, strike.pause)
        elif action == "reorder":
            await self._unless_broken(session, functools.partial(_overtaken, session.gone))
        # Passed through one by one, so that what hangs keeps those behind it; the streams themselves run side by side.
        async with session.data:
            if strike is not None and action in ("drop", "kill", "hang"):
                await self._stop(session, strike)
        sent = _corrupted(parcel) if action == "corrupt" else parcel
        verdict = await self._unless_broken(session, lambda: self._inner.upload(sent))
        if action == "duplicate":
            await self._unless_broken(session, lambda: self._inner.upload(sent))
        self._note_gone(session)
        return verdict

    @override
    def acks(self) -> AsyncIterator[Sequence[Ack]]:
        acks = self._inner.acks()
        return acks if self._session is None else self._read_acks(self._session, acks)

    @override
    async def tell(self, notice: Notice, *, timeout_s: float) -> None:
        session = self._connected()
        failure = notice.failure
        call = failure.sequence if failure is not None and failure.sequence >= 0 else None
        strike = self._injector.strike("broadcast", peer=self.peer, call=call, kind=notice.kind.name)

        async def tell() -> None:
            if strike is not None and strike.action == "delay":
                await strike.pause()
            # A ping passes the other notices by, as it does in every transport.
            turn: contextlib.AbstractAsyncContextManager[None] = (
                contextlib.nullcontext() if notice.kind is NoticeKind.PING else session.notices
            )
            async with turn:
                if strike is not None and strike.action in ("drop", "kill", "hang"):
                    await self._stop(session, strike)
                for _ in range(2 if strike is not None and strike.action == "duplicate" else 1):
                    await self._inner.tell(notice, timeout_s=timeout_s)

        await self._within(timeout_s, self._unless_broken(session, tell))

    @override
    async def close(self) -> None:
        self._dead = self._closed = True
        self._end_session()
        await self._inner.close()

    @override
    def statistics(self) -> LinkStatistics:
        return self._inner.statistics()

    async def _read_acks(self, session: _Session, acks: AsyncIterator[Sequence[Ack]]) -> AsyncIterator[Sequence[Ack]]:
        while True:
            try:
                yield await self._unless_broken(session, acks.__anext__)
            except StopAsyncIteration:
                return
            except PeerUnreachable:
                if self._closed:
                    return
                raise

    def _strike(self, parcel: Parcel) -> InjectedFault | None:
        name = parcel.id
        return self._injector.strike("send", note=False, peer=self.peer, call=name.sequence, slot=name.slot)

    async def _before_greeting(self, strike: InjectedFault) -> None:
        if strike.action == "raises":
            raise strike.error()
        if strike.action == "drop":
            raise self._unreachable("did not hear the greeting")
        if strike.action == "kill":
            self._die()
        await strike.pause()

    async def _stop(self, session: _Session, strike: InjectedFault) -> None:
        """Do what holds up everything behind it, or ends it."""
        if strike.action == "kill":
            self._die()
        if strike.action == "drop":
            session.end()
        elif not await self._unless_broken(session, strike.pause):
            raise self._unreachable("is not waited for any more")
        self._check(session)

    def _die(self) -> None:
        """Kill the sender, of which this is a part."""
        self._dead = True
        self._end_session()
        self._injector.kill_sender()
        raise self._unreachable("lost its sender")

    def _later(self, session: _Session, wait: Callable[[], Awaitable[bool]], parcel: Parcel) -> None:
        async def pass_on_later() -> None:
            try:
                if await wait():
                    await self._pass_on(session, [parcel])
            except TransportError:
                # Whoever sent it believes it to be on its way, and is to hear that it is not.
                session.end()

        task = asyncio.ensure_future(pass_on_later())
        session.tasks.add(task)
        task.add_done_callback(session.tasks.discard)

    async def _pass_on(self, session: _Session, parcels: list[Parcel]) -> None:
        if parcels:
            await self._unless_broken(session, lambda: self._inner.send(parcels))
            self._note_gone(session)

    def _note_gone(self, session: _Session) -> None:
        session.gone.set()
        session.gone = asyncio.Event()

    def _connected(self) -> _Session:
        if self._session is None:
            raise self._unreachable("is not connected")
        self._check(self._session)
        return self._session

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.end()

    def _check(self, session: _Session) -> None:
        if session.broken.done():
            raise self._unreachable("broke")

    async def _unless_broken(self, session: _Session, work: Callable[[], Awaitable[T]]) -> T:
        """Do it, unless the session breaks first.

        Raises:
            PeerUnreachable: It did.
        """
        self._check(session)
        task: asyncio.Future[T] = asyncio.ensure_future(work())
        # Whoever waits for it may be cancelled at the moment that it fails, and then nobody looks at it.
        task.add_done_callback(_look_at)
        waiting: set[asyncio.Future[Any]] = {task, session.broken}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
        if session.broken.done():
            await asyncio.wait({task})
            self._check(session)
        return task.result()

    async def _within(self, timeout_s: float, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await asyncio.wait_for(work, timeout_s)
        except asyncio.TimeoutError:
            raise self._unreachable(f"did not answer within {timeout_s:g} s") from None

    def _unreachable(self, why: str) -> PeerUnreachable:
        return PeerUnreachable(f"the link from {self._injector.party!r} to {self.peer!r} {why}")


def _look_at(task: asyncio.Future[Any]) -> None:
    """Take note of how a task ended, so that asyncio does not complain that nobody did."""
    if not task.cancelled():
        task.exception()


class FaultyListener(Listener):
    """A listener at which parcels suffer on arrival.

    Args:
        inner: The listener.
        injector: The faults of its party.
    """

    def __init__(self, inner: Listener, injector: Injector) -> None:
        self._inner = inner
        self._injector = injector
        self._handler: _FaultyHandler | None = None

    @override
    async def start(self, handler: Handler) -> None:
        self._handler = _FaultyHandler(handler, self._injector)
        await self._inner.start(self._handler)

    @override
    async def close(self) -> None:
        if self._handler is not None:
            self._handler.die()
        await self._inner.close()

    @override
    def statistics(self) -> ListenerStatistics:
        return self._inner.statistics()


class _Lane:
    """Where the parcels of one peer arrive."""

    def __init__(self) -> None:
        # Behind one that hangs; None while none does.
        self.behind: deque[tuple[Parcel, InjectedFault | None]] | None = None
        self.arrived = asyncio.Event()


class _FaultyHandler:
    """The listener's handler (`fed.transport.contract.Handler`), behind what happens to parcels on arrival."""

    def __init__(self, inner: Handler, injector: Injector) -> None:
        self._inner = inner
        self._injector = injector
        self._lanes: dict[str, _Lane] = {}
        self._admitted: set[tuple[str, ObjectId]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dead = False

    def on_hello(self, peer: str, hello: Hello) -> Hello:
        if self._dead:
            raise NotNow(f"party {self._injector.party!r} does not listen any more")
        return self._inner.on_hello(peer, hello)

    def on_stream(self, peer: str, send_acks: Callable[[Sequence[Ack]], None]) -> None:
        self._inner.on_stream(peer, send_acks)

    def on_parcels(self, peer: str, parcels: Sequence[Parcel]) -> None:
        lane = self._lanes.setdefault(peer, _Lane())
        for parcel in parcels:
            if self._dead:
                return
            name = parcel.id
            strike = self._injector.strike("receive", note=False, peer=peer, call=name.sequence, slot=name.slot)
            self._take_in(peer, lane, parcel, strike)

    def on_offer(self, peer: str, object_id: ObjectId, nbytes: int, overhead: int) -> Verdict:
        if self._dead:
            return Verdict.DECLINE
        verdict = self._inner.on_offer(peer, object_id, nbytes, overhead)
        if verdict is Verdict.ADMIT:
            self._admitted.add((peer, object_id))
        return verdict

    def on_offer_broken(self, peer: str, object_id: ObjectId) -> None:
        self._admitted.discard((peer, object_id))
        self._inner.on_offer_broken(peer, object_id)

    def on_notice(self, peer: str, notice: Notice) -> asyncio.Future[None] | None:
        if not self._dead:
            return self._inner.on_notice(peer, notice)
        # Not even one that did not need to be kept was taken.
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lost.cancel()
        return lost

    def die(self) -> None:
        """Take nothing in any more."""
        self._dead = True
        for task in self._tasks:
            task.cancel()

    def _take_in(self, peer: str, lane: _Lane, parcel: Parcel, strike: InjectedFault | None) -> None:
        if lane.behind is not None:
            lane.behind.append((parcel, strike))
        else:
            self._arrive(peer, lane, parcel, strike)

    def _arrive(self, peer: str, lane: _Lane, parcel: Parcel, strike: InjectedFault | None) -> None:
        if strike is None:
            self._hand(peer, lane, parcel)
            return
        strike.note()
        action = strike.action
        if action == "corrupt":
            self._hand(peer, lane, _corrupted(parcel))
        elif action == "duplicate":
            copy = parcel._replace(buffers=tuple(memoryview(bytes(buffer)) for buffer in parcel.buffers))
            self._hand(peer, lane, parcel)
            self._hand(peer, lane, copy)
        elif action == "delay":
            self._spawn(self._hand_later(peer, lane, parcel, strike.pause))
        elif action == "reorder":
            self._spawn(self._hand_later(peer, lane, parcel, functools.partial(_overtaken, lane.arrived)))
        elif action == "hang":
            lane.behind = deque([(parcel, None)])
            self._spawn(self._go_on_later(peer, lane, strike))
        elif action == "kill":
            self.die()
            self._injector.kill_receiver()
        else:
            self._lose(peer, parcel)

    def _hand(self, peer: str, lane: _Lane, parcel: Parcel) -> None:
        self._admitted.discard((peer, parcel.id))
        self._inner.on_parcels(peer, [parcel])
        lane.arrived.set()
        lane.arrived = asyncio.Event()

    async def _hand_later(self, peer: str, lane: _Lane, parcel: Parcel, wait: Callable[[], Awaitable[bool]]) -> None:
        if await wait():
            self._hand(peer, lane, parcel)

    async def _go_on_later(self, peer: str, lane: _Lane, strike: InjectedFault) -> None:
        goes_on = await strike.pause()
        behind = lane.behind or ()
        lane.behind = None
        for parcel, struck in behind if goes_on else ():
            # Where one of them hangs too, the rest is behind that one.
            self._take_in(peer, lane, parcel, struck)

    def _lose(self, peer: str, parcel: Parcel) -> None:
        if (peer, parcel.id) in self._admitted:
            self._admitted.discard((peer, parcel.id))
            self._inner.on_offer_broken(peer, parcel.id)
        # All parties are in this process, so the connection can be broken at its other end.
        self._injector.run.breakers.get((peer, self._injector.party), _nothing)()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


# The proxies


class FaultySender(Sender):
    """A sender whose driver's calls suffer.

    Args:
        injector: The faults of its party.
        *arguments: Of the sender.
        **options: Likewise.
    """

    def __init__(self, injector: Injector, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._injector = injector

    @override
    async def push(self, deliveries: Sequence[Delivery], *arguments: Any, **options: Any) -> Any:
        strikes = [
            self._injector.strike("push", note=False, peer=peer, call=delivery.id.sequence, slot=delivery.id.slot)
            for delivery in deliveries
            for peer in delivery.consumers
        ]
        await _suffer(strikes, self._injector.kill_sender)
        return await super().push(deliveries, *arguments, **options)


class FaultyReceiver(Receiver):
    """A receiver at which what it hands to its driver suffers.

    Args:
        injector: The faults of its party.
        *arguments: Of the receiver.
        **options: Likewise.
    """

    def __init__(self, injector: Injector, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._injector = injector
        self._suffering: set[asyncio.Task[None]] = set()

    @override
    def _deliver(self, arrived: Arrived) -> None:
        peer, object_id = arrived.key
        strike = self._injector.strike("deliver", note=False, peer=peer, call=object_id.sequence, slot=object_id.slot)
        if strike is None:
            super()._deliver(arrived)
            return
        suffering = asyncio.ensure_future(self._deliver_later(arrived, strike))
        self._suffering.add(suffering)
        suffering.add_done_callback(self._suffering.discard)

    async def _deliver_later(self, arrived: Arrived, strike: InjectedFault) -> None:
        await _suffer([strike], self._injector.kill_receiver)
        super()._deliver(arrived)

    @override
    async def close(self) -> None:
        for suffering in self._suffering:
            suffering.cancel()
        await super().close()


async def _suffer(strikes: Sequence[InjectedFault | None], kill: Callable[[], object]) -> None:
    """Let a call of a proxy suffer all that strikes what it carries."""
    for strike in filter(None, strikes):
        strike.note()
        if strike.action == "raises":
            raise strike.error()
        if strike.action == "kill":
            kill()
        if strike.action == "kill" or not await strike.pause():
            # The end of the proxy ends this too.
            await asyncio.get_running_loop().create_future()


# The runtime


class InjectedKillError(Exception):
    """Raised in place of the user's code by a worker that was killed. `FaultyRuntime.watch` knows it by its text."""


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
        injector: The faults of its party.
        sender: As for `LocalRuntime`.
        receiver: Likewise.
    """

    def __init__(
        self,
        injector: Injector,
        sender: Callable[[], Sender],
        receiver: Callable[[], Receiver],
        clock: Clock = SYSTEM_CLOCK,
        codec: SmallCodec = NO_RECEIPTS,
    ) -> None:
        super().__init__(injector.party, sender, receiver, clock, codec)
        self._injector = injector
        # The actors are kept, so that the id of one is never that of another.
        self._bodies: dict[int, tuple[Any, ActorBody]] = {}
        # What killed workers raise, by its text, and as what the runtime finds it.
        self._kills: dict[str, Kind] = {}
        self._struck = itertools.count(1)
        injector.kill_sender = self.restart_sender
        injector.kill_receiver = self.restart_receiver

    @override
    def start(self) -> Proxies:
        self._injector.run.gates.enter(self._injector.party)
        return super().start()

    @override
    def submit(self, body: TaskBody, call: Call) -> Submission:
        strike = self._strike(body.name, call)
        if strike is not None:
            kill = functools.partial(self._kill, strike.rule.loss)
            body = dataclasses.replace(body, code=_struck(body.code, strike, kill))
        return super().submit(body, call)

    @override
    def create(self, body: ActorBody, call: Call) -> tuple[Any, Ref]:
        if not self._injector.run.watches("produce"):
            return super().create(body, call)
        strike = self._strike(f"{body.name}.__init__", call)
        # A class of its own for each actor, which can be changed: that is how single calls get their faults.
        user: Any = body.code
        names = {"__module__": user.__module__, "__qualname__": user.__qualname__}
        code: Any = types.new_class(user.__name__, (user,), exec_body=lambda members: members.update(names))
        if strike is not None:
            code.__init__ = _struck(code.__init__, strike, functools.partial(self._kill, Kind.ACTOR_DIED))
        body = dataclasses.replace(body, code=code)
        actor, created = super().create(body, call)
        self._bodies[id(actor)] = (actor, body)
        return actor, created

    @override
    def call(self, actor: Any, method: str, call: Call, options: Mapping[str, Any]) -> Submission:
        if id(actor) in self._bodies:
            _, body = self._bodies[id(actor)]
            strike = self._strike(f"{body.name}.{method}", call)
            if strike is not None:

                def kill() -> Exception:
                    self.kill(actor)
                    return self._kill(Kind.ACTOR_DIED)

                # Under a name of its own, so that the other calls of this method do not suffer.
                name = f"{method} struck {next(self._struck)}"
                setattr(body.code, name, _struck(_unbound(method, getattr(body.code, method)), strike, kill))
                method = name
        return super().call(actor, method, call, options)

    @override
    def watch(self, ref: Ref, callback: Callable[[Outcome], None]) -> None:
        super().watch(ref, lambda outcome: callback(self._as_ray_finds_it(outcome)))

    @override
    def close(self) -> None:
        # First, because what hangs in a task would keep the runtime from closing.
        self._injector.run.gates.leave(self._injector.party)
        super().close()

    def _strike(self, task: str, call: Call) -> InjectedFault | None:
        return self._injector.strike("produce", note=False, call=call.sequence, task=task)

    def _kill(self, kind: Kind) -> Exception:
        """What a worker that is killed raises, since a thread cannot be killed."""
        text = f"worker {next(self._struck)} of party {self._injector.party!r} was killed by an injected fault"
        self._kills[text] = kind
        return InjectedKillError(text)

    def _as_ray_finds_it(self, outcome: Outcome) -> Outcome:
        fault = outcome.fault
        kind = None if fault is None else self._kills.get(fault.message)
        if fault is None or kind is None:
            return outcome
        return Outcome(None, Fault(kind, _TYPE_NAMES[kind], message=fault.message), outcome.error)


def _struck(code: Callable[..., Any], strike: InjectedFault, kill: Callable[[], Exception]) -> Callable[..., Any]:
    """The user's code, behind what goes wrong."""

    def before(goes_on: bool) -> None:
        if strike.action == "raises":
            raise strike.error()
        if strike.action == "kill" or not goes_on:
            raise kill()

    waits = strike.action in ("hang", "delay")
    if inspect.iscoroutinefunction(code):

        @functools.wraps(code)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            strike.note()
            before(await strike.pause() if waits else True)
            return await code(*args, **kwargs)

        return run_async

    @functools.wraps(code)
    def run(*args: Any, **kwargs: Any) -> Any:
        strike.note()
        before(strike.block() if waits else True)
        return code(*args, **kwargs)

    return run


def _unbound(name: str, found: Callable[..., Any]) -> Callable[..., Any]:
    """A method to be set on the class under another name, of whatever sort the one found is."""
    if inspect.iscoroutinefunction(found):

        async def call_async(self: Any, *args: Any, **kwargs: Any) -> Any:
            return await getattr(self, name)(*args, **kwargs)

        return functools.wraps(found)(call_async)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, name)(*args, **kwargs)

    return call


# The driver


class FaultyJob(Job):
    """A job whose driver suffers when it makes a fed call.

    Args:
        injector: The faults of its party.
        *arguments: Of the job.
        **options: Likewise.
    """

    def __init__(self, injector: Injector, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._injector = injector

    @override
    def run(self, *arguments: Any, **options: Any) -> Any:
        self._before_call()
        return super().run(*arguments, **options)

    @override
    def create(self, *arguments: Any, **options: Any) -> Any:
        self._before_call()
        return super().create(*arguments, **options)

    @override
    def call(self, *arguments: Any, **options: Any) -> Any:
        self._before_call()
        return super().call(*arguments, **options)

    @override
    def kill(self, *arguments: Any, **options: Any) -> Any:
        self._before_call()
        return super().kill(*arguments, **options)

    @override
    def get(self, *arguments: Any, **options: Any) -> Any:
        self._before_call()
        return super().get(*arguments, **options)

    @property
    def calls(self) -> int:
        """How many fed calls the driver has made in this epoch."""
        return self.shell.running().calls

    def _before_call(self) -> None:
        strike = self._injector.strike("driver", call=self.calls)
        if strike is None:
            return
        if strike.action == "raises":
            raise strike.error()
        if not strike.block():
            raise FedTimeoutError("the simulation was over before an injected fault let the driver go on")


# What happens to parcels


def _corrupted(parcel: Parcel) -> Parcel:
    """The same parcel with bytes changed on the way."""
    # No header begins with this byte, so no codec can take what was changed for another value.
    header = b"\xc1" + bytes(byte ^ 0xFF for byte in parcel.header[1:])
    return parcel._replace(header=header, buffers=tuple(memoryview(_changed(buffer)) for buffer in parcel.buffers))


def _changed(buffer: memoryview) -> bytes:
    changed = bytearray(buffer)
    changed[:1] = bytes(byte ^ 0xFF for byte in changed[:1])
    return bytes(changed)


async def _overtaken(gone: asyncio.Event) -> bool:
    """Wait until another one has gone, or for a moment if none does."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(gone.wait(), REORDER_S)
    return True


def _nothing() -> None:
    """In place of something that is not there."""
