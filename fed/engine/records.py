"""What the driver keeps of its objects, tasks and actors: plain records, guarded by the job's lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fed.core.failure import Failure, Fault, Kind
from fed.core.plan import PlannedObject
from fed.object import ObjectId
from fed.runtime.contract import ActorKilledError, Body, Outcome, Ref, Submission
from fed.serde.receipt import SmallValue

if TYPE_CHECKING:
    from fed.engine.services import EpochState

__all__ = ["FAILED", "PENDING", "READY", "Actor", "Entry", "GetWait", "Push", "Task", "actor_died", "inherited"]

PENDING: Final = 0
READY: Final = 1
FAILED: Final = 2


class Entry(PlannedObject):
    """The record of one object, owned by the user's handle.

    Attributes:
        label: The call that makes it, for people.
        state: PENDING, READY or FAILED; leaves PENDING once [E12].
        ref: Where this party has it, or will; None if it has it in `small` only, or does not need it.
        failure: Why there is no value, in FAILED.
        cause: The user's exception behind the failure, where that was raised here.
        refusal: Why no other party can have it, READY though it is in this one.
        small: Its value in bytes, where it is READY and small.
        consumers: Parties to push it to as soon as it is READY, or to tell that it will not be.
        task: The task of this party that makes it, in PENDING.
        dependents: Failed tasks that wait for this state, to know whether they failed because of it.
        wait: The `fed.get` that waits for it.
        epoch: The epoch that it belongs to.
    """

    __slots__ = (
        "cause",
        "consumers",
        "dependents",
        "epoch",
        "failure",
        "label",
        "ref",
        "refusal",
        "small",
        "state",
        "task",
        "wait",
    )

    def __init__(self, epoch: EpochState, object_id: ObjectId, party: str, label: str) -> None:
        super().__init__(object_id, party)
        self.epoch = epoch
        self.label = label
        self.state = PENDING
        self.ref: Ref = None
        self.failure: Failure | None = None
        self.cause: BaseException | None = None
        self.refusal: Failure | None = None
        self.small: SmallValue | None = None
        self.consumers: tuple[str, ...] = ()
        self.task: Task | None = None
        self.dependents: list[Task] = []
        self.wait: GetWait | None = None

    @property
    def origin(self) -> str:
        """Which object it is, and whose, for people."""
        return f"object {self.id} from party {self.party!r}"


class Push(NamedTuple):
    """An object that is ready, and parties that need it."""

    epoch: int
    entry: Entry
    consumers: tuple[str, ...]


class Actor:
    """An actor, as the driver of each party knows it.

    Attributes:
        name: In calls; equal everywhere.
        label: Its class, for people.
        ordered: Whether its calls run in the order of the program.
        handle: The runtime's, in its own party, once it is created.
        construction: What stands for its construction there: what failed in it fails every method.
        killed: Whether `fed.kill` ended it.
    """

    __slots__ = ("construction", "handle", "killed", "label", "name", "ordered")

    def __init__(self, name: str, label: str, *, ordered: bool) -> None:
        self.name = name
        self.label = label
        self.ordered = ordered
        self.handle: Any = None
        self.construction: Entry | None = None
        self.killed = False


class Task:
    """A task of this party that has not ended.

    Attributes:
        sequence: The number of its call.
        label: The call, for people.
        results: What it makes.
        uses: What it needs.
        submit: Hands it to the runtime; None once that is done.
        actor: The actor that it is a call of, or constructs.
        done: The runtime's reference that tells of its end, once it is submitted.
        failed: Why it failed, if it did.
        undecided: How many of those that it uses have no state yet, once it has failed.
        body: The code that it runs, if it is not a method.
        held_up: What of the cluster it cannot get, in words, when that was last looked up.
    """

    __slots__ = (
        "actor",
        "body",
        "done",
        "failed",
        "held_up",
        "label",
        "results",
        "sequence",
        "submit",
        "undecided",
        "uses",
    )

    def __init__(
        self,
        sequence: int,
        label: str,
        results: tuple[Entry, ...],
        uses: Sequence[Entry],
        submit: Callable[[], Submission],
        actor: Actor | None = None,
    ) -> None:
        self.sequence = sequence
        self.label = label
        self.results = results
        self.uses = uses
        self.submit: Callable[[], Submission] | None = submit
        self.actor = actor
        self.body: Body | None = None
        self.held_up = ""
        self.done: Ref = None
        self.failed: Outcome | None = None
        self.undecided = 0

    @property
    def is_killed_construction(self) -> bool:
        """Whether it constructs an actor that was killed, which is no failure of the construction."""
        return self.actor is not None and self.actor.killed and self.results[0] is self.actor.construction


class GetWait:
    """A `fed.get` in progress: how many of its objects have no state yet."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = 0


def inherited(failure: Failure, cause: BaseException | None) -> Outcome:
    """The end of a task of which an argument has failed."""
    return Outcome(None, Fault(failure.kind, failure.type_name, inherited=failure), cause)


def actor_died(text: str) -> Outcome:
    """The end of a call of an actor that is not there any more."""
    error = ActorKilledError(text)
    return Outcome(None, Fault(Kind.ACTOR_DIED, "ActorDiedError", message=str(error)), error)
