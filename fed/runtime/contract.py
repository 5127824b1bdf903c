"""What a runtime is: it runs this party's tasks and actors, keeps their results, and hosts the two proxies.

Two implementations keep this contract and share one conformance suite: `fed.runtime.ray` and `fed.runtime.local`.

Guarantees:

- Nothing here blocks the caller, except `fetch` (for the transfer of a result that exists) and the start and end of
  the runtime itself. What takes time hands out a reference, and `watch` tells when it is there.
- A result is immutable and its own copy: a task that changes an argument changes nobody else's.
- Every submitted task ends: its `done` resolves to a value or to a `Fault`, also when its worker was killed.
- Calls of one actor run in the order in which they were submitted, one at a time, unless the class has coroutine
  methods: those of such an actor run concurrently.
- A user's exception comes back as itself where it survives pickling; its class's name comes back in every case, with
  those of its causes, its text and its traceback.
"""

from __future__ import annotations

import abc
import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fed.core.failure import Fault, Kind
from fed.core.rendezvous import Key
from fed.proxy.deliveries import Delivery
from fed.proxy.direct import DirectClients
from fed.runtime.arguments import PLAIN, Shape
from fed.transport.contract import Notice

__all__ = [
    "ActorBody",
    "ActorKilledError",
    "Body",
    "Call",
    "FetchFailed",
    "Outcome",
    "Proxies",
    "Ref",
    "Runtime",
    "Submission",
    "TaskBody",
    "UnreadableError",
]

Ref = Any
"""A reference to a result that is or will be in this runtime's store. Opaque outside it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Body:
    """The user's code and the options it runs with, exported to the runtime once however often it is called.

    Attributes:
        code: The function or class as the user wrote it.
        name: Its name for people.
        options: Ray options, for example ``{"num_cpus": 2}``.
    """

    code: Callable[..., Any]
    name: str
    options: Mapping[str, Any]


class TaskBody(Body):
    """A function."""


class ActorBody(Body):
    """A class."""

    @property
    def is_concurrent(self) -> bool:
        """Whether several calls of an actor of this class may run at once, in any order."""
        if (self.options.get("max_concurrency") or 1) != 1:
            return True
        return any(inspect.iscoroutinefunction(member) for member in self.methods().values())

    def methods(self) -> dict[str, Callable[..., Any]]:
        """What of the class may be called, by name; nothing of one that cannot even be looked at."""
        try:
            members = inspect.getmembers(self.code, callable)
        # Whatever a descriptor of the user's raises. The construction fails by it too, and tells.
        except Exception:  # noqa: BLE001
            return {}
        return {name: member for name, member in members if not name.startswith("__") or name == "__call__"}


class Call(NamedTuple):
    """The arguments of one call.

    Attributes:
        values: Positional arguments, then those by keyword, then the extras: plain values, references, or objects of
            peers as they came, in bytes.
        shape: How they are put together again.
        sequence: The number of the call.
    """

    values: tuple[Any, ...]
    shape: Shape = PLAIN
    sequence: int = -1


class Submission(NamedTuple):
    """What a submitted call hands out.

    Attributes:
        results: A reference to each result.
        done: A small reference that resolves when the results are there, so that nobody has to look at these: to what
            `fed.serde.receipt.read_receipt` reads.
    """

    results: tuple[Ref, ...]
    done: Ref


class Outcome(NamedTuple):
    """How a watched reference ended.

    Attributes:
        value: Its value; None if it failed.
        fault: Why it failed, None if it did not.
        error: The exception to show the user in this party as the cause.
    """

    value: Any
    fault: Fault | None
    error: BaseException | None


class ActorKilledError(Exception):
    """The actor was killed before the call could run."""


class UnreadableError(Exception):
    """A value that was pickled cannot be unpickled in another process.

    Its class may be missing there, or its own code raises.

    Attributes:
        type_name: Name of the class of what was raised.
        text: Its text.
    """

    def __init__(self, type_name: str, text: str) -> None:
        super().__init__(type_name, text)
        self.type_name = type_name
        self.text = text

    def __str__(self) -> str:
        return f"cannot be unpickled in another process ({self.type_name}): {self.text}"

    @property
    def as_argument(self) -> Fault:
        """Of a task that was to be given the value."""
        return Fault(Kind.TASK, "UnpicklingError", (self.type_name,), message=f"an argument {self}")

    @property
    def as_result(self) -> Fault:
        """Of the value that somebody is to get."""
        detail = f"it cannot be unpickled in another process ({self.type_name})"
        return Fault(Kind.UNSERIALIZABLE, self.type_name, detail=detail, message=f"it {self}")


class FetchFailed(Exception):
    """A result that existed could not be had: it was lost since, or raised while it was unpickled.

    Attributes:
        position: Its place among the references to fetch.
        fault: Why.
        cause: The exception to show the user in this party as the cause.
    """

    def __init__(self, position: int, fault: Fault, cause: BaseException) -> None:
        super().__init__(position, fault, cause)
        self.position = position
        self.fault = fault
        self.cause = cause

    def __str__(self) -> str:
        return f"result {self.position} cannot be fetched: {self.fault.kind.name} ({self.fault.type_name})"


class Proxies(abc.ABC):
    """The two proxies as the driver sees them. Every method returns at once; references tell the rest.

    Attributes:
        direct: What the driver says to them, and hears of them, without the runtime.
    """

    direct: DirectClients

    @abc.abstractmethod
    def started(self) -> Ref:
        """Resolves to None when the receiver listens, or to the sentence that says why it cannot."""

    @abc.abstractmethod
    def ended(self) -> Mapping[str, Ref]:
        """For the sender and the receiver, what resolves to None when it was closed.

        It resolves before that, to the sentence that says why, where the one that took the place of a killed one cannot
        do its work; and it fails where none will take its place.
        """

    @abc.abstractmethod
    def connect(self, timeout_s: float) -> Ref:
        """Greet every peer. Resolves to a list of `fed.proxy.peer_session.JoinProblem`."""

    @abc.abstractmethod
    def take(self, key: Key) -> Submission:
        """Have an object that is large put into this runtime's store.

        ``done`` resolves to None, or to the fault of one that cannot be decoded. It fails with `Kind.OBJECT_LOST` if
        the object is not there any more, of which the driver is told again where it matters.
        """

    @abc.abstractmethod
    def push(self, deliveries: Sequence[Delivery], refs: Sequence[Ref]) -> Ref:
        """Send results that exist, of which there is no receipt.

        Resolves to a `fed.proxy.deliveries.Pushed`: when all is settled, or as soon as something is undeliverable. Push
        what it calls pending again, with the same references; nothing is sent twice. Fails, and nothing is sent, where
        one of the results cannot be had: with `Kind.OBJECT_LOST` or an `UnreadableError`, which do not say which one.
        """

    @abc.abstractmethod
    def unclaimed(self) -> Ref:
        """Resolves to the number of objects of each peer that nobody has asked for."""

    @abc.abstractmethod
    def statistics(self) -> Ref:
        """Resolves to a mapping from peer to `fed.transport.contract.LinkStatistics`."""

    @abc.abstractmethod
    def close(self) -> Sequence[Ref]:
        """Close both; when all of these have resolved the port is free, and what `ended` gave out has resolved.

        Whatever else was pending is dropped.
        """


class Runtime(abc.ABC):
    """Runs one party's tasks."""

    @abc.abstractmethod
    def start(self) -> Proxies:
        """Start, and host the two proxies.

        Raises:
            ConfigError: The cluster that the options name cannot be joined, or has no node for the proxies.
        """

    @abc.abstractmethod
    def announce(self, notices: Mapping[str, Sequence[Notice]], timeout_s: float) -> None:
        """Tell those peers who are up that this party cannot start: from this process, since there are no proxies.

        Blocks for little more than the time given to each of greeting and telling.
        """

    @abc.abstractmethod
    def hold(self, value: Any) -> Any:
        """Keep a value as it is now, for a call that is made later. Returns what is to be passed in its place.

        Raises:
            Exception: Whatever the value raises when it is copied.
        """

    @abc.abstractmethod
    def hold_code(self, body: Body) -> None:
        """Keep code as it is now, with the variables that it refers to, for a call that is made later."""

    @abc.abstractmethod
    def submit(self, body: TaskBody, call: Call) -> Submission:
        """Run a function."""

    @abc.abstractmethod
    def create(self, body: ActorBody, call: Call) -> tuple[Any, Ref]:
        """Make an actor. Returns it, and what resolves when its constructor has run."""

    @abc.abstractmethod
    def call(self, actor: Any, method: str, call: Call, options: Mapping[str, Any]) -> Submission:
        """Run a method of an actor."""

    @abc.abstractmethod
    def kill(self, actor: Any) -> None:
        """End an actor at once; its pending calls fail."""

    @abc.abstractmethod
    def watch(self, ref: Ref, callback: Callable[[Outcome], None]) -> None:
        """Call back when a reference resolves: from another thread, once, and never blocking it."""

    @abc.abstractmethod
    def fetch(self, refs: Iterable[Ref]) -> list[Any]:
        """The values of results that exist, in the order of their references.

        Raises:
            FetchFailed: One of them cannot be had; the first, if there are several.
        """

    @abc.abstractmethod
    def held_up(self, submitted: Sequence[tuple[Body, Any]]) -> list[str]:
        """What calls that were submitted cannot get because actors of this party have it. May ask the cluster.

        Args:
            submitted: The code of each, and the actor if it makes one.

        Returns:
            For each of them that in words; empty where nothing is known to hold it up.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """End what `start` started, and nothing else. Idempotent."""
