"""What is to go wrong in a simulation: which fault, at which place, when.

Laws:

1. A fault does what a real network, machine or program does, and nothing else: what one place cannot suffer is
   refused when the plan is written (`PLACES`).
2. Whether a fault strikes depends on the plan, its seed and on what happens at the place: never on which thread came
   first. Two runs of one program in which the same things happen suffer the same faults.
3. What a fault makes wait, waits no longer than the simulation.

The plan only decides. What it decides is done by wrappers, so that the library itself knows nothing of faults: of the
wire in `fed.testing.links`, of the rest in `fed.testing.injection`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

from fed.clock import SYSTEM_CLOCK, Clock
from fed.core.failure import Kind
from fed.errors import FedTimeoutError, UsageError
from fed.testing.fault_run import FaultRun, Injection, Proxy, Rule
from fed.transport.contract import NoticeKind, TransportError

__all__ = ["PLACES", "Fault", "FaultPlan"]

Place = Literal["driver", "produce", "push", "connect", "send", "receive", "deliver", "broadcast", "handler"]
Loss = Literal["WORKER_CRASHED", "OUT_OF_MEMORY", "OBJECT_LOST", "CANCELLED"]

_LOSSES: Final[tuple[str, ...]] = get_args(Loss)


class PlaceRules(NamedTuple):
    """What may be said of a place.

    Attributes:
        filters: By what, besides the party, what happens there can be told apart.
        actions: What can go wrong there.
        proxy: Which proxy of the party is killed there, if one can be.
    """

    filters: tuple[str, ...]
    actions: tuple[str, ...]
    proxy: Proxy | None = None


_WIRE: Final = ("kill", "hang", "delay", "drop", "duplicate", "reorder", "corrupt")

PLACES: Final[Mapping[str, PlaceRules]] = {
    "driver": PlaceRules(("call",), ("raises", "hang", "delay")),
    "produce": PlaceRules(("call", "task"), ("raises", "kill", "hang", "delay")),
    "push": PlaceRules(("peer", "call"), ("raises", "kill", "hang", "delay"), "sender"),
    "connect": PlaceRules(("peer",), ("raises", "kill", "hang", "delay", "drop"), "sender"),
    "send": PlaceRules(("peer", "call"), _WIRE, "sender"),
    "receive": PlaceRules(("peer", "call"), _WIRE, "receiver"),
    "deliver": PlaceRules(("peer", "call"), ("kill", "hang", "delay"), "receiver"),
    "broadcast": PlaceRules(("peer", "call", "kind"), ("kill", "hang", "delay", "drop", "duplicate"), "sender"),
    "handler": PlaceRules((), ("raises", "hang", "delay")),
}
"""Every place, and the law of what can go wrong there. ``docs/testing.md`` says what each means."""


class FaultPlan:
    """What is to go wrong in a simulation. Give it to `fed.testing.simulate` as ``faults``.

    ::

        plan = FaultPlan(seed=7)
        plan.at("produce", party="alice", call=3).raises(ValueError("boom"))
        plan.at("send", party="alice", peer="bob", nth=2).drop()
        simulate(main, parties=["alice", "bob"], faults=plan)

    Where several faults concern the same thing, the one that was planned first strikes. A plan may be used for several
    simulations, one after the other, and each begins anew. When one fails, the plan and what it injected are printed
    to stderr, so that the failure can be repeated.

    Args:
        seed: Decides where the faults with a `Fault.probability` strike.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed: Final = seed
        # By number, in the order of `at`. One without an action is unfinished.
        self._rules: dict[int, Rule] = {}
        self._run = FaultRun(self.seed)

    def at(
        self,
        place: Place,
        *,
        party: str | None = None,
        peer: str | None = None,
        call: int | None = None,
        task: str | None = None,
        kind: str | None = None,
        nth: int | None = None,
    ) -> Fault:
        """Choose where something is to go wrong. What, is for the method called on the result.

        Args:
            place: ``driver``, ``produce``, ``push``, ``connect``, ``send``, ``receive``, ``deliver``, ``broadcast`` or
                ``handler``.
            party: In this party only.
            peer: Towards or from this peer only.
            call: For this fed call only: they are numbered from 0 in the order of the program, `fed.get` included.
            task: For the task of this name only, for example ``train``, ``Model.__init__`` or ``Model.fit``.
            kind: For notices of this kind only, for example ``FAILURE``.
            nth: Only the first, second, ... time, from 1, that all the above holds; counted for each party, and for
                each of its peers, by itself. Without it every time.

        Raises:
            UsageError: There is no such place, or the place has no such thing to choose by.
        """
        if place not in PLACES:
            raise UsageError(f"no place {place!r} for a fault: there are {', '.join(PLACES)}")
        given = {"party": party, "peer": peer, "call": call, "task": task, "kind": kind}
        wanted = {name: value for name, value in given.items() if value is not None}
        known = ("party", *PLACES[place].filters)
        for name, value in wanted.items():
            if name not in known:
                raise UsageError(f"what happens at {place!r} has no {name}: choose by {', '.join((*known, 'nth'))}")
            _check(name, value)
        if nth is not None:
            _check("nth", nth)
        rule = Rule(len(self._rules) + 1, place, PLACES[place].proxy, wanted, nth)
        self._rules[rule.number] = rule
        return Fault(self._finish, rule)

    def release(self, gate: str | None = None) -> None:
        """Let go what waits at a gate, now and later. From any thread.

        Args:
            gate: The name given to `Fault.hang` or `Fault.delay`. None: everything that waits because of this plan.

        Raises:
            UsageError: No fault of the plan has a gate of this name.
        """
        if gate is not None:
            self._check_gate(gate)
        self._run.gates.open(gate)

    def wait_until_reached(self, gate: str, timeout_s: float = 10.0) -> None:
        """Wait until something waits at a gate. From any thread; not for the end of the wait.

        Args:
            gate: The name given to `Fault.hang` or `Fault.delay`.
            timeout_s: Seconds.

        Raises:
            UsageError: No fault of the plan has a gate of this name.
            FedTimeoutError: Nothing came there in time.
        """
        self._check_gate(gate)
        if not self._run.gates.reached(gate, timeout_s):
            raise FedTimeoutError(f"nothing reached the gate {gate!r} within {timeout_s:g} s")

    @property
    def injected(self) -> tuple[Injection, ...]:
        """What struck in the current simulation, or in the last one, in the order in which it did."""
        return tuple(self._run.injected)

    def __str__(self) -> str:
        injected = self.injected
        lines = [f"fault plan with seed {self.seed}: {len(injected)} injected", *map(str, injected)]
        return "\n  ".join(lines)

    def begin(self, parties: Iterable[str], clock: Clock = SYSTEM_CLOCK) -> FaultRun:
        """Begin a simulation, whose delays go by a clock. Called by `fed.testing.simulate`.

        Raises:
            UsageError: A fault names a party that does not take part, or was left unfinished; or the plan is in use.
        """
        names = tuple(parties)
        for rule in self._rules.values():
            for role in ("party", "peer"):
                named = rule.wanted.get(role)
                if named is not None and named not in names:
                    raise UsageError(f"the fault {rule} names {named!r}: there are {', '.join(names)}")
            if not rule.action:
                raise UsageError(f"the fault {rule} does nothing: call one of {_methods(rule.place)} on it")
        if self._run.running:
            raise UsageError("the fault plan is in use: give each simulation one of its own")
        self._run = FaultRun(self.seed, self._rules.values(), clock)
        return self._run

    def _finish(self, rule: Rule) -> None:
        if self._rules[rule.number].action:
            raise UsageError(f"the fault {rule} has an effect already: call plan.at again for another one")
        self._rules[rule.number] = rule

    def _check_gate(self, gate: str) -> None:
        gates = sorted({rule.gate for rule in self._rules.values() if rule.gate is not None})
        if gate not in gates:
            raise UsageError(f"no gate {gate!r} in the fault plan: there are {', '.join(gates) or 'none'}")


class Fault:
    """A place that was chosen. Each method but `probability` says what goes wrong there, and completes the fault.

    Which of them are possible depends on the place, see the table in ``docs/testing.md``. All raise UsageError for
    one that is not. Made by `FaultPlan.at`.
    """

    __slots__ = ("_finish", "_rule")

    def __init__(self, finish: Callable[[Rule], None], rule: Rule) -> None:
        self._finish = finish
        self._rule = rule

    def probability(self, share: float) -> Fault:
        """Strike with this probability only, by the seed of the plan.

        Args:
            share: Above 0, and up to 1.
        """
        _check("probability", share)
        return Fault(self._finish, dataclasses.replace(self._rule, probability=float(share)))

    def raises(self, error: BaseException | type[BaseException]) -> None:
        """An exception: out of the fed call or the proxy's, instead of the task's body, or in the failure handler.

        Args:
            error: What is raised. At ``connect`` one of `fed.transport.contract`, which is all that a link may raise.
        """
        allowed = {"connect": TransportError, "driver": BaseException, "handler": BaseException}.get(
            self._rule.place, Exception
        )
        kind = error if isinstance(error, type) else type(error)
        if not issubclass(kind, allowed):
            raise UsageError(f"{self._rule.place!r} raises a subclass of {allowed.__name__}, not {kind.__name__}")
        self._complete("raises", error=error)

    def kill(self, kind: Loss | None = None) -> None:
        """The worker, or the proxy, is killed; the proxy is started anew, as Ray does.

        Args:
            kind: At ``produce``, for a task: what the runtime finds. ``WORKER_CRASHED`` (default), ``OUT_OF_MEMORY``,
                ``OBJECT_LOST`` or ``CANCELLED``. An actor that is killed is ACTOR_DIED.
        """
        if kind is not None and self._rule.place != "produce":
            raise UsageError(f"the kind of a kill is for 'produce', not for {self._rule.place!r}")
        if kind is not None and kind not in _LOSSES:
            raise UsageError(f"a task cannot be killed by {kind!r}: there are {', '.join(_LOSSES)}")
        self._complete("kill", loss=Kind[kind or "WORKER_CRASHED"])

    def hang(self, until: str | None = None) -> None:
        """It does not go on, and nothing behind it does, until `FaultPlan.release` or the end of the simulation.

        Args:
            until: Name of a gate for `FaultPlan.release`.
        """
        self._complete("hang", gate=until)

    def delay(self, seconds: float | None = None, *, until: str | None = None) -> None:
        """It happens later, and what is behind it overtakes it.

        Args:
            seconds: How much later.
            until: Instead: the name of a gate for `FaultPlan.release`.
        """
        if (seconds is None) == (until is None):
            raise UsageError("a delay takes seconds, or until=... with the name of a gate")
        if seconds is not None:
            _check("seconds", seconds)
        self._complete("delay", seconds=seconds, gate=until)

    def drop(self) -> None:
        """It is lost, and the connection with it, as with TCP: the sender connects again and sends again."""
        self._complete("drop")

    def duplicate(self) -> None:
        """It comes twice."""
        self._complete("duplicate")

    def reorder(self) -> None:
        """It comes after the next one, or a moment later if there is no next one."""
        self._complete("reorder")

    def corrupt(self) -> None:
        """Some of its bytes are changed on the way, and cannot be decoded."""
        self._complete("corrupt")

    def _complete(self, action: str, **values: Any) -> None:
        place = self._rule.place
        if action not in PLACES[place].actions:
            raise UsageError(f"{action!r} is not possible at {place!r}: there are {_methods(place)}")
        self._finish(dataclasses.replace(self._rule, action=action, **values))


def _number(value: object, least: float, *, whole: bool) -> bool:
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and value >= least  # type: ignore[operator]


_CHECKS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "call": (lambda value: _number(value, 0, whole=True), "a whole number from 0"),
    "nth": (lambda value: _number(value, 1, whole=True), "a whole number from 1"),
    "seconds": (lambda value: _number(value, 0, whole=False), "a number of seconds from 0"),
    "probability": (lambda value: _number(value, 0, whole=False) and 0 < value <= 1, "a number above 0, up to 1"),
    "kind": (lambda value: value in NoticeKind.__members__, f"one of {', '.join(NoticeKind.__members__)}"),
}


def _check(name: str, value: object) -> None:
    accepts, expected = _CHECKS.get(name, (lambda value: isinstance(value, str), "a string"))
    if not accepts(value):
        raise UsageError(f"{name} of a fault: expected {expected}, found {value!r}")


def _methods(place: str) -> str:
    return ", ".join(PLACES[place].actions)
