"""The plan: which call of the program means what for this party.

Every party runs the same fed calls, so each can tell by itself, without a message, what a call asks of it: run
the task, receive arguments that others make, push results that others need.

Laws:

1. A call takes exactly one sequence number in every party, whether or not it concerns that party.
2. An object crosses to a party at most once, whatever the number of tasks there that use it: the first use makes
   the crossing, and every party notes every crossing, so all agree on which use was the first.
3. Dependencies go backwards only: a call can use objects of earlier calls and no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fed.object import ObjectId

__all__ = ["Plan", "PlannedObject", "Step"]


class PlannedObject:
    """What the plan knows of one object.

    Attributes:
        id: Its name.
        party: The party that makes it.
    """

    __slots__ = ("crossed", "id", "party")

    def __init__(self, object_id: ObjectId, party: str) -> None:
        self.id = object_id
        self.party = party
        # A bit for each party that has or will have it; an int, because there may be very many objects.
        self.crossed = 0


class Step(NamedTuple):
    """What one call asks of this party.

    Attributes:
        sequence: The call's number.
        here: Whether this party runs it.
        receives: Positions (in the call's objects) to be received from their owners, each for the first time.
        pushes: Positions to be pushed, each with the party that needs it.
    """

    sequence: int
    here: bool
    receives: tuple[int, ...]
    pushes: tuple[tuple[int, str], ...]


class Plan:
    """Numbers the calls of one epoch and derives each one's step for this party.

    Args:
        party: This party.
        parties: All parties, in the order that is equal everywhere.
        epoch: The epoch to number.
    """

    __slots__ = ("_bits", "_party", "_sequence", "epoch", "parties")

    def __init__(self, party: str, parties: Sequence[str], epoch: int = 0) -> None:
        self.epoch = epoch
        self.parties = tuple(parties)
        self._party = party
        self._bits = {name: 1 << place for place, name in enumerate(self.parties)}
        self._sequence = 0

    @property
    def calls(self) -> int:
        """How many calls have been numbered."""
        return self._sequence

    def task(self, party: str, uses: Sequence[PlannedObject]) -> Step:
        """A call bound to `party` that uses the given objects as arguments."""
        return self._step(uses, (party,))

    def get(self, uses: Sequence[PlannedObject]) -> Step:
        """A `fed.get`: every party needs every one of the objects."""
        return self._step(uses, self.parties)

    def _step(self, uses: Sequence[PlannedObject], needed_by: Iterable[str]) -> Step:
        receives: list[int] = []
        pushes: list[tuple[int, str]] = []
        here = False
        for party in needed_by:
            here = here or party == self._party
            bit = self._bits[party]
            for position, used in enumerate(uses):
                if used.party == party or used.crossed & bit:
                    continue
                used.crossed |= bit
                if party == self._party:
                    receives.append(position)
                elif used.party == self._party:
                    pushes.append((position, party))
        step = Step(self._sequence, here, tuple(receives), tuple(pushes))
        self._sequence += 1
        return step
