"""What the network and the proxies suffer in a soak: faults that a federation has to get over without a trace.

Connections that break, frames that come twice, late or in another order, and proxies that are killed, at random places
and times. None of them changes what a program gets: the laws of `tests.soak.laws` are those of a run without faults.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from fed.testing import FaultPlan

__all__ = ["plan_of"]

HARMLESS: Final = {
    "push": ("kill", "delay"),
    "connect": ("delay", "drop"),
    "send": ("kill", "delay", "drop", "duplicate", "reorder"),
    "receive": ("kill", "delay", "drop", "duplicate", "reorder"),
    "deliver": ("kill", "delay"),
    "broadcast": ("kill", "delay", "drop", "duplicate"),
}
"""By place, what is got over."""

LONGEST_S: Final = 0.05


def plan_of(seed: int, parties: Sequence[str]) -> FaultPlan:
    """One to eight faults, some of which strike again and again."""
    chance = random.Random(f"faults {seed}")
    plan = FaultPlan(seed)
    for _ in range(chance.randint(1, 8)):
        place: Any = chance.choice(list(HARMLESS))
        action = chance.choice(HARMLESS[place])
        often = action not in ("kill", "drop") and chance.random() < 0.3
        fault = plan.at(place, party=chance.choice(parties), nth=None if often else chance.randint(1, 12))
        if often:
            fault = fault.probability(0.2)
        if action == "delay":
            fault.delay(chance.uniform(0, LONGEST_S))
        else:
            getattr(fault, action)()
    return plan
