"""Identity of what a federated program makes: task ids, object ids and the handle that a user holds.

Every party runs the same fed calls in the same order, so a call's place in that order names it in all of them
without a word exchanged. A *task* is ``(epoch, sequence)``; an *object*, one of its results, adds a slot.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

T_co = TypeVar("T_co", covariant=True)


class ObjectId(NamedTuple):
    """The name of one result of one fed call, equal in every party.

    Attributes:
        epoch: Which stretch between two resets, from 0.
        sequence: The call's place in program order within the epoch, from 0.
        slot: Which of the call's results, from 0.
        stamp: Digest of the calls up to that one, so that parties whose programs differ never mean one another's
            objects; 64 bits.
    """

    epoch: int
    sequence: int
    slot: int
    stamp: int = 0

    def __str__(self) -> str:
        suffix = f".{self.slot}" if self.slot else ""
        return f"#{self.sequence}{suffix}"


class FedObject(Generic[T_co]):
    """A result that will exist in one party, held as a handle in all of them.

    Pass it to other fed calls (anywhere inside the arguments) or to `fed.get`. Handles are made by fed calls
    only; they are immutable and cannot be pickled, because a value leaves its party by a fed call or not at all.

    Attributes:
        id: The object's name, equal in every party.
        party: The party whose task makes the value.
    """

    __slots__ = ("__weakref__", "_entry", "_task", "id", "party")

    id: ObjectId
    party: str
    _task: str
    _entry: Any

    def __init__(self, object_id: ObjectId, party: str, task: str, entry: object) -> None:
        object.__setattr__(self, "id", object_id)
        object.__setattr__(self, "party", party)
        object.__setattr__(self, "_task", task)
        # The job's own record of this object. The handle owns it, so forgetting the handle frees the value
        # by reference counting, without a finaliser that could run in the middle of anything.
        object.__setattr__(self, "_entry", entry)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a FedObject is immutable; cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a FedObject is immutable; cannot delete {name!r}")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be pickled: pass it as an argument of a fed call, directly or inside a list, tuple, "
            "dict or dataclass, and the task receives its value"
        )

    def __copy__(self) -> FedObject[T_co]:
        return self

    def __deepcopy__(self, memo: object) -> FedObject[T_co]:
        return self

    def __repr__(self) -> str:
        return f"<FedObject {self.id} {self._task} at party {self.party!r}>"

    def __bool__(self) -> NoReturn:
        raise TypeError(f"{self!r} has no truth value before fed.get: every party must branch on the same value")

    def __iter__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be iterated: use num_returns, or fed.get first")
