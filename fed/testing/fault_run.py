"""A fault plan in one simulation: what strikes, when, and what it makes wait.

Whether a fault strikes depends on the plan, its seed and on what happens: never on which thread came first.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import queue
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from fed.clock import SYSTEM_CLOCK, Clock
from fed.core.failure import Kind
from fed.testing.gates import Gates

__all__ = ["FaultRun", "InjectedFault", "Injection", "InjectionPoint", "Proxy", "Rule"]

Proxy = Literal["sender", "receiver"]


class Injection(NamedTuple):
    """A fault that struck.

    Attributes:
        place: Where.
        action: What happened.
        party: In which party.
        peer: Towards or from which peer, where the place has one.
        call: Number of the fed call that it concerned, where the place has one.
        task: Name of the task, at ``produce``.
        kind: Kind of the notice, at ``broadcast``.
    """

    place: str
    action: str
    party: str
    peer: str | None = None
    call: int | None = None
    task: str | None = None
    kind: str | None = None

    def __str__(self) -> str:
        peer = None if self.peer is None else f"peer {self.peer}"
        call = None if self.call is None else f"call {self.call}"
        details = ", ".join(filter(None, (peer, call, self.task, self.kind)))
        return f"{self.party}: {self.place} {self.action}" + (f" ({details})" if details else "")


class InjectionPoint(NamedTuple):
    """Something that happens at a place, and may be struck.

    Attributes:
        place: As for `Injection`, and likewise the next five.
        slot: Tells apart the several things that one call makes.
    """

    place: str
    party: str
    peer: str | None = None
    call: int | None = None
    task: str | None = None
    kind: str | None = None
    slot: int = 0


@dataclasses.dataclass(frozen=True)
class Rule:
    """One fault of a plan.

    Attributes:
        number: From 1, in the order of the plan.
        place: Where it strikes.
        proxy: Which proxy of the party is killed there, if one can be.
        wanted: What must hold, by field of `InjectionPoint`.
        nth: Which time that it holds; None: every time.
        probability: The share of those times.
        action: What goes wrong; empty until that is said.
        error: What is raised.
        seconds: How long it waits at most; None: until it is let go.
        gate: Where it waits.
        loss: As what the runtime finds a task that is killed.
    """

    number: int
    place: str
    proxy: Proxy | None
    wanted: Mapping[str, object]
    nth: int | None
    probability: float = 1.0
    action: str = ""
    error: BaseException | type[BaseException] | None = None
    seconds: float | None = None
    gate: str | None = None
    loss: Kind = Kind.WORKER_CRASHED

    def concerns(self, point: InjectionPoint) -> bool:
        """Whether it may strike what happens, whichever time this is."""
        return all(getattr(point, name) == value for name, value in self.wanted.items())

    def __str__(self) -> str:
        chosen = [f"{name}={value!r}" for name, value in self.wanted.items()]
        chosen += [f"nth={self.nth}"] if self.nth is not None else []
        return f"at({', '.join([repr(self.place), *chosen])})"


class InjectedFault:
    """A fault that strikes something that happens."""

    __slots__ = ("_point", "_rule", "_run", "action", "loss", "proxy")

    def __init__(self, run: FaultRun, rule: Rule, point: InjectionPoint) -> None:
        self._run = run
        self._rule = rule
        self._point = point
        self.action = rule.action
        self.loss = rule.loss
        self.proxy = rule.proxy

    def record(self) -> None:
        """Count it among what was injected."""
        self._run.injected.append(Injection(self._point.place, self.action, *self._point[1:6]))

    def inject(self) -> bool:
        """Raise, wait, or kill a proxy, in a thread. Returns whether what was struck goes on afterwards."""
        return self._begin() and self._block()

    async def inject_async(self) -> bool:
        """As `inject`, in a coroutine."""
        return self._begin() and await self._pause()

    def _begin(self) -> bool:
        """Do what takes no time. Returns whether there is something to wait for."""
        self.record()
        if self._rule.error is not None:
            # One exception may be raised many times, and must not carry the frames of all of them.
            raise self._rule.error if isinstance(self._rule.error, type) else self._rule.error.with_traceback(None)
        if self.action == "kill" and self.proxy is not None:
            self._run.kill[self._point.party, self.proxy]()
        return self.action in ("hang", "delay")

    def _block(self) -> bool:
        future = self._run.gates.wait(self._point.party, self._rule.gate)
        opened = self._run.clock.queue()
        future.add_done_callback(opened.put)
        try:
            opened.get(timeout=self._rule.seconds)
            return future.result()
        except queue.Empty:
            return True
        finally:
            future.cancel()

    async def _pause(self) -> bool:
        future = asyncio.wrap_future(self._run.gates.wait(self._point.party, self._rule.gate))
        try:
            await asyncio.wait({future}, timeout=self._rule.seconds)
            return future.result() if future.done() else True
        finally:
            future.cancel()


class FaultRun:
    """A plan in one simulation: what has struck, and what waits. From any thread.

    Args:
        seed: That of the plan.
        rules: Its faults, in order. None: the run is one that never begins.
        clock: What delays go by.
    """

    def __init__(self, seed: int, rules: Iterable[Rule] | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self._seed = seed
        self._rules: dict[str, list[Rule]] = {}
        for rule in rules or ():
            self._rules.setdefault(rule.place, []).append(rule)
        self._lock = threading.Lock()
        # How often each fault has met its conditions: in a party and towards a peer, and for one thing in all.
        self._times: collections.Counter[Any] = collections.Counter()
        self.running = rules is not None
        self.gates = Gates()
        # Appended to by any thread, which a list allows.
        self.injected: list[Injection] = []
        self.kill: dict[tuple[str, Proxy], Callable[[], object]] = {}
        """How to kill the proxies of a party, from any thread; the party's runtime enters it."""

    def watches(self, place: str) -> bool:
        """Whether anything can go wrong at a place."""
        return place in self._rules

    def fault_at(self, point: InjectionPoint) -> InjectedFault | None:
        """The fault that strikes what happens, if one does."""
        struck = None
        with self._lock:
            for rule in self._rules.get(point.place, ()) if self.running else ():
                # Each counts for itself, so that a fault that is added to a plan moves no other.
                if rule.concerns(point) and self._chosen(rule, point) and struck is None:
                    struck = rule
        return None if struck is None else InjectedFault(self, struck, point)

    def end(self) -> None:
        """The simulation is over: nothing strikes or waits any more."""
        self.running = False
        self.gates.end()

    def _chosen(self, rule: Rule, point: InjectionPoint) -> bool:
        if rule.nth is not None:
            pair = (rule.number, point.party, point.peer)
            self._times[pair] += 1
            if self._times[pair] != rule.nth:
                return False
        if rule.probability >= 1:
            return True
        # By what it is and how often it came, not by what came before it: that would depend on threads.
        self._times[rule.number, point] += 1
        drawn = random.Random(f"{self._seed} {rule.number} {tuple(point)} {self._times[rule.number, point]}")  # noqa: S311
        return drawn.random() < rule.probability
