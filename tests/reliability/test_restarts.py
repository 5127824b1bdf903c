"""A proxy that is killed at any step loses nothing: the job finishes with the right result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import fed
from fed.testing import FaultPlan, Simulation, simulate

PARTIES = ["alice", "bob", "carol"]
STEPS = 12


@fed.remote
def grow(value: bytes, size: int) -> bytes:
    return value + bytes([len(value) % 251]) * size


@fed.remote
def join(*values: bytes) -> bytes:
    return b"".join(values)


def run(program: Callable[[], Any], plan: FaultPlan, **arguments: Any) -> Simulation:
    def main() -> Any:
        with fed.job():
            return program()

    return simulate(main, parties=PARTIES, faults=plan, timeout_s=60, lease_s=10, **arguments)


def ring(size: int) -> Any:
    """Values go round, and everyone reads some of them."""
    value = grow.party("alice").remote(b"", size)
    read = []
    for step in range(STEPS):
        value = grow.party(PARTIES[(step + 1) % 3]).remote(value, size)
        if step % 3 == 2:
            read.append(len(fed.get(value)))
    return read, fed.get(join.party("bob").remote(value, value))[:7]


@pytest.mark.parametrize("size", [10, 100_000], ids=["small", "large"])
@pytest.mark.parametrize("place", ["push", "send", "receive", "deliver"])
@pytest.mark.parametrize("party", ["alice", "bob"])
@pytest.mark.parametrize("nth", [1, 2, 4])
def test_a_proxy_that_is_killed_loses_nothing(size: int, place: Any, party: str, nth: int) -> None:
    plan = FaultPlan(seed=1)
    plan.at(place, party=party, nth=nth).kill()
    expected = ([(step + 2) * size for step in range(STEPS) if step % 3 == 2], (b"\x00" * 7))
    assert dict(run(lambda: ring(size), plan)) == dict.fromkeys(PARTIES, expected)
    assert plan.injected
